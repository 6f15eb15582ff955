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
    options = dict(options or {})
    own = {key: options.pop(key) for key in list(options)
           if f'{key}.'.startswith('model.prototype.')}
    config.merge_from_dict(options)
    if 'model' not in config:
        raise ValueError(f'The config {str(path)!r} has no `model`. Inherit one through `_base_`, '
                         'or set model=dict(type=\'ImageToImageRetriever\', …).')
    if work_dir is not None:
        config.work_dir = work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(path).stem)
    complete(config)
    config.merge_from_dict(own)  # over what the prototype has become
    return config


def complete(config: Any) -> Any:
    """Add what every run needs and no config should have to say."""
    from retrieval.retrievers import configured_prototype

    from .mmpretrain_configs import adopt, is_mmpretrain

    prototype = configured_prototype(config)
    if prototype is not None:
        config.model.prototype = prototype
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
    options = compile_options(config.pop('compile', None))
    runner = Runner.from_cfg(config)
    if options is not None:
        getattr(runner.model, 'module', runner.model).image_encoder.compile(**options)
    return runner


def compile_options(wanted: Any) -> dict[str, Any] | None:
    """The arguments for ``torch.compile`` of the image encoder, None where it is not wanted.

    MMEngine compiles the whole training step, which breaks into dozens of graphs at the labels and
    the loss, takes minutes, and leaves testing as it was. The encoder is one graph.

    Args:
        wanted: ``compile`` of the config: a bool, or arguments of ``torch.compile``.

    Raises:
        TypeError, ValueError: it is neither, or the default backend has no compiler to call.
    """
    import inspect
    import shutil

    import torch

    from retrieval.registry import unknown_name

    if wanted is None or wanted is False:
        return None
    if wanted is not True and not isinstance(wanted, dict):
        raise TypeError("`compile` must be True or arguments of torch.compile such as dict(mode="
                        f"'reduce-overhead'), got {wanted!r}.")
    options = {} if wanted is True else dict(wanted)
    valid = [name for name in inspect.signature(torch.compile).parameters if name != 'model']
    for name in options:
        if name not in valid:
            raise ValueError(unknown_name('argument of torch.compile', name, valid))
    compiler = os.environ.get('CXX', 'g++')
    if (options.get('backend', 'inductor') == 'inductor' and not torch.cuda.is_available()
            and not (shutil.which(compiler) or shutil.which('clang++'))):
        raise ValueError(f'compile was asked for, and its backend inductor wants a C++ compiler; '
                         f'{compiler!r} is not there. Install one, or write '
                         "compile=dict(backend='aot_eager'), or leave compile out.")
    return options


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
