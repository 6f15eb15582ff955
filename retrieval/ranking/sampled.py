"""Exact search for long lists on the CPU: a sample of the gallery says where the k-th best may lie.

It is the engine of :mod:`~retrieval.ranking.cpu` with another first bar. There it comes from the
first tile, so that all that is among the k best of the rows so far is kept for a while: several
times k. Here it is the score that k rows and some more are likely to reach, by some rows from all
over the gallery. A query of which fewer were kept in the end is lost, and searched again.
"""
from __future__ import annotations

import numpy as np
from torch import Tensor

from .cpu import LOST, BestOfTiles
from .cpu import num_threads as num_threads  # a part of the protocol
from .cpu import score_tiles as score_tiles
from .prepared import PreparedGallery
from .threads import in_order as in_order

_FEWEST = 385        # queries: with fewer a gallery may be cut, and no part has k above the bar
_LEAST_K, _SHARE = 256, 16  # results; and rows for each of them
_SAMPLE = 1024       # rows
_DEVIATIONS = 3      # of the number in the sample: one query of 700 is searched again


def pays(gallery: PreparedGallery, num_queries: int, k: int) -> bool:
    """True where lists are so long, and the gallery so large, that a sample saves more than it
    costs.
    """
    return (gallery.on_cpu and gallery.similarity.kind == 'product' and num_queries >= _FEWEST
            and _LEAST_K <= k <= len(gallery) // _SHARE and len(gallery) > _SHARE * _SAMPLE)


class _AboveSample(BestOfTiles):
    """The k best rows for a block of queries, if they are above a bar that is likely to be low
    enough.
    """

    def __init__(self, bar: np.ndarray, k: int) -> None:
        super().__init__(len(bar), k)
        self.bar = bar

    def _begin(self, scores: np.ndarray) -> np.ndarray:
        return scores > self.bar[:, None]

    def result(self) -> tuple[Tensor, Tensor]:
        scores, rows = super().result()
        scores[rows[:, -1] < 0] = LOST
        return scores, rows


def best_of_tiles(gallery: PreparedGallery, queries: Tensor, k: int) -> BestOfTiles:
    """What collects the k best rows of a block of queries; see the protocol."""
    return _AboveSample(likely_bar(gallery, queries, k), k)


def likely_bar(gallery: PreparedGallery, queries: Tensor, k: int) -> np.ndarray:
    """A score for each query ``(B,)`` float32 that k rows and some more are likely to reach.

    Example:
        >>> import torch
        >>> rows = torch.arange(2000.)[:, None]
        >>> bar, = likely_bar(PreparedGallery(rows, 'inner_product'), torch.ones(1, 1), 500)
        >>> int(bar) in range(1400, 1500)
        True
    """
    spread = slice(0, len(gallery), max(1, len(gallery) // _SAMPLE))
    sample = gallery.vectors[spread].float()
    if gallery.scales is not None:
        sample = sample * gallery.scales[spread, None]
    scores = gallery.similarity.clipped(queries.numpy() @ sample.numpy().T)
    expected = k * len(sample) / len(gallery)
    place = min(len(sample), int(expected + _DEVIATIONS * np.sqrt(expected)) + 1)
    return np.partition(scores, len(sample) - place, axis=1)[:, len(sample) - place]
