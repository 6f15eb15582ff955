"""Every index of the package, and that of the page on own ones, against the one contract."""
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from retrieval.index import ExactIndex, FaissIndex, PartsIndex
from retrieval.registry import INDEXES

from . import contract
from .contract import WIDTH, IndexContract, names

PAGE = Path(__file__).parents[2] / 'docs' / 'extending' / 'index.md'
TRAINED: dict[str, FaissIndex] = {}


def trained(factory, similarity='cosine_similarity', **options):
    """An empty FaissIndex, trained beforehand on other vectors, once."""
    key = f'{factory} {similarity} {options}'
    if key not in TRAINED:
        TRAINED[key] = FaissIndex(factory, similarity, **options)
        TRAINED[key].train(np.random.default_rng(9).normal(size=(3000, WIDTH)) + 0.3)
    return TRAINED[key].empty_copy()


def largest_of_parts(queries, rows, cosine=contract.cosine):
    """The largest cosine of one side's first half with any half of the other."""
    one, other = np.split(np.asarray(queries), 2, axis=1), np.split(np.asarray(rows), 2, axis=1)
    return np.max([cosine(one[0], other[0]), cosine(one[0], other[1]), cosine(one[1], other[0])],
                  axis=0)


class TestExact(IndexContract):
    make = ExactIndex


class TestExactInnerProduct(IndexContract):
    similarity = 'inner_product'
    make = staticmethod(lambda: ExactIndex('inner_product'))


class TestExactEuclidean(IndexContract):
    similarity, tolerance = 'euclidean', 1e-3
    make = staticmethod(lambda: ExactIndex('euclidean'))


class TestExactInBytes(IndexContract):
    recall, tolerance = 0.9, 2e-2
    make = staticmethod(lambda: ExactIndex(dtype='int8'))


class TestParts(IndexContract):
    make = staticmethod(lambda: PartsIndex(index=dict(type='retrieval.ExactIndex')))


class TestTwoParts(TestParts):
    """Of parts the oracle is a plain loop too."""

    make = staticmethod(lambda: PartsIndex(parts=2, index=dict(type='retrieval.ExactIndex')))

    @pytest.fixture(autouse=True)
    def by_parts(self, monkeypatch):
        monkeypatch.setitem(contract.ORACLES, 'cosine_similarity', largest_of_parts)

    def test_rows_are_given_back(self):
        index = self.make()
        index.add(np.eye(6), names(6))
        assert index.reconstruct([1, 5])[:, [1, 5]].tolist() == [[1, 0], [0, 1]]


class TestFaissFlat(IndexContract):
    make = FaissIndex


class TestFaissFlatInnerProduct(IndexContract):
    similarity = 'inner_product'
    make = staticmethod(lambda: FaissIndex('Flat', 'inner_product'))


class TestFaissFlatEuclidean(IndexContract):
    similarity = 'euclidean'
    make = staticmethod(lambda: FaissIndex('Flat', 'euclidean'))


class TestFaissFlatRescored(IndexContract):
    make = staticmethod(lambda: FaissIndex(rescore=True, rescore_dtype='float32'))


class TestFaissScalarQuantizer(IndexContract):
    recall, tolerance = 0.9, 0.02
    make = staticmethod(lambda: trained('SQ8'))


class TestFaissGraph(IndexContract):
    recall = 0.99
    make = staticmethod(lambda: FaissIndex('HNSW32', search_parameters=dict(efSearch=300)))


class TestFaissGraphEuclidean(IndexContract):
    similarity, recall, tolerance = 'euclidean', 0.99, 1e-5
    make = staticmethod(lambda: FaissIndex('HNSW32', 'euclidean',
                                           search_parameters=dict(efSearch=300)))


class TestFaissLists(IndexContract):
    recall = 1.0
    make = staticmethod(lambda: trained('IVF8,Flat', search_parameters=dict(nprobe=8)))


class TestFaissListsEuclidean(IndexContract):
    similarity, recall, tolerance = 'euclidean', 1.0, 1e-4
    make = staticmethod(lambda: trained('IVF8,Flat', 'euclidean',
                                        search_parameters=dict(nprobe=8)))


class TestFaissProductQuantizerRescored(IndexContract):
    recall = 0.99
    make = staticmethod(lambda: trained(
        'IVF4,PQ3', search_parameters=dict(nprobe=4), rescore=True, rescore_factor=10,
        rescore_dtype='float32'))


class TestFaissBitsRefined(IndexContract):
    recall = 0.99
    make = staticmethod(lambda: trained(
        'IVF4,RaBitQ,RFlat', search_parameters=dict(nprobe=4, k_factor_rf=20)))


class TestFaissFastScan(IndexContract):
    similarity, recall, tolerance = 'inner_product', 0.95, 0.01
    make = staticmethod(lambda: trained(
        'IVF4,PQ6x4fs', 'inner_product', search_parameters=dict(nprobe=4), rescore=True,
        rescore_factor=20))


class TestMilvus(IndexContract):
    reloaded = 1e-6  # a server rounds as it likes

    @pytest.fixture
    def index(self, new_milvus):
        return new_milvus(similarity=self.similarity)


class TestMilvusInnerProduct(TestMilvus):
    similarity = 'inner_product'


class TestMilvusEuclidean(TestMilvus):
    similarity, tolerance = 'euclidean', 1e-3


class TestOfThePage(IndexContract):
    """The index that the page on own indexes writes."""

    @pytest.fixture(scope='class')
    def kind(self):
        INDEXES.module_dict.pop('LoopIndex', None)  # where the page has run already
        page = {'__name__': 'page'}
        exec(re.search(r'```python\n(.*?)assert', PAGE.read_text(), re.S).group(1), page)
        INDEXES.module_dict.pop('LoopIndex')
        return page['LoopIndex']

    @pytest.fixture
    def index(self, kind):
        return kind()
