"""The inference model, against pytorch-metric-learning, and its faults one by one."""
import faiss
import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.utils import inference as peer
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from retrieval.inference import CustomKNN, FaissIndexer, FaissKNN, InferenceModel, MatchFinder


class Labelled(Dataset):
    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, row):
        return self.inputs[row], row % 3


class Words(nn.Module):
    """The length of a word and its first letter."""

    def forward(self, words):
        return torch.tensor([[len(word), ord(word[0]) / 10, 1.] for word in words])


@pytest.fixture
def trunk():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))


@pytest.fixture
def inputs():
    return torch.randn(150, 3, 2, 2)


def both(trunk, **options):
    return InferenceModel(trunk, **options), peer.InferenceModel(trunk, **options)


@pytest.mark.parametrize('kind', ['tensor', 'list', 'dataset'])
@pytest.mark.parametrize('normalize', [True, False])
def test_neighbours_as_the_peer(trunk, inputs, kind, normalize):
    given = {'tensor': inputs, 'list': list(inputs), 'dataset': Labelled(inputs)}[kind]
    mine, theirs = both(trunk, embedder=nn.Linear(8, 5), normalize_embeddings=normalize)
    results = []
    for model in (mine, theirs):
        model.train_knn(given, batch_size=32)
        model.add_to_knn(inputs[:10] + 1)
        results.append(model.get_nearest_neighbors(inputs[:20] + 0.1, k=7))
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)


def test_matches_as_the_peer(trunk, inputs):
    mine, theirs = both(trunk)
    for call in (dict(), dict(threshold=0.3), dict(ref=inputs[30:60], threshold=-0.2)):
        assert np.array_equal(mine.get_matches(inputs[:30], **call),
                              theirs.get_matches(inputs[:30], **call))
        assert mine.get_matches(inputs[:30], return_tuples=True, **call) == theirs.get_matches(
            inputs[:30], return_tuples=True, **call)
    for threshold in (None, 0.1):
        assert np.array_equal(mine.is_match(inputs[:9], inputs[9:18], threshold),
                              theirs.is_match(inputs[:9], inputs[9:18], threshold))
    assert mine.is_match(inputs[:1], inputs[:1]) is True
    assert mine.match_finder.threshold == 0.9
    assert type(mine.match_finder.distance) is CosineSimilarity


def test_another_match_finder(trunk, inputs):
    mine, theirs = (module.InferenceModel(trunk, match_finder=finder(LpDistance(), 1.3))
                    for module, finder in ((peer, peer.MatchFinder),
                                           (pytest.importorskip('retrieval.inference'),
                                            MatchFinder)))
    assert np.array_equal(mine.get_matches(inputs), theirs.get_matches(inputs))


@pytest.mark.parametrize('kind', ['array', 'dataloader', 'bare dataset', 'inputs alone'])
def test_further_kinds_of_inputs(trunk, inputs, kind):
    given = {'array': inputs.numpy(), 'bare dataset': TensorDataset(inputs),
             'dataloader': DataLoader(Labelled(inputs), batch_size=40),
             'inputs alone': DataLoader(list(inputs), batch_size=40)}[kind]
    model = InferenceModel(trunk)
    model.train_knn(given)
    _, rows = model.get_nearest_neighbors(inputs, 1)
    assert rows[:, 0].tolist() == list(range(150))


def test_lists_of_text():
    model = InferenceModel(Words(), normalize_embeddings=False)
    model.train_knn(['a', 'bbbb', 'cc'])
    model.add_to_knn(['zzzzzzzz'])
    assert model.get_nearest_neighbors(['bbb', 'zzzzzzz'], 1)[1].tolist() == [[1], [3]]


def test_every_submodule_keeps_its_mode(trunk, inputs):
    trunk.train()
    trunk[2].eval()
    embedder = nn.Dropout(0.5).train()
    model = InferenceModel(trunk, embedder)
    model.train_knn(inputs)
    first = model.get_embeddings(inputs)
    assert torch.equal(first, model.get_embeddings(inputs)), 'dropout was at work'
    modes = [part.training for part in trunk.modules()] + [embedder.training]
    assert modes == [True, True, True, False, True, True]
    assert not first.requires_grad
    peer.InferenceModel(trunk).get_embeddings(inputs)
    assert not trunk.training, 'the peer leaves everything in evaluation mode'


def test_the_model_is_not_moved_and_decides_the_device(trunk):
    class Elsewhere(nn.Linear):
        pass
    model = Elsewhere(3, 2, device='meta')
    assert InferenceModel(model).data_device == torch.device('meta')
    assert InferenceModel(trunk, data_device='cpu').data_device == torch.device('cpu')
    assert next(model.parameters()).device.type == 'meta'


def test_dtype_casts_the_batches():
    model = InferenceModel(nn.Linear(4, 3, dtype=torch.float64), dtype=torch.float64)
    assert model.get_embeddings(torch.ones(2, 4, dtype=torch.int64)).dtype == torch.float64


