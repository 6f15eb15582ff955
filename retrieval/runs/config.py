"""From a config file, or a folder of classes, to a config that runs, and to MMEngine's Runner.

An unmodified retrieval config of mmpretrain runs too. The model alone is built by
:func:`retrieval.retrievers.build_retriever`.
"""
from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

_PROTOTYPE_HOOKS = ('PreparePrototypeHook', 'PrepareProtoBeforeValLoopHook')  # ours, mmpretrain's
_HOOKS = {'PreparePrototypeHook': _PROTOTYPE_HOOKS,
          'ReproducibleTrainingHook': ('ReproducibleTrainingHook',),
          'CheckHeadHook': ('CheckHeadHook',),
          'CheckRunHook': ('CheckRunHook',),
          'StopOnNonFiniteHook': ('StopOnNonFiniteHook',)}
_OF_MMPRETRAIN = ('ImageToImageRetriever', 'RetrievalRecall', 'RetrievalAveragePrecision')


def load_config(path: str | os.PathLike[str], options: dict[str, Any] | None = None,
                work_dir: str | None = None) -> Any:
    """Read a config, override what the command line says, and make it run here.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: it cannot be read, it describes no model, or a setting in it or in the options
            does nothing.
    """
    from ..config.options import merge_options
    from ..config.own_names import check_option_names, check_own_names
    from ..config.reading import expand_home, read_config
    from ..config.settings import check_settings
    from ..retrievers.build import check_config

    config = read_config(path)
    options = dict(options or {})
    check_option_names(config, options)
    check_own_names(config)
    own = {key: options.pop(key) for key in list(options)
           if f'{key}.'.startswith('model.prototype.')}
    merge_options(config, options)
    check_config(config)
    if work_dir is not None:
        config.work_dir = work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(path).stem)
    complete(config)
    merge_options(config, own)  # over what the prototype has become
    expand_home(config)
    check_settings(config)
    return config


def complete(config: Any) -> Any:
    """Add what every run needs and no config should have to say."""
    from ..retrievers import configured_prototype
    from ..retrievers.build import is_mmpretrain

    prototype = configured_prototype(config)
    if prototype is not None:
        config.model.prototype = prototype
    config.setdefault('default_scope', 'retrieval')
    if is_mmpretrain(config):
        _adopt(config)
    hooks = list(config.get('custom_hooks') or [])
    present = {type_name(hook) for hook in hooks}
    hooks += [dict(type=f'retrieval.{name}') for name, names in _HOOKS.items()
              if not present & set(names)]
    config.custom_hooks = hooks
    train = config.get('train_cfg')
    if train and 'by_epoch' in train and 'type' not in train:
        loop = 'ResumableTrainLoop' if train.pop('by_epoch') else 'ResumableIterTrainLoop'
        train['type'] = f'retrieval.{loop}'
    return config


def _adopt(config: Any) -> None:
    """Give retriever, metrics and prototype hook of a config of mmpretrain to this package.

    Encoder, head, datasets and pipelines stay mmpretrain's and are built by it.
    """
    parts = [config.model]
    for evaluator in filter(None, map(config.get, ('val_evaluator', 'test_evaluator'))):
        parts += evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    for part in parts:
        scope, _, name = str(part.get('type')).rpartition('.')
        if scope in ('', 'mmpretrain') and name in _OF_MMPRETRAIN:
            part['type'] = f'retrieval.{name}'
    config.custom_hooks = [hook for hook in config.get('custom_hooks') or []
                           if type_name(hook) != _PROTOTYPE_HOOKS[1]]


def type_name(part: Any) -> str:
    """The type of a part, given as its config or built, without scope or module.

    Example:
        >>> type_name(dict(type='retrieval.CheckHeadHook'))
        'CheckHeadHook'
    """
    kind = part.get('type') if isinstance(part, dict) else type(part)
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def test_pipeline(config: Any) -> list[dict[str, Any]]:
    """The pipeline that queries go through: the test set's, else the prototype's.

    Raises:
        ValueError: the config has neither.
    """
    from ..retrievers.build import config_pipeline

    pipeline = config_pipeline(config)
    if pipeline is None:
        raise ValueError('The config has no test_dataloader.dataset.pipeline, so it is not known '
                         'how to read the queries.')
    return pipeline


