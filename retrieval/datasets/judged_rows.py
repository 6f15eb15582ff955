"""Datasets whose ground truth names images of the gallery by their rows."""
from __future__ import annotations

from .base import RetrievalDataset
from .image_io import UnreadableImageError


class JudgedRowsDataset(RetrievalDataset):
    """A dataset with ``split='gallery'``, whose queries list rows of that gallery.

    Those rows have to stay where they are: an image is not skipped for being unreadable, and the
    gallery is not cut by ``indices``.

    Attributes:
        num_judged: how many rows, from the first, the ground truth is about.
    """

    split: str
    num_judged: int = 0

    def full_init(self) -> None:
        """Read the annotations. Raises ValueError for ``indices`` of a gallery."""
        if self.split == 'gallery' and self._indices is not None:
            raise ValueError(f"{type(self).__name__} with split='gallery' cannot be cut by "
                             'indices: the ground truth of the queries names its rows.')
        super().full_init()

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on one image.

        Raises:
            UnreadableImageError: the image cannot be read, and it may not be skipped.
        """
        data = super().prepare_data(idx)
        if self.on_unreadable == 'raise' or self.split != 'gallery' or idx >= self.num_judged:
            return data
        reason = data['data_samples'].get('unreadable', None)
        if reason:
            raise UnreadableImageError(f'{reason} It cannot be skipped: the ground truth names '
                                       'images of this gallery by their rows, which would shift.')
        return data
