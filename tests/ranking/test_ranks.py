from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from retrieval.ranking import Depth, RelevantRanks


def test_the_deeper_of_two():
    assert Depth(rows=3, best=9) | Depth(relevant=True, rows=5) == Depth(
        rows=5, relevant=True, best=9)
    assert (Depth() | Depth(everything=True)).everything


def test_what_the_offsets_say():
    ranks = RelevantRanks(torch.tensor([0, 2, 2, 3]), torch.tensor([1, 4, 2]), torch.full((3,), 9))
    assert len(ranks) == 3 and ranks.start == 0
    assert ranks.num_relevant.tolist() == [2, 0, 1]
    assert ranks.query.tolist() == [0, 0, 2]
    assert ranks.order.tolist() == [1, 2, 1]
    assert ranks.precisions.tolist() == [1, 0.5, 0.5]
    with pytest.raises(FrozenInstanceError):
        ranks.start = 3
