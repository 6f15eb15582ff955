"""Every shipped config is built, with weights off and a tiny dataset, so that none rots."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from .datasets.landmark_miniatures import data_roots
from .datasets.miniatures import trainable

ROOT = Path(__file__).parents[1] / 'configs'
LEAVES = sorted(path for path in ROOT.rglob('*.py') if '_base_' not in path.parts)


@pytest.fixture(scope='module')
def own_images(tmp_path_factory):
    """Forty classes of four images as a folder, and the same as a table."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    lines = ['path,label,split,is_query,is_gallery']
    for label in range(40):
        (root / f'class{label}').mkdir()
        for number in range(4):
            name = f'class{label}/{number}.png'
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(root / name)
            split = 'train' if label < 20 else 'validation'
            lines.append(f'{name},{label},{split},{number == 0},{number > 0}')
    (root / 'table.csv').write_text('\n'.join(lines) + '\n')
    return root


@pytest.fixture(scope='module')
def benchmarks(tmp_path_factory):
    """The folders of the benchmarks in their official layouts, in miniature."""
    return trainable(tmp_path_factory.mktemp('benchmarks'))


def offline(part):
    """The config without weights from a hub."""
    if isinstance(part, dict):
        return {key: False if key == 'pretrained' else offline(value)
                for key, value in part.items()}
    return [offline(value) for value in part] if isinstance(part, (list, tuple)) else part


def load(path):
    """The config as a run sees it, with workers off."""
    config = Config.fromfile(path)
    for key in ('train_dataloader', 'test_dataloader', 'val_dataloader'):
        config[key].num_workers = 0
        config[key].persistent_workers = False
    config.model.prototype.num_workers = 0
    config.model = offline(config.model.to_dict())
    return config


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_config_builds_and_steps(path, own_images, benchmarks, monkeypatch, tmp_path):
    from mmengine.runner import Runner

    import retrieval.registry  # noqa: F401
    dataset = path.stem.split('_', 2)[-1]  # <encoder>-<method>_<schedule>_<dataset>
    monkeypatch.setenv('DATA_ROOT', str(benchmarks.get(dataset, own_images)))
    monkeypatch.setenv('CSV', str(own_images / 'table.csv'))
    for variable, root in data_roots(dataset, tmp_path / 'data').items():
        monkeypatch.setenv(variable, root)
    config = load(path)
    config.work_dir = str(tmp_path)
    config.log_level = 'ERROR'
    config.experiment_name = f'config-{path.stem}'
    runner = Runner.from_cfg(config)
    model = runner.model
    batch = next(iter(runner.build_dataloader(config.train_dataloader)))
    views = isinstance(batch['inputs'][0], (list, tuple))
    small = dict(inputs=[view[:8] for view in batch['inputs']] if views else batch['inputs'][:8],
                 data_samples=batch['data_samples'][:8])
    losses = model(**model.data_preprocessor(small, True), mode='loss')
    assert all(bool(torch.isfinite(value).all()) for value in losses.values())
    assert any('loss' in name for name in losses) and model.topk > 0
    item = runner.build_dataloader(config.test_dataloader).dataset[0]
    assert model.eval().embed(item['inputs'][None].float()).shape[0] == 1
    for evaluator in (config.test_evaluator, config.val_evaluator):
        assert runner.build_evaluator(evaluator).metrics


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_config_reads_as_a_difference(path):
    assert len(path.read_text().splitlines()) <= 30
    assert '_base_' in path.read_text()
