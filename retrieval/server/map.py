"""The embeddings in two dimensions, to look at."""
from __future__ import annotations

import base64
import threading
from typing import Any

import numpy as np

from .service import Service

_TSNE = 2000  # rows up to which neighbours are kept together; more would take minutes
_FITTED = 20_000  # rows that the principal components are found on


class EmbeddingMap:
    """Makes the map of a service's gallery once, and keeps it.

    Args:
        service: what is served.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._lock = threading.Lock()
        self._made: tuple[int, dict[str, Any]] = (-1, {})

    def __call__(self) -> dict[str, Any]:
        """Points, labels (or folders) and rows.

        Raises:
            UnknownRowError: nothing is served yet.
            ValueError: an index alone has no embeddings to show.
        """
        snapshot = self.service.current()
        with self._lock:
            if self._made[0] != snapshot.generation:
                points = two_dimensions(snapshot.gallery.embeddings.float().cpu().numpy())
                columns = snapshot.columns
                named = columns.get('label') or columns.get('folder')
                labels = [None] * len(points) if named is None else named.values.tolist()
                self._made = (snapshot.generation, dict(
                    points=base64.b64encode(points.tobytes()).decode(), labels=labels,
                    rows=snapshot.handles.tolist(), generation=snapshot.generation))
            return self._made[1]


def two_dimensions(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``(N, D)`` as points ``(N, 2)`` float32 within [-1, 1]: t-SNE of a few thousand,
    principal components of more.

    Example:
        >>> two_dimensions(np.eye(8, 4, dtype=np.float32)).shape
        (8, 2)
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, width = vectors.shape
    if min(count, width) < 2:
        return np.zeros((count, 2), dtype=np.float32)
    if count < 8 or count > _TSNE:
        step = max(1, count // _FITTED)
        points = PCA(2, random_state=0).fit(vectors[::step]).transform(vectors)
    else:
        kept = PCA(min(50, count, width), random_state=0).fit_transform(vectors)
        init = 'pca' if kept[:, :2].std() > 0 else 'random'
        points = TSNE(2, init=init, perplexity=min(30, (count - 1) / 3), max_iter=500,
                      random_state=0).fit_transform(kept)
    points = points - points.mean(0)
    return np.ascontiguousarray(points / max(float(np.abs(points).max()), 1e-12), dtype='<f4')