def folder_config(folder: str | os.PathLike[str], projection: int = 128) -> Any:
    """Half of the classes for training, the other half searched among themselves.

    The features are those of the default pretrained encoder. What is trained is a projection, by
    the multi-similarity loss with its miner (Wang et al., CVPR 2019; the settings of the paper).

    Raises:
        FileNotFoundError, ValueError: it is no folder, or holds no classes of images.
    """
    from ..config.reading import PlainConfig
    from ..datasets import ImageFolder
    from ..encoders import DEFAULT_ENCODER, DEFAULT_PIPELINE, DEFAULT_PREPROCESSOR

    root = os.path.abspath(folder)
    data = dict(type='ImageFolder', data_root=root, pipeline=DEFAULT_PIPELINE)
    classes, images = _classes_for_a_batch(ImageFolder(root, split='train').labels)
    searched = dict(batch_size=64, num_workers=2, dataset=dict(data, split='test'),
                    sampler=dict(type='DefaultSampler', shuffle=False))
    evaluator = dict(type='EmbeddingMetrics', metrics=['Recall@1', 'MAP@R', 'mAP'])
    return PlainConfig(dict(
        default_scope='retrieval',
        model=dict(
            type='ImageToImageRetriever', prototype=searched, topk=100,
            image_encoder=dict(DEFAULT_ENCODER, projection=projection),
            data_preprocessor=DEFAULT_PREPROCESSOR,
            head=dict(type='MetricHead', miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1),
                      loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5))),
        train_dataloader=dict(
            batch_size=classes * images, num_workers=2, dataset=dict(data, split='train'),
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_sampler=dict(type='MPerClassBatchSampler', m=images)),
        val_dataloader=searched, test_dataloader=searched,
        val_evaluator=evaluator, test_evaluator=evaluator, val_cfg={}, test_cfg={},
        randomness=dict(seed=0)), format_python_code=False)


def searched_folder_config(folder: str | os.PathLike[str]) -> Any:
    """A folder that is searched with the default pretrained encoder, as a config.

    Raises:
        FileNotFoundError, ValueError: it is no folder, or holds no images.
    """
    from ..config.reading import PlainConfig
    from ..datasets import ImageFolder
    from ..encoders import DEFAULT_ENCODER, DEFAULT_PIPELINE, DEFAULT_PREPROCESSOR
    from ..search.prototypes import as_dataset

    root = os.path.abspath(folder)
    classes = isinstance(as_dataset(root, [], 'skip'), ImageFolder)
    named = dict(type='ImageFolder', data_root=root) if classes else dict(
        type='ImageList', images=root)
    searched = dict(batch_size=64, num_workers=2,
                    sampler=dict(type='DefaultSampler', shuffle=False),
                    dataset=dict(named, pipeline=DEFAULT_PIPELINE, on_unreadable='skip'))
    evaluator = dict(type='EmbeddingMetrics', metrics=['Recall@1', 'MAP@R', 'mAP'])
    return PlainConfig(dict(
        default_scope='retrieval',
        model=dict(type='ImageToImageRetriever', prototype=searched, topk=100,
                   image_encoder=dict(DEFAULT_ENCODER), data_preprocessor=DEFAULT_PREPROCESSOR),
        test_dataloader=searched,
        **(dict(test_evaluator=evaluator, test_cfg={}) if classes else {})),
        format_python_code=False)


def _classes_for_a_batch(labels: Any) -> tuple[int, int]:
    """How many classes a batch holds, and how many images of each: at most 32 and 4."""
    import numpy as np

    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError(f'{len(counts)} training classes of at most {counts.max()} images: metric '
                         'learning needs at least two classes for training (half of those in the '
                         'folder), and two images of one.')
    return min(len(counts), 32), int(min(max(np.median(counts), 2), 4))


def use_amp(config: Any) -> None:
    """Train in mixed precision: float16 with loss scaling on CUDA, bfloat16 on a CPU."""
    import torch

    wrapper = config.optim_wrapper
    kind = type_name(wrapper) if 'type' in wrapper else 'OptimWrapper'
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
    """MMEngine's Runner of a config, on one process or several, with or without a GPU.

    Raises:
        ValueError: it is to be resumed, and no checkpoint of its work dir is sound.
    """
    import torch

    import retrieval.registry  # noqa: F401  (mends the engine before it is used)

    from ..distributed import init_cpu_group, unwrapped
    from .last_checkpoint import last_checkpoint
    from .runner import QuietRunner

    to_say: list[str] = []
    if config.get('resume') and not config.get('load_from'):
        last, to_say = last_checkpoint(config.work_dir)
        config.load_from, config.resume = last, last is not None
        to_say.append(
            f'Training is resumed from the latest checkpoint {last}.' if last else
            f'There is no checkpoint in {config.work_dir!r} yet: training begins at its start.')
    init_cpu_group(launcher)
    config.launcher = launcher
    wrapper = config.get('optim_wrapper')
    if wrapper and type_name(wrapper) == 'AmpOptimWrapper':
        use_amp(config)  # the engine's own refuses a machine without CUDA
    if launcher != 'none' and not torch.cuda.is_available():
        # The engine hands every process a GPU's number, which a model on the CPU refuses.
        wrapping = dict(config.get('model_wrapper_cfg') or dict(
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False)))
        wrapping.setdefault('type', 'MMDistributedDataParallel')
        config.model_wrapper_cfg = dict(wrapping, device_ids=None)
    logging.getLogger('matplotlib').setLevel(logging.WARNING)
    options = compile_options(config.pop('compile', None))
    runner = QuietRunner.from_cfg(config)
    for sentence in to_say:
        runner.logger.warning(sentence)
    if options is not None:
        unwrapped(runner.model).image_encoder.compile(**options)
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

    from ..registry import unknown_name

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
