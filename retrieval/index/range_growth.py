"""Range search by searches that fetch more and more."""
from __future__ import annotations

import numpy as np
import torch

from ..ranking import RangeNeighbors
from .faiss_search import FaissSearch

_FIRST = 128
_MORE = 4


def grow_to_threshold(search: FaissSearch, threshold: float) -> RangeNeighbors:
    """All rows of similarity ``threshold`` or more.

    A query whose results all reach the threshold is searched again for more of them, until one
    falls below or there are no more.
    """
    count = len(search.queries)
    found: list[tuple[np.ndarray, np.ndarray]] = [
        (np.zeros(0, np.float32), np.zeros(0, np.int64))] * count
    most = int(search.scope.available.max(initial=0))
    todo, k = np.arange(count if most else 0), min(_FIRST, most)
    while len(todo):
        scores, rows = search.of(todo).best(k, complete=False)
        reach = (rows >= 0) & (scores >= np.float32(threshold))
        for place, query in enumerate(todo):
            found[query] = scores[place, reach[place]], rows[place, reach[place]]
        todo = todo[reach.all(axis=1)] if k < most else todo[:0]
        k = min(most, k * _MORE)
    lengths = torch.tensor([len(rows) for _, rows in found], dtype=torch.int64)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    nothing = [(np.zeros(0, np.float32), np.zeros(0, np.int64))]
    return RangeNeighbors(
        offsets, torch.from_numpy(np.concatenate([part for part, _ in found + nothing])),
        torch.from_numpy(np.concatenate([part for _, part in found + nothing])))
