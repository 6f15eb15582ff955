"""A Runner over toy images for the tests of hooks and loops."""
from uuid import uuid4

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from retrieval.datasets import RetrievalDataset
from retrieval.registry import DATASETS, HOOKS, MODELS, TRANSFORMS


@DATASETS.register_module(force=True)
class ToyPictures(RetrievalDataset):
    """Noise with a class-dependent mean."""

    def __init__(self, count=23, **kwargs):
        self.count = count
        super().__init__(**kwargs)

    def load_data_list(self):
        self._metainfo['classes'] = ('a', 'b', 'c')
        return [dict(gt_label=i % 3, sample_id=f'toy{i}', number=i) for i in range(self.count)]

    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        generator = torch.Generator().manual_seed(info['number'])
        picture = torch.rand(8, 8, 1, generator=generator) * 99 + 50 * info['gt_label']
        return dict(info, img=picture.to(torch.uint8).numpy())


@TRANSFORMS.register_module(force=True)
class ToyNoise:
    """Draws from numpy, as most augmentations do."""

    def __call__(self, results):
        import numpy as np
        results['img'] = (results['img'] * np.random.uniform(0.5, 1)).astype('uint8')  # noqa: NPY002
        return results


@MODELS.register_module(force=True)
class ToyEncoder(nn.Module):
    """Draws (dropout), keeps statistics (batch norm), and counts what it encodes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8),
                                    nn.Dropout(0.3), nn.Linear(8, 4))
        self.seen = 0

    def forward(self, inputs):
        if not self.training:
            self.seen += len(inputs)
        return self.layers(inputs / 99)


@HOOKS.register_module(force=True)
class StopAt(Hook):
    """Ends the run as a kill would, before an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise KeyboardInterrupt


def config(work_dir, *, workers=0, epochs=3, hooks=(), val=False, interval=1, by_epoch=True,
           ema=False, **kwargs):
    test_pipeline = [dict(type='PackInputs')]
    test_loader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler',
                                                                 shuffle=False),
                       dataset=dict(type='ToyPictures', pipeline=test_pipeline))
    custom = [dict(type='PreparePrototypeHook'), dict(type='ReproducibleTrainingHook'), *hooks]
    if ema:
        custom.append(dict(type='EMAHook', momentum=0.5))
    evaluated = dict(val_dataloader=test_loader, val_cfg=dict(),
                     val_evaluator=dict(type='EmbeddingMetrics')) if val else {}
    return dict(
        model=dict(type='ImageToImageRetriever', image_encoder=dict(type='ToyEncoder'),
                   prototype=test_loader, topk=5,
                   head=dict(type='MetricHead', loss=dict(
                       type='PML.ArcFaceLoss', num_classes=3, embedding_size=4))),
        work_dir=str(work_dir), default_scope='retrieval',
        train_dataloader=dict(
            batch_size=4, num_workers=workers, persistent_workers=workers > 0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(type='ToyPictures',
                         pipeline=[dict(type='ToyNoise'), dict(type='PackInputs')])),
        train_cfg=dict(type='ResumableTrainLoop', max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.01)),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=3, convert_to_iter_based=True)],
        test_dataloader=test_loader, test_cfg=dict(),
        test_evaluator=[dict(type='EmbeddingMetrics', metrics=['Recall@1', 'mAP']),
                        dict(type='RetrievalRecall', topk=1)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=interval,
                                           by_epoch=by_epoch, max_keep_ckpts=3)),
        custom_hooks=custom, randomness=dict(seed=7), log_level='ERROR',
        experiment_name=f'toy-{uuid4()}', **evaluated, **kwargs)


BUILT = []


def build(work_dir, **kwargs):
    from mmengine.config import Config
    BUILT.append(Runner.from_cfg(Config(config(work_dir, **kwargs))))
    return BUILT[-1]


def close_all():
    """End the loader workers now: left to the garbage collector each pair takes ten seconds."""
    while BUILT:
        loader = BUILT.pop()._train_loop
        iterator = getattr(getattr(loader, 'dataloader', None), '_iterator', None)
        if iterator is not None:
            iterator._shutdown_workers()


def differences(one, other, name=''):
    """The names of the parts of two checkpoints that are not equal, bit by bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    if isinstance(one, (dict, list, tuple)):
        keys = list(one) if isinstance(one, dict) else range(len(one))
        if len(one) != len(other):
            return [name]
        return [wrong for key in keys for wrong in differences(one[key], other[key],
                                                               f'{name}.{key}')]
    return [] if one == other else [name]


def essence(saved):
    """All of a checkpoint but its logs, the date and the folder's name."""
    return {key: value for key, value in saved.items() if key not in ('meta', 'message_hub')} | {
        key: saved['meta'][key] for key in ('epoch', 'iter', 'seed')}
