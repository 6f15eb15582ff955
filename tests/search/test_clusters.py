"""Clusters of a gallery: blobs that everybody sees, and a graph worked out by hand."""
import pytest
import torch
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

from retrieval.gallery import Gallery
from retrieval.search import cluster


@pytest.fixture
def blobs():
    """Three directions with 30, 20 and 10 rows of many lengths, mixed up."""
    labels = torch.tensor([0] * 30 + [1] * 20 + [2] * 10)[torch.randperm(60)]
    return (torch.eye(6)[labels] + 0.1 * torch.randn(60, 6)) * torch.rand(60, 1).add(0.5), labels


@pytest.mark.parametrize('method, options', [
    ('kmeans', dict(k=3)), ('connected', dict(threshold=0.8)), ('hdbscan', dict(min_size=5))])
def test_blobs_are_found(blobs, method, options):
    vectors, labels = blobs
    found = cluster(Gallery(vectors, ids=[f'i{n}' for n in range(60)]), method, **options)
    inside = found.labels >= 0
    assert inside.float().mean() > 0.9
    assert torch.equal(found.labels[inside], labels[inside]), 'the largest cluster is number 0'
    assert len(found) == 3 and found.sizes == [found.labels.eq(n).sum() for n in range(3)]
    assert found.members(2) == found.labels.eq(2).nonzero()[:, 0].tolist()
    assert found.ids[3] == 'i3' and found.method == method


def test_hdbscan_is_scikit_learns():
    vectors = torch.nn.functional.normalize(torch.randn(80, 3), dim=1)
    found = cluster(vectors, 'hdbscan', min_size=3, min_samples=2)
    theirs = HDBSCAN(min_cluster_size=3, min_samples=2, copy=True).fit_predict(vectors.numpy())
    assert adjusted_rand_score(theirs, found.labels.numpy()) == 1
    assert ((theirs < 0) == (found.labels.numpy() < 0)).all()


def test_a_chain_is_one_component():
    """Rows on a circle, ten degrees apart, with a gap of thirty in the middle."""
    angles = torch.deg2rad(torch.tensor([0., 10, 20, 50, 60]))
    vectors = torch.stack([angles.cos(), angles.sin()], 1)
    bar = float(torch.tensor(11.).deg2rad().cos())
    assert cluster(vectors, 'connected', threshold=bar, min_size=1).labels.tolist() == [
        0, 0, 0, 1, 1]
    assert cluster(vectors, 'connected', threshold=bar, min_size=3).labels.tolist() == [
        0, 0, 0, -1, -1]


def test_lengths_count_on_request():
    vectors = torch.tensor([[1., 0], [1.1, 0], [9, 0], [9.1, 0]])
    assert cluster(vectors, k=2, normalize=False).labels.tolist() == [0, 0, 1, 1]


def test_a_number_of_clusters_of_its_own():
    assert len(cluster(torch.randn(50, 4))) == 5


@pytest.mark.parametrize('call, error, says', [
    (lambda x: cluster(x, 'dbscan'), ValueError, 'hdbscan'),
    (lambda x: cluster(x, k=9), ValueError, 'at most'),
    (lambda x: cluster(x, k=2, epsilon=3), TypeError, 'epsilon'),
    (lambda x: cluster(x, 'hdbscan', min_size=1), ValueError, 'at least 2'),
    (lambda x: cluster(x, 'connected', min_size=0), ValueError, 'min_size'),
])
def test_wrong_input(call, error, says):
    with pytest.raises(error, match=says):
        call(torch.randn(5, 2))
