"""What PyTorch selects on a GPU, run on the CPU, against a stable sort."""
from __future__ import annotations

import pytest
import torch

from retrieval.ranking.gpu import select


@pytest.mark.parametrize('k', [1, 3, 60, 99, 100, 120])
def test_selection_is_the_stable_sort(k):
    scores = torch.cat([torch.randn(5, 100), torch.randint(0, 3, (5, 100)).float()])
    values, columns = select(scores, k)
    expected = torch.sort(scores, dim=1, descending=True, stable=True)
    assert torch.equal(values, expected.values[:, :k])
    assert torch.equal(columns, expected.indices[:, :k])
