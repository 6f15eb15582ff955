"""k nearest neighbours against pytorch-metric-learning, and plain loops where that is wrong."""
import faiss
import numpy as np
import pytest
import torch
from pytorch_metric_learning import distances
from pytorch_metric_learning.utils import inference as peer
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from retrieval.inference import CustomKNN, FaissIndexer, FaissKNN

from .loops import loop


@pytest.mark.parametrize('queries', [1, 7, 60])
@pytest.mark.parametrize('same', [False, True])
def test_as_the_peer(queries, same):
    reference = torch.randn(60, 12)
    query = reference[:queries] if same else torch.randn(queries, 12)
    distances, rows = FaissKNN()(query, 9, reference, same)
    expected, wanted = peer.FaissKNN()(query, 9, reference, same)
    assert torch.equal(rows, wanted)
    torch.testing.assert_close(distances, expected, rtol=1e-5, atol=1e-5)
    assert distances.dtype == torch.float32 and rows.dtype == torch.int64


@pytest.mark.parametrize('init, metric', [(faiss.IndexFlatIP, 'inner'), (faiss.IndexFlatL2, 'l2')])
def test_an_index_of_faiss(init, metric):
    reference, query = torch.randn(40, 6), torch.randn(5, 6)
    distances, rows = FaissKNN(index_init_fn=init)(query, 4, reference)
    expected, wanted = peer.FaissKNN(index_init_fn=init)(query, 4, reference)
    assert torch.equal(rows, wanted) and torch.allclose(distances, expected, atol=1e-5)
    if metric == 'inner':
        assert torch.allclose(distances, (query @ reference.T).topk(4).values, atol=1e-5)


def test_the_index_can_be_one_of_faiss_from_outside():
    reference = torch.randn(30, 5)
    knn = FaissKNN(reset_before=False, reset_after=False)
    knn.index = faiss.IndexFlatL2(5)
    knn.add(reference)
    _, rows = knn(reference, 2)
    assert rows[:, 0].tolist() == list(range(30)) and len(knn) == 30


@pytest.mark.parametrize('init', [None, faiss.IndexFlatL2])
def test_duplicates_and_ties_leave_out_the_query_itself(init):
    reference = torch.tensor([[0., 0], [1, 0], [0, 0], [1, 0], [0, 0], [5, 5]])
    distances, rows = FaissKNN(index_init_fn=init)(reference, 3, reference, True)
    expected, wanted = loop(reference, 3, reference, first=0)
    assert torch.allclose(distances.double(), expected, atol=1e-5)
    for i, row in enumerate(rows.tolist()):
        assert i not in row and len(set(row)) == 3
    if init is None:
        assert torch.equal(rows, wanted)


@pytest.mark.parametrize('init', [None, faiss.IndexFlatL2])
def test_a_reference_behind_others_is_left_out_by_its_own_row(init):
    """The peer takes out row i, although the reference begins further down."""
    first, reference = torch.randn(10, 4), torch.randn(8, 4)
    together = torch.cat([first, reference])
    knns = [kind(reset_before=False, reset_after=False, index_init_fn=init)
            for kind in (FaissKNN, peer.FaissKNN)]
    for knn in knns:
        knn.train(first)
    _, rows = knns[0](reference, 5, reference, True)
    _, wanted = loop(reference, 5, together, first=10)
    assert torch.equal(rows, wanted)
    assert not torch.equal(knns[1](reference, 5, reference, True)[1], wanted)


@pytest.mark.parametrize('init', [None, faiss.IndexFlatL2])
@pytest.mark.parametrize('same', [False, True])
def test_k_above_what_there_is(init, same):
    """The peer fills up with row -1."""
    reference = torch.randn(6, 3)
    distances, rows = FaissKNN(index_init_fn=init)(reference, 50, reference, same)
    assert rows.shape == distances.shape == (6, 6 - same)
    assert (rows >= 0).all() and torch.isfinite(distances).all()
    assert torch.equal(rows, loop(reference, 50, reference, 0 if same else None)[1])
    assert (peer.FaissKNN()(reference, 50, reference, same)[1] == -1).any()


def test_an_index_that_needs_training_is_trained():
    """The peer adds to it untrained, which faiss refuses."""
    reference = torch.randn(200, 8)
    def init(width):
        return faiss.index_factory(width, 'IVF4,Flat')

    knn = FaissKNN(reset_before=False, reset_after=False, index_init_fn=init)
    knn.train(reference)
    _, rows = knn(reference, 1)
    assert rows[:, 0].tolist() == list(range(200))
    theirs = peer.FaissKNN(reset_before=False, reset_after=False, index_init_fn=init)
    with pytest.raises(RuntimeError):
        theirs.train(reference)
    with pytest.raises(ValueError, match='IndexIVFFlat'):
        FaissKNN(index_init_fn=init)(reference[:2], 1, reference[:2])


