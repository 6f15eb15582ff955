"""What one picture is of another, proved by registration and what remains."""
from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from ..image_io import as_image_array, read_image
from ..picture_facts import read_facts
from ..registration import (
    SMALL,
    Box,
    LocalFeatures,
    Registration,
    alike,
    coarsened,
    enlarged,
    footprint,
    grey,
    laid_over,
    local_features,
    register,
)

#: What one picture can be of another, the surest first.
KINDS = ('same bytes', 'same pixels', 're-encoded', 'resized', 'cropped', 'edited', 'part', 'burst',
         'similar')
#: Those of which a picture is kept once.
COPIES = KINDS[:6]
#: Those of which nothing is lost when the better file is kept.
SURE = KINDS[:4]

# of what can be compared in the overlap must look alike; two pictures with one watermark reach 0.68
_SHARE = 0.7
_PART = 0.15       # of both pictures: what they share is more than a caption or the bar of a window
_COVERED = 0.65    # of the overlap alike: all that is laid over it is there, with something on it
_WHOLE = 0.94      # of a picture's width and height: all of it, up to what borders make uncertain
_SEEN = 0.01       # of a picture must show something to compare
_STILL = 0.025     # shares by which a corner may be off where nothing was moved
_UNCHANGED = 9.0   # levels of brightness and colour that coding and resizing change on average
_UNTOUCHED = 20.0  # levels that the mean of a small window is changed by these at the most
_KEPT = 10.0       # and in a part that is there, under what was laid over the rest
_BURST = 10.0      # seconds between the first and the next picture
_NEAR = 0.9        # similarity of two pictures of a burst that cannot be registered


@dataclass(frozen=True)
class Proof:
    """What one picture is of another.

    Args:
        kind: one of :data:`KINDS`: ``same bytes``; ``same pixels`` in other files; ``re-encoded``
            at the same size and ``resized``, with nothing but coding in between; ``cropped``: one
            is the whole of a part of the other; ``edited``: all of one is in the other, mirrored,
            turned, in other colours, or with something on it; ``part``: both hold a part of each
            other and more beside it, or something else lies over the rest; ``burst``: two shots,
            seconds apart; ``similar``: none of all.
        alike: the share of the overlap, as far as it shows something, that looks alike.
        difference: how many levels of 255 the overlap differs on average.
        inliers: matches of local features that agree; 0 where none were needed.
        registration: where the one lies in the other, or None.
    """

    kind: str
    alike: float | None = None
    difference: float | None = None
    inliers: int = 0
    registration: Registration | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        found = self.registration
        return dict(
            kind=self.kind, inliers=self.inliers,
            alike=None if self.alike is None else round(self.alike, 3),
            difference=None if self.difference is None else round(self.difference, 2),
            box=None if found is None else [round(edge, 4) for edge in found.box],
            own_box=None if found is None else [round(edge, 4) for edge in found.own_box],
            mirrored=None if found is None else found.mirrored)


class Evidence:
    """A picture as it is compared; what is costly is made when it is first needed.

    Args:
        source: a file, or an array ``(H, W, 3)`` or ``(H, W)`` uint8.

    Attributes:
        size: width and height.
        bytes: of the file, 0 for an array.
        taken: when, as its EXIF data say, or None.

    Raises:
        UnreadableImageError: the file is missing or cannot be read.
    """

    def __init__(self, source: str | os.PathLike[str] | np.ndarray) -> None:
        self.file, self.bytes, self.taken, date = None, 0, None, None
        if isinstance(source, np.ndarray):
            picture = as_image_array(source)
        else:
            facts = read_facts(os.fspath(source))
            self.file, self.bytes, date = os.fspath(source), facts.bytes, facts.date
            picture = read_image(self.file)
        if date is not None and len(date) == 19:
            self.taken = datetime.fromisoformat(date)
        self.date = date
        self.size = picture.shape[1], picture.shape[0]
        self.pixels = hashlib.blake2b(np.ascontiguousarray(picture).data, digest_size=16).digest()
        self._single = grey(picture)
        self.small = small_colours(picture)
        self.tiny = grey(self._single, SMALL)

    @cached_property
    def content(self) -> bytes | None:
        """The SHA-256 of the file."""
        if self.file is None:
            return None
        with open(self.file, 'rb') as file:
            return hashlib.file_digest(file, 'sha256').digest() if hasattr(
                hashlib, 'file_digest') else hashlib.sha256(file.read()).digest()

    @cached_property
    def features(self) -> LocalFeatures:
        """The local features."""
        return local_features(self._single)

    @cached_property
    def mirrored(self) -> LocalFeatures:
        """Those of the mirror image."""
        return local_features(np.ascontiguousarray(self._single[:, ::-1]))


