"""What a reranker computes once for a gallery."""
from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from ..gallery import Gallery

# Beside the galleries and not in the rerankers, which are copied and pickled with a model. An entry
# goes with its gallery.
_KEPT: WeakKeyDictionary[Gallery, dict[Hashable, tuple[Hashable, Any]]] = WeakKeyDictionary()


def once_for(gallery: Gallery, key: Hashable, make: Callable[[], Any]) -> Any:
    """What ``make`` returned for this gallery and key; it is called again after the gallery's
    embeddings were replaced or written to.
    """
    kept = _KEPT.setdefault(gallery, {})
    state = _state(gallery.embeddings)
    if key not in kept or kept[key][0] != state:
        kept[key] = (state, make())
    return kept[key][1]


def _state(embeddings: Tensor) -> Hashable:
    version = 0 if embeddings.is_inference() else embeddings._version
    return embeddings.data_ptr(), version, tuple(embeddings.shape)
