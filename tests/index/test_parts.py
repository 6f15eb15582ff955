"""What an index of parts does beyond the contract, which tests/index/test_contract.py holds."""
import numpy as np
import pytest
import torch

from retrieval.index import FaissIndex, PartsIndex, open_index
from retrieval.registry import INDEXES
from retrieval.retrievers import ImageToImageRetriever

PARTS, WIDTH = 5, 8


def loop(queries, rows):
    """The scores ``(Q, N)`` by a plain loop."""
    def split(vectors):
        parts = np.asarray(vectors, np.float64).reshape(len(vectors), PARTS, WIDTH)
        return parts / np.linalg.norm(parts, axis=2, keepdims=True)
    scores = np.zeros((len(queries), len(rows)))
    for q, query in enumerate(split(queries)):
        for r, row in enumerate(split(rows)):
            scores[q, r] = max((query[0] @ row.T).max(), (query @ row[0]).max())
    return scores


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(60, PARTS * WIDTH)).astype('float32')


@pytest.mark.parametrize('beneath', [
    dict(type='retrieval.ExactIndex'), dict(type='retrieval.FaissIndex', factory='Flat'), None])
def test_the_largest_similarity_of_any_part(vectors, beneath):
    index = INDEXES.build(dict(type='retrieval.PartsIndex', parts=PARTS, index=beneath))
    index.add(vectors[:50], range(50))
    wanted = loop(vectors[50:], vectors[:50])
    found = index.search(vectors[50:], 7)
    close = 1e-6 if beneath else 2e-2  # int8 by default
    np.testing.assert_allclose(found.scores, -np.sort(-wanted, axis=1)[:, :7], atol=close)
    if beneath:
        assert found.indices.tolist() == np.argsort(-wanted, axis=1)[:, :7].tolist()
    else:
        assert index.nbytes == 50 * PARTS * (WIDTH + 4)


def test_a_picture_whose_parts_are_all_near_takes_one_place(vectors):
    index = PartsIndex(parts=PARTS, index=dict(type='retrieval.ExactIndex'))
    query = np.tile(vectors[0, :WIDTH], PARTS)
    crowd = np.tile(query, (30, 1)) + 0.01 * vectors[:30]  # 150 parts before any other
    index.add(np.concatenate([crowd, vectors[30:]]), range(60))
    found = index.search(query[None], 40)
    assert sorted(found.indices[0, :30].tolist()) == list(range(30))
    assert found.indices.shape == (1, 40) and len(set(found.indices[0].tolist())) == 40
    few = index.search(query[None], 3, exclude=[list(map(str, range(29)))],
                       filter=np.arange(60) < 31)
    assert sorted(few.ids[0]) == ['29', '30']


def test_a_file_keeps_what_lies_beneath(vectors, tmp_path):
    index = PartsIndex(parts=PARTS, index=dict(type='retrieval.FaissIndex', factory='SQ8'))
    index.add(vectors[:40], range(40))
    index.remove([3, 30])
    index.add(vectors[40:], range(40, 60))
    index.save(tmp_path / 'parts.index')
    loaded = open_index(tmp_path / 'parts.index')
    assert isinstance(loaded, PartsIndex) and isinstance(loaded._whole, FaissIndex)
    before, after = index.search(vectors, 5), loaded.search(vectors, 5)
    assert torch.equal(before.scores, after.scores) and before.ids == after.ids
    loaded.add(vectors[3:4], ['3'])
    assert loaded.search(vectors[3:4], 1).ids == [['3']]


@pytest.mark.parametrize(('options', 'says'), [
    (dict(similarity='euclidean'), 'cosine_similarity'), (dict(parts=0), 'parts'),
    (dict(index=dict(type='retrieval.PartsIndex')), 'another index'),
    (dict(index=dict(type='torch.nn.Identity')), 'another index'),
    (dict(index=dict(type='retrieval.ExactIndx')), "Did you mean"), (dict(index={}), 'Unknown'),
    (dict(index=dict(type='retrieval.ExactIndex', dtype='int4')), 'int8')])
def test_what_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        PartsIndex(**options)


def test_a_width_that_is_no_multiple_is_refused_and_changes_nothing(vectors):
    index = PartsIndex(parts=7)
    with pytest.raises(ValueError, match='40 are not 7 parts'):
        index.add(vectors, range(60))
    assert len(index) == 0 and index.width is None


def test_a_retriever_tells_the_index_how_many_parts_its_encoder_makes():
    encoder = dict(type='retrieval.ImageEncoder', backbone=torch.nn.Conv2d(3, 4, 2, 2),
                   in_features=4, pooling=dict(type='retrieval.PartsPooling', levels=(2,)))
    model = ImageToImageRetriever(encoder, torch.randn(6, 20), topk=2,
                                  index=dict(type='retrieval.PartsIndex')).eval()
    assert model.predict(torch.rand(1, 3, 16, 16))[0].pred_label.shape == (2,)
    assert model.holder.index.parts == 5
