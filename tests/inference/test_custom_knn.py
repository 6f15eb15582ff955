"""Neighbours by any distance, against pytorch-metric-learning."""
import pytest
import torch
from pytorch_metric_learning import distances
from pytorch_metric_learning.utils import inference as peer

from retrieval.inference import CustomKNN

DISTANCES = [distances.CosineSimilarity(), distances.DotProductSimilarity(),
             distances.LpDistance(p=2, power=2), distances.LpDistance(p=1, power=1),
             distances.LpDistance(normalize_embeddings=False), distances.SNRDistance()]


@pytest.mark.parametrize('batch_size', [None, 1, 7])
@pytest.mark.parametrize('same', [False, True])
@pytest.mark.parametrize('distance', DISTANCES, ids=lambda d: f'{type(d).__name__}-{d.p}-{d.power}')
def test_as_the_peer(distance, same, batch_size):
    reference = torch.randn(50, 6)
    query = reference[:20] if same else torch.randn(20, 6)
    values, rows = CustomKNN(distance, batch_size)(query, 5, reference, same)
    expected, wanted = peer.CustomKNN(distance, batch_size)(query, 5, reference, same)
    assert torch.equal(rows, wanted) and torch.allclose(values, expected, atol=1e-5)


def test_duplicates_beyond_k_leave_out_the_query_itself():
    reference = torch.ones(6, 3)
    _, rows = CustomKNN(distances.CosineSimilarity())(reference, 2, reference, True)
    assert rows.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


@pytest.mark.parametrize('same', [False, True])
def test_k_above_what_there_is(same):
    """The peer's torch.topk raises."""
    reference = torch.randn(5, 3)
    values, rows = CustomKNN(distances.LpDistance())(reference, 9, reference, same)
    assert values.shape == rows.shape == (5, 5 - same)
    with pytest.raises(RuntimeError):
        peer.CustomKNN(distances.LpDistance())(reference, 9, reference, same)


def test_equal_distances_come_by_row():
    reference = torch.eye(4)
    assert CustomKNN(distances.LpDistance())(torch.ones(1, 4), 4, reference)[1].tolist() == [
        [0, 1, 2, 3]]


def test_it_keeps_a_reference(tmp_path):
    reference = torch.randn(12, 4)
    knn = CustomKNN(distances.CosineSimilarity())
    with pytest.raises(ValueError, match='train'):
        knn(reference, 1)
    knn.train(reference[:5], labels=range(5))
    knn.add(reference[5:])
    assert knn(reference, 1)[1][:, 0].tolist() == list(range(12)) and len(knn) == 12
    knn.save(tmp_path / 'knn')
    again = CustomKNN(distances.CosineSimilarity())
    again.load(tmp_path / 'knn')
    assert torch.equal(again.reference, reference)
    assert again.names.labels.tolist() == [0, 1, 2, 3, 4, *[-1] * 7]
    with pytest.raises(ValueError, match='columns'):
        knn.add(torch.randn(2, 3))


@pytest.mark.parametrize('call, error, says', [
    (lambda: CustomKNN('cosine'), TypeError, 'CosineSimilarity'),
    (lambda: CustomKNN(distances.LpDistance(), batch_size=-1), ValueError, 'batch_size'),
])
def test_wrong_input(call, error, says):
    with pytest.raises(error, match=says):
        call()
