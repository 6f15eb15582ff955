"""The registries: children of MMEngine's, in the scope ``retrieval``.

A config with ``default_scope='retrieval'`` needs no imports: a registry imports the modules at its
locations the first time that a name is looked up in it. The scope ``PML`` is a second child of
MMEngine's root (as a child of ours it could not be found from a foreign default scope) and holds
the parts of pytorch-metric-learning.
"""
from __future__ import annotations

from importlib import import_module
from typing import Any

from mmengine.registry import Registry as _Registry
from mmengine.registry import root

from . import compat
from .checks import nearest_names as nearest_names
from .checks import unknown_name as unknown_name

compat.install()


class UnknownTypeError(KeyError, ValueError):
    """A config names a type that no registry holds."""

    def __str__(self) -> str:
        return str(self.args[0])


def _check_package(key: str) -> None:
    """Refuse a name whose scope is a package that is missing or does not import."""
    package = key.partition('.')[0]
    if package == 'mmpretrain':
        try:
            import_module('mmpretrain.registry')
        except (ImportError, AssertionError) as error:
            raise UnknownTypeError(
                f'{key!r} is a part of mmpretrain, which cannot be imported ({error}). Install it: '
                "pip install 'retrieval[mmpretrain]'; docs/moving.md says what it needs."
            ) from error


class Registry(_Registry):
    """A registry that answers a wrong name with the nearest right ones."""

    def find(self, key: str) -> Any:
        """The object registered as ``key``, or None."""
        return super().get(key) if key else None

    def get(self, key: str) -> Any:
        """The object registered as ``key``.

        Raises:
            UnknownTypeError: a ``KeyError`` and ``ValueError``; it names the nearest names.
        """
        found = self.find(key)
        if found is None:
            _check_package(key)
            raise UnknownTypeError(unknown_name(f'{self.name} type', key, self.names()))
        return found

    def __contains__(self, key: str) -> bool:
        return self.find(key) is not None

    def names(self) -> list[str]:
        """All names that a config may write for this registry without a scope."""
        self.import_from_location()
        names = set(self.module_dict)
        parent = self.parent
        while parent is not None:
            names |= set(parent.module_dict)
            parent = parent.parent
        return sorted(names)


def _child(name: str, parent: _Registry | None, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope='retrieval',
                    locations=[f'retrieval.{location}' for location in locations])


MODELS = _child('model', root.MODELS, 'encoders', 'heads', 'retrievers')
DATASETS = _child('dataset', root.DATASETS, 'datasets')
TRANSFORMS = _child('transform', root.TRANSFORMS, 'datasets')
DATA_SAMPLERS = _child('data sampler', root.DATA_SAMPLERS, 'datasets')
FUNCTIONS = _child('function', root.FUNCTIONS, 'datasets')
EVALUATORS = _child('evaluator', root.EVALUATOR, 'evaluation')
METRICS = _child('metric', root.METRICS, 'evaluation')
HOOKS = _child('hook', root.HOOKS, 'hooks')
LOOPS = _child('loop', root.LOOPS, 'hooks')
OPTIM_WRAPPERS = _child('optim wrapper', root.OPTIM_WRAPPERS, 'hooks')
PARAM_SCHEDULERS = _child('parameter scheduler', root.PARAM_SCHEDULERS, 'hooks')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optim wrapper constructor', root.OPTIM_WRAPPER_CONSTRUCTORS, 'hooks')
INDEXES = _child('index', None, 'index')
RERANKERS = _child('reranker', None, 'rerank')
BATCH_AUGMENTS = _child('batch augment', None, 'encoders')
# The engine warns where a scope lacks one of its registries; those that are empty here serve its
# own names.
EMPTY = [_child(parent.name, parent) for parent in (
    root.INFERENCERS, root.LOG_PROCESSORS, root.MODEL_WRAPPERS,
    root.OPTIMIZERS,
    root.RUNNER_CONSTRUCTORS, root.RUNNERS, root.STRATEGIES, root.TASK_UTILS, root.VISBACKENDS,
    root.VISUALIZERS, root.WEIGHT_INITIALIZERS)]
PML = Registry('model', parent=root.MODELS, scope='PML', locations=['retrieval.losses.pml'])
