import json

import numpy as np
import pytest

from retrieval.commands.build_index import main as build_index
from retrieval.commands.search import main
from retrieval.gallery import Gallery


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    Gallery(vectors, [f'p{row}' for row in range(20)], metadata=dict(price=np.arange(20))).save(
        'shop.safetensors')
    np.save('query.npy', vectors[:2] + 1e-3)
    return vectors


def results():
    with open('work_dirs/search/results.json') as file:
        return json.load(file)


def test_vectors_are_searched_without_a_model(folder):
    main(['shop.safetensors', 'query.npy', '--topk', '3'])
    found = results()
    assert [one['results'][0]['id'] for one in found] == ['p0', 'p1']
    assert found[0]['query'] == 'query.npy:0' and len(found[0]['results']) == 3


def test_with_a_filter(folder):
    main(['shop.safetensors', 'query.npy', '--filter', 'price>=5 and price<7'])
    assert {hit['id'] for one in results() for hit in one['results']} == {'p5', 'p6'}


def test_queries_that_are_in_the_gallery_do_not_find_themselves(folder):
    main(['shop.safetensors', 'shop.safetensors', '--topk', '1'])
    assert all(one['results'][0]['id'] != one['query'] for one in results())


def test_an_index_file(folder):
    build_index(['shop.safetensors', 'shop.index', '--index', 'ExactIndex'])
    main(['shop.index', 'query.npy', '--topk', '2'])
    assert [one['results'][0]['id'] for one in results()] == ['p0', 'p1']


@pytest.mark.parametrize('arguments, message', [
    (['shop.safetensors', 'query.npy', 'photo.png'], 'not both'),
    (['shop.safetensors', 'none.npy'], 'none.npy'),
    (['shop.safetensors', 'query.npy', '--filter', 'prise<3'], 'price')])
def test_mistakes(folder, capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
