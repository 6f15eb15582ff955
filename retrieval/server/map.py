"""The embeddings in two dimensions, to look at."""
from __future__ import annotations

import base64
import io
import os
from typing import Any

import numpy as np

from ..search import cluster
from .background import Background, Progress
from .service import Service

_TSNE = 5000  # rows whose neighbours are kept together by t-SNE; the others are put between them
_NEAREST = 5  # rows of t-SNE that another one is put between
_CLUSTERS = 12  # at most, as many as there are colours that can be told apart
_COMPONENTS = 50
_FITTED = 20_000  # rows that the principal components are found on


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


def components(vectors: np.ndarray) -> np.ndarray:
    """The principal components ``(N, min(50, N, D))`` float32 of vectors ``(N, D)``.

    Example:
        >>> components(np.eye(8, 4, dtype=np.float32)).shape
        (8, 4)
    """
    from sklearn.decomposition import PCA

    count, width = vectors.shape
    step = max(1, count // _FITTED)
    made = PCA(min(_COMPONENTS, len(vectors[::step]), width), random_state=0)
    return np.asarray(made.fit(vectors[::step]).transform(vectors), dtype=np.float32)


def two_dimensions(vectors: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """Vectors ``(N, D)``, the main directions first, as points ``(N, 2)`` float32 in [-1, 1].

    t-SNE of up to 5,000 of them; each other one is put between the five of these that it is
    nearest to. Fewer than eight are shown by their first two numbers.

    Example:
        >>> two_dimensions(components(np.random.default_rng(0).random((20, 4)))).shape
        (20, 2)
    """
    from sklearn.manifold import TSNE

    progress = progress or Progress()
    count, width = vectors.shape
    if min(count, width) < 2:
        return np.zeros((count, 2), dtype=np.float32)
    if count < 8 or not vectors[:, :2].std() > 0:
        points = vectors[:, :2]
    else:
        chosen = np.arange(count) if count <= _TSNE else np.sort(
            np.random.default_rng(0).choice(count, _TSNE, replace=False))
        progress.begin(f't-SNE of {len(chosen):,} pictures')
        drawn = TSNE(2, init='pca', perplexity=min(30, (len(chosen) - 1) / 3), max_iter=500,
                     random_state=0).fit_transform(vectors[chosen])
        points = np.empty((count, 2), dtype=np.float32)
        points[chosen] = drawn
        others = np.setdiff1d(np.arange(count), chosen)
        if len(others):
            progress.begin('placing the others', len(others))
            points[others] = _between(vectors, chosen, others, drawn, progress)
    middle = (points.max(0) + points.min(0)) / 2
    points = points - middle
    return np.ascontiguousarray(points / max(float(np.abs(points).max()), 1e-12), dtype='<f4')


def _between(vectors: np.ndarray, chosen: np.ndarray, others: np.ndarray, drawn: np.ndarray,
             progress: Progress) -> np.ndarray:
    """The points ``(M, 2)`` of other rows: the mean of the nearest chosen ones, by nearness."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=_NEAREST, algorithm='brute').fit(vectors[chosen])
    points = np.empty((len(others), 2), dtype=np.float32)
    for start in range(0, len(others), 2000):
        distances, near = found.kneighbors(vectors[others[start:start + 2000]])
        weights = 1 / (distances ** 2 + 1e-9)
        weights /= weights.sum(1, keepdims=True)
        points[start:start + 2000] = (drawn[near] * weights[:, :, None]).sum(1)
        progress.advance(len(near))
    return points


def _base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()
