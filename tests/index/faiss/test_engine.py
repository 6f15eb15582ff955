"""One faiss index under slots: against plain loops over the vectors."""
from __future__ import annotations

import types

import faiss
import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, FaissIndex
from retrieval.index.faiss.engine import checked_device, read_engine, trained_engine

from ..toys import WIDTH, blobs, exact_ids, ids, recall

VECTORS = torch.from_numpy(blobs(300))


def engine(factory, similarity='euclidean', rows=VECTORS):
    made = trained_engine(factory, similarity, VECTORS, None, 0, False)
    if len(rows):
        made.add(rows, 0)
    return made


def nearest(queries, rows, k):
    """By squared distance."""
    return np.argsort(((queries[:, None] - rows) ** 2).sum(2), axis=1, kind='stable')[:, :k]


@pytest.mark.parametrize(('factory', 'lists', 'given', 'shifts', 'exact'), [
    ('Flat', False, False, True, True), ('SQ8', False, False, True, False),
    ('IVF4,Flat', True, True, False, False), ('IVF4,Flat,RFlat', True, False, False, False),
    ('HNSW8', False, False, False, False)])
def test_what_kind_it_is(factory, lists, given, shifts, exact):
    made = engine(factory)
    assert (made.lists, made.given, made.shifts, made.exact) == (lists, given, shifts, exact)
    assert made.trained and len(made) == 300 and made.l2


