"""Lists of scored rows in the order of a ranking: falling score, and the lower row among equals.

On the CPU a score and its row make one integer whose order is the order wanted. Sorting those is
exact and several times faster than sorting scores with their places.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LAST_KEY = np.int64(0x7F800000_FFFFFFFF)  # of -inf at the last place: sorts behind everything
_TOGETHER = 2 ** 15  # queries whose lists are cut at once
_SKEWED = 8  # lists that are so many times longer than the mean are ordered by themselves


def best_of_lists(scores: Tensor, rows: Tensor, k: int | None = None) -> tuple[Tensor, Tensor]:
    """The k best of each list of scored rows, which may stand in any order.

    Args:
        scores: ``(Q, C)`` float32; ``-inf`` for none.
        rows: ``(Q, C)`` int64, from -1 to below 2**32.
        k: how many; None for all.

    Returns:
        Scores descending and rows, ``(Q, min(k, C))``; rows are -1 where the score is ``-inf``.

    Example:
        >>> best_of_lists(torch.tensor([[1., 3., 3., -torch.inf]]), torch.tensor([[7, 9, 4, 2]]), 3)
        (tensor([[3., 3., 1.]]), tensor([[4, 9, 7]]))
    """
    if scores.device.type == 'cpu':
        keys = keys_of(scores.numpy(), rows.numpy() & 0xFFFFFFFF)
        keys.sort(axis=1)
        found, places = from_keys(keys[:, :k])
        return torch.from_numpy(found), torch.from_numpy(places)
    rows, order = torch.sort(rows, dim=1)
    scores, by_score = torch.sort(scores.gather(1, order), dim=1, descending=True, stable=True)
    scores, rows = scores[:, :k], rows.gather(1, by_score[:, :k])
    return scores, rows.masked_fill(scores == -torch.inf, -1)


def keys_of(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One int64 for a score (float32) and a row below 2**32; rising keys are falling scores."""
    bits = (scores + np.float32(0)).view(np.int32)  # a sum has no negative zero, which would differ
    rising = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return (~rising).astype(np.int64) << 32 | rows


def from_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores float32 and rows int64 of keys; the row of ``-inf`` is -1."""
    scores = scores_of(keys)
    rows = keys & 0xFFFFFFFF
    rows[scores == -np.inf] = -1
    return scores, rows


def scores_of(keys: np.ndarray) -> np.ndarray:
    """The scores float32 of keys."""
    rising = ~(keys >> 32).astype(np.int32)
    return (rising ^ ((rising >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def kth_scores(parts: Sequence[tuple[np.ndarray, np.ndarray]], num_queries: int,
               k: int) -> np.ndarray:
    """The k-th best score of every query, ``(B,)`` float32; ``-inf`` where there are fewer.

    Args:
        parts: ``(query, keys)`` of equal length each, in any order.
        num_queries: B.
        k: which.

    Example:
        >>> keys = keys_of(np.float32([3, 1, 2]), np.arange(3))
        >>> kth_scores([(np.array([0, 1, 0]), keys)], 2, 2)
        array([  2., -inf], dtype=float32)
    """
    ordered = np.empty(sum(len(query) for query, _ in parts), np.int64)
    filled = 0
    for query, keys in parts:  # the query above, and the score's half of the key without its sign
        part = np.left_shift(query, 32, out=ordered[filled:filled + len(query)])
        part |= (keys >> 32) + 2 ** 31
        filled += len(query)
    ordered.sort()
    edges = np.searchsorted(ordered, np.arange(num_queries + 1) << 32)
    enough = np.diff(edges) >= k
    found = np.full(num_queries, -np.inf, np.float32)
    worst = ordered[edges[:-1][enough] + k - 1] & 0xFFFFFFFF
    found[enough] = scores_of((worst - 2 ** 31) << 32)
    return found


def best_keys(parts: list[tuple[np.ndarray, np.ndarray]], num_queries: int, k: int,
              ordered: bool = True) -> np.ndarray:
    """The k lowest keys of every query, ``(B, k)`` int64, filled with the key of ``-inf``.

    Args:
        parts: ``(query, keys)`` of equal length each, the queries rising within each part.
        num_queries: B.
        k: how many.
        ordered: put them in order.
    """
    if num_queries > _TOGETHER:
        found = np.empty((num_queries, k), np.int64)
        for start in range(0, num_queries, _TOGETHER):
            stop = min(start + _TOGETHER, num_queries)
            slices = [slice(*np.searchsorted(query, (start, stop))) for query, _ in parts]
            found[start:stop] = best_keys(
                [(query[one] - start, keys[one])
                 for (query, keys), one in zip(parts, slices, strict=True)],
                stop - start, k, ordered)
        return found
    counts = [np.bincount(query, minlength=num_queries) for query, _ in parts]
    total = sum(counts, np.zeros(num_queries, dtype=np.int64))
    usual = max(2 * k, _SKEWED * int(total.mean() + 1))
    long = total > usual
    width = max(k, int(total[~long].max(initial=0)))
    table = np.full((num_queries, width), LAST_KEY)
    filled = np.zeros(num_queries, dtype=np.int64)
    for (query, keys), count in zip(parts, counts, strict=True):
        nth = np.arange(len(query)) + np.repeat(filled - (np.cumsum(count) - count), count)
        if long.any():
            those = ~long[query]
            table[query[those], nth[those]] = keys[those]
        else:
            table[query, nth] = keys
        filled += count
    for one in np.flatnonzero(long):  # a great many ties, or nearest to a dense place
        own = [keys[slice(*np.searchsorted(query, (one, one + 1)))] for query, keys in parts]
        table[one, :k] = np.partition(np.concatenate(own), k - 1)[:k]
    if ordered:
        if 2 * k < width:
            table = np.partition(table, k - 1, axis=1)[:, :k]
        table.sort(axis=1)
    elif k < width:
        table = np.partition(table, k - 1, axis=1)
    return table[:, :k]
