"""The embeddings in two dimensions, to look at."""
from __future__ import annotations

import base64
import threading
from typing import Any

from ..visualization import two_dimensions
from .service import Service


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
