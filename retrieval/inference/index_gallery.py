"""An index alone, in the place of a gallery."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..gallery import Fingerprint
from ..index import Index


class IndexGallery:
    """What a retriever and an inferencer ask a gallery for, where there is only an index.

    It has ids, but neither labels nor metadata, and no embeddings for a reranker.

    Args:
        index: the index.

    Raises:
        ValueError: it is empty.
    """

    identified = True
    labels = None
    label_names = None

    def __init__(self, index: Index) -> None:
        if not len(index) or index.width is None:
            raise ValueError('The index is empty: add embeddings before searching.')
        self.index = index
        self.metadata: dict[str, Any] = {}
        self.fingerprint = Fingerprint()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the rows."""
        return self.index.ids

    @property
    def dim(self) -> int:
        """The width of the vectors."""
        assert self.index.width is not None
        return self.index.width

    @property
    def embeddings(self) -> Any:
        """There are none. Raises ValueError."""
        raise ValueError('Reranking and calibration need the embeddings of the gallery, and an '
                         'index alone was given: give the gallery.')

    def label_name(self, row: int) -> None:
        """An index knows no classes."""

    def describe(self, row: int) -> dict[str, Any]:
        """An index knows no metadata."""
        return {}
