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
SMALL = 192  # pixels of the long edge at which they are compared
FEATURES = 800  # of a picture, the strongest
LEAST_INLIERS = 8  # matches that agree on one homography; unrelated photographs have up to 5
_RATIO = 0.85  # a match's distance to that of the second best (Lowe's test)
_REACH = 3.0  # pixels that a match may be off
_WINDOW, _DETAIL, _ALIKE = 9, 3.0, 0.5
_CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)

Box = tuple[float, float, float, float]  # left, top, width and height as shares of the picture


@dataclass(frozen=True)
class LocalFeatures:
    """The local features of a picture.

    Args:
        points: ``(n, 2)`` float32, x and y in pixels of the reduced picture.
        descriptors: ``(n, 128)`` uint8.
        size: width and height of the reduced picture.
        small: its grey values ``(h, w)`` uint8, still smaller.
    """

    points: np.ndarray
    descriptors: np.ndarray
    size: tuple[int, int]
    small: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of points and descriptors."""
        return self.points.nbytes + self.descriptors.nbytes + self.small.nbytes


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
    stretched = single if high - low >= 200 else ((single.astype(np.float32) - low) * (
        255 / max(high - low, 8))).clip(0, 255).astype(np.uint8)
    made: Any = cv2  # whose types leave it out
    detector = made.SIFT_create(most, contrastThreshold=0.02)
    found, descriptors = detector.detectAndCompute(stretched, None)
    points = np.array([point.pt for point in found], np.float32).reshape(-1, 2)[:most]
    given: Any = np.zeros((0, 128), np.float32) if descriptors is None else descriptors[:most]
    # the square root of shares, in bytes: a cosine of these is the Hellinger kernel of SIFT
    shares = given / np.maximum(given.sum(1, keepdims=True), 1e-6)
    return LocalFeatures(points, np.rint(255 * np.sqrt(shares)).astype(np.uint8),
                         (single.shape[1], single.shape[0]), grey(single, SMALL))


@dataclass(frozen=True)
class Registration:
    """Where a picture lies in another.

    Args:
        transform: ``(3, 3)`` float64, from shares of one picture (x and y from 0 to 1) to shares of
            the other; of the mirrored one where ``mirrored``.
        matches: how many features of the two are alike.
        inliers: how many of them lie where the transform says.
        box: the part of the other picture in which the one was found.
        own_box: the part of the one that was found there.
        mirrored: whether the one was mirrored.
    """

    transform: np.ndarray
    matches: int
    inliers: int
    box: Box
    own_box: Box
    mirrored: bool = False


def register(one: LocalFeatures, other: LocalFeatures, mirrored: bool = False,
             least_inliers: int = LEAST_INLIERS) -> Registration | None:
    """Where one picture lies in another by its local features; None where no part of it does.

    Args:
        one, other: their features.
        mirrored: the features of ``one`` are those of its mirror image.
        least_inliers: so many matches must agree on one homography.

    Example:
        >>> from PIL import Image
        >>> noise = np.random.default_rng(0).integers(0, 256, (12, 16), np.uint8)
        >>> picture = np.asarray(Image.fromarray(noise).resize((400, 300)))
        >>> part = register(local_features(picture[60:210, 40:240]), local_features(picture))
        >>> [round(share, 1) for share in part.box]
        [0.1, 0.2, 0.5, 0.5]
    """
    import cv2

    pairs = _mutual(one.descriptors, other.descriptors)
    if len(pairs) < least_inliers:
        return None
    source, target = one.points[pairs[:, 0]], other.points[pairs[:, 1]]
    found, mask = cv2.findHomography(source, target, cv2.USAC_MAGSAC, _REACH, maxIters=2000,
                                     confidence=0.999)
    if found is None:
        return None
    inside = mask.ravel().astype(bool)
    # features at one place are one witness
    inliers = len(np.unique(np.rint(target[inside] / _REACH), axis=0))
    if inliers < least_inliers or not _plausible(found, source[inside]):
        return None
    shares = np.diag([1 / other.size[0], 1 / other.size[1], 1]) @ found @ np.diag(
        [one.size[0], one.size[1], 1])
    box, own = _boxes(shares, one, other, pairs[inside])
    if mirrored:
        own = (1 - own[0] - own[2], *own[1:])
    return Registration(shares, len(pairs), inliers, box, own, mirrored)


def _mutual(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rows ``(M, 2)`` of descriptors that are nearest to each other, and by far."""
    if min(len(one), len(other)) < 2:
        return np.zeros((0, 2), np.int64)
    products = one.astype(np.float32) @ other.astype(np.float32).T
    rows = np.arange(len(one))
    nearest = products.argmax(1)
    best = products[rows, nearest]
    back = products.argmax(0)
    products[rows, nearest] = -1
    second = products.max(1)
    # of vectors of one length a distance is the root of what the product lacks
    length = 255.0 ** 2
    clear = np.maximum(length - best, 0) < _RATIO ** 2 * np.maximum(length - second, 1e-3)
    keep = clear & (back[nearest] == rows)
    return np.stack([rows[keep], nearest[keep]], 1)


