"""A folder of small pictures, a config over it, and a checkpoint that was trained on it."""
import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONFIG = '''
default_scope = 'retrieval'
root = {root!r}
test_pipeline = [dict(type='LoadImage'), dict(type='Resize', scale=(16, 16)),
                 dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=8, num_workers=0, drop_last=True, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ImageFolder', data_root=root, split='train', pipeline=[
        dict(type='LoadImage'), dict(type='RandomAffine', translate=0.1),
        dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]))
test_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ImageFolder', data_root=root, split='test', pipeline=test_pipeline))
val_dataloader = test_dataloader
test_evaluator = [dict(type='EmbeddingMetrics', metrics=['Recall@1', 'MAP@R', 'mAP']),
                  dict(type='RetrievalRecall', topk=1),
                  dict(type='RetrievalAveragePrecision', topk=10)]
val_evaluator = test_evaluator
model = dict(
    type='ImageToImageRetriever', prototype=test_dataloader, topk=10,
    data_preprocessor=dict(mean=[127.5] * 3, std=[60.0] * 3),
    image_encoder=dict(
        type='ImageEncoder', projection=8,
        backbone=dict(type='TimmBackbone', model_name='resnet10t', stem_width=8,
                      channels=(8, 8, 8, 8))),
    head=dict(type='MetricHead', loss=dict(
        type='PML.ArcFaceLoss', num_classes=4, embedding_size=8, margin=10, scale=16)))
train_cfg = dict(type='ResumableTrainLoop', max_epochs=2)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.003))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1,
                                     save_best='embedding/Recall@1', rule='greater'))
visualizer = dict(type='Visualizer', vis_backends=[
    dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
randomness = dict(seed=1)
auto_scale_lr = dict(enable=False, base_batch_size=16)
log_level = 'WARNING'
'''


def draw_classes(root, classes=8, each=5):
    """A colour and a stripe make a class; noise makes its pictures differ."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (root / f'class{label}').mkdir(parents=True)
        base = np.full((20, 20, 3), 40 + 20 * label, dtype=np.int16)
        base[2 * label:2 * label + 3] = [250, 30 * label, 0]
        for number in range(each):
            noisy = np.clip(base + rng.integers(-20, 20, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / f'class{label}' / f'{number}.png')


def run(module, *arguments):
    """The exit status, what was printed, and what went to the error stream."""
    import importlib
    main = importlib.import_module(f'retrieval.commands.{module}').main
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures')
    draw_classes(root)
    return root


@pytest.fixture(scope='session')
def config(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'small.py'
    path.write_text(CONFIG.format(root=str(folder)))
    return path


@pytest.fixture(scope='session')
def work_dir(config, tmp_path_factory):
    path = tmp_path_factory.mktemp('work')
    status, _, err = run('train', config, '--work-dir', path)
    assert status == 0, err
    return path


@pytest.fixture(scope='session')
def checkpoint(work_dir) -> Path:
    return work_dir / 'epoch_2.pth'


@pytest.fixture(scope='session')
def gallery(config, checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp('gallery') / 'gallery.safetensors'
    status, _, err = run('dump_prototype', config, checkpoint, path)
    assert status == 0, err
    return path
