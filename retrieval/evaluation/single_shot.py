"""CMC with a single picture of every identity in the gallery."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .metrics import metric
from .task import EvaluationTask, scored_blocks


@metric('CMC-single-shot@K', depth=None)
def single_shot_cmc(task: EvaluationTask, k: int) -> Tensor:
    """The probability that a query's identity is among the first k where the gallery holds one
    picture of every identity, drawn at random from those that the query ranks; ``(Q,)``.

    The protocol of CUHK03 (Li et al., DeepReID, CVPR 2014). Programs draw the pictures 10 or 100
    times and average; this is what their averages tend to, and the same in every run.

    Raises:
        ValueError: there are no labels, or relevance is given in their place.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet
        >>> gallery = EmbeddingSet([[.9, .1], [1., 0.], [0., 1.]], [7, 8, 8])
        >>> single_shot_cmc(EvaluationTask(EmbeddingSet([[1., 0.]], [7]), gallery), 1)
        tensor([0.5000], dtype=torch.float64)
    """
    own, theirs = task.labels
    if own is None or theirs is None or task.relevance is not None:
        raise ValueError('CMC-single-shot draws a picture of every identity: give labels of both '
                         'sides, and no relevance.')
    identities = theirs.cpu().numpy()
    results = []
    for scores, rankable, relevant in scored_blocks(task):
        order = torch.sort(scores, dim=1, descending=True, stable=True).indices
        for places, ranked, hits in zip(order.cpu().numpy(), rankable.cpu().numpy(),
                                        relevant.cpu().numpy(), strict=True):
            places = places[ranked[places]]
            results.append(_of_query(identities[places], np.flatnonzero(hits[places]), k))
    return torch.tensor(results, dtype=torch.float64)


def _of_query(identities: np.ndarray, targets: np.ndarray, k: int) -> float:
    """The result of a query from the identities ``(n,)`` that it ranks and the places of its own.
    """
    if not len(targets):
        return 0.0
    others = np.delete(identities, targets)
    before = targets - np.arange(len(targets))  # so many others rank above each of its pictures
    # The number of identities above is a sum of independent draws, one an identity, each of which
    # lies above with the share of that identity's pictures that do.
    above = np.zeros((len(targets), k))  # the probability of 0 to k - 1 of them
    above[:, 0] = 1
    by_identity = np.argsort(others, kind='stable')
    _, starts = np.unique(others[by_identity], return_index=True)
    for places in np.split(by_identity, starts[1:]):
        share = (np.searchsorted(places, before) / max(1, len(places)))[:, None]
        moved = above[:, :-1] * share
        above *= 1 - share
        above[:, 1:] += moved
    return float(above.sum(axis=1).mean())
