"""Files of indexes, opened by what is in them."""
import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.index import ExactIndex, FaissIndex, index_type, open_index
from retrieval.registry import INDEXES


def saved(index, path):
    index.add(torch.eye(3), list('abc'))
    index.save(path)
    return path


@pytest.mark.parametrize(('index', 'name'), [
    (ExactIndex('inner_product'), 'ExactIndex'), (FaissIndex('HNSW8', 'euclidean'), 'FaissIndex')])
def test_the_type_is_read_from_the_file(index, name, tmp_path):
    path = saved(index, tmp_path / 'x.index')
    assert index_type(path) == name
    opened = open_index(path, device=None, search_parameters=None)
    assert type(opened) is type(index) and list(opened.ids) == list('abc')
    assert opened.similarity.name == index.similarity.name


def test_options_are_given_to_the_types_that_take_them(tmp_path):
    path = saved(FaissIndex('HNSW8'), tmp_path / 'x.index')
    opened = open_index(path, search_parameters=dict(efSearch=9), token='secret')
    assert opened.search_parameters == dict(efSearch=9)


def test_what_is_no_index(tmp_path):
    Gallery(torch.eye(2), 'ab').save(tmp_path / 'g.safetensors')
    (tmp_path / 'text').write_text('text')
    for name in ('g.safetensors', 'text'):
        assert index_type(tmp_path / name) is None
        with pytest.raises(ValueError, match=f'{name}. holds no index: it seems to be'):
            open_index(tmp_path / name)
    assert index_type(tmp_path) is None
    with pytest.raises(FileNotFoundError, match='no index .*nowhere'):
        open_index(tmp_path / 'nowhere')


def test_a_type_that_is_not_registered(tmp_path, monkeypatch):
    path = saved(ExactIndex(), tmp_path / 'x.index')
    monkeypatch.setattr(INDEXES, 'get', lambda name: None)
    with pytest.raises(ValueError, match="type of index 'ExactIndex'"):
        open_index(path)
