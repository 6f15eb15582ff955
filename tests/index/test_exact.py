from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retrieval.index import ExactIndex, FaissIndex, MilvusIndex
from retrieval.registry import INDEXES
from retrieval.string_column import StringColumn
from retrieval.structures import Neighbors


def test_built_by_name():
    index = INDEXES.build({'type': 'retrieval.ExactIndex', 'similarity': 'euclidean'})
    assert isinstance(index, ExactIndex) and index.similarity.name == 'euclidean'
    assert index.capabilities.exact and not index.capabilities.training


def test_numbers_become_string_ids():
    index = ExactIndex()
    index.add(torch.eye(3), torch.arange(3))
    assert list(index.ids) == ['0', '1', '2'] and 1 in index
    assert index.search(torch.eye(3), 1).ids == [['0'], ['1'], ['2']]
    index.remove([1])
    assert list(index.ids) == ['0', '2']


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', torch.float16])
def test_half_the_memory(dtype, tmp_path):
    vectors = torch.randn(300, 16)
    index = ExactIndex('inner_product', dtype=dtype)
    index.add(vectors, range(300))
    found = index.search(vectors[:5], 4)
    kept = vectors.to(getattr(torch, str(dtype).removeprefix('torch.'))).float()
    assert found.indices.tolist() == (vectors[:5] @ kept.T).topk(4).indices.tolist()
    index.save(tmp_path / 'half')
    again = ExactIndex.load(tmp_path / 'half')
    assert again.dtype == index.dtype
    assert torch.equal(again.search(vectors[:5], 4).scores, found.scores)


def test_a_quarter_of_the_memory(tmp_path):
    vectors = torch.randn(300, 16)
    index = ExactIndex(dtype='int8')
    index.add(vectors[:200], range(200))
    index.add(vectors[200:], range(200, 300))
    index.remove([7])
    unit = torch.nn.functional.normalize(vectors)
    step = unit.abs().amax(1, keepdim=True) / 127  # a row's largest number has the code 127
    kept = (unit / step).round() * step
    kept = torch.cat([kept[:7], kept[8:]])
    found = index.search(vectors[:5], 4)
    wanted = (unit[:5] @ kept.T).topk(4)
    assert found.indices.tolist() == wanted.indices.tolist()
    torch.testing.assert_close(found.scores, wanted.values.clamp(max=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(index.reconstruct([3, 250]), kept[[3, 250]])
    assert index.nbytes == 299 * (16 + 4)
    index.save(tmp_path / 'coded')
    again = ExactIndex.load(tmp_path / 'coded')
    assert torch.equal(again.search(vectors[:5], 4).scores, found.scores)
    again.add(vectors[7:8], [7])
    assert again.search(vectors[7:8], 1).ids == [['7']]


def test_the_prepared_gallery_is_kept_between_searches():
    index = ExactIndex()
    index.add(torch.eye(3), list('abc'))
    index.search(torch.eye(3), 1)
    prepared = index._prepared
    index.search(torch.eye(3), 1)
    assert index._prepared is prepared
    assert prepared.vectors.data_ptr() == index._rows.data_ptr(), 'the rows are held twice'


def test_adding_one_by_one_moves_each_row_a_few_times():
    index, moved, last = ExactIndex(), 0, None
    for row in range(5000):
        index.add(torch.ones(1, 2), [row])
        if index._rows.data_ptr() != last:
            moved, last = moved + 1, index._rows.data_ptr()
    assert len(index) == 5000 and moved < 12


def test_earlier_results_keep_their_ids():
    index = ExactIndex()
    index.add(torch.eye(3), list('abc'))
    found = index.search(torch.eye(3), 1)
    index.remove(['a'])
    index.add(torch.eye(3)[:1], ['d'])
    assert isinstance(found, Neighbors) and found.ids == [['a'], ['b'], ['c']]


def test_a_callable_similarity(tmp_path):
    def negative_manhattan(queries, gallery):
        return -torch.cdist(queries, gallery, p=1)

    vectors = torch.randn(40, 3)
    index = ExactIndex(negative_manhattan)
    index.add(vectors, range(40))
    expected = (-(vectors[:4, None] - vectors).abs().sum(2)).topk(5).indices
    assert index.search(vectors[:4], 5).indices.tolist() == expected.tolist()
    index.save(tmp_path / 'index')
    with pytest.raises(ValueError, match='similarity='):
        ExactIndex.load(tmp_path / 'index')
    again = ExactIndex.load(tmp_path / 'index', similarity=negative_manhattan)
    assert again.search(vectors[:4], 5).indices.tolist() == expected.tolist()


def test_zero_vectors_have_cosine_zero():
    index = ExactIndex()
    index.add(np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]), list('abc'))
    found = index.search(np.array([[2.0, 0.0]]), 3)
    assert found.ids == [['a', 'b', 'c']] and found.scores.tolist() == [[1.0, 0.0, -1.0]]


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    index = ExactIndex()
    index.add(torch.eye(2), list('ab'))
    index.save(tmp_path / 'index')
    before = (tmp_path / 'index').read_bytes()

    def fail(*arguments, **options):
        raise OSError('No space left on device')

    monkeypatch.setattr('retrieval.tensor_file.write_all', fail)
    with pytest.raises(OSError, match='No space'):
        index.save(tmp_path / 'index')
    assert [path.name for path in tmp_path.iterdir()] == ['index']
    assert (tmp_path / 'index').read_bytes() == before


@pytest.mark.parametrize('kind', [ExactIndex, FaissIndex, MilvusIndex])
def test_a_file_of_version_1_is_to_be_built_again(kind, tmp_path):
    """Such files had one checksum in the header, and ids under other names."""
    ids = StringColumn.from_strings('ab')
    save_file({'rows': torch.eye(2), 'ids': ids.data, 'id_offsets': ids.offsets},
              tmp_path / 'old', {'format': f'retrieval.{kind.__name__}', 'version': '1',
                                 'similarity': 'euclidean', 'checksum': '0' * 32})
    with pytest.raises(ValueError, match=f'version 1 .*{kind.__name__}.* reads version 2.*again'):
        kind.load(tmp_path / 'old')


@pytest.mark.parametrize(('options', 'says'), [
    ({'similarity': 'cosin'}, 'cosine_similarity'), ({'dtype': 'int4'}, 'float16'),
    ({'dtype': 'int8', 'similarity': 'euclidean'}, 'inner_product'),
    ({'dtype': 'int8', 'precision': 'half'}, 'precision')])
def test_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        ExactIndex(**options)


def test_many_rows_stay_after_a_removal():
    vectors = torch.randn(2500, 3, generator=torch.Generator().manual_seed(0))
    index = ExactIndex('inner_product')
    index.add(vectors, range(2500))
    index.remove(range(0, 2500, 5))
    stay = [row for row in range(2500) if row % 5]
    assert list(index.ids) == [str(row) for row in stay]
    torch.testing.assert_close(index.reconstruct(range(2000)), vectors[stay])