def test_an_approximate_index_that_finds_too_few_says_so():
    reference = torch.cat([torch.zeros(3, 4), 10 + torch.randn(60, 4)])
    knn = FaissKNN(index_init_fn=lambda width: faiss.index_factory(width, 'IVF8,Flat'))
    _, rows = knn(torch.stack([reference[0], reference[10]]), 40, reference)
    assert ((rows >= 0).sum(1) < 40).any() and rows.shape[1] == (rows >= 0).sum(1).max()
    assert rows[0, 0] == 0 and rows[1, 0] == 10


def test_adding_row_by_row_is_as_adding_at_once():
    reference, query = torch.randn(2100, 3), torch.randn(4, 3)
    one = FaissKNN(reset_before=False, reset_after=False)
    for row in reference[:100]:
        one.add(row[None])
    one.add(reference[100:])
    _, rows = one(query, 5)
    assert torch.equal(rows, FaissKNN()(query, 5, reference)[1])


def test_resets():
    reference, other = torch.randn(9, 3), torch.randn(5, 3)
    knn = FaissKNN()
    knn(reference, 1, reference)
    assert knn.index is None and len(knn) == 0
    knn = FaissKNN(reset_before=False, reset_after=False)
    knn(reference, 1, reference)
    knn(other, 1, other)
    assert len(knn) == 14
    knn = FaissKNN(reset_before=True, reset_after=False)
    knn(reference, 1, reference)
    knn(other, 1, other)
    assert len(knn) == 5
    knn = FaissKNN()  # what was trained stays: there would be nothing else to search in
    knn.train(reference)
    assert knn(reference, 1)[1][:, 0].tolist() == knn(reference, 1)[1][:, 0].tolist()


def test_arrays_halves_and_gradients():
    reference = np.random.default_rng(0).normal(size=(20, 4))
    rows = FaissKNN()(reference, 1, reference)[1]
    assert rows[:, 0].tolist() == list(range(20))
    query = torch.randn(3, 4, requires_grad=True)
    distances, _ = FaissKNN()(query.half(), 1, torch.from_numpy(reference))
    assert not distances.requires_grad


def test_inside_the_peers_accuracy_calculator():
    embeddings, labels = torch.randn(80, 8), torch.randint(0, 5, (80,))
    figures = [AccuracyCalculator(include=('precision_at_1', 'mean_average_precision_at_r'),
                                  knn_func=knn).get_accuracy(embeddings, labels)
               for knn in (FaissKNN(), peer.FaissKNN())]
    assert figures[0] == pytest.approx(figures[1])


@pytest.mark.parametrize('init', [None, faiss.IndexFlatIP,
                                  lambda width: faiss.index_factory(width, 'IVF2,Flat')])
def test_a_file_holds_vectors_ids_and_labels(init, tmp_path):
    reference, query = torch.randn(100, 4), torch.randn(5, 4)
    knn = FaissKNN(False, False, init)
    knn.train(reference[:60], ids=range(100, 160), labels=torch.arange(60))
    knn.add(reference[60:], ids=map(str, range(160, 200)))
    knn.save(tmp_path / 'index')
    again = FaissKNN(False, False)
    again.load(tmp_path / 'index')
    for mine, theirs in zip(again(query, 3), knn(query, 3), strict=True):
        assert torch.equal(mine, theirs)
    theirs = faiss.read_index(str(tmp_path / 'index'))
    assert theirs.ntotal == 100 and np.array_equal(
        theirs.search(query.numpy(), 3)[1], knn(query, 3)[1].numpy())
    assert again.names.ids == [str(n) for n in range(100, 200)]
    assert again.names.labels.tolist() == [*range(60), *[-1] * 40]
    again.add(reference[:2], ids=['x', 'y'])
    assert len(again) == 102 and again.names.ids[-1] == 'y'


def test_a_file_that_faiss_wrote(tmp_path):
    reference = torch.randn(30, 4)
    theirs = peer.FaissKNN(False, False)
    theirs.train(reference)
    theirs.save(str(tmp_path / 'index'))
    knn = FaissKNN(False, False)
    knn.load(tmp_path / 'index')
    assert knn(reference, 1)[1][:, 0].tolist() == list(range(30)) and len(knn) == 30


