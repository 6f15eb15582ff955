"""The gallery of a run is made with the pipeline that its config ends up with.

A picture shows the pattern of its class in the middle, and around it that of the next class: the
cropped middle of a query is most like the whole picture of another class. So Recall@1 is 100
where queries and gallery are cropped alike, and 0 where the queries alone are.
"""
import io
import json
import logging
from contextlib import redirect_stdout
from uuid import uuid4

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from retrieval.commands import print_config
from retrieval.registry import MODELS
from retrieval.retrievers import build_retriever
from retrieval.retrievers.build import as_retriever
from retrieval.runs.config import build_runner, load_config

BASE = '''
root = {root!r}
gallery_root = root + '/gallery'
whole = [dict(type='LoadImage'), dict(type='PackInputs')]
sampler = dict(type='DefaultSampler', shuffle=False)
val_dataloader = test_dataloader = dict(batch_size=4, num_workers=0, sampler=sampler, dataset=dict(
    type='ImageFolder', data_root=root + '/queries', pipeline=whole))
gallery_dataloader = dict(batch_size=4, num_workers=0, sampler=sampler, dataset=dict(
    type='ImageFolder', data_root=gallery_root, pipeline=whole))
test_evaluator = val_evaluator = [dict(type='EmbeddingMetrics', metrics='Recall@1'),
                                  dict(type='RetrievalRecall', topk=1)]
val_cfg = test_cfg = dict()
default_scope = 'retrieval'
log_level = 'WARNING'
custom_hooks = [dict(type='PreparePrototypeHook')]
'''
LEAF = '''_base_ = './base.py'
model = dict(type='ImageToImageRetriever', image_encoder=dict(type='CellMeans'), topk=3{idiom})
'''
IDIOM = ', prototype={{_base_.gallery_dataloader}}'
CROPPED = '''[
    dict(type='LoadImage'), dict(type='CenterCrop', crop_size=16), dict(type='PackInputs')]'''
QUERIES = f'''_base_ = './leaf.py'
cropped = dict(dataset=dict(pipeline={CROPPED}))
val_dataloader = test_dataloader = cropped
'''
ALL = QUERIES + 'gallery_dataloader = cropped\n'
GRANDCHILD = '''_base_ = './child.py'
gallery_dataloader = dict(batch_size=3)
'''
NAMED = ALL + '''model = dict(prototype=dict(dataset=dict(
    type='ImageFolder', data_root={{_base_.gallery_root}}, pipeline={{_base_.whole}})))
'''
ONLY_GALLERY = f'''_base_ = './leaf.py'
gallery_dataloader = dict(dataset=dict(pipeline={CROPPED}))
'''
OPTION = {'gallery_dataloader.dataset.pipeline': [
    dict(type='LoadImage'), dict(type='CenterCrop', crop_size=16), dict(type='PackInputs')]}
KEYS = 'embedding/Recall@1', 'search/Recall@1'


@MODELS.register_module(force=True)
class CellMeans(nn.Module):
    """The means of four by four cells, about the grey of the middle."""

    def forward(self, inputs):
        return nn.functional.adaptive_avg_pool2d(inputs[:, :1] - 127.5, 4).flatten(1)


