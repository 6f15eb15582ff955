"""Where a retriever keeps its prototype, gallery and index."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..distributed import all_gather_list, rank, world_size
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


def fill_index(index: Index, gallery: Gallery) -> None:
    """Make the gallery the rows of an index, with its labels and metadata where the index has any.

    Of several processes the first writes to an index that they share; the others then find their
    rows in it.

    Raises:
        TypeError, ValueError, OSError: the index refuses the rows, or its server failed.
    """
    metadata = _metadata(gallery) if index.capabilities.expressions else None
    failure: Exception | None = None
    if index.capabilities.persistent and world_size() > 1:
        try:
            if rank() == 0:
                index.replace(gallery.embeddings, gallery.ids, metadata)
        except Exception as error:
            failure = error
        failed = all_gather_list([] if failure is None else [str(failure)])
        if failure is not None:
            raise failure
        if failed:
            raise ValueError(f'The first process could not fill the index: {failed[0]}')
    index.replace(gallery.embeddings, gallery.ids, metadata)


def _metadata(gallery: Gallery) -> dict[str, Any]:
    """The columns of a gallery, its labels as ``label`` and their names as ``label_name``."""
    columns: dict[str, Any] = {}
    if gallery.labels is not None:
        columns['label'] = gallery.labels
        if gallery.label_names is not None:
            columns['label_name'] = [gallery.label_name(row) for row in range(len(gallery))]
    return {**columns, **gallery.metadata}


def weights_version(module: nn.Module) -> tuple[int, ...]:
    """A number for each weight that changes when it is written to in place, or replaced.

    An assignment to the data of a tensor (as in a swap of averaged weights) is not seen; whoever
    swaps prepares the prototype anew.
    """
    state = [*module.parameters(), *module.buffers()]
    return tuple(n for tensor in state
                 for n in (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version))
