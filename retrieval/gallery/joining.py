"""Shards of a store as one gallery, and a gallery as the next shard of a store."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from . import changes, columns
from .codec import JoinedVectors, Vectors
from .gallery import Gallery


def joined(opened: list[Gallery], kept: list[np.ndarray | None],
           facts: Mapping[str, Any]) -> Gallery:
    """Galleries after one another, of each all or some rows, read when they are used.

    Args:
        opened: galleries with the same columns, whose labels mean the same.
        kept: for each the rows that count, or None for all.
        facts: fingerprint, source, skipped and similarity.
    """
    later: dict[str, Callable[[], Any]] = {
        name: partial(_joined_column, opened, kept, name) for name in ('ids', 'labels')
        if name in opened[-1]._later}
    if 'label_names' in opened[-1]._later:
        later['label_names'] = opened[-1]._later['label_names']
    metadata = {name: partial(_joined_column, opened, kept, name, metadata=True)
                for name in opened[-1].metadata}
    parts: list[tuple[Vectors, np.ndarray | None]] = [
        (gallery.vectors, rows) for gallery, rows in zip(opened, kept, strict=True)]
    return Gallery.opened(JoinedVectors(parts), later, metadata,
                          [file for gallery in opened for file in gallery._files], **facts)


def _joined_column(opened: list[Gallery], kept: list[np.ndarray | None], name: str,
                   metadata: bool = False) -> columns.Column:
    parts = [gallery.metadata[name] if metadata else getattr(gallery, name) for gallery in opened]
    return columns.joined([part if rows is None else columns.take(part, rows)
                           for part, rows in zip(parts, kept, strict=True)], name)


def fitted(example: Gallery, gallery: Gallery) -> tuple[Gallery, dict[str, Any]]:
    """A gallery with labels and columns as those of a row before it, and the facts of both."""
    fingerprint, similarity = changes.agreed([example, gallery])
    labels, names = changes.joined_labels([example, gallery])
    own = np.arange(1, len(gallery) + 1)
    metadata = {name: columns.take(columns.joined(parts, name), own)
                for name, parts in changes.joined_metadata([example, gallery]).items()}
    new = Gallery(gallery.vectors, gallery.ids, None if labels is None else labels[1:], names,
                  metadata, fingerprint, gallery.source, gallery.skipped, similarity)
    return new, dict(fingerprint=fingerprint.as_dict(), similarity=similarity,
                     skipped={**example.skipped, **gallery.skipped})