@pytest.fixture
def configs(tmp_path):
    """Writes the levels of a config into a folder, and returns the path of the last."""
    rng = np.random.default_rng(0)
    patterns = rng.choice([30, 220], (6, 4, 4))
    for label in range(6):
        for part in ('queries', 'gallery'):
            folder = tmp_path / 'images' / part / f'class{label}'
            folder.mkdir(parents=True)
            cells = np.kron(patterns[(label + 1) % 6], np.ones((8, 8)))
            cells[8:24, 8:24] = np.kron(patterns[label], np.ones((4, 4)))
            noisy = np.clip(cells + rng.integers(-9, 10, cells.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / '0.png')

    def write(idiom=False, **texts):
        levels = dict(base=BASE.format(root=str(tmp_path / 'images')),
                      leaf=LEAF.format(idiom=IDIOM if idiom else ''), **texts)
        for name, text in levels.items():
            (tmp_path / f'{name}.py').write_text(text)
        return str(tmp_path / f'{list(levels)[-1]}.py')
    return write


def evaluated(tmp_path, config, how='test', by_hand=False):
    """The figures of a config's run, and what was logged as a warning."""
    config.work_dir, config.experiment_name = str(tmp_path / 'run'), f'prototype-{uuid4()}'
    runner = Runner.from_cfg(config) if by_hand else build_runner(config, 'none')
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setLevel(logging.WARNING)
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        metrics = getattr(runner, how)()
    finally:
        logger.removeHandler(handler)
    return [metrics[key] for key in KEYS], said.getvalue()


@pytest.mark.parametrize('idiom', [False, True])
@pytest.mark.parametrize('by_hand', [False, True])
@pytest.mark.parametrize('texts', [
    dict(), dict(child=ALL), dict(child=ALL, grandchild=GRANDCHILD)], ids=[1, 2, 3])
def test_the_gallery_follows(configs, tmp_path, idiom, by_hand, texts):
    path = configs(idiom, **texts)
    for how in ('val', 'test'):
        config = Config.fromfile(path) if by_hand else load_config(path)
        assert evaluated(tmp_path, config, how, by_hand) == ([100, 100], '')


@pytest.mark.parametrize('idiom', [False, True])
def test_it_follows_the_command_line(configs, tmp_path, idiom):
    path = configs(idiom, child=QUERIES)
    assert evaluated(tmp_path, load_config(path, OPTION)) == ([100, 100], '')
    config = Config.fromfile(path)
    config.merge_from_dict(OPTION)
    assert evaluated(tmp_path, config, 'val', True) == ([100, 100], '')


@pytest.mark.parametrize('by_hand', [False, True])
@pytest.mark.parametrize('text, queries, gallery', [
    (QUERIES, 'only the queries CenterCrop(crop_size=16)', ''),
    (NAMED, 'only the queries CenterCrop(crop_size=16)', ''),
    (ONLY_GALLERY, '', 'only the gallery CenterCrop(crop_size=16)')])
def test_another_pipeline_is_said(configs, tmp_path, by_hand, text, queries, gallery):
    path = configs(child=text)
    config = Config.fromfile(path) if by_hand else load_config(path)
    metrics, said = evaluated(tmp_path, config, 'val', by_hand)
    if text != ONLY_GALLERY:  # a prototype that is named wins over the loader
        assert metrics == [0, 0]
    assert said.count('DIFFERENT PIPELINES') == 1
    assert queries in said and gallery in said and '`val_dataloader`' in said


@pytest.mark.parametrize('idiom', [False, True])
def test_options_of_the_prototype_come_last(configs, idiom):
    path = configs(idiom, child=ALL)
    found = load_config(path, {'model.prototype.batch_size': 2, 'gallery_dataloader.batch_size': 5,
                               **OPTION}).model.prototype
    assert found.batch_size == 2 and found.dataset.pipeline == OPTION[
        'gallery_dataloader.dataset.pipeline']
    assert load_config(path, {'model.prototype': 'x.safetensors'}).model.prototype == \
        'x.safetensors'
    config = load_config(path, {'model.prototype.dataset.pipeline': [dict(type='LoadImage')]})
    assert len(config.model.prototype.dataset.pipeline) == 1


@pytest.mark.parametrize('idiom', [False, True])
def test_what_is_printed_and_built_is_what_runs(configs, idiom):
    path = configs(idiom, child=ALL, grandchild=GRANDCHILD)
    with redirect_stdout(io.StringIO()) as printed:
        print_config.main([path])
    shown = Config.fromstring(printed.getvalue(), '.py').model.prototype
    assert shown.batch_size == 3 and shown.dataset.pipeline[1].type == 'CenterCrop'
    for model in (build_retriever(load_config(path)), as_retriever(path)[0]):
        assert json.dumps(model.prototype, sort_keys=True) == json.dumps(shown, sort_keys=True)
        assert len(model.gallery) == 6


def test_without_any_prototype(configs):
    config = Config.fromfile(configs())
    model = MODELS.build(config.model)
    with pytest.raises(ValueError, match='no prototype.*gallery_dataloader'):
        model.prepare_prototype()


@pytest.mark.parametrize('idiom', [False, True])
def test_a_config_of_mmpretrain(configs, idiom):
    """Its data sets, steps and encoder stay by their names; the prototype follows all the same."""
    config = load_config(configs(idiom, child=ALL + "default_scope = 'mmpretrain'\n"))
    assert config.model.type == 'retrieval.ImageToImageRetriever'
    assert config.model.prototype == config.gallery_dataloader
    assert config.model.prototype.dataset.pipeline[1].type == 'CenterCrop'
