"""Mends of what today's torch breaks in the installed engine, in one place, each with its reason.

``install`` is called by :mod:`retrieval.registry`, so it has run before any component is built.
The environment that the Makefile makes holds a copy of this file, which Python reads at its start:
nothing heavy may be imported here.
"""
from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_WORKER_ERROR = re.compile(r'Caught \w+ in DataLoader worker process \d+\.\nOriginal Traceback ')
_LAST_ERROR = re.compile(r'^(?:\w+\.)*\w+: ', re.MULTILINE)
_SCHEDULERS = 'mmengine.optim.scheduler.param_scheduler'
_LIBRARIES: list[object] = []  # a library's definitions live as long as it does


@lru_cache(maxsize=1)
def install() -> None:
    """Apply every mend once. Calling it again does nothing."""
    mend_torchvision_import()
    sys.meta_path.insert(0, _OptimizerFinder())
    allow_checkpoint_globals()


def message_of_worker(message: str) -> str:
    """What an error in a loader worker said, without the traceback that torch puts before it.

    torch raises the error anew in the main process, of the same type, with the worker's traceback
    for its message; other messages, and all with RETRIEVAL_TRACEBACK set, stay as they are.

    Example:
        >>> message_of_worker('Caught OSError in DataLoader worker process 0.\\nOriginal Traceback '
        ...                   '(most recent call last):\\n  File "a.py"\\nOSError: no a.jpg\\n')
        'no a.jpg'
    """
    if not _WORKER_ERROR.match(message) or os.environ.get('RETRIEVAL_TRACEBACK'):
        return message
    # the frames of a traceback are indented, and so are the further lines of our messages
    said = list(_LAST_ERROR.finditer(message))
    return message[said[-1].end():].strip() if said else message


def mend_torchvision_import() -> None:
    """Let torchvision be imported where its compiled operators do not load.

    A torchvision built for CUDA has no working extension beside a CPU build of torch. Its import
    then stops at ``operator torchvision::nms does not exist``, and with it timm, mmpretrain and
    the engine's environment report. Nothing is imported here: when torchvision is, and only if
    that stops for this reason, the schemas are declared and it is imported anew. A torchvision
    whose operators register themselves is left alone, since declaring them twice aborts. The
    schemas are enough to import; calling the operators, which retrieval never does, still fails
    and says so.
    """
    sys.meta_path.insert(0, _TorchvisionFinder())


class _TorchvisionFinder:
    """Finds torchvision as Python does, and has :func:`_import_torchvision` execute it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != 'torchvision':
            return None
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = (  # type: ignore[method-assign]
                lambda module: _import_torchvision(execute, module))
        return spec


def _import_torchvision(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Execute torchvision's ``module``, and anew with schemas where it stops for want of them."""
    empty = dict(vars(module))
    try:
        execute(module)
        return
    except RuntimeError as error:
        if 'operator torchvision::nms does not exist' not in str(error):
            raise
    vars(module).clear()  # parts that are bound, or stay in sys.modules, would not be run again
    vars(module).update(empty)
    for name in [name for name in sys.modules if name.startswith('torchvision.')]:
        del sys.modules[name]
    _declare_torchvision_operators()
    execute(module)


def _declare_torchvision_operators() -> None:
    """Declare the schemas that torchvision's Python code looks up while it is imported."""
    import torch

    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _LIBRARIES.append(library)


class _OptimizerFinder:
    """Lets the engine's optimisers be imported without what two of them alone are made of.

    For Adafactor it imports transformers, and for ZeroRedundancyOptimizer torch's sharding, with
    the engine's base class of every model: half as long as torch itself, for whoever only searches.
    Both stay registered, and are imported when one is built.
    """

    _made_of = {'mmengine.optim.optimizer.builder': ('Adafactor', 'transformers'),
                'mmengine.optim.optimizer.zero_optimizer': ('ZeroRedundancyOptimizer',
                                                            'torch.distributed.optim')}

    def find_spec(self, name: str, path: Any = None, target: object = None) -> ModuleSpec | None:
        """As Python finds it; what executes it does without the other for now."""
        optimizer, needed = self._made_of.get(name, ('', ''))
        if not optimizer or needed in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = (  # type: ignore[method-assign]
                lambda module: _put_off(execute, module, optimizer, needed))
        return spec


def _put_off(execute: Callable[[ModuleType], None], module: ModuleType, optimizer: str,
             needed: str) -> None:
    """Execute a module as if what it needs were missing, and register its optimiser for later."""
    sys.modules[needed] = None  # type: ignore[assignment]
    try:
        execute(module)
    finally:
        del sys.modules[needed]

    def build(params: Any, **options: Any) -> Any:
        import_module(needed)
        del registry.module_dict[optimizer]
        if needed == 'transformers':
            module.register_transformers_optimizers()
        else:
            execute(module)
        return registry.get(optimizer)(params, **options)

    registry = module.OPTIMIZERS
    if find_spec(needed) is not None:
        registry.register_module(name=optimizer, module=build, force=True)


def allow_checkpoint_globals() -> None:
    """Let ``torch.load(weights_only=True)`` read what MMEngine writes into its checkpoints.

    The message hub stores its scalar histories (``HistoryBuffer``) with numpy arrays inside;
    since torch 2.6 the unpickler refuses both. Only these inert types are added to its list. A
    history also names its own statistics through ``getattr``, and a one-cycle schedule its
    annealing, which must not be allowed as such: the unpickler is given a stand-in that reaches
    those and nothing else, and a stand-in for the schedule's class, which costs no import.
    """
    from _codecs import encode  # numpy's arrays are written with it; torch 2.4 refuses it
    from typing import cast

    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    class OneCycleParamScheduler:
        """Stands for MMEngine's class of that name."""

    def attribute(owner: object, name: str) -> object:
        if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current', 'statistics'):
            return getattr(HistoryBuffer, name)
        if owner is OneCycleParamScheduler and name in ('_annealing_cos', '_annealing_linear'):
            return getattr(import_module(_SCHEDULERS).OneCycleParamScheduler, name)
        raise ValueError(f'The checkpoint asks for {name!r} of {owner!r}, which no checkpoint of '
                         'MMEngine does; it is not loaded.')

    attribute.__module__ = 'builtins'
    attribute.__name__ = attribute.__qualname__ = 'getattr'
    OneCycleParamScheduler.__module__ = _SCHEDULERS
    OneCycleParamScheduler.__qualname__ = 'OneCycleParamScheduler'
    codes = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', '?')
    torch.serialization.add_safe_globals([
        HistoryBuffer, OneCycleParamScheduler, np.ndarray, np.dtype, attribute, encode,
        *cast(list[Callable[..., Any]],
              [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]),
        *(type(np.dtype(code)) for code in codes)])


def load_pymilvus() -> ModuleType:
    """The module ``pymilvus``, imported without its configuration of logging.

    It calls ``logging.config.dictConfig`` when it is imported, which closes every handler that
    there is: the engine's log file would get no line any more. Its loggers keep Python's defaults.

    Raises:
        ImportError: it is not installed.
    """
    from unittest.mock import patch

    with patch('logging.config.dictConfig'):
        import pymilvus
        import pymilvus.milvus_client
    return pymilvus
