"""A run that is stopped before any iteration, and resumed, ends as the one that was not: weights,
optimiser, schedules, memories, queues and averages, bit by bit."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from retrieval.hooks import seed_everything

from .running import BUILT, config, differences, essence

ITERATIONS = 6  # of two epochs
VIEWS = [dict(type='MultiView', num_views=2, transforms=[dict(type='ToyNoise')]),
         dict(type='PackInputs')]
PROJECTOR = dict(in_features=4, hidden_features=6, out_features=3)
EMA = dict(type='EMAHook', momentum=0.25)
AVERAGED_BUFFERS = dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=4, interval=2,
                        begin_iter=3, update_buffers=True)


def head(**loss):
    return dict(head=dict(type='MetricHead', **loss))


KINDS = {
    'arcface and averaged weights': dict(hooks=[EMA]),
    'margin with a learnable beta': dict(sampler='MPerClassBatchSampler', model=head(
        loss=dict(type='PML.MarginLoss', num_classes=3, learn_beta=True),
        miner=dict(type='DistanceWeightedMiner', cutoff=0.1))),
    'dynamic margin': dict(sampler='MPerClassBatchSampler', model=head(
        loss=dict(type='PML.DynamicSoftMarginLoss', momentum=0.5))),
    'classification under mixup': dict(
        scheduler=dict(type='StepLR', step_size=1, gamma=0.3), model=dict(
            head=dict(type='ClassificationHead', num_classes=3, in_features=4),
            data_preprocessor=dict(num_classes=3),
            train_cfg=dict(augments=[dict(type='Mixup', alpha=1.0)]))),
    'cross-batch memory': dict(hooks=[AVERAGED_BUFFERS], model=head(loss=dict(
        type='retrieval.CrossBatchMemory', loss=dict(type='ContrastiveLoss'), embedding_size=4,
        memory_size=10, warmup_iters=1, miner=dict(type='PairMarginMiner')))),
    'momentum, self-supervised': dict(views=True, hooks=[EMA], model=dict(
        type='MomentumRetriever', head=None, queue_size=10, momentum=0.9, momentum_iters=8,
        projector=PROJECTOR, embedding_size=3)),
    'momentum with classes': dict(model=dict(
        type='MomentumRetriever', queue_size=10, momentum=0.9, embedding_size=4,
        **head(loss=dict(type='PML.TripletMarginLoss')))),
    'self-supervised, accumulated gradients': dict(
        views=True, optim_wrapper=dict(accumulative_counts=4, optimizer=dict(type='Adam', lr=0.01)),
        model=dict(type='SelfSupervisedRetriever', projector=PROJECTOR,
                   **head(loss=dict(type='PML.NTXentLoss')))),
}


def runner(work_dir, *, model=(), views=False, hooks=(), sampler=None, scheduler=None,
           optim_wrapper=None, **kwargs):
    """A run of six iterations that leaves a checkpoint after each."""
    settings = config(work_dir, epochs=2, by_epoch=False, hooks=hooks, **kwargs)
    loader = settings['train_dataloader']
    loader['dataset']['count'] = 12
    settings['model'].update(model)
    settings['default_hooks']['checkpoint']['max_keep_ckpts'] = -1
    if views:
        loader['dataset']['pipeline'] = VIEWS
    if sampler:
        loader['batch_sampler'] = dict(type=sampler, m=2)
    if scheduler:
        settings['param_scheduler'] = [scheduler]
    if optim_wrapper:
        settings['optim_wrapper'] = optim_wrapper
    BUILT.append(Runner.from_cfg(Config(settings)))
    return BUILT[-1]


def checkpoint(folder, iteration):
    return torch.load(Path(folder) / f'iter_{iteration}.pth', weights_only=True)


@pytest.mark.parametrize('kind', KINDS)
def test_stopped_before_any_iteration(kind, tmp_path):
    whole = runner(tmp_path / 'whole', **KINDS[kind])
    whole.train()
    wanted = essence(checkpoint(tmp_path / 'whole', ITERATIONS))
    assert wanted['iter'] == ITERATIONS and wanted['optimizer']['state']
    for stop in range(1, ITERATIONS):
        seed_everything(99 + stop)  # whatever state the new process happens to be in
        folder = tmp_path / f'resumed_{stop}'
        again = runner(folder, **KINDS[kind], resume=True,
                       load_from=str(tmp_path / 'whole' / f'iter_{stop}.pth'),
                       interval=ITERATIONS)
        again.train()
        found = essence(checkpoint(folder, ITERATIONS))
        assert differences(wanted, found) == [], f'stopped before iteration {stop}'
    before = essence(checkpoint(tmp_path / 'whole', ITERATIONS - 1))
    part = 'ema_state_dict' if 'ema_state_dict' in wanted else 'state_dict'
    assert differences(wanted[part], before[part])
