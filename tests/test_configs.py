"""Every shipped config is built, with weights off and a tiny dataset, so that none rots.

A recipe comes for four datasets whose configs differ in a few numbers. One of them is built as a
run builds it and steps, the datasets taking turns; of the others the model, head, optimiser and
hooks are built, and the numbers are compared with the dataset's and with each other.
"""
import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from .datasets.landmark_miniatures import data_roots
from .datasets.miniatures import trainable

ROOT = Path(__file__).parents[1] / 'configs'
LEAVES = sorted(path for path in ROOT.rglob('*.py') if '_base_' not in path.parts)

# Classes for training, see docs/datasets; the first four are those that recipes come for.
CLASSES = {'cub200': 100, 'cars196': 98, 'stanford_online_products': 11318, 'inshop': 3997,
           'market1501': 751, 'google_landmarks_v2': 81313, 'glyphs': 1433}
TURNS = list(CLASSES)[:4]


def dataset_of(path):
    """<encoder>-<method>_<schedule>_<dataset>.py"""
    return path.stem.split('_', 2)[-1]


RECIPES = sorted({path.parent for path in LEAVES if 'resnet50' in path.stem and dataset_of(path)
                  in TURNS and path.parent.name != 'multi_similarity'})
STEPPED = {path for path in LEAVES if path.parent.name == 'bnneck' or path.parent in RECIPES
           and dataset_of(path) == TURNS[RECIPES.index(path.parent) % 4]}
# The recipe on each dataset, for its dataset: whole on the first of them
SHALLOW = STEPPED | {path for path in LEAVES if path.stem.startswith('resnet50-ms_')
                     and dataset_of(path) != TURNS[0]}
COMPARED = [path for path in LEAVES if '-whitening_' in path.stem or (
    path.parent in RECIPES and dataset_of(path) in TURNS and path not in STEPPED)]
# Those of 1024 pixels, and a set of 8,142 classes: the longest
SLOW = ('landmarks_v2', 'landmarks_v2-revisited_oxford', 'landmarks_v2-revisited_paris',
        'ms_20e_inaturalist2018')
BUILT = [pytest.param(path, marks=pytest.mark.slow if path.stem.endswith(SLOW) else (),
                      id=str(path.relative_to(ROOT))) for path in LEAVES if path not in COMPARED]


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


def shallow(part):
    """The config with one block a stage in each ResNet-50: as wide as the whole, and quick."""
    if isinstance(part, dict):
        part = {key: shallow(value) for key, value in part.items()}
        return {**part, 'layers': (1, 1, 1, 1)} if part.get('model_name') == 'resnet50' else part
    return [shallow(value) for value in part] if isinstance(part, (list, tuple)) else part


def cut_batches(loader):
    """Batches that 20 classes of 4 images are enough for."""
    sampler = loader.sampler
    size = min(loader.batch_size, 16 * sampler.get('m', 4))
    loader.batch_size = size
    if 'batch_size' in sampler:
        sampler.batch_size = size


def load(path):
    """The config as a run sees it, with workers off."""
    config = Config.fromfile(path)
    for key in ('train_dataloader', 'test_dataloader', 'val_dataloader', 'gallery_dataloader'):
        config[key].num_workers = 0
        config[key].persistent_workers = False
    config.model = offline(config.model.to_dict())
    return config


def found(part, key):
    """Every value of a key, at any depth."""
    if isinstance(part, dict):
        own = [part[key]] if key in part else []
        return own + [value for inner in part.values() for value in found(inner, key)]
    return [value for inner in part for value in found(inner, key)] if isinstance(
        part, (list, tuple)) else []


def width_of(path):
    """The width of the embeddings, by the papers and their authors' code."""
    encoder, method = path.stem.split('_')[0].split('-')[:2]
    if encoder == 'lite0':
        return 256
    if encoder == 'resnet10':
        return 256 if path.parent.name in ('moco', 'self_supervised') else 128
    if method in ('ns', 'bnneck') or (method == 'pnca' and 'stanford' not in path.stem):
        return 2048
    narrow = method in ('xbm', 'margin', 'subarcface', 'supcon', 'triplet', 'arcface')
    return 128 if narrow and 'google_landmarks' not in path.stem else 512


def check_numbers(config, path):
    """The losses have as many classes as the dataset, in every place that names them, and the
    schedule as many epochs as the name says."""
    given = found(config.model.to_dict(), 'num_classes')
    assert set(given) <= {CLASSES.get(dataset_of(path).split('-')[0])}
    assert f'{config.train_cfg.max_epochs}e' == path.stem.split('_')[1]


