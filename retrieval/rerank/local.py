"""Re-ranking by local features: is a part of the one picture in the other, and where?"""
from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..checks import whole_number
from ..encoded_folder import NO_FILE, file_state
from ..image_files import UnreadableImageError
from ..ranking.lists import best_of_lists
from ..registration import (
    LEAST_INLIERS,
    LocalFeatures,
    Registration,
    grey,
    local_features,
    register,
)
from ..registry import RERANKERS
from .base import Reranker, SearchState
from .kept_features import KeptFeatures

_HALF = 50  # so many inliers raise a score by a half
# Beside the galleries, as what other rerankers keep: it goes with the gallery.
_KEPT: WeakKeyDictionary[Any, OrderedDict[int, tuple[str, LocalFeatures | None]]] = \
    WeakKeyDictionary()
_LOCK = threading.Lock()


@RERANKERS.register_module()
class LocalRerank(Reranker):
    """The first results, geometrically checked: those first in which a part of the query lies.

    Local features of query and result (SIFT) are matched, and a homography is fitted to the
    matches; see :mod:`retrieval.registration`. Results with enough matches that agree come first,
    with scores above all others: the largest similarity, or 1, and ``n / (n + 50)`` more for n such
    matches. The others keep their scores and order. What was found stands in ``matches`` of the
    :class:`~retrieval.structures.Neighbors`, so this is the last step of a list.

    It compares pictures. A retriever takes those of the queries from their data samples and those
    of the gallery from the files that its ids name, or from the prototype's dataset;
    :func:`~retrieval.rerank.rerank` is given them. A row whose picture is not there keeps its
    place.

    Args:
        first: how many results are checked.
        least_inliers: how many matches must agree.
        mirror: look for the mirror image of the query too, which takes twice as long.
        cache: of how many pictures of the gallery the features stay in memory, 100 kB each.
        kept: a file in which they are kept too, of the latest 10,000 pictures whose ids are files,
            70 kB each, until the picture changes. The commands name one beside what is kept of a
            folder. A gallery does not carry it.

    Raises:
        ValueError: an argument is below 1.

    Example:
        >>> from retrieval.rerank import rerank
        >>> noise = np.random.default_rng(0).integers(0, 256, (2, 24, 32), np.uint8)
        >>> pictures = [one.repeat(12, 0).repeat(12, 1) for one in noise]
        >>> found = rerank([[1., 0.]], [[1., 0.], [0.9, 0.1]], LocalRerank(),
        ...                query_pictures=[pictures[1][40:200, 60:300]], pictures=pictures)
        >>> found.indices.tolist(), found.matches[0][1]
        ([[1, 0]], None)
    """

    def __init__(self, first: int = 100, least_inliers: int = LEAST_INLIERS, mirror: bool = True,
                 cache: int = 2000, kept: str | None = None) -> None:
        self.first = whole_number('first', first)
        self.least_inliers = whole_number('least_inliers', least_inliers, 4)
        self.mirror = bool(mirror)
        self.cache = whole_number('cache', cache)
        self.kept = None if kept is None else KeptFeatures(kept)

    def refine(self, state: SearchState) -> SearchState:
        if state.query_picture is None or state.row_picture is None:
            raise ValueError('LocalRerank compares pictures, and this search is of vectors alone: '
                             'search with images through a retriever, or give rerank() '
                             'query_pictures and pictures.')
        found = state.first(max(self.first, state.k))
        scores, placed = found.scores.clone(), {}
        for query, rows in enumerate(found.indices[:, :self.first].tolist()):
            rows = [row for row in rows if row >= 0]
            registered = self.registered(state, query, rows) if rows else []
            top = max(1.0, float(found.scores[query, 0])) if rows else 1.0
            for place, one in enumerate(registered):
                if one is not None:
                    scores[query, place] = top + one.inliers / (one.inliers + _HALF)
                    placed[query, rows[place]] = one
        refined = state.ranked(*best_of_lists(scores, found.indices, state.k))
        assert refined.found is not None
        refined.found.matches = [[placed.get((query, row)) for row in rows if row >= 0]
                                 for query, rows in enumerate(refined.found.indices.tolist())]
        return refined

    def registered(self, state: SearchState, query: int,
                   rows: Sequence[int]) -> list[Registration | None]:
        """For each row of the gallery where the query lies in its picture, or None."""
        assert state.query_picture is not None and state.row_picture is not None
        picture = _read(state.query_picture, query)
        if picture is None:
            return [None] * len(rows)
        single = grey(picture)
        views = [(local_features(single), False)]
        if self.mirror:
            views.append((local_features(np.ascontiguousarray(single[:, ::-1])), True))
        read, gallery = state.row_picture, state.gallery
        files = {row: (name, file_state(name)) for row, name in
                 ((row, str(gallery.ids[row])) for row in rows)}
        known = self._known(gallery, files)

        def compare(row: int) -> tuple[LocalFeatures | None, Registration | None]:
            if row in known:
                theirs = known[row]
            else:
                there = _read(read, row)
                theirs = None if there is None else local_features(grey(there))
            found = (register(own, theirs, mirrored, self.least_inliers)
                     for own, mirrored in views if theirs is not None)
            return theirs, next((one for one in found if one is not None), None)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            compared = list(pool.map(compare, rows))
        self._keep(gallery, files, {row: theirs for row, (theirs, _) in
                                    zip(rows, compared, strict=True) if row not in known})
        return [found for _, found in compared]

    def _known(self, gallery: Any, files: Mapping[int, tuple[str, str]]
               ) -> dict[int, LocalFeatures | None]:
        """The features of rows as far as they are kept, by the path and state of their files."""
        with _LOCK:
            held = _KEPT.setdefault(gallery, OrderedDict())
            known = {row: held[row][1] for row, (_, state) in files.items()
                     if row in held and held[row][0] == state}
            for row in known:
                held.move_to_end(row)
        if self.kept is not None:
            left = {name: row for row, (name, state) in files.items()
                    if row not in known and state != NO_FILE}
            read = self.kept.read({name: files[row][1] for name, row in left.items()})
            self._hold(gallery, files, {left[name]: found for name, found in read.items()})
            known.update({left[name]: found for name, found in read.items()})
        return known

    def _keep(self, gallery: Any, files: Mapping[int, tuple[str, str]],
              found: Mapping[int, LocalFeatures | None]) -> None:
        """Keep what was found."""
        self._hold(gallery, files, found)
        if self.kept is not None:
            self.kept.write({files[row][0]: (files[row][1], features)
                             for row, features in found.items()
                             if features is not None and files[row][1] != NO_FILE})

    def _hold(self, gallery: Any, files: Mapping[int, tuple[str, str]],
              found: Mapping[int, LocalFeatures | None]) -> None:
        with _LOCK:
            held = _KEPT.setdefault(gallery, OrderedDict())
            for row, features in found.items():
                held[row] = files[row][1], features
            while len(held) > self.cache:
                held.popitem(last=False)


def _read(read: Callable[[int], np.ndarray | None], number: int) -> np.ndarray | None:
    """A picture, or None where there is none or it cannot be read."""
    try:
        return read(number)
    except UnreadableImageError:
        return None
