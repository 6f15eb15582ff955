"""Finding the picture that an id stands for."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

Picture = np.ndarray | str


class Pictures:
    """The pictures of some datasets by sample id, read when they are asked for.

    Args:
        datasets: each with ``sample_ids`` and ``get_data_info(row)``; one without is passed over.
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self._datasets = [dataset for dataset in datasets
                          if hasattr(dataset, 'sample_ids') and hasattr(dataset, 'get_data_info')]
        self._rows: dict[str, tuple[Any, int]] | None = None

    def of(self, sample_id: str) -> Picture | None:
        """The picture as an array ``(H, W, C)`` uint8 or as a path; None where it is not known."""
        if self._rows is None:
            self._rows = {name: (dataset, row) for dataset in self._datasets
                          for row, name in enumerate(dataset.sample_ids)}
        found = self._rows.get(sample_id)
        if found is None:
            return sample_id if Path(sample_id).is_file() else None
        info = found[0].get_data_info(found[1])
        picture = info.get('img')
        if picture is None:
            picture = info.get('img_path')
        return _cropped(picture, info.get('box'))


def _cropped(picture: Any, box: Any) -> Picture | None:
    if box is None or picture is None:
        return picture
    if not isinstance(picture, np.ndarray):
        from PIL import Image, ImageOps
        with Image.open(picture) as image:
            picture = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    x_1, y_1, x_2, y_2 = (int(edge) for edge in box)
    return picture[y_1:y_2, x_1:x_2]