def _plausible(transform: np.ndarray, points: np.ndarray) -> bool:
    """Whether a homography, near the points ``(n, 2)`` that it is of, is a view of a picture:
    neither folded nor turned over, and stretched by less than three.
    """
    corners = np.array([points.min(0), points.max(0), points.mean(0)])
    for x, y in (*corners, (corners[0, 0], corners[1, 1]), (corners[1, 0], corners[0, 1])):
        u, v, w = transform @ (x, y, 1)
        if abs(w) < 1e-9:
            return False
        local = (transform[:2, :2] - np.outer((u / w, v / w), transform[2, :2])) / w
        stretch = np.linalg.svd(local, compute_uv=False)
        if np.linalg.det(local) <= 0 or stretch[0] > 3 * stretch[1] or not 1 / 40 < stretch[0] < 40:
            return False
    return True


def alike(one: np.ndarray, other: np.ndarray, transform: np.ndarray,
          mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Where in ``other`` a picture looks as ``one`` does when that is laid over it.

    Both are compared by the correlation of brightness within small windows, which neither a change
    of brightness, contrast or colour nor coarse coding takes away.

    Args:
        one, other: grey values ``(h, w)`` uint8 of small pictures.
        transform: from shares of ``one`` to shares of ``other``.
        mirrored: the transform is of the mirror image of ``one``.

    Returns:
        The correlation ``(h, w)`` float32 in [-1, 1], and ``(h, w)`` bool: where the two overlap
        and one of them shows something.

    Example:
        >>> picture = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
        >>> correlation, seen = alike(picture, picture, np.eye(3))
        >>> bool(seen.all()), float(correlation.min()) > 0.99
        (True, True)
    """
    import cv2

    first, inside = laid_over(one, other, transform, mirrored)
    second = coarsened(other.astype(np.float32), 1 / enlarged(one, other, transform))

    def mean(values: Any) -> Any:
        return cv2.boxFilter(values, -1, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT)
    one_mean, other_mean = mean(first), mean(second)
    one_spread = np.maximum(mean(first * first) - one_mean ** 2, 0)
    other_spread = np.maximum(mean(second * second) - other_mean ** 2, 0)
    together = mean(first * second) - one_mean * other_mean
    correlation = together / np.sqrt((one_spread + 1) * (other_spread + 1))
    return correlation, inside & (np.maximum(one_spread, other_spread) > _DETAIL ** 2)


def laid_over(one: np.ndarray, other: np.ndarray, transform: np.ndarray,
              mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A picture where it lies in another: float32 of the other's height and width, and ``(h, w)``
    bool, where it is.

    Args:
        one, other: ``(h, w)`` or ``(h, w, 3)`` uint8.
        transform: from shares of ``one`` to shares of ``other``.
        mirrored: the transform is of the mirror image of ``one``.

    Example:
        >>> half = np.diag([0.5, 1, 1])
        >>> laid_over(np.ones((4, 8), np.uint8), np.ones((4, 8), np.uint8), half)[1][2].tolist()
        [True, True, True, True, False, False, False, False]
    """
    import cv2

    height, width = other.shape[:2]
    flipped = np.ascontiguousarray(one[:, ::-1]) if mirrored else one
    moved = np.diag([width, height, 1]) @ transform @ np.diag(
        [1 / one.shape[1], 1 / one.shape[0], 1])
    centre = np.array([[1, 0, -.5], [0, 1, -.5], [0, 0, 1]])  # whole numbers are pixels' centres
    moved = centre @ moved @ np.linalg.inv(centre)
    first = coarsened(flipped.astype(np.float32), enlarged(one, other, transform))
    inside = cv2.warpPerspective(np.ones(first.shape[:2], np.float32), moved, (width, height)) > .5
    return cv2.warpPerspective(first, moved, (width, height),
                               borderMode=cv2.BORDER_REPLICATE), inside


def enlarged(one: np.ndarray, other: np.ndarray, transform: np.ndarray) -> float:
    """By how much ``one`` is enlarged, along an edge, where it is laid over ``other``.

    Example:
        >>> enlarged(np.zeros((4, 4)), np.zeros((8, 8)), np.eye(3))
        2.0
    """
    moved = _moved(transform, _CORNERS)
    following = np.roll(moved, -1, 0)
    area = abs(float((moved[:, 0] * following[:, 1] - following[:, 0] * moved[:, 1]).sum())) / 2
    return float(np.clip((area * other.shape[0] * other.shape[1] / one.shape[0] / one.shape[1])
                         ** .5, 0.02, 50))


def coarsened(picture: np.ndarray, scale: float) -> np.ndarray:
    """A picture without the detail that it loses when it is resized by ``scale``.

    Example:
        >>> bool(coarsened(np.float32([[0, 9, 0, 9]]), 0.2).std() < 2)
        True
    """
    import cv2

    return cv2.GaussianBlur(picture, (0, 0), 0.4 / scale) if scale < 0.8 else picture


def _boxes(transform: np.ndarray, one: LocalFeatures, other: LocalFeatures,
           pairs: np.ndarray) -> tuple[Box, Box]:
    """The box of the one in the other, and of the other in the one, in shares: as far as the two
    pictures reach and look alike.
    """
    return (_extent(transform, one.small, other.small, other.points[pairs[:, 1]] / other.size),
            _extent(np.linalg.inv(transform), other.small, one.small,
                    one.points[pairs[:, 0]] / one.size))


def _extent(transform: np.ndarray, one: np.ndarray, other: np.ndarray, points: np.ndarray) -> Box:
    """The box ``one`` takes up in ``other``, grown from the points ``(n, 2)`` that are in both."""
    corners = _moved(transform, _CORNERS)
    correlation, seen = alike(one, other, transform)
    size = np.array(other.shape[::-1])
    low, high = corners.min(0).clip(0, 1) * size, corners.max(0).clip(0, 1) * size
    first, last = np.percentile(points, (2, 98), axis=0) * size
    first = np.maximum(np.floor(first), np.floor(low))
    last = np.minimum(np.ceil(last), np.ceil(high))
    edges = [low.copy(), high.copy()]
    for axis in (0, 1):
        across = slice(int(first[1 - axis]), max(int(last[1 - axis]), int(first[1 - axis]) + 1))
        good = (correlation > _ALIKE) & seen
        there, agree = (part[across].sum(0) if axis == 0 else part[:, across].sum(1)
                        for part in (seen, good))
        for side, begin, end, step in ((0, int(first[axis]) - 1, int(low[axis]), -1),
                                       (1, int(last[axis]), int(np.ceil(high[axis])), 1)):
            run = slice(end, begin + 1) if step < 0 else slice(begin, end)
            lines, fit = there[run], agree[run]
            if step < 0:
                lines, fit = lines[::-1], fit[::-1]
            # up to here lines agree, and behind it they do so by chance: a quarter is between both
            gain = np.cumsum(4.0 * fit - lines)
            best = 0 if not len(gain) or gain.max() <= 0 else int(gain.argmax()) + 1
            if best >= len(gain) - _WINDOW // 2 or lines[best:].sum() < _WINDOW ** 2:
                continue
            edge = begin + 1 - best if step < 0 else begin + best
            edges[side][axis] = edge
    low, high = edges[0] / size, np.maximum(edges[1], edges[0] + 1) / size
    return (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


def footprint(transform: np.ndarray) -> Box:
    """The box that a picture laid over another covers, whether or not it looks alike there.

    Example:
        >>> footprint(np.array([[2, 0, -.5], [0, .5, 0], [0, 0, 1]]))
        (0.0, 0.0, 1.0, 0.5)
    """
    corners = _moved(transform, _CORNERS)
    low, high = corners.min(0).clip(0, 1), corners.max(0).clip(0, 1)
    return (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


def _moved(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    moved = np.c_[points, np.ones(len(points))] @ transform.T
    return moved[:, :2] / moved[:, 2:]
