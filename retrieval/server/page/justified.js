// Rows of pictures of one height that fill the width, each with its own shape.

/** Break `items` (with `width` and `height`) into rows: [{height, cells: [{item, width}]}]. */
export function justify(items, width, height, gap) {
  const rows = [];
  let row = [];
  let shapes = 0;
  const close = (full) => {
    const free = width - gap * (row.length - 1);
    const tall = full ? free / shapes : Math.min(height, free / shapes);
    rows.push({height: tall, cells: row.map(({item, shape}) => ({item, width: Math.floor(shape * tall * 100) / 100}))});
    row = [];
    shapes = 0;
  };
  for (const item of items) {
    const shape = Math.min(3, Math.max(0.5, item.width && item.height ? item.width / item.height : 1));
    row.push({item, shape});
    shapes += shape;
    if (shapes * height + gap * (row.length - 1) >= width) close(true);
  }
  if (row.length) close(false);
  return rows;
}