def small_colours(picture: np.ndarray) -> np.ndarray:
    """A picture reduced to at most 192 pixels, ``(h, w, 3)`` uint8.

    Example:
        >>> small_colours(np.zeros((384, 96, 1), np.uint8)).shape
        (192, 48, 3)
    """
    import cv2

    share = SMALL / max(picture.shape[:2])
    size = [max(1, round(edge * share)) for edge in (picture.shape[1], picture.shape[0])]
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if share < 1 else
                       cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.broadcast_to(
        small[..., None] if small.ndim == 2 else small, (*small.shape[:2], 3)))


def prove(one: Evidence, other: Evidence, similarity: float = 0.0) -> Proof:
    """What one picture is of another.

    Args:
        one, other: the pictures.
        similarity: of their embeddings, for two of a burst in which something moved.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
        >>> picture = noise.repeat(10, 0).repeat(10, 1)
        >>> prove(Evidence(picture), Evidence(picture[::2, ::2])).kind
        'resized'
        >>> prove(Evidence(picture), Evidence(picture[20:180, 60:260])).kind
        'cropped'
    """
    if one.content is not None and one.bytes == other.bytes and one.content == other.content:
        return Proof('same bytes')
    if one.size == other.size and one.pixels == other.pixels:
        return Proof('same pixels')
    apart = None if one.taken is None or other.taken is None else \
        abs((one.taken - other.taken).total_seconds())
    found = _registered(one, other)
    if apart is not None and 0 < apart <= _BURST and (found is not None or similarity >= _NEAR):
        return Proof('burst') if found is None else Proof(
            'burst', found[1][0], None, found[0].inliers, found[0])
    if found is None or apart:  # what was taken at another time is another picture
        return Proof('similar')
    registration, shares = found
    difference = _difference(one, other, registration)
    return Proof(_kind(one, other, registration, shares, difference), shares[0], difference[0],
                 registration.inliers, registration)


def _registered(one: Evidence,
                other: Evidence) -> tuple[Registration, tuple[float, ...]] | None:
    """Where one lies in the other, with the shares of :func:`_share`; None where nothing proves it.
    """
    whole = (0.0, 0.0, 1.0, 1.0)
    shapes = one.size[0] * other.size[1] / (one.size[1] * other.size[0])
    tried: list[tuple[Registration, tuple[float, ...]]] = []
    if abs(shapes - 1) < 0.03:  # laid over each other as they are, also where nothing stands out
        for mirrored in (False, True):
            laid = Registration(np.eye(3), 0, 0, whole, whole, mirrored)
            tried.append((laid, _share(one, other, laid)))
        best = max(tried, key=lambda pair: pair[1][0])
        if best[1][0] >= _SHARE:
            return best
    for features, mirrored in ((one.features, False), (one.mirrored, True)):
        found = register(features, other.features, mirrored)
        if found is not None:
            tried.append((found, _share(one, other, found)))
            if tried[-1][1][0] >= _SHARE:
                return tried[-1]
    for found, shares in tried:
        boxes = _kept_part(one, other, found)
        if boxes is not None:
            return replace(found, box=boxes[0], own_box=boxes[1]), shares
    return None


def _share(one: Evidence, other: Evidence, found: Registration) -> tuple[float, ...]:
    """The shares that look alike of what can be compared in the box of a registration, and in the
    whole overlap; 0 where that is too little.
    """
    correlation, seen = alike(one.tiny, other.tiny, found.transform, found.mirrored)
    height, width = seen.shape
    left, top = int(found.box[0] * width), int(found.box[1] * height)
    right, bottom = (int(np.ceil((found.box[at] + found.box[at + 2]) * edge))
                     for at, edge in ((0, width), (1, height)))
    inside = np.zeros_like(seen)
    inside[top:bottom, left:right] = seen[top:bottom, left:right]
    if inside.sum() < max(25, _SEEN * (bottom - top) * (right - left)):
        return 0.0, 0.0
    return tuple(float((correlation[where] > 0.5).mean()) for where in (inside, seen))


