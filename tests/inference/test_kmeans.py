"""k-means of faiss, against pytorch-metric-learning."""
import pytest
import torch
from pytorch_metric_learning.utils import inference as peer

from retrieval.inference import FaissKMeans


def test_as_the_peer():
    x = torch.randn(200, 6) + 6 * torch.arange(200)[:, None].remainder(4)
    found = FaissKMeans(niter=30, seed=5)(x, 4)
    assert torch.equal(found, peer.FaissKMeans(niter=30, seed=5)(x, 4))
    assert found.dtype == torch.int64
    for cluster in range(4):
        assert len(found[cluster::4].unique()) == 1


@pytest.mark.parametrize('call, error, says', [
    (lambda: FaissKMeans()(torch.randn(3, 2), 4), ValueError, '3 vectors'),
    (lambda: FaissKMeans(iterations=3)(torch.randn(50, 2), 2), TypeError, 'iterations'),
    (lambda: FaissKMeans()(torch.full((4, 2), torch.nan), 2), ValueError, 'finite'),
])
def test_wrong_input(call, error, says):
    with pytest.raises(error, match=says):
        call()
