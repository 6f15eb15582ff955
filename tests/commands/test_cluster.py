"""Clusters as a table, as JSON and as a sheet."""
import csv
import json

import torch
from PIL import Image

from retrieval.gallery import Gallery

from .conftest import run


def test_clusters_are_written(gallery, tmp_path):
    status, printed, err = run('cluster', gallery, '--k', 4, '--out', tmp_path)
    assert status == 0 and '4 clusters of 20 images' in printed, err
    with open(tmp_path / 'clusters.csv', newline='') as table:
        rows = list(csv.DictReader(table))
    assert [row['id'] for row in rows] == list(Gallery.load(gallery).ids)
    opened = Gallery.load(gallery)
    embedding = dict(zip(opened.ids, opened.embeddings, strict=True))
    content = json.loads((tmp_path / 'clusters.json').read_text())
    assert sum(content['sizes']) == 20 and content['alone'] == []
    for label, members in enumerate(content['clusters']):
        assert [row['id'] for row in rows if row['label'] == str(label)] == sorted(members)
        inside = torch.nn.functional.normalize(torch.stack([embedding[name] for name in members]))
        central = (inside @ inside.T).sum(1)
        assert central.argmax() == 0 and central.argmin() == len(members) - 1
    assert Image.open(tmp_path / 'clusters.png').height > 4 * 96


def test_other_methods(gallery, tmp_path):
    for arguments in (['--method', 'connected', '--threshold', 0.999, '--min-size', 21],
                      ['--method', 'hdbscan', '--min-size', 3]):
        status, printed, err = run('cluster', gallery, '--out', tmp_path, *arguments)
        assert status == 0 and 'of 20 images' in printed, err
    status, _, err = run('cluster', gallery, '--method', 'dbscan', '--out', tmp_path)
    assert status == 2 and 'hdbscan' in err


def test_embeddings_without_pictures_write_no_sheet(tmp_path):
    Gallery(torch.randn(12, 4), ids=[f'/nowhere/{n}.png' for n in range(12)]).save(
        tmp_path / 'g.safetensors')
    for command, files, sheet in (('cluster', 'clusters.csv and clusters.json', 'clusters.png'),
                                  ('find_duplicates', 'duplicates.json and duplicates.csv',
                                   'duplicates.png')):
        (tmp_path / sheet).write_text('of an earlier run')
        options = ['--threshold', 0.1] if command == 'find_duplicates' else []
        status, printed, err = run(command, tmp_path / 'g.safetensors', '--out', tmp_path, *options)
        assert status == 0 and files in printed and 'png' not in printed, err
        assert not (tmp_path / sheet).exists()
