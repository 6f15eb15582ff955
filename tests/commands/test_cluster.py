"""Clusters as a table, as JSON and as a sheet."""
import csv
import json

from PIL import Image

from retrieval.gallery import Gallery

from .conftest import run


def test_clusters_are_written(gallery, tmp_path):
    status, printed, err = run('cluster', gallery, '--k', 4, '--out', tmp_path)
    assert status == 0 and '4 clusters of 20 images' in printed, err
    with open(tmp_path / 'clusters.csv', newline='') as table:
        rows = list(csv.DictReader(table))
    assert [row['id'] for row in rows] == list(Gallery.load(gallery).ids)
    content = json.loads((tmp_path / 'clusters.json').read_text())
    assert sum(content['sizes']) == 20 and content['alone'] == []
    for label, members in enumerate(content['clusters']):
        assert [row['id'] for row in rows if row['label'] == str(label)] == members
    assert Image.open(tmp_path / 'clusters.png').height > 4 * 96


def test_other_methods(gallery, tmp_path):
    for arguments in (['--method', 'connected', '--threshold', 0.999, '--min-size', 21],
                      ['--method', 'hdbscan', '--min-size', 3]):
        status, printed, err = run('cluster', gallery, '--out', tmp_path, *arguments)
        assert status == 0 and 'of 20 images' in printed, err
    status, _, err = run('cluster', gallery, '--method', 'dbscan', '--out', tmp_path)
    assert status == 2 and 'hdbscan' in err
