"""Rows and duplicates as files; over HTTP they are in test_app.py."""
import csv
import io
import json
import zipfile

import pytest
import torch
from PIL import Image

from retrieval.gallery import Gallery
from retrieval.server import export
from retrieval.server.background import Progress
from retrieval.server.export import duplicate_groups, exported, plan_file, proved_groups
from retrieval.server.service import Query, Source, UnknownRowError


def handle_of(service, name):
    return service.search([Query(id=name)])['queries'][0]['row']


def lines(data):
    return list(csv.reader(io.StringIO(data.decode())))


def test_rows_as_a_table_and_as_json(store_service):
    handles = [handle_of(store_service, name) for name in 'db']
    data, kind, name = exported(store_service, handles, 'csv')
    assert (kind, name) == ('text/csv', 'export.csv')
    assert lines(data) == [['row', 'id', 'label', 'folder', 'width', 'height', 'date', 'year'],
                           [str(handles[0]), 'd', 'y', '', '', '', '', '2022'],
                           [str(handles[1]), 'b', 'x', '', '', '', '', '2020']]
    data, kind, name = exported(store_service, handles, 'json')
    assert (kind, name) == ('application/json', 'export.json')
    assert [one['id'] for one in json.loads(data)] == ['d', 'b']
    with pytest.raises(UnknownRowError):
        exported(store_service, [4711], 'csv')


def test_texts_are_no_formulas(services, tmp_path):
    names = ['=1+1', '-1', '@x', 'plain', 'a=1']
    service = services(Source('g', tmp_path / 'state'), Gallery(torch.rand(5, 12), names))
    data = exported(service, [handle_of(service, name) for name in names], 'csv')[0]
    assert [line[1] for line in lines(data)[1:]] == ["'=1+1", "'-1", "'@x", 'plain', 'a=1']


def test_pictures_in_an_archive(folder_service, folder, monkeypatch):
    handles = [handle_of(folder_service, f'{name}/1.png') for name in ('red', 'blue', 'green')]
    data, kind, name = exported(folder_service, handles, 'zip')
    assert (kind, name) == ('application/zip', 'export.zip')
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ['export.csv', '1.png', '1-2.png', '1-3.png']
        assert archive.read('1-2.png') == (folder / 'blue' / '1.png').read_bytes()
        assert len(lines(archive.read('export.csv'))) == 4
    monkeypatch.setattr(export, '_MOST_BYTES', 100)
    with pytest.raises(ValueError, match='export fewer'):
        exported(folder_service, handles, 'zip')


def test_rows_without_a_picture_leave_only_their_line(store_service):
    data = exported(store_service, [handle_of(store_service, 'a')], 'zip')[0]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ['export.csv']


def test_the_best_of_a_group_has_the_most_pixels(folder_service, folder):
    with Image.open(folder / 'red' / '3.png') as picture:
        picture.resize((120, 80), Image.Resampling.NEAREST).save(folder / 'red' / 'larger.png')
    folder_service.refresh()
    progress = Progress()
    groups = duplicate_groups(folder_service, 0.9999, progress)
    group, = [one for one in groups if 'red/3.png' in [m['name'] for m in one['members']]]
    best, = [one for one in group['members'] if one['row'] == group['best']]
    assert best['name'] == 'red/larger.png' and best['width'] == 120
    assert set(group['rows']) == {one['row'] for one in group['members']}
    assert all(one['score'] >= 0.9999 for one in group['members'])
    assert duplicate_groups(folder_service, 0.99)[0].keys() == group.keys()
    with pytest.raises(ValueError):
        duplicate_groups(folder_service, 2.0)


def test_proofs_are_noted_with_their_picture(folder_service, folder):
    (folder / 'red' / 'twin.png').write_bytes((folder / 'red' / '3.png').read_bytes())
    folder_service.refresh()
    groups = proved_groups(folder_service, 0.9999)
    group, = [one for one in groups if 'red/twin.png' in [m['name'] for m in one['members']]]
    first, second = group['members'][:2]
    assert group['best'] == first['row'] and first['proof'] is None and not first['sure']
    assert {first['name'], second['name']} == {'red/3.png', 'red/twin.png'}
    assert second['sure'] and second['as_name'] is None


@pytest.mark.parametrize('format', ['csv', 'json'])
def test_a_plan(store_service, format):
    handles = {name: handle_of(store_service, name) for name in 'abcde'}
    data, kind, name = plan_file(store_service, [
        (handles['c'], [handles['a'], handles['e']]), (handles['b'], [handles['d']])], format)
    assert name == f'duplicates-plan.{format}'
    if format == 'json':
        assert json.loads(data) == dict(groups=[dict(keep='c', others=['a', 'e']),
                                                dict(keep='b', others=['d'])])
    else:
        assert lines(data) == [['group', 'action', 'id'], ['0', 'keep', 'c'], ['0', 'remove', 'a'],
                               ['0', 'remove', 'e'], ['1', 'keep', 'b'], ['1', 'remove', 'd']]
    with pytest.raises(UnknownRowError):
        plan_file(store_service, [(4711, [])], format)