def test_large_queries_are_batched(inputs):
    sizes = []

    def trunk(batch):
        sizes.append(len(batch))
        return batch.flatten(1)

    model = InferenceModel(trunk, batch_size=16)
    model.train_knn(inputs)
    model.get_nearest_neighbors(inputs, 3)
    model.get_matches(inputs)
    model.is_match(inputs, inputs)
    assert max(sizes) == 16


def test_custom_knn_works_inside(trunk, inputs, tmp_path):
    """The peer's has neither train nor add."""
    model = InferenceModel(trunk, knn_func=CustomKNN(CosineSimilarity(), 32))
    model.train_knn(inputs[:100])
    model.add_to_knn(inputs[100:])
    similarities, rows = model.get_nearest_neighbors(inputs[:5], 4)
    embeddings = model.get_embeddings(inputs)
    expected = (embeddings[:5] @ embeddings.T).topk(4)
    assert torch.equal(rows, expected.indices)
    assert torch.allclose(similarities, expected.values, atol=1e-5)
    model.save_knn_func(tmp_path / 'knn')
    again = InferenceModel(trunk, knn_func=CustomKNN(CosineSimilarity()))
    again.load_knn_func(tmp_path / 'knn')
    assert torch.equal(again.get_nearest_neighbors(inputs[:5], 4)[1], rows)
    with pytest.raises(AttributeError):
        peer.InferenceModel(trunk, knn_func=peer.CustomKNN(CosineSimilarity())).train_knn(inputs)


def test_foreign_functions_work_inside(trunk, inputs):
    for knn in (peer.CustomKNN(LpDistance()), peer.FaissKNN(False, False),
                lambda query, k, reference, same: torch.cdist(query, reference).sort(1)):
        model = InferenceModel(trunk, knn_func=knn)
        model.train_knn(inputs)
        assert model.get_nearest_neighbors(inputs, 3)[1][:, 0].tolist() == list(range(150))


def test_ids_and_labels_are_saved_with_the_index(trunk, inputs, tmp_path):
    model = InferenceModel(trunk)
    model.train_knn(Labelled(inputs[:100]), ids=[f'image {n}' for n in range(100)])
    model.add_to_knn(inputs[100:], ids=range(100, 150), labels=torch.full((50,), 7))
    model.save_knn_func(tmp_path / 'index')
    again = InferenceModel(trunk)
    again.load_knn_func(tmp_path / 'index')
    assert again.knn_func.names.labels.tolist() == [n % 3 for n in range(100)] + [7] * 50
    found = again.identify(inputs[[4, 120]])
    assert [answer['results'][0]['id'] for answer in found] == ['image 4', '120']
    assert [answer['results'][0]['label'] for answer in found] == [1, 7]


def test_the_index_may_be_set_from_outside(trunk, inputs):
    model = InferenceModel(trunk)
    model.knn_func.index = faiss.IndexFlatL2(8)
    model.add_to_knn(inputs)
    assert model.get_nearest_neighbors([inputs[3]], k=10)[1].shape == (1, 10)


def test_k_above_the_gallery(trunk, inputs):
    model = InferenceModel(trunk)
    model.train_knn(inputs[:4])
    assert model.get_nearest_neighbors(inputs[:2], 10)[1].shape == (2, 4)


def test_the_older_names(trunk, inputs, tmp_path):
    model = InferenceModel(trunk, indexer=FaissIndexer(), batch_size=50)
    model.train_indexer(inputs[:100])
    model.add_to_indexer(inputs[100:])
    assert model.get_nearest_neighbors(inputs, 1)[0][:, 0].tolist() == list(range(150))
    model.save_index(tmp_path / 'index')
    again = InferenceModel(trunk)
    again.load_index(tmp_path / 'index')
    assert len(again.knn_func) == 150 and model.indexer.index.ntotal == 150


class OldIndexer:
    """What a user of an older release may have written."""

    index = None

    def train_index(self, vectors):
        assert isinstance(vectors, np.ndarray)
        self.index = vectors

    def search_nn(self, query_batch, k):
        distances = ((query_batch[:, None] - self.index) ** 2).sum(2)
        indices = np.argsort(distances, 1)[:, :k]
        return indices, np.take_along_axis(distances, indices, 1)


def test_an_older_indexer_of_somebody(trunk, inputs):
    model = InferenceModel(trunk, indexer=OldIndexer())
    with pytest.raises(RuntimeError, match='train'):
        model.get_nearest_neighbors(inputs[:2], 1)
    model.train_indexer(inputs, emb_dim=8)
    rows, distances = model.get_nearest_neighbors(inputs[:9], 2)
    assert rows[:, 0].tolist() == list(range(9)) and (distances[:, 0] < 1e-6).all()


