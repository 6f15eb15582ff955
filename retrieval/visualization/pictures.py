"""From the identity of a sample to its picture."""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image

from .drawing import as_picture


class Pictures:
    """Finds the pictures of samples by their identity, as they are before the pipeline.

    Args:
        datasets: where to look, in order; those without ``sample_ids`` and ``get_data_info``, and
            None, are passed over. Their identities are read when the first picture is asked for.
    """

    def __init__(self, datasets: Sequence[Any]) -> None:
        self.datasets = [dataset for dataset in datasets
                         if hasattr(dataset, 'get_data_info') and _has_ids(dataset)]
        self._rows: list[dict[str, int]] | None = None

    def of(self, sample_id: str) -> Image.Image | None:
        """The picture, cut to its box, or None where there is none or it cannot be read.

        An identity that no dataset knows may be the path of a file.
        """
        if self._rows is None:
            self._rows = [{name: row for row, name in enumerate(dataset.sample_ids)}
                          for dataset in self.datasets]
        for dataset, rows in zip(self.datasets, self._rows, strict=True):
            if sample_id in rows:
                info = dataset.get_data_info(rows[sample_id])
                image = info.get('img')
                return _opened(info.get('img_path') if image is None else image, info.get('box'))
        return _opened(sample_id, None) if os.path.isfile(sample_id) else None


def _has_ids(dataset: Any) -> bool:
    return hasattr(type(dataset), 'sample_ids') or 'sample_ids' in vars(dataset)


def _opened(image: Any, box: Sequence[float] | None) -> Image.Image | None:
    try:
        picture = as_picture(image)
    except (OSError, TypeError, ValueError):
        return None
    if box is None:
        return picture
    left, top, right, bottom = (round(edge) for edge in box)
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, picture.width), min(bottom, picture.height)
    return picture.crop((left, top, right, bottom)) if left < right and top < bottom else picture
