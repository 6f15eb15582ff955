"""The cells of the notebooks run in order, and no output is kept in them."""
import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / 'docs' / 'notebooks').glob('*.ipynb'))


def cells(path, kind='code'):
    return [''.join(cell['source']) for cell in json.loads(path.read_text())['cells']
            if cell['cell_type'] == kind]


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use('agg')
    names = {'__name__': '__main__'}
    for number, cell in enumerate(cells(path)):
        exec(compile(cell, f'{path.stem}, cell {number}', 'exec'), names)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path):
    content = json.loads(path.read_text())
    assert content['nbformat'] == 4 and content['cells'][0]['source'][0].startswith('# ')
    for cell in content['cells']:
        assert not cell.get('outputs') and cell.get('execution_count') is None
        assert max(map(len, cell['source'])) <= 140
