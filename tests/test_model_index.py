"""The metadata of the recipes: what was run and is in the table of results, and nothing else."""
import re
from pathlib import Path

import yaml

from retrieval.evaluation.metrics import parse_metric

ROOT = Path(__file__).parents[1]
INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())
MODELS = INDEX['Models']


def table():
    """The rows of the first table of docs/results.md: config and means by metric."""
    first = (ROOT / 'docs' / 'results.md').read_text().partition('\n## ')[0]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in first.splitlines()
            if line.startswith('| ')]
    names = [name for name in rows[0] if re.match('Recall|MAP|R-P|mAP', name)]
    return {re.search(r'\(\.\./(.+)\)', row[0])[1]: dict(zip(
        names, (float(cell.split()[0]) for cell in row[1:]), strict=False)) for row in rows[1:]}


def test_each_result_is_that_of_the_table():
    assert len(MODELS) > 10
    found = {model['Config']: model['Results'][0]['Metrics'] for model in MODELS}
    assert found == table()
    for metrics in found.values():
        assert all(parse_metric(name) and 0 < value <= 100 for name, value in metrics.items())


def test_an_entry_is_of_a_config_and_names_its_paper():
    papers = {collection['Name']: collection['Paper'] for collection in INDEX['Collections']}
    for model in MODELS:
        config = ROOT / model['Config']
        assert config.is_file() and config.stem == model['Name']
        assert model['In Collection'] == config.parent.name.replace('_', ' ')
        paper = papers.pop(model['In Collection'])
        assert paper['Title'] and paper['URL'].startswith('https://')
        result, = model['Results']
        assert result['Dataset'] == 'Glyphs' and config.stem.endswith('_2e_glyphs')
    assert not papers
