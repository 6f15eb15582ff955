"""A filter as text finds the same in every index."""
import numpy as np
import pytest

from retrieval.index import ExactIndex, FaissIndex
from retrieval.retrievers.prototype import fill_index

from ..gallery.test_filters import ROWS, as_gallery, cases, example


def test_exact_faiss_and_milvus_find_the_same(new_milvus):
    gallery = as_gallery(example())
    queries = np.random.default_rng(2).normal(size=(2, 8)).astype(np.float32)
    exact, faiss, milvus = ExactIndex(), FaissIndex(factory='Flat'), new_milvus()
    for index in (exact, faiss, milvus):
        fill_index(index, gallery)
    texts = ['price<20 and brand in (Fiat, "a\\"b")', 'date>=2026-01 and not new=True',
             'date<=2026-01', 'stock<2.5 or id in (p1, p2)', *(text for text, _ in cases(12))]
    found = 0
    for text in texts:
        mask = gallery.where(text)
        wanted = exact.search(queries, ROWS, filter=mask)
        assert np.sort(wanted.indices[0].numpy()).tolist() == np.flatnonzero(mask).tolist()
        for neighbors in (faiss.search(queries, ROWS, filter=mask),
                          milvus.search(queries, ROWS, filter=text)):
            assert neighbors.indices.tolist() == wanted.indices.tolist(), text
        found += int(mask.sum())
    assert found


def test_what_milvus_cannot_say_is_read_here(new_milvus):
    index = new_milvus()
    index.replace(np.eye(3), list('abc'), dict(price=['9.50', '100', '']))
    assert index.search(np.eye(3)[:1], 3, filter='price<20').ids == [['a']]
    with pytest.raises(ValueError, match="Did you mean 'price'"):
        index.search(np.eye(3)[:1], 3, filter='prise<20')


def test_an_index_without_columns_says_whose_they_are():
    index = ExactIndex()
    index.add(np.eye(2), list('ab'))
    with pytest.raises(TypeError, match='gallery.where'):
        index.search(np.eye(2), 1, filter='price<20')