def test_the_older_orders_of_arguments(trunk, inputs):
    for arguments in ((None, None, FaissIndexer(), False, 7), (None, None, None, False, 7),
                      (None, None, False, FaissIndexer(), 7)):
        model = InferenceModel(trunk, *arguments)
        assert isinstance(model.indexer, FaissIndexer) and model.batch_size == 7
        assert not model.normalize_embeddings and model.data_device.type == 'cpu'
        model.train_indexer(inputs)
        rows, distances = model.get_nearest_neighbors(inputs[:4], 2)
        assert rows[:, 0].tolist() == [0, 1, 2, 3] and distances.is_floating_point()
    assert InferenceModel(trunk, None, None, FaissIndexer()).normalize_embeddings


def test_the_indexer_shows_what_is_searched(trunk, inputs):
    model = InferenceModel(trunk)
    assert isinstance(model.indexer, FaissIndexer) and model.indexer.index is None
    model.train_knn(inputs)
    assert model.indexer.index.ntotal == 150 and model.indexer.emb_dim == 8
    rows = model.indexer.search_nn(model.get_embeddings(inputs[:3]), 1)[0]
    assert rows.flatten().tolist() == [0, 1, 2]
    assert InferenceModel(trunk, knn_func=CustomKNN(CosineSimilarity())).indexer is None


class Never(nn.Module):
    def forward(self, batch):
        raise AssertionError('the trunk must not run')


@pytest.mark.parametrize('options, error', [
    ({}, ValueError), (dict(indexer=FaissIndexer()), RuntimeError),
    (dict(indexer=OldIndexer()), RuntimeError),
    (dict(knn_func=CustomKNN(CosineSimilarity())), ValueError)])
def test_an_index_without_rows_is_found_before_the_trunk_runs(options, error, inputs):
    with pytest.raises(error, match='train'):
        InferenceModel(Never(), **options).get_nearest_neighbors(inputs[:2], 1)


def test_another_width_than_the_one_that_was_asked_for(trunk, inputs):
    with pytest.raises(ValueError, match='emb_dim is 4.*width 8'):
        InferenceModel(trunk).train_indexer(inputs, emb_dim=4)


def test_identify_knows_nobody():
    model = InferenceModel(nn.Identity(), match_finder=MatchFinder(CosineSimilarity(), 0.95))
    model.train_knn(torch.eye(4), labels=[3, 2, 1, 0])
    answers = model.identify(torch.tensor([[0, 9, 0, 0.1], [1., 1, 0, 0]]), k=3)
    assert [answer['match'] for answer in answers] == [True, False]
    assert answers[1]['results'] == []
    hit = answers[0]['results'][0]
    assert (hit['row'], hit['id'], hit['label']) == (1, '1', 2)
    assert hit['score'] == pytest.approx(9 / (81 + 0.01) ** 0.5)
    assert len(model.identify(torch.tensor([[1., 1, 0, 0]]), 4, threshold=0.5)[0]['results']) == 2
    near = InferenceModel(nn.Identity(), match_finder=MatchFinder(LpDistance(), 0.3))
    near.train_knn(torch.eye(4))
    assert [a['match'] for a in near.identify(torch.tensor([[0, 9, 0, 0.1], [1., 1, 0, 0]]))] == [
        True, False]


@pytest.mark.parametrize('call, error, says', [
    (lambda m, x: m.get_nearest_neighbors(x, 1), ValueError, 'train_knn'),
    (lambda m, x: m.train_knn(7), TypeError, 'dataset'),
    (lambda m, x: m.train_knn([]), ValueError, 'empty'),
    (lambda m, x: m.train_knn([x[0], x[0, :2]]), ValueError, 'one shape'),
    (lambda m, x: m.train_knn(x, batch_size=0), ValueError, 'batch_size'),
    (lambda m, x: m.train_knn(x, ids=['a']), ValueError, 'ids has 1 entries'),
    (lambda m, x: m.get_nearest_neighbors(x, 1.5), TypeError, 'k must'),
    (lambda m, x: m.match_probability(x, x), ValueError, 'calibration'),
    (lambda m, x: InferenceModel(m.trunk, nn.Unflatten(1, (2, 4))).get_embeddings(x), ValueError,
     'embedder'),
    (lambda m, x: InferenceModel('resnet'), TypeError, 'trunk'),
    (lambda m, x: InferenceModel(m.trunk, knn_func=3), TypeError, 'knn_func'),
    (lambda m, x: InferenceModel(m.trunk, indexer=3), TypeError, 'train_index'),
    (lambda m, x: InferenceModel(m.trunk, knn_func=FaissKNN(), indexer=FaissIndexer()), ValueError,
     'either'),
    (lambda m, x: InferenceModel(m.trunk, knn_func=peer.FaissKNN(False, False)).train_knn(
        x, ids=range(150)), TypeError, 'no ids'),
])
def test_wrong_input(trunk, inputs, call, error, says):
    with pytest.raises(error, match=says):
        call(InferenceModel(trunk), inputs)
