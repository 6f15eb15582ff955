"""The size at which landmarks are tested: pictures of at most so many pixels, never enlarged."""
from __future__ import annotations

from mmcv.transforms import BaseTransform

from ..registry import TRANSFORMS, unknown_name
from .augmentation import INTERPOLATIONS, resize


@TRANSFORMS.register_module()
class LimitLongEdge(BaseTransform):
    """Shrink a picture whose longer edge is above ``limit``; the aspect ratio stays.

    What is left of a picture after its box was cut out is shrunk by the factor of the whole
    picture, ``ori_shape``, so that a query and the pictures of the gallery show an object at one
    scale. This is how the programs around revisited Oxford and Paris resize (Radenović et al.,
    Fine-tuning CNN Image Retrieval with No Human Annotation, 2018); :class:`ResizeEdge` would
    enlarge the queries.

    Args:
        limit: the longest edge of the whole picture, in pixels.
        interpolation: as in :class:`ResizeEdge`.
    """

    def __init__(self, limit: int, interpolation: str = 'auto') -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f'limit must be a number of pixels of at least 1, got {limit!r}.')
        if interpolation not in (*INTERPOLATIONS, 'auto'):
            raise ValueError(unknown_name('interpolation', interpolation,
                                          (*INTERPOLATIONS, 'auto')))
        self.limit = limit
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Replace ``img`` and ``img_shape``."""
        height, width = results['img'].shape[:2]
        cut = results.get('box_is_cropped')
        longest = max(results['ori_shape'] if cut else (height, width))
        if longest > self.limit:
            factor = self.limit / longest
            results['img'] = resize(results['img'], max(1, round(width * factor)),
                                    max(1, round(height * factor)), self.interpolation)
            results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'LimitLongEdge(limit={self.limit}, interpolation={self.interpolation!r})'
