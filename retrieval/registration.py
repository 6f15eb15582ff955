"""Registering two pictures: which part of one lies where in the other, and whether it is the same.

Local features (SIFT of Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV
2004, at the square root of their values as in Arandjelović and Zisserman, CVPR 2012) are matched
mutually, and a homography is fitted to the matches (MAGSAC++ of Baráth et al., CVPR 2020, in
OpenCV's ``findHomography``).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

EDGE = 512  # pixels of the long edge at which features are found
FEATURES = 800  # of a picture, the strongest
LEAST_INLIERS = 12  # matches that agree on one homography; unrelated photographs have up to 9
_RATIO = 0.85  # a match's distance to that of the second best (Lowe's test)
_REACH = 3.0  # pixels that a match may be off
_PIXELS = np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])

Box = tuple[float, float, float, float]  # left, top, width and height as shares of the picture


@dataclass(frozen=True)
class LocalFeatures:
    """The local features of a picture.

    Args:
        points: ``(n, 2)`` float32, x and y in pixels of the reduced picture.
        descriptors: ``(n, 128)`` uint8.
        size: width and height of the reduced picture.
    """

    points: np.ndarray
    descriptors: np.ndarray
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of points and descriptors."""
        return self.points.nbytes + self.descriptors.nbytes


def grey(picture: np.ndarray, edge: int = EDGE) -> np.ndarray:
    """A picture ``(H, W, 3)`` or ``(H, W)`` uint8 as grey values ``(h, w)`` uint8, reduced.

    Small pictures are enlarged to half of ``edge``, so that enough is found in them.

    Example:
        >>> grey(np.zeros((600, 2048, 3), np.uint8)).shape
        (150, 512)
    """
    import cv2

    single = picture if picture.ndim == 2 else (
        picture[..., 0] if picture.shape[2] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    longest = max(single.shape)
    share = edge / longest if longest > edge else max(1.0, edge / 2 / longest)
    if share != 1:
        size = [max(1, round(length * share)) for length in (single.shape[1], single.shape[0])]
        single = cv2.resize(single, size,
                            interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC)
    return np.ascontiguousarray(single)


def local_features(single: np.ndarray, most: int = FEATURES) -> LocalFeatures:
    """The strongest local features of grey values ``(h, w)`` uint8.

    Example:
        >>> local_features(np.zeros((64, 64), np.uint8)).descriptors.shape
        (0, 128)
    """
    import cv2

    # a dark picture has as many features as a bright one
    low, high = np.percentile(single, (1, 99))
    stretched = cv2.convertScaleAbs(single.astype(np.float32) - low, alpha=255 / max(high - low, 8)) \
        if high - low < 200 else single
    found, descriptors = cv2.SIFT_create(most, contrastThreshold=0.02).detectAndCompute(
        stretched, None)
    points = np.float32([point.pt for point in found]).reshape(-1, 2)[:most]
    descriptors = np.zeros((0, 128), np.float32) if descriptors is None else descriptors[:most]
    # the square root of shares, in bytes: a cosine of these is the Hellinger kernel of SIFT
    shares = descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6)
    return LocalFeatures(points, np.rint(255 * np.sqrt(shares)).astype(np.uint8),
                         (single.shape[1], single.shape[0]))
