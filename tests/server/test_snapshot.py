"""Columns to filter by, and the numbers of rows."""
import numpy as np
import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.server.snapshot import Column, _as_column, display_root, handles_of

from .conftest import ask


def listed(client, **filter):
    return [hit['id'] for hit in client.post(
        '/v1/search', json=dict(filter=filter)).json()['results']]


def test_numbers_of_the_gallery(store_service):
    client = ask(store_service)
    assert listed(client, year=dict(min=2020, max=2022)) == ['b', 'c', 'd']
    assert listed(client, year=dict(min='2023')) == ['e']
    assert listed(client, year=[2019, '2023']) == ['a', 'e']
    assert listed(client, year=[2020], label=['x']) == ['b']
    facet = next(one for one in client.get('/v1/info').json()['facets'] if one['name'] == 'year')
    assert facet['kind'] == 'number' and facet['values'][0] == dict(value='2019', count=1)
    for wrong in (dict(min='late'), dict(since=1), dict(max=[1]), {}):
        refused = client.post('/v1/search', json=dict(filter=dict(year=wrong)))
        assert refused.status_code == 422, wrong


def test_kinds_of_columns():
    kinds = [_as_column(values) for values in (
        torch.arange(3), ['1', '2', '30'], ['2024-05', '2023-01-02', ''], ['a', 'b', 'a'],
        ['007', '8', '9'], [f'row {n}' for n in range(200)])]
    assert [kind and kind.kind for kind in kinds] == ['number', 'number', 'date', 'text', 'text',
                                                      None]


def test_dates_are_cut_to_what_is_given():
    column = Column('date', np.array(['2024-05-31 10:00:00', '2024-06-01', '2023', '']))
    assert column.passing(dict(min='2024-05', max='2024-05'), 'date').tolist() == [
        True, False, False, False]
    assert column.passing(dict(max='2024'), 'date').tolist() == [True, True, True, False]
    assert column.passing(['2024'], 'date').tolist() == [True, True, False, False]
    assert column.counts() == [dict(value='2023', count=1), dict(value='2024-05', count=1),
                               dict(value='2024-06', count=1)]


def test_numbers_stay_with_their_ids():
    known = {}
    assert handles_of(Gallery(torch.eye(3), 'abc'), known).tolist() == [0, 1, 2]
    assert handles_of(Gallery(torch.eye(3), 'cxa'), known).tolist() == [2, 3, 0]


@pytest.mark.parametrize(('ids', 'root'), [
    (['/a/b/1', '/a/c/2'], '/a/'), (['/1', '/2'], '/'), (['a/1', '/b/2'], None)])
def test_paths_are_shown_from_where_they_differ(ids, root):
    assert display_root(Gallery(torch.eye(2), ids)) == root


def test_a_filter_as_text_finds_what_the_dict_does(store_service):
    client = ask(store_service)

    def said(filter):
        return [hit['id'] for hit in client.post(
            '/v1/search', json=dict(filter=filter)).json()['results']]
    assert said('year>=2020 and year<=2022') == said(dict(year=dict(min=2020, max=2022)))
    assert said('year in (2019, 2023) and label=x') == ['a']
    assert said('id=b or id=c') == ['b', 'c']
    refused = client.post('/v1/search', json=dict(filter='yeer>2020'))
    assert refused.status_code == 422 and "'year'" in refused.text
