"""Where a retriever keeps its prototype, gallery and index."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..gallery import Gallery
from ..index import Index


@dataclass
class PrototypeHolder:
    """The prototype as it was given and, once prepared, the gallery and the index over it.

    It is neither buffer nor parameter nor state of the model, so that no hook synchronises it and
    no checkpoint grows by it; and a copy of the model (an exponential moving average is one) gets
    the prototype without what was prepared with the weights of the original.

    Args:
        prototype: what the retriever was given.
        gallery: what it became, or None.
        index: the index over the gallery, or None.
        version: of the weights that the gallery was prepared with.
        queries_in_gallery: the queries of the running evaluation pass through the same pipeline
            as the gallery, so one that is in it need not be encoded again.
    """

    prototype: Any
    gallery: Gallery | None = None
    index: Index | None = None
    version: tuple | None = None
    queries_in_gallery: bool = False

    def __deepcopy__(self, memo: dict) -> PrototypeHolder:
        return PrototypeHolder(self.prototype)

    def clear(self) -> None:
        """Forget what was prepared."""
        self.gallery = self.index = self.version = None


def weights_version(module: nn.Module) -> tuple[int, ...]:
    """A number for each weight that changes when it is written to in place, or replaced.

    An assignment to the data of a tensor (as in a swap of averaged weights) is not seen; whoever
    swaps prepares the prototype anew.
    """
    state = [*module.parameters(), *module.buffers()]
    return tuple(n for tensor in state
                 for n in (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version))