@pytest.mark.parametrize('factory', ['Flat', 'IVF4,Flat', 'HNSW8'])
def test_more_effort_looks_at_everything(factory):
    made = engine(factory)
    queries = blobs(5, 3)
    effort = 0
    while not made.exhausted(effort):
        effort += 1
    keys, slots = made.candidates(queries, 7, None, max(effort, 1))
    wanted = nearest(queries, VECTORS.numpy(), 7)
    np.testing.assert_array_equal(slots, wanted)
    squares = ((queries[:, None] - VECTORS.numpy()[wanted]) ** 2).sum(2)
    np.testing.assert_allclose(keys, -squares, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('factory', ['Flat', 'IVF4,Flat', 'HNSW8'])
def test_a_selection_is_kept(factory):
    made = engine(factory)
    flags = np.arange(300) % 3 == 1
    chosen = faiss.IDSelectorBitmap(np.packbits(flags, bitorder='little'))
    _, slots = made.candidates(blobs(5, 3), 9, chosen, 0)
    found = slots[slots >= 0]
    assert len(found) and (found % 3 == 1).all()


def test_slots_move_up_or_stay():
    moved, stays, cannot = engine('Flat'), engine('IVF4,Flat'), engine('HNSW8')
    gone = np.array([0, 1, 5])
    assert moved.remove(gone) and len(moved) == 297
    np.testing.assert_array_equal(moved.reconstruct(np.array([0, 2, 3])),
                                  VECTORS.numpy()[[2, 4, 6]])
    assert stays.remove(gone) and len(stays) == 297
    np.testing.assert_array_equal(stays.reconstruct(np.array([2, 299])),
                                  VECTORS.numpy()[[2, 299]])
    assert not cannot.remove(gone) and len(cannot) == 300
    moved.reset()
    assert len(moved) == 0 and moved.trained


def test_a_neighbour_graph_is_built_anew():
    made = engine('NSG8', rows=VECTORS[:150])
    made.add(VECTORS[150:], 150)
    assert len(made) == 300
    np.testing.assert_array_equal(made.reconstruct(np.arange(300)), VECTORS.numpy())
    with pytest.raises(ValueError, match='at least 101 rows; there would be 50'):
        engine('NSG8', rows=VECTORS[:50])


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
def test_keys_stand_for_similarities(similarity):
    made = engine('Flat', similarity)
    queries, slots = blobs(4, 3), np.array([[3, 9, -1]] * 4)
    keys = made.exact_keys(queries, slots)
    rows = VECTORS.numpy()[[3, 9]].astype(np.float64)
    if similarity == 'euclidean':
        wanted = -((queries[:, None] - rows) ** 2).sum(2)
        assert (keys[:, 2] == -np.inf).all()
        np.testing.assert_allclose(made.similarities(keys, queries)[:, :2], -np.sqrt(-wanted),
                                   rtol=1e-5)
    else:
        wanted = queries @ rows.T
    np.testing.assert_allclose(keys[:, :2], wanted, rtol=1e-4, atol=1e-4)
    if similarity == 'cosine_similarity':
        assert made.similarities(np.array([[1.1]]), queries[:1]).tolist() == [[1]]


def test_a_zero_query_by_distance_is_like_nothing():
    made = engine('IVF4,Flat', 'cosine_similarity')
    assert made.l2
    queries = np.stack([np.zeros(WIDTH), np.eye(WIDTH)[0]]).astype(np.float32)
    found = made.similarities(np.array([[-1.0], [-0.5]], np.float32), queries)
    np.testing.assert_allclose(found, [[0], [0.75]], atol=1e-6)  # 1 - d² / 2


def test_what_gives_no_vectors_back():
    with pytest.raises(ValueError, match='cannot give the vectors.*rescore=True'):
        engine('IVF4,PQ4x4fs').reconstruct(np.arange(3))
    assert engine('Flat').reconstruct(np.arange(0)).shape == (0, WIDTH)


@pytest.mark.parametrize('factory', ['Flat', 'IVF4,PQ4x4', 'PCA8,IVF4,Flat'])
def test_copies_and_bytes(factory):
    made = engine(factory)
    data = made.bytes()
    assert made.size() == len(data)
    for other in (made.copy(), read_engine(torch.from_numpy(data.copy()), 'euclidean')):
        np.testing.assert_array_equal(other.candidates(blobs(3, 5), 4, None, 0)[1],
                                      made.candidates(blobs(3, 5), 4, None, 0)[1])
    empty = made.emptied()
    assert empty.ntotal == 0 and empty.is_trained and len(made) == 300
    assert made.candidates(blobs(1), 1, None, 0)[1][0, 0] >= 0  # its lists are back


def test_bytes_that_this_release_cannot_read():
    with pytest.raises(ValueError, match=f'this faiss .{faiss.__version__}. cannot read it'):
        read_engine(torch.zeros(40, dtype=torch.uint8), 'euclidean')


def test_equal_training_is_equal():
    codecs = [trained_engine('IVF8,PQ4x4', 'euclidean', VECTORS, size, seed, False).codec()
              for size, seed in ((100, 0), (100, 0), (100, 1), (200, 0))]
    assert codecs[0] == codecs[1] and len(set(codecs)) == 3


@pytest.mark.parametrize(('device', 'wanted'), [(None, None), ('cpu', None), ('cpu:0', None)])
def test_devices_of_a_processor(device, wanted):
    assert checked_device(device) is wanted


@pytest.mark.parametrize('device', ['tpu', 'cuda:x', 'gpu'])
def test_devices_that_faiss_does_not_know(device):
    with pytest.raises(ValueError, match=f"'cuda:1', got '{device}'"):
        checked_device(device)


def test_training_says_how_many_rows_it_needs():
    for factory, need in (('IVF100,Flat', 100), ('PQ8', 256), ('OPQ8,IVF16,PQ8x4', 256),
                          ('IVF300,PQ4', 300), ('IVF8,RQ2x6', 64), ('PCA12,Flat', 12)):
        vectors = blobs(need)
        index = FaissIndex(factory)
        with pytest.raises(ValueError, match=f'at least {need} rows .* got {need - 1}'):
            index.add(vectors[1:], range(need - 1))
        assert len(index) == 0 and not index.trained and index.width is None
        if 'OPQ' not in factory:
            index.add(vectors, range(need))
            assert len(index) == need and index.trained
    index = FaissIndex('IVF50,Flat', train_size=20)
    with pytest.raises(ValueError, match='at least 50 rows to train on, got 20'):
        index.train(blobs(400))


def test_opq_and_a_sample_by_seed():
    vectors, queries = blobs(1500), blobs(20, 3)
    rotated = FaissIndex('OPQ4_8,IVF8,PQ4x4', train_size=300, rescore=True, rescore_factor=20,
                         search_parameters=dict(nprobe=8))
    rotated.add(vectors, range(1500))
    exact = exact_ids(dict(zip(map(str, range(1500)), vectors, strict=True)), queries, 10)
    assert recall(rotated.search(queries, 10).ids, exact) > 0.95
    with pytest.raises(ValueError, match='holds 1500 rows'):
        rotated.train(vectors)
    codecs = []
    for seed in (0, 0, 1):
        index = FaissIndex('IVF8,PQ4x4', seed=seed, train_size=300)
        index.train(vectors)
        codecs.append(index.store.codec)
    assert codecs[0] == codecs[1] != codecs[2]


def test_polysemous_codes_are_trained_for_where_they_are_asked_for():
    index = FaissIndex('PQ2x4')
    with pytest.raises(ValueError, match='when the index is made'):
        index.search_parameters = dict(ht=20)
    vectors = blobs(400)
    asked = FaissIndex('PQ2x4', search_parameters=dict(ht=8))
    asked.add(vectors, ids(400))
    assert asked.store.engine.core.do_polysemous_training
    assert asked.search(vectors[:2], 5).lengths.tolist() == [5, 5]


def test_a_gpu_needs_faiss_gpu():
    with pytest.raises(ValueError, match='faiss-gpu.*built without'):
        FaissIndex(device='cuda')


def test_a_gpu_answers_plain_searches(monkeypatch):
    """With a stand-in for the GPU: what is sent there, when it is copied anew, and what is not."""
    copies = []

    def to_gpu(resources, number, index):
        copy = faiss.clone_index(index)
        asked = types.SimpleNamespace(number=number, fetched=[])

        def search(queries, k):
            asked.fetched.append(k)
            return copy.search(queries, k)
        asked.search = search
        copies.append(asked)
        return asked

    monkeypatch.setattr(faiss, 'StandardGpuResources', lambda: None, raising=False)
    monkeypatch.setattr(faiss, 'get_num_gpus', lambda: 2, raising=False)
    monkeypatch.setattr(faiss, 'index_cpu_to_gpu', to_gpu, raising=False)
    with pytest.raises(ValueError, match='sees 2 GPUs'):
        FaissIndex(device='cuda:2')
    vectors = blobs(3000)
    index, plain = FaissIndex('IVF8,Flat', device='cuda:1'), FaissIndex('IVF8,Flat')
    for one in (index, plain):
        one.add(vectors, ids(3000))
    assert index.search(vectors[:5], 7).ids == plain.search(vectors[:5], 7).ids
    assert copies[0].number == 1 and copies[0].fetched == [7]
    mask = np.arange(3000) < 1000
    assert index.search(vectors[:5], 7, filter=mask).ids == plain.search(
        vectors[:5], 7, filter=mask).ids
    assert index.search(vectors[:5], 2500).ids == plain.search(vectors[:5], 2500).ids
    assert copies[0].fetched == [7], 'a selection, or more than 2048 results, went to the GPU'
    index.remove(['#0'])
    assert '#0' not in index.search(vectors[:1], 7).ids[0]
    assert len(copies) == 2


def test_beside_what_replaces_the_search_of_faiss():
    import faiss.contrib.torch_utils  # noqa: F401  (as pytorch-metric-learning does)
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    index = FaissIndex('IVF4,Flat', search_parameters=dict(nprobe=4))
    index.add(vectors, range(400))
    found = index.search(vectors[:5], 3, exclude=[str(row) for row in range(5)])
    exact = ExactIndex()
    exact.add(vectors, range(400))
    assert found.ids == exact.search(vectors[:5], 3, [str(row) for row in range(5)]).ids
