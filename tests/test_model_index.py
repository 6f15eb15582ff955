"""The metadata of the recipes: an entry for each config, and nothing that is not there."""
from pathlib import Path

import pytest
import yaml

from retrieval.evaluation.metrics import parse_metric

ROOT = Path(__file__).parents[1]
INDEX = ROOT / 'model-index.yml'
LEAVES = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
FILES = [ROOT / name for name in yaml.safe_load(INDEX.read_text())['Import']]
MODELS = [(path, model) for path in FILES for model in yaml.safe_load(path.read_text())['Models']]
NAMES = [model['Name'] for _, model in MODELS]


def metric_of(name):
    """``medium/mAP`` is mAP over one of several ground truths."""
    return parse_metric(name.rsplit('/', 1)[-1])


def test_every_folder_of_configs_is_imported():
    assert sorted({path.parent / 'metafile.yml' for path in LEAVES}) == FILES


def test_every_config_has_one_entry_in_its_folder():
    configs = [ROOT / model['Config'] for _, model in MODELS]
    assert sorted(configs) == LEAVES
    for path, model in MODELS:
        config = ROOT / model['Config']
        assert config.parent == path.parent and config.stem == model['Name']


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.parent.name)
def test_a_collection_says_where_it_is_from(path):
    content = yaml.safe_load(path.read_text())
    collection, = content['Collections']
    assert collection['Paper']['Title'] and collection['Paper']['URL'].startswith('https://')
    assert (ROOT / collection['README']).is_file()
    assert {model['In Collection'] for model in content['Models']} == {collection['Name']}


@pytest.mark.parametrize('model', [model for _, model in MODELS], ids=NAMES)
def test_an_entry_is_whole(model):
    assert set(model) == {'Name', 'In Collection', 'Config', 'Metadata', 'Results'}
    metadata = model['Metadata']
    assert set(metadata) == {'Training Data', 'Backbone', 'Embedding Width', 'Epochs'}
    encoder, schedule = model['Name'].split('_')[0].split('-')[0], model['Name'].split('_')[1]
    assert metadata['Backbone'].replace('-', '').lower() == encoder
    assert f'{metadata["Epochs"]}e' == schedule
    for result in model['Results']:
        assert set(result) == {'Task', 'Dataset', 'Metrics', 'Published'}
        for name, value in result['Metrics'].items():
            assert metric_of(name) and (value is None or 0 < value <= 100)


@pytest.mark.parametrize('model', [model for _, model in MODELS], ids=NAMES)
def test_a_published_figure_names_its_source(model):
    for result in model['Results']:
        published = result['Published']
        if published is None:
            continue
        assert set(published) == {'Metrics', 'Source', 'Backbone', 'Embedding Width'}
        assert len(published['Source']) > 10 and published['Backbone']
        assert published['Metrics'].keys() <= result['Metrics'].keys()
        assert all(0 < value <= 100 for value in published['Metrics'].values())
