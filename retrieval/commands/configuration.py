"""From a config file to a config that runs."""
from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

HOOKS = {
    'PreparePrototypeHook': ('PreparePrototypeHook', 'PrepareProtoBeforeValLoopHook'),
    'ReproducibleTrainingHook': ('ReproducibleTrainingHook',),
    'CheckHeadHook': ('CheckHeadHook',),
}


def load_config(path: str | os.PathLike, options: dict | None = None,
                work_dir: str | None = None) -> Any:
    """Read a config, override what the command line says, and make it run here.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: it cannot be read, or it describes no model.
    """
    from mmengine.config import Config

    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no config {str(path)!r}. The shipped ones are under '
                                'configs/.')
    try:
        config = Config.fromfile(path)
    except (SyntaxError, AttributeError) as error:
        raise ValueError(f'The config {str(path)!r} cannot be read: {error}') from error
    if options:
        config.merge_from_dict(options)
    if 'model' not in config:
        raise ValueError(f'The config {str(path)!r} has no `model`. Inherit one through `_base_`, '
                         'or set model=dict(type=\'ImageToImageRetriever\', …).')
    if work_dir is not None:
        config.work_dir = work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(path).stem)
    return complete(config)


def complete(config: Any) -> Any:
    """Add what every run needs and no config should have to say."""
    from .mmpretrain_configs import adopt, is_mmpretrain

    config.setdefault('default_scope', 'retrieval')
    if is_mmpretrain(config):
        adopt(config)
    hooks = list(config.get('custom_hooks') or [])
    present = {str(hook.get('type') if isinstance(hook, dict) else type(hook).__name__)
               .rsplit('.', 1)[-1] for hook in hooks}
    hooks += [dict(type=f'retrieval.{name}') for name, names in HOOKS.items()
              if not present & set(names)]
    config.custom_hooks = hooks
    train = config.get('train_cfg')
    if train and 'by_epoch' in train and 'type' not in train:
        loop = 'ResumableTrainLoop' if train.pop('by_epoch') else 'ResumableIterTrainLoop'
        train['type'] = f'retrieval.{loop}'
    return config


def use_amp(config: Any) -> None:
    """Train in mixed precision: float16 with loss scaling on CUDA, bfloat16 on a CPU."""
    import torch

    wrapper = config.optim_wrapper
    kind = str(wrapper.get('type', 'OptimWrapper')).rsplit('.', 1)[-1]
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'AutocastOptimWrapper'):
        raise ValueError(f'--amp replaces a plain OptimWrapper, and the config has {kind!r}. Leave '
                         '--amp out, or remove `type` from optim_wrapper.')
    if torch.cuda.is_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    else:
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        wrapper.type = 'retrieval.AutocastOptimWrapper'


def build_runner(config: Any, launcher: str) -> Any:
    """MMEngine's Runner of a config, on one process or several, with or without a GPU."""
    import torch
    from mmengine.runner import Runner

    import retrieval.registry  # noqa: F401  (mends the engine before it is used)
    from retrieval.distributed import init_cpu_group

    init_cpu_group(launcher)
    config.launcher = launcher
    wrapper = config.get('optim_wrapper')
    if wrapper and str(wrapper.get('type')).endswith('AmpOptimWrapper'):
        use_amp(config)  # the engine's own refuses a machine without CUDA
    if launcher != 'none' and not torch.cuda.is_available():
        # The engine hands every process a GPU's number, which a model on the CPU refuses.
        wrapping = dict(config.get('model_wrapper_cfg') or dict(broadcast_buffers=False))
        wrapping.setdefault('type', 'MMDistributedDataParallel')
        config.model_wrapper_cfg = dict(wrapping, device_ids=None)
    logging.getLogger('matplotlib').setLevel(logging.WARNING)
    return Runner.from_cfg(config)


def build_model(config: Any, checkpoint: str | os.PathLike | None,
                prototype: Any = None) -> Any:
    """The retriever of a config on the device there is, with a checkpoint's weights, over the
    config's prototype or another.

    Raises:
        FileNotFoundError: the checkpoint is missing.
        ValueError: it holds other weights than the encoder has.
    """
    from retrieval.inference.building import build_retriever
    return build_retriever(config, checkpoint, prototype)
