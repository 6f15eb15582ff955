"""Duplicates that are proved: groups of pictures that are one, each proved against the best."""
from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..checks import whole_number
from ..image_files import UnreadableImageError
from ..ranking import topk
from .duplicates import check_one_model, one_row_a_file, vectors_of
from .proof import COPIES, KINDS, SURE, Evidence, Proof, prove

_HELD = 1000  # pictures whose features are in memory, 0.4 MB each


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
        >>> import numpy as np
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
        self.parts: set[tuple[int, int]] = set()  # each pair is listed once

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
                    if row in seen or row not in self.place:
                        continue
                    seen.add(row)
                    proof = self.proof(row, keep, score)
                    if proof.kind == 'part':  # of a picture that is a copy of another, too
                        if (keep, row) not in self.parts:
                            self.parts.add((row, keep))
                            self.found.parts.append((row, keep, proof))
                    elif row in self.grouped:
                        continue
                    elif proof.kind in COPIES:
                        members += [Member(row, keep, proof), *self.same.get(row, ())]
                        waiting.append(row)
                    elif proof.kind == 'burst':
                        shots += [Member(row, keep, proof), *self.same.get(row, ())]
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