@pytest.mark.parametrize('path', BUILT)
def test_a_config_builds_and_steps(path, own_images, benchmarks, monkeypatch, tmp_path):
    from mmengine.runner import Runner

    import retrieval.registry  # noqa: F401
    dataset = dataset_of(path)
    monkeypatch.setenv('DATA_ROOT', str(benchmarks.get(dataset, own_images)))
    monkeypatch.setenv('CSV', str(own_images / 'table.csv'))
    for variable, root in data_roots(dataset, tmp_path / 'data').items():
        monkeypatch.setenv(variable, root)
    config = load(path)
    check_numbers(config, path)
    if path in SHALLOW:
        config.model = shallow(config.model.to_dict())
        cut_batches(config.train_dataloader)
    config.work_dir = str(tmp_path)
    config.log_level = 'ERROR'
    config.experiment_name = f'config-{path.stem}'
    runner = Runner.from_cfg(config)
    model = runner.model
    batch = next(iter(runner.build_dataloader(config.train_dataloader)))
    views = isinstance(batch['inputs'][0], (list, tuple))
    small = dict(inputs=[view[:8] for view in batch['inputs']] if views else batch['inputs'][:8],
                 data_samples=batch['data_samples'][:8])
    if path in SHALLOW:
        small['inputs'] = [image[:, :64, :64] for image in small['inputs']]
    losses = model(**model.data_preprocessor(small, True), mode='loss')
    assert all(bool(torch.isfinite(value).all()) for value in losses.values())
    assert any(name.startswith('loss') for name in losses) and model.topk > 0
    image = runner.build_dataloader(config.test_dataloader).dataset[0]['inputs']
    if path in SHALLOW:
        image = image[:, :64, :64]
    assert model.eval().embed(image[None].float()).shape == (1, width_of(path))
    for evaluator in (config.test_evaluator, config.val_evaluator):
        assert runner.build_evaluator(evaluator).metrics


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_config_reads_as_a_difference(path):
    assert len(path.read_text().splitlines()) <= 15
    assert '_base_' in path.read_text()


def with_fewer_classes(part):
    """A head of a hundred classes, where it has so many that it takes long to build."""
    if isinstance(part, dict):
        return {key: 100 if key == 'num_classes' and value > 20000 else with_fewer_classes(value)
                for key, value in part.items()}
    return [with_fewer_classes(value) for value in part] if isinstance(part, list) else part


@functools.cache
def encoder(config):
    """The encoder of a config as JSON; the recipes share a few."""
    from retrieval.registry import MODELS
    return MODELS.build(json.loads(config))


def data_samples(count, num_classes):
    """Pairs of samples, of classes up to the last."""
    from retrieval.structures import RetrievalDataSample
    labels = torch.linspace(0, num_classes - 1, count // 2).long().repeat_interleave(2)
    return [RetrievalDataSample().set_gt_label(int(label)) for label in labels]


@pytest.mark.parametrize('path', COMPARED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_parts_of_a_config_fit(path):
    from mmengine.optim import build_optim_wrapper

    from retrieval.registry import HOOKS, MODELS, PARAM_SCHEDULERS
    config = load(path)
    check_numbers(config, path)
    parts = with_fewer_classes(shallow(config.model.to_dict()))
    parts['image_encoder'] = encoder(json.dumps(parts['image_encoder'], sort_keys=True))
    model = MODELS.build(parts)
    width = model.image_encoder.embedding_size
    assert width == width_of(path)
    known = model.head.num_classes or 100
    feats = torch.nn.functional.normalize(torch.randn(8, width))
    losses = model.head.loss(feats, data_samples(8, known))
    assert all(bool(torch.isfinite(value).all()) for value in losses.values())

    loader = config.train_dataloader
    assert loader.sampler.get('batch_size', loader.batch_size) == loader.batch_size
    if 'm' in loader.sampler:
        classes, rest = divmod(loader.batch_size, loader.sampler.m)
        assert rest == 0 and classes <= CLASSES[dataset_of(path)]

    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = [name for name, _ in model.named_parameters()]
    for key in config.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {}):
        assert any(key in name for name in names), f'no parameter is called {key}'
    for scheduler in config.param_scheduler:
        assert scheduler.type == 'ShareOfRun' and not scheduler.by_epoch  # so it fits any length
        PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=wrapper, end=600))
    for hook in config.custom_hooks:
        if 'Freeze' in hook.type:
            HOOKS.build(hook).before_run(SimpleNamespace(model=model))
