"""The embeddings in two dimensions, to look at."""
from __future__ import annotations

import base64
import io
import os
from typing import Any

import numpy as np

from ..search import cluster
from ..visualization import components, two_dimensions
from .background import Background, Progress
from .service import Service

_CLUSTERS = 12  # at most, as many as there are colours that can be told apart


class EmbeddingMap:
    """Makes the map of a service's gallery once, in the background, and keeps it.

    Args:
        service: what is served.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._made = Background(self._make)

    def __call__(self, wait: bool = True) -> Any:
        """Points, rows and what the points can be coloured by; without ``wait``, until they are
        there, a :class:`Progress`.

        Raises:
            UnknownRowError: nothing is served yet.
            ValueError: an index alone has no embeddings to show.
        """
        found = self._made(self.service.current().generation, wait)
        if isinstance(found, Progress):
            return found
        return dict(
            generation=found['generation'], rows=found['rows'].tolist(),
            points=_base64(found['points'], '<f4'),
            colours=[dict(name=name, values=values, codes=_base64(codes, '<i4'))
                     for name, (values, codes) in found['colours'].items()])

    def parquet(self) -> bytes:
        """The map as a Parquet file, which embedding-atlas shows: ``id``, ``name`` (without its
        folder), ``x``, ``y``, ``label``, ``cluster`` and the other columns to colour by.

        Raises:
            UnknownRowError: nothing is served yet.
            ValueError: an index alone has no embeddings, or pyarrow is not installed.
        """
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ValueError("A Parquet file wants pyarrow: pip install 'retrieval[parquet]'."
                             ) from error
        found = self._made(self.service.current().generation, True)
        columns: dict[str, Any] = dict(
            id=found['ids'], name=[os.path.basename(name) for name in found['ids']],
            x=found['points'][:, 0], y=found['points'][:, 1],
            label=[None] * len(found['ids']))
        for name, (values, codes) in found['colours'].items():
            columns[name] = np.array(values, dtype=object)[codes] if values else []
        out = io.BytesIO()
        parquet.write_table(pyarrow.table(
            {name: pyarrow.array(values, pyarrow.string() if name not in 'xy' else None)
             for name, values in columns.items()}), out)
        return out.getvalue()

    def _make(self, _: int, progress: Progress) -> dict[str, Any]:
        snapshot = self.service.current()
        progress.begin('principal components')
        kept = components(snapshot.gallery.embeddings.float().cpu().numpy())
        points = two_dimensions(kept, progress)
        progress.begin('clusters')
        colours: dict[str, tuple[list[str], np.ndarray]] = {}
        for name in ('label', 'folder', 'camera'):
            if name in snapshot.columns:
                values, codes = snapshot.columns[name].groups
                if len(values) > 1:
                    colours[name] = (values.tolist(), codes)
        count = min(_CLUSTERS, len(kept) // 4)
        if count > 1:
            # of what is shown in colour the neighbourhoods count, and not the lengths
            codes = cluster(kept, k=count).labels.numpy()
            colours['cluster'] = ([f'cluster {number + 1}' for number in range(codes.max() + 1)],
                                  codes)
        return dict(generation=snapshot.generation, rows=snapshot.handles, points=points,
                    colours=colours, ids=[snapshot.name(row) for row in range(len(snapshot))])


def _base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()