def _difference(one: Evidence, other: Evidence, found: Registration) -> tuple[float, float]:
    """How many levels of 255 the overlap of two registered pictures differs: on average, and where
    it differs most, in the mean of a small window, which coding leaves as it is.
    """
    import cv2

    apart, inside = _apart(one, other, found)
    inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
    if not inside.any():
        return 255.0, 255.0
    local = np.abs(cv2.boxFilter(apart, -1, (5, 5)))[inside]
    return float(np.abs(apart)[inside].mean()), float(np.percentile(local, 99.8))


def _apart(one: Evidence, other: Evidence, found: Registration) -> tuple[np.ndarray, np.ndarray]:
    """By how many levels two registered pictures differ, ``(h, w, 3)`` float32, and where they
    overlap, ``(h, w)`` bool.
    """
    moved, inside = laid_over(one.small, other.small, found.transform, found.mirrored)
    second = coarsened(other.small.astype(np.float32), 1 / enlarged(
        one.small, other.small, found.transform))
    finest = min(max(one.size), max(other.size)) / SMALL  # a tiny picture has no finer detail
    return coarsened(moved, finest) - coarsened(second, finest), inside


def _kept_part(one: Evidence, other: Evidence, found: Registration) -> tuple[Box, Box] | None:
    """The boxes, in the other and in the one, of what only coding changed where something else lies
    over the rest: the largest piece whose detail is a part of both pictures, or None. That which is
    plain holds a piece together and does not count.
    """
    import cv2

    correlation, seen = alike(grey(one.small, SMALL), grey(other.small, SMALL), found.transform,
                              found.mirrored)
    detail = seen & (correlation > 0.5)
    scale = enlarged(one.small, other.small, found.transform)
    least = _PART * max(detail.size, scale ** 2 * one.small[..., 0].size)
    if detail.sum() < least:
        return None
    apart, inside = _apart(one, other, found)
    kept = inside & (detail | ~seen) & (np.abs(cv2.boxFilter(apart, -1, (5, 5))).max(2) <= _KEPT)
    pieces = cv2.connectedComponents(cv2.morphologyEx(
        kept.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)), connectivity=4)[1]
    sizes = np.bincount(pieces[detail & (pieces > 0)], minlength=1)
    if sizes.max() < least:
        return None
    left, top, width, height = cv2.boundingRect((pieces == sizes.argmax()).astype(np.uint8))
    edges = np.array([left, top, width, height]) / (detail.shape[::-1] * 2)
    box = np.array([[edges[2], 0, edges[0]], [0, edges[3], edges[1]], [0, 0, 1]])
    own = footprint(np.linalg.inv(found.transform) @ box)
    return footprint(box), (1 - own[0] - own[2], *own[1:]) if found.mirrored else own


def _kind(one: Evidence, other: Evidence, found: Registration, shares: tuple[float, ...],
          difference: tuple[float, float]) -> str:
    """The kind of a pair that is registered."""
    if shares[0] < _SHARE:
        return 'part'  # see _kept_part
    boxes = found.box, found.own_box
    if shares[1] >= _COVERED:
        boxes = footprint(found.transform), footprint(np.linalg.inv(found.transform))
    whole, own = (min(box[2:]) >= _WHOLE for box in boxes)
    if not whole and not own:
        areas = [box[2] * box[3] for box in (found.box, found.own_box)]
        return 'part' if min(areas) >= _PART else 'similar'
    unchanged = difference[0] <= _UNCHANGED and difference[1] <= _UNTOUCHED and \
        shares[0] >= 0.8 and not found.mirrored
    moved = found.transform / found.transform[2, 2]
    across = moved[0, 0] * other.size[0] / one.size[0]
    down = moved[1, 1] * other.size[1] / one.size[1]
    turned = max(abs(moved[0, 1] / (moved[0, 0] or 1)), abs(moved[1, 0] / (moved[1, 1] or 1)),
                 *abs(moved[2, :2]))
    if not unchanged or turned > _STILL or min(across, down) <= 0 or \
            abs(across / down - 1) > 2 * _STILL:
        return 'edited'
    if whole and own and np.abs(moved - np.eye(3)).max() < _STILL:
        return 're-encoded' if one.size == other.size else 'resized'
    return 'cropped'