@pytest.mark.parametrize('init', [None, faiss.IndexFlatIP])
def test_a_damaged_file_is_refused(init, tmp_path):
    knn = FaissKNN(False, False, init)
    knn.train(torch.randn(20, 4))
    knn.save(tmp_path / 'index')
    data = bytearray((tmp_path / 'index').read_bytes())
    (tmp_path / 'short').write_bytes(data[:len(data) // 2])
    for place in range(0, len(data), max(1, len(data) // 60)):
        flipped = bytearray(data)
        flipped[place] ^= 4
        (tmp_path / 'flipped').write_bytes(flipped)
        with pytest.raises(ValueError):
            FaissKNN(False, False).load(tmp_path / 'flipped')
    with pytest.raises(ValueError):
        knn.load(tmp_path / 'short')
    assert len(knn) == 20, 'a refused file must leave what was there'
    with pytest.raises(FileNotFoundError):
        knn.load(tmp_path / 'nowhere')


@pytest.mark.parametrize('call, error, says', [
    (lambda: FaissKNN(gpus=0), TypeError, 'list'),
    (lambda: FaissKNN(gpus=[]), ValueError, 'at least one'),
    (lambda: FaissKNN(index_init_fn='Flat'), TypeError, 'IndexFlatIP'),
    (lambda: FaissKNN()(torch.randn(2, 3), 1), ValueError, 'train'),
    (lambda: FaissKNN().save('x'), ValueError, 'train'),
    (lambda: FaissKNN()(torch.randn(2, 3), 0, torch.randn(2, 3)), ValueError, 'k must'),
    (lambda: FaissKNN()(torch.randn(2, 3), 1, torch.randn(2, 4)), ValueError, '3 are needed'),
    (lambda: FaissKNN()(torch.randn(3, 3), 1, torch.randn(2, 3), True), ValueError, '2 rows'),
    (lambda: FaissKNN()(torch.randn(1, 3), 1, torch.randn(1, 3), True), ValueError, 'alone'),
    (lambda: FaissKNN().train(torch.full((2, 2), torch.nan)), ValueError, 'finite'),
    (lambda: FaissKNN().train(torch.eye(2) * 1e25), ValueError, 'too long'),
    (lambda: FaissKNN().train(torch.randn(2, 2), ids=['a', 'a']), ValueError, "'a'"),
    (lambda: FaissKNN().train(torch.randn(2, 2), ids=['a']), ValueError, 'ids has 1 entries'),
    (lambda: FaissKNN().train(torch.randn(2, 2), labels=[0.5, 1]), ValueError, 'integers'),
])
def test_wrong_input(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize('init', [None, faiss.IndexFlatL2])
@pytest.mark.parametrize('vectors, ids', [
    (torch.full((2, 4), torch.nan), None), (1e25 * torch.randn(3000, 4), None),
    (torch.randn(2, 4), ['a', 'a']), (torch.randn(2, 4), ['0', 'x']), (torch.randn(2, 5), None)])
def test_what_is_refused_changes_nothing(init, vectors, ids):
    if init is not None and len(vectors) == 3000:
        pytest.skip('faiss adds vectors of any length')
    reference = torch.randn(30, 4)
    knn = FaissKNN(False, False, init)
    knn.train(reference, ids=range(30))
    with pytest.raises(ValueError):
        knn.add(vectors, ids)
    assert len(knn) == knn.names.count == 30
    knn.add(reference[:1] + 1, ids=['new'])
    assert knn(reference[:1] + 1, 1)[1].tolist() == [[30]] and knn.names.ids[30] == 'new'


DISTANCES = [distances.CosineSimilarity(), distances.DotProductSimilarity(),
             distances.LpDistance(p=2, power=2), distances.LpDistance(p=1, power=1),
             distances.LpDistance(normalize_embeddings=False), distances.SNRDistance()]


@pytest.mark.parametrize('batch_size', [None, 1, 7])
@pytest.mark.parametrize('same', [False, True])
@pytest.mark.parametrize('distance', DISTANCES, ids=lambda d: f'{type(d).__name__}-{d.p}-{d.power}')
def test_custom_as_the_peer(distance, same, batch_size):
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
def test_custom_k_above_what_there_is(same):
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
def test_custom_wrong_input(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
def test_the_older_indexer_gives_indices_first(kind, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    indexer = FaissIndexer()
    assert indexer.index is None and indexer.emb_dim is None
    indexer.train_index(kind(vectors[:20]))
    indexer.add_to_index(kind(vectors[20:]))
    indices, distances = indexer.search_nn(kind(vectors), 3)
    flat = faiss.IndexFlatL2(4)
    flat.add(vectors)
    expected, wanted = flat.search(vectors, 3)
    assert type(indices) is type(kind(vectors)) and np.array_equal(np.asarray(indices), wanted)
    assert np.allclose(np.asarray(distances), expected, atol=1e-5)
    indexer.save(tmp_path / 'index')
    again = FaissIndexer(emb_dim=4)
    again.load(tmp_path / 'index')
    assert again.index.ntotal == 30 and again.emb_dim == 4


def test_an_older_indexer_without_an_index():
    with pytest.raises(RuntimeError, match='train_index'):
        FaissIndexer().search_nn(np.zeros((1, 3), np.float32), 1)


def test_the_older_indexer_goes_on_with_an_index():
    indexer = FaissIndexer(faiss.IndexFlatIP(2))
    indexer.add_to_index(torch.tensor([[1., 0], [3, 0]]))
    assert indexer.search_nn(torch.tensor([[1., 0]]), 2)[0].tolist() == [[1, 0]]


def test_a_copy_comes_first_at_distance_zero_and_whole_numbers_are_exact():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (300, 512), generator=generator).float()
    rows[150:] = rows[:150]
    rows[:9, 0] += .05  # a little off, before the copies
    queries = rows[150:159]
    knn = FaissKNN()
    distances, found = knn(queries, 5, rows)
    assert found[:, 0].tolist() == list(range(150, 159)) and not distances[:, 0].any()
    squares = (queries.double()[:, None] - rows.double()).square().sum(2).float()
    order = torch.sort(squares, dim=1, stable=True).indices[:, :5]
    assert torch.equal(found, order) and torch.equal(distances, squares.gather(1, order))
