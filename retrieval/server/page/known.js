// The rows of the pictures that the service has told of: by row it gives their thumbnails.
const rows = new Map();

export function remember(items) {
  items.forEach((item) => item && rows.set(item.id, item.row));
}

export const rowOf = (id) => rows.get(id);
