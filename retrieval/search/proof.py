"""Duplicates that are proved: what one picture is of another, by registration and what remains."""
from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from ..checks import whole_number
from ..image_files import UnreadableImageError
from ..image_io import as_image_array, read_image
from ..picture_facts import read_facts
from ..ranking import topk
from ..registration import (
    SMALL,
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
from .duplicates import check_one_model, one_row_a_file, vectors_of

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
_BURST = 10.0      # seconds between the first and the next picture
_NEAR = 0.9        # similarity of two pictures of a burst that cannot be registered
_HELD = 1000       # pictures whose features are in memory, 0.4 MB each


@dataclass(frozen=True)
class Proof:
    """What one picture is of another.

    Args:
        kind: one of :data:`KINDS`: ``same bytes``; ``same pixels`` in other files; ``re-encoded``
            at the same size and ``resized``, with nothing but coding in between; ``cropped``: one
            is the whole of a part of the other; ``edited``: all of one is in the other, mirrored,
            turned, in other colours, or with something on it; ``part``: both hold a part of each
            other and more beside it; ``burst``: two shots, seconds apart; ``similar``: none of all.
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
    best: tuple[Registration, tuple[float, ...]] | None = None
    if abs(shapes - 1) < 0.03:  # laid over each other as they are, also where nothing stands out
        for mirrored in (False, True):
            laid = Registration(np.eye(3), 0, 0, whole, whole, mirrored)
            share = _share(one, other, laid)
            if share[0] > max(_SHARE, 0.0 if best is None else best[1][0]):
                best = laid, share
    if best is not None:
        return best
    for features, mirrored in ((one.features, False), (one.mirrored, True)):
        found = register(features, other.features, mirrored)
        if found is not None:
            share = _share(one, other, found)
            if share[0] >= _SHARE:
                return found, share
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

    moved, inside = laid_over(one.small, other.small, found.transform, found.mirrored)
    second = coarsened(other.small.astype(np.float32), 1 / enlarged(
        one.small, other.small, found.transform))
    finest = min(max(one.size), max(other.size)) / SMALL  # a tiny picture has no finer detail
    apart = coarsened(moved, finest) - coarsened(second, finest)
    inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
    if not inside.any():
        return 255.0, 255.0
    local = np.abs(cv2.boxFilter(apart, -1, (5, 5)))[inside]
    return float(np.abs(apart)[inside].mean()), float(np.percentile(local, 99.8))


def _kind(one: Evidence, other: Evidence, found: Registration, shares: tuple[float, ...],
          difference: tuple[float, float]) -> str:
    """The kind of a pair that is registered."""
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


# Groups ------------------------------------------------------------------------------------------


class Member(NamedTuple):
    """A picture of a group that is not the one to keep.

    Args:
        row: its row.
        of: the row of the picture against which it is proved: the one to keep, or, where another
            version of that has copies of its own, that version.
        proof: what it is of that one.
    """

    row: int
    of: int
    proof: Proof


@dataclass
class ProvedGroup:
    """Pictures that are one, and which of them to keep.

    Args:
        keep: the row of the best: the most pixels, then bytes, then the oldest, then the name.
        members: the others.
    """

    keep: int
    members: list[Member]

    @property
    def rows(self) -> list[int]:
        """All rows, the one to keep first."""
        return [self.keep, *(member.row for member in self.members)]


@dataclass
class ProvedDuplicates:
    """What was proved of a set of pictures.

    Args:
        ids: of the rows.
        groups: of copies; the largest first.
        bursts: the same of shots that are seconds apart.
        parts: pairs of rows that hold a part of each other, with the proof.
        compared: how many pairs were looked at.
        unreadable: rows whose picture is not there or cannot be read.
        sizes: width, height and bytes of the rows that were looked at.
    """

    ids: Sequence[str]
    groups: list[ProvedGroup] = field(default_factory=list)
    bursts: list[ProvedGroup] = field(default_factory=list)
    parts: list[tuple[int, int, Proof]] = field(default_factory=list)
    compared: int = 0
    unreadable: list[int] = field(default_factory=list)
    sizes: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """By id, in plain values for JSON."""
        def listed(groups: Sequence[ProvedGroup]) -> list[dict[str, Any]]:
            return [dict(keep=str(self.ids[group.keep]), members=[
                dict(id=str(self.ids[row]), of=str(self.ids[of]), **proof.as_dict())
                for row, of, proof in group.members]) for group in groups]
        return dict(compared=self.compared, groups=listed(self.groups), bursts=listed(self.bursts),
                    parts=[dict(id=str(self.ids[row]), other=str(self.ids[other]),
                                **proof.as_dict()) for row, other, proof in self.parts],
                    unreadable=[str(self.ids[row]) for row in self.unreadable])


def prove_duplicates(gallery: Any, source: Callable[[str], Any] | None = None, *,
                     other: Any = None, neighbors: int = 10, threshold: float = 0.5,
                     index: Any = None,
                     progress: Callable[[str, int], Callable[[], Any]] | None = None
                     ) -> ProvedDuplicates:
    """Groups of copies within a gallery, or what of it another set has, each pair proved.

    Candidates are the nearest neighbours of each row, as far as they reach a threshold that is low
    on purpose: registration decides. First pictures of which nothing is lost (:data:`SURE`) go to
    the best of them, from the best picture down; then those best ones are compared for crops and
    edited versions. A picture is compared with its candidates, and with those of whatever proves to
    be a copy of it.

    With another set each picture of the gallery is compared with its neighbours there, and goes to
    the one that it is most surely a copy of. Ids and rows of that set follow the gallery's; a file
    that is in both is passed over.

    Args:
        gallery: a gallery or its file.
        source: from an id to its picture: a file, an array, its :class:`Evidence`, or None; by
            default ids are files.
        other: another gallery or its file, all of which is kept.
        neighbors: how many of each row.
        threshold: of the similarity of candidates.
        index: an index over the gallery, or the other one, that finds the candidates, such as one
            of parts; by default exact search.
        progress: is called with the name and length of each step, and returns what is called after
            each part of it.

    Raises:
        ValueError: neighbors is below 1, or the sets were made by different models.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from retrieval import Gallery
        >>> folder = tempfile.mkdtemp()
        >>> noise = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), np.uint8)
        >>> paths = [f'{folder}/{name}.png' for name in 'abc']
        >>> for path, picture, scale in zip(paths, noise[[0, 0, 1]], (10, 20, 10), strict=True):
        ...     Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1)).save(path)
        >>> found = prove_duplicates(Gallery(torch.ones(3, 2), paths))
        >>> [(group.keep, group.members[0].proof.kind) for group in found.groups]
        [(1, 'resized')]
    """
    vectors, ids, made = vectors_of(gallery, 'gallery')
    whole_number('neighbors', neighbors)
    theirs = None
    if other is not None:
        theirs, their_ids, by = vectors_of(other, 'other')
        check_one_model(made, by)
        ids = [*ids, *their_ids]
    near = _candidates(vectors, theirs, ids, neighbors, threshold, index)
    read = _Reader(ids, source or _file)
    found = ProvedDuplicates(ids)
    rows = sorted({*near, *(row for those in near.values() for row in those)})
    step = progress('reading pictures', len(rows)) if progress else None
    quality: dict[int, tuple[Any, ...]] = {}
    for row in rows:
        one = read(row)
        if one is not None:
            found.sizes[row] = (*one.size, one.bytes)
            quality[row] = (-one.size[0] * one.size[1], -one.bytes, one.date or '9', str(ids[row]))
        else:
            found.unreadable.append(row)
        if step:
            step()
    order = sorted(quality, key=lambda row: quality[row])
    step = progress('comparing pictures', len(order)) if progress else None
    search = _Search(near, read, found, {row: place for place, row in enumerate(order)})
    for row in order:
        if other is None:
            search.gather(row, SURE)
        elif row in near:
            search.find(row)
        if step:
            step()
    if other is None:
        for keep in order:
            if keep not in search.copy_of:
                search.gather_versions(keep)
    for groups in (found.groups, found.bursts):
        groups.sort(key=lambda group: -len(group.members))
    return found


class _Search:
    """Groups while they are made: first what is the same, each with the best of it, then what these
    are of one another.

    Args:
        near: the candidates of each row, with similarities.
        read: from a row to its evidence.
        found: is filled.
        place: of the rows that can be read, from the best picture to the worst.
    """

    def __init__(self, near: dict[int, dict[int, float]], read: _Reader, found: ProvedDuplicates,
                 place: dict[int, int]) -> None:
        self.near, self.read, self.found, self.place = near, read, found, place
        self.copy_of: dict[int, int] = {}  # the better one with all of it
        self.same: dict[int, list[Member]] = {}
        self.grouped: set[int] = set()
        self.known: dict[tuple[int, bool], ProvedGroup] = {}  # of another set, bursts by themselves
        self.proofs: dict[tuple[int, int], Proof] = {}

    def proof(self, row: int, keep: int, score: float) -> Proof:
        """What a row is of another; a pair is compared once."""
        pair = row, keep
        if pair not in self.proofs:
            one, other = self.read(row), self.read(keep)
            self.proofs[pair] = Proof('similar') if one is None or other is None else \
                prove(one, other, score)
            self.found.compared += 1
        return self.proofs[pair]

    def gather(self, keep: int, kinds: Sequence[str]) -> None:
        """Note what is the same as a picture, among its neighbours and theirs."""
        if keep in self.copy_of:
            return
        seen, waiting = {keep}, [keep]
        while waiting:
            for row, score in self.near[waiting.pop(0)].items():
                if row in seen or row in self.copy_of or self.place.get(row, -1) < self.place[keep]:
                    continue
                seen.add(row)
                proof = self.proof(row, keep, score)
                if proof.kind in kinds:
                    self.copy_of[row] = keep
                    self.same.setdefault(keep, []).append(Member(row, keep, proof))
                    waiting.append(row)

    def gather_versions(self, keep: int) -> None:
        """Make the group of a picture: what is the same, its other versions, and what is the same
        as these.
        """
        if keep in self.grouped:
            return
        members, shots = list(self.same.get(keep, ())), []
        seen, waiting = {keep}, [keep]
        while waiting:
            version = waiting.pop(0)
            for through in (version, *(member.row for member in self.same.get(version, ()))):
                for near, score in self.near[through].items():
                    row = self.copy_of.get(near, near)
                    if row in seen or row in self.grouped or row not in self.place:
                        continue
                    seen.add(row)
                    proof = self.proof(row, keep, score)
                    if proof.kind in COPIES:
                        members += [Member(row, keep, proof), *self.same.get(row, ())]
                        waiting.append(row)
                    elif proof.kind == 'burst':
                        shots += [Member(row, keep, proof), *self.same.get(row, ())]
                    elif proof.kind == 'part':
                        self.found.parts.append((row, keep, proof))
        for group, groups in ((members, self.found.groups), (shots, self.found.bursts)):
            if group:
                groups.append(ProvedGroup(keep, group))
                self.grouped.update((keep, *(member.row for member in group)))

    def find(self, row: int) -> None:
        """Note what a picture is of the one of another set that it is most surely a copy of."""
        best = Member(row, row, Proof('similar'))
        for there, score in self.near[row].items():
            proof = self.proof(row, there, score) if there in self.place else best.proof
            if KINDS.index(proof.kind) < KINDS.index(best.proof.kind):
                best = Member(row, there, proof)
            if best.proof.kind in SURE[:2]:
                break
        if best.proof.kind == 'part':
            self.found.parts.append((row, best.of, best.proof))
        elif best.proof.kind != 'similar':
            key = best.of, best.proof.kind == 'burst'
            if key not in self.known:
                self.known[key] = ProvedGroup(best.of, [])
                (self.found.bursts if key[1] else self.found.groups).append(self.known[key])
            self.known[key].members.append(best)


def _candidates(vectors: torch.Tensor, theirs: torch.Tensor | None, ids: Sequence[str],
                neighbors: int, threshold: float, index: Any) -> dict[int, dict[int, float]]:
    """The rows near each row with their similarities; rows without are left out. Within a set from
    either side, and of several links to one file a single row; those of another set, which stand
    behind the own ones, near these alone.
    """
    own = len(vectors)
    within = theirs is None
    if index is None:
        found = topk(vectors, vectors if theirs is None else theirs, neighbors,
                     exclude=torch.arange(own) if within else None)
    else:
        found = index.search(vectors, neighbors, exclude=list(ids) if within else None)
    files = set(one_row_a_file(ids).tolist()) if within else None
    near: dict[int, dict[int, float]] = {}
    for row, (scores, others) in enumerate(zip(found.scores.tolist(), found.indices.tolist(),
                                               strict=True)):
        for score, there in zip(scores, others, strict=True):
            if there < 0 or score < threshold:
                continue
            if files is not None:
                if row in files and there in files:
                    near.setdefault(row, {})[there] = near.setdefault(there, {})[row] = score
            elif not _one_file(str(ids[row]), str(ids[own + there])):
                near.setdefault(row, {})[own + there] = score
    return {row: dict(sorted(others.items(), key=lambda pair: -pair[1]))
            for row, others in near.items()}


def _one_file(one: str, other: str) -> bool:
    try:
        return one == other or os.path.samefile(one, other)
    except (OSError, ValueError):  # no files, as of pictures in memory
        return False


def _file(name: str) -> str | None:
    return name if os.path.isfile(name) else None


class _Reader:
    """The evidence of rows, of which the last stay in memory."""

    def __init__(self, ids: Sequence[str], source: Callable[[str], Any]) -> None:
        self.ids, self.source = ids, source
        self.kept: OrderedDict[int, Evidence | None] = OrderedDict()

    def __call__(self, row: int) -> Evidence | None:
        """That of a row, or None where its picture is not there or cannot be read."""
        if row in self.kept:
            self.kept.move_to_end(row)
            return self.kept[row]
        given = self.source(str(self.ids[row]))
        try:
            one = given if given is None or isinstance(given, Evidence) else Evidence(given)
        except UnreadableImageError:
            one = None
        self.kept[row] = one
        if len(self.kept) > _HELD:
            self.kept.popitem(last=False)
        return one
