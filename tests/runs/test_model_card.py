"""The model card as text; that the hub reads that of a bundle is in test_bundle.py."""
import pytest
import yaml
from torch import nn

from retrieval.runs.model_card import model_card


def manifest(**changes):
    steps = [dict(type='retrieval.LoadImage'), dict(type='PackInputs')]
    return dict(retrieval=dict(pipeline=steps), metrics={'Recall@1': 91.23456, 'MAP@R': 50},
                measured_on='Cars196, its test classes', embedding_size=8,
                fingerprint=dict(weights='0123456789abcdef' * 4),
                similarity='cosine_similarity') | changes


def test_the_metadata_are_those_of_the_hub(tmp_path):
    _, head, text = model_card('näme', tmp_path, manifest(), nn.Linear(3, 2)).split('---\n', 2)
    found = yaml.safe_load(head)
    result, = found['model-index'][0]['results']
    assert found['model-index'][0]['name'] == 'näme' and 'näme' in head
    assert result['dataset']['name'] == 'Cars196, its test classes'
    assert [(one['type'], one['value']) for one in result['metrics']] == [
        ('recall_at_1', 91.2346), ('map_at_r', 50)]
    assert found['library_name'] == 'retrieval' and text.startswith('\n# näme\n')


def test_the_facts(tmp_path):
    text = model_card('mine', tmp_path, manifest(), nn.Linear(300, 20))
    for row in ('| Embedding | 8 numbers, float32 |', '| Similarity | cosine_similarity |',
                '| Parameters | 6,020 |', '| Pictures go through | LoadImage → PackInputs |',
                '| Weights | SHA-256 `0123456789abcdef…` |', '| Recall@1 | 91.23 |',
                'On Cars196, its test classes.'):
        assert row in text


def test_without_metrics_there_are_none(tmp_path):
    text = model_card('mine', tmp_path, manifest(metrics={}, measured_on=None), nn.Linear(3, 2))
    assert 'model-index' not in text and 'Measured' not in text


@pytest.mark.parametrize('own', [False, True])
def test_files_that_are_there_and_how_it_is_used(own, tmp_path):
    (tmp_path / 'config.json').touch()
    if own:
        (tmp_path / 'gallery.safetensors').touch()
    text = model_card('mine', tmp_path, manifest(), nn.Linear(3, 2))
    assert '| `config.json` |' in text and '| `index.safetensors` |' not in text
    assert ('| `gallery.safetensors` |' in text) == own
    assert (f"retrieval.load('mine'{'' if own else chr(44) + ' ' + repr('pictures/')})") in text
    assert ('retrieval search mine query.jpg' if own else
            'retrieval search pictures/ query.jpg --encoder mine') in text
