"""Which settings a config may have, at every depth, and the refusal of those that do nothing.

What a type takes is read from its constructor (:mod:`retrieval.arguments`), what the top level
takes from MMEngine's Runner. Nothing is built, but for the metrics, which say what they compute.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .. import registry
from ..arguments import arguments, takes_any
from ..registry import Registry, nearest_names, unknown_name

# Read from the top level beside the arguments of the Runner: by the engine, here, by mmpretrain.
_FURTHER = ('model_wrapper_cfg', 'compile', 'find_unused_parameters', 'efficient_conv_bn_eval',
            'custom_imports', 'gallery_dataloader', 'query_dataloader', 'index')
_ENGINE_KEYS = ('type', '_scope_', '_delete_')
_DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler',
                  'checkpoint')
_PARAMWISE = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
              'dwconv_decay_mult', 'flat_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate')
_ALIKE = 0.7  # so like a known name is no name of its own
_ALL = [value for value in vars(registry).values() if isinstance(value, Registry)] + registry.EMPTY
_BY_NAME = {one.name: one for one in _ALL if one is not registry.PML}


def top_level_names() -> set[str]:
    """The names that a run reads from the top level of a config."""
    from mmengine.runner import Runner

    return {*inspect.signature(Runner).parameters, *_FURTHER} - {'cfg'}


def is_misspelt(name: str, value: Any) -> bool:
    """True for a name of the top level that is like one that is read, or that holds a component.

    Example:
        >>> is_misspelt('optim_wraper', {}), is_misspelt('img_size', 224)
        (True, False)
    """
    parts = value if isinstance(value, (list, tuple)) else [value]
    return bool(nearest_names(name, top_level_names(), alike=_ALIKE)) or any(
        isinstance(part, Mapping) and 'type' in part for part in parts)


def check_settings(config: Any) -> None:
    """Refuse settings that no part of a run reads, below the names of the top level.

    Raises:
        ValueError: there are some; each is named with its place and the nearest valid names. Or
            a hook watches a metric that is not computed.
        UnknownTypeError: a ``ValueError``; a type that no registry holds.

    Example:
        >>> try:
        ...     check_settings(dict(model=dict(type='ImageToImageRetriever', topkk=3)))
        ... except ValueError as error:
        ...     print(str(error).partition('.')[0])
        Unknown setting of model (ImageToImageRetriever) 'topkk'
    """
    from mmengine.registry import DefaultScope

    check = _Check(config.get('default_scope') or 'retrieval')
    with DefaultScope.overwrite_default_scope(check.scope):
        for name in top_level_names() & set(config):
            if config[name] is not None:
                check.top_level(name, config[name])
        if not check.found:
            check.watched_metrics(config)
    if check.found:
        raise ValueError('\n'.join(check.found))


class _Check:
    """Goes through a config, and collects what is wrong."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.found: list[str] = []

    def top_level(self, name: str, value: Any) -> None:
        """Check what stands under a name of the top level."""
        if name.endswith('_dataloader'):
            self.loader(name, value)
        elif name.endswith('_evaluator'):
            self.evaluator(name, value)
        elif name in ('train_cfg', 'val_cfg', 'test_cfg'):
            self.loop(name, value)
        elif name == 'optim_wrapper':
            self.optim_wrapper(name, value)
        elif name == 'default_hooks':
            self.default_hooks(value)
        elif name == 'param_scheduler':
            several = isinstance(value, Mapping) and 'type' not in value
            for place, part in _items(name, value) if several else [(name, value)]:
                self.part(place, part, _BY_NAME['parameter scheduler'],
                          extra=('convert_to_iter_based',))
        elif name in _COMPONENTS:
            kind, default, extra = _COMPONENTS[name]
            self.part(name, value, _BY_NAME[kind], default, extra)
        elif name in _PLAIN:
            self.keys(name, value, _PLAIN[name]())
        if name == 'env_cfg' and isinstance(value, Mapping):
            for key, names in (('mp_cfg', _of_processes()), ('dist_cfg', _of_groups())):
                self.keys(f'{name}.{key}', value.get(key), names)

    def keys(self, place: str, value: Any, valid: Collection[str]) -> None:
        """Note the keys of a dict that are not valid."""
        for key in value if isinstance(value, Mapping) else ():
            if key not in valid and key not in _ENGINE_KEYS:
                self.found.append(unknown_name(f'setting of {place}', key, valid))

    def part(self, place: str, value: Any, kinds: Registry | None = None,
             default: str | None = None, extra: Collection[str] = ()) -> None:
        """Check a component, or each of a list, and what stands in it.

        Args:
            place: where it stands.
            value: its config; anything else is left alone.
            kinds: the registry that it is built from; None where that is not known.
            default: its type where it names none.
            extra: names that it takes beside those of its constructor.
        """
        if isinstance(value, (list, tuple)):
            for inner, one in _items(place, value):
                self.part(inner, one, kinds, default, extra)
        if not isinstance(value, Mapping):
            return
        given = value.get('type', default)
        found = self.resolve(given, kinds)
        if given is None or not found:
            return
        valid = {name: one for kind in found for name, one in self.taken(kind, value).items()}
        known = {name for name, one in valid.items()
                 if one.kind is not one.VAR_KEYWORD} | set(extra)
        name = given if isinstance(given, str) else getattr(given, '__name__', str(given))
        for key, inner in value.items():
            if key in known:
                self.inner(f'{place}.{key}', key, inner, name, found)
            elif key not in _ENGINE_KEYS and (
                    not takes_any(valid) or nearest_names(key, known, alike=0.8)):
                self.found.append(unknown_name(f'setting of {place} ({name})', key, known))

    def taken(self, kind: Callable[..., Any],
              value: Mapping[str, Any]) -> dict[str, inspect.Parameter]:
        """The arguments of a type, with those of the type that one of its arguments names."""
        found = dict(arguments(kind))
        further = next((name for name in found if takes_any(found) and (
            name.endswith('_type') or name == 'schedule')), None)
        named = None if further is None else value.get(further, found[further].default)
        if named is not None and len(inner := self.resolve(named, None)) == 1:
            own = {name: one for name, one in found.items() if one.kind is not one.VAR_KEYWORD}
            return {**arguments(inner[0]), **own}
        if getattr(kind, '__name__', '') == 'CheckpointHook':
            from mmengine.runner import Runner
            own = {name: one for name, one in found.items() if one.kind is not one.VAR_KEYWORD}
            return {**arguments(Runner.save_checkpoint), **own}
        return found

    def inner(self, place: str, key: str, value: Any, owner: str,
              owners: list[Callable[..., Any]]) -> None:
        """Check what stands in a component under one of its arguments."""
        if owner.rpartition('.')[2].startswith('torchvision/') and key == 'transforms':
            value = [dict(one, type=f'torchvision/{str(one.get("type")).split("/")[-1]}')
                     if isinstance(one, Mapping) else one for one in value]
        if key in ('prototype', 'dataloader'):
            self.loader(place, value)
        elif key in ('augments', 'batch_augments') and isinstance(value, Mapping):
            self.keys(place, value, ('augments', 'probs'))
            self.part(f'{place}.augments', value.get('augments'), registry.BATCH_AUGMENTS)
        elif key == 'train_cfg':
            self.inner(place, 'batch_augments', value, owner, owners)
        elif key == 'multi_scale':
            from ..encoders import MultiScale
            self.keys(place, value, arguments(MultiScale))
        elif key == 'metrics' and owner.rpartition('.')[2] == 'Evaluator':
            self.part(place, value, registry.METRICS)
        else:
            kinds, default = _INNER.get(key, (None, None))
            extra = ('path',) if key == 'index' else (
                ('name', 'loss_weight', 'miner') if owner.endswith('MetricHead') else ())
            self.part(place, value, kinds, default, extra)

    def resolve(self, given: Any, kinds: Registry | None) -> list[Callable[..., Any]]:
        """The types that a name may mean; none for one that only a foreign scope can know.

        Raises:
            UnknownTypeError: the registry is known and does not hold it.
        """
        if not isinstance(given, str):
            return [given] if callable(given) else []
        found = []
        for one in _ALL if kinds is None else [kinds]:
            if self.scope == 'retrieval':
                kind = one.find(given)
            else:
                with one.switch_scope_and_registry(self.scope) as inside:
                    kind = getattr(inside, 'find', inside.get)(given)
            if kind is not None and kind not in found:
                found.append(kind)
        scope = given.rpartition('.')[0] or self.scope
        if not found and scope == 'PML':
            registry.PML.get(given)
        if not found and scope == 'retrieval' and kinds is not None:
            kinds.get(given)
        return found

    def loader(self, place: str, value: Any) -> None:
        """Check a dataloader."""
        if not isinstance(value, Mapping):
            return
        from torch.utils.data import DataLoader

        self.keys(place, value, {*inspect.signature(DataLoader).parameters,
                                 'num_batch_per_epoch', 'disable_subprocess_warning'})
        for key, kinds in (('dataset', registry.DATASETS), ('collate_fn', registry.FUNCTIONS),
                           ('sampler', registry.DATA_SAMPLERS),
                           ('batch_sampler', registry.DATA_SAMPLERS),
                           ('worker_init_fn', registry.FUNCTIONS)):
            self.part(f'{place}.{key}', value.get(key), kinds)

    def evaluator(self, place: str, value: Any) -> None:
        """Check an evaluator, which may be a metric or several."""
        if isinstance(value, Mapping) and 'metrics' in value:
            kind = value.get('type', 'Evaluator')
            metric = isinstance(kind, str) and registry.METRICS.find(kind) is not None
            self.part(place, value, registry.METRICS if metric else registry.EVALUATORS,
                      'Evaluator')
        else:
            self.part(place, value, registry.METRICS)

    def loop(self, place: str, value: Any) -> None:
        """Check a loop; training is by epochs where it does not say."""
        default = {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}.get(place)
        by_epoch = isinstance(value, Mapping) and value.get('by_epoch', True)
        self.part(place, value, registry.LOOPS, default or (
            'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'), ('by_epoch',))

    def optim_wrapper(self, place: str, value: Any) -> None:
        """Check an optimiser and its wrapper, or several by name."""
        if not isinstance(value, Mapping):
            return
        if not {'optimizer', 'type', 'constructor'} & set(value):
            for inner, one in _items(place, value):
                if isinstance(one, Mapping):
                    self.optim_wrapper(inner, one)
                else:
                    self.found.append(f'{inner} belongs to no optimizer: write {place}=dict('
                                      "optimizer=dict(type='AdamW', lr=…)).")
            return
        own_constructor = value.get('constructor') not in (None, 'DefaultOptimWrapperConstructor')
        self.part(place, value, registry.OPTIM_WRAPPERS, 'OptimWrapper',
                  set(value) if own_constructor else ('paramwise_cfg', 'constructor', 'optimizer'))
        clip = value.get('clip_grad')
        if isinstance(clip, Mapping):
            from torch.nn import utils
            function = utils.clip_grad_value_ if clip.get('type') == 'value' else \
                utils.clip_grad_norm_
            self.keys(f'{place}.clip_grad', clip, {*inspect.signature(function).parameters, 'type'})
        paramwise = value.get('paramwise_cfg')
        if isinstance(paramwise, Mapping) and not own_constructor:
            self.keys(f'{place}.paramwise_cfg', paramwise, _PARAMWISE)
            for key, one in (paramwise.get('custom_keys') or {}).items():
                self.keys(f'{place}.paramwise_cfg.custom_keys.{key}', one,
                          ('lr_mult', 'decay_mult'))

    def default_hooks(self, value: Any) -> None:
        """Check the default hooks: a misspelt name would stand beside the hook that it means."""
        for name, hook in value.items() if isinstance(value, Mapping) else ():
            place = f'default_hooks.{name}'
            untyped = isinstance(hook, Mapping) and 'type' not in hook
            if name not in _DEFAULT_HOOKS and (untyped or nearest_names(
                    name, _DEFAULT_HOOKS, alike=_ALIKE)):
                self.found.append(unknown_name('hook in default_hooks', name, _DEFAULT_HOOKS))
            elif untyped:
                self.found.append(f"{place} has no type: write {place}.type, such as "
                                  "'CheckpointHook'.")
            self.part(place, hook, registry.HOOKS, extra=('priority',))

    def watched_metrics(self, config: Mapping[str, Any]) -> None:
        """Note the hooks and schedules that watch a metric which validation does not compute."""
        if not config.get('val_evaluator'):
            return
        names: list[str] | None = None
        for place, key, watched, rule in _watched(config):
            for one in _listed(rule):
                if one not in ('greater', 'less'):
                    self.found.append(unknown_name(f'{place} rule', one, ('greater', 'less')))
            for one in _listed(watched):
                names = computed_metrics(config['val_evaluator']) if names is None else names
                if one != 'auto' and names and one not in names:
                    self.found.append(unknown_name(
                        f'metric in {place}.{key}, which val_evaluator does not compute:', one,
                        names))


def _watched(config: Mapping[str, Any]) -> list[tuple[str, str, Any, Any]]:
    """Place, argument, metrics and rule of what watches a metric."""
    hooks = dict(config.get('default_hooks') or {})
    placed = [*_items('default_hooks', hooks), *_items('custom_hooks', list(
        config.get('custom_hooks') or []))]
    return [(place, key, hook[key], hook.get('rule')) for place, hook in placed
            if isinstance(hook, Mapping) for key in ('save_best', 'monitor')
            if hook.get(key) is not None]


def computed_metrics(evaluator: Any) -> list[str] | None:
    """The names of the results of an evaluator; None where a metric does not say.

    Example:
        >>> computed_metrics(dict(type='EmbeddingMetrics', metrics=['mAP']))
        ['embedding/mAP', 'embedding/num_queries', 'embedding/num_skipped_queries']
    """
    if isinstance(evaluator, Mapping) and registry.METRICS.find(
            str(evaluator.get('type'))) is None and 'metrics' in evaluator:
        evaluator = evaluator['metrics']
    found: list[str] = []
    for part in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]:
        metric = registry.METRICS.build(dict(part)) if isinstance(part, Mapping) else part
        if not hasattr(metric, 'result_names'):
            return None
        found += metric.result_names()
    return found


def _items(place: str, value: Any) -> list[tuple[str, Any]]:
    """The parts of a list or dict with their places, as ``--cfg-options`` writes them."""
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    return [(f'{place}.{key}', one) for key, one in pairs]


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _of_processes() -> Collection[str]:
    from mmengine.utils.dl_utils import set_multi_processing
    return set(arguments(set_multi_processing)) - {'distributed'}


def _of_groups() -> Collection[str]:
    from mmengine.dist import init_dist
    from torch.distributed import init_process_group
    return {'port', *inspect.signature(init_dist).parameters,
            *inspect.signature(init_process_group).parameters} - {'kwargs', 'launcher'}


def _of_randomness() -> Collection[str]:
    from mmengine.runner import Runner
    return set(arguments(Runner.set_randomness)) - {'self'}


def _of_compile() -> Collection[str]:
    import torch
    return set(arguments(torch.compile)) - {'model'}


_PLAIN: dict[str, Callable[[], Collection[str]]] = {
    'env_cfg': lambda: ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'randomness': _of_randomness, 'compile': _of_compile,
    'auto_scale_lr': lambda: ('enable', 'base_batch_size'),
    'custom_imports': lambda: ('imports', 'allow_failed_imports')}
# Of a name of the top level: the registry, the type where none is given, further names.
_COMPONENTS: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    'model': ('model', None, ()),
    'data_preprocessor': ('model', 'retrieval.RetrievalDataPreprocessor', ()),
    'custom_hooks': ('hook', None, ('priority',)),
    'visualizer': ('visualizer', 'Visualizer', ()),
    'log_processor': ('log_processor', 'LogProcessor', ()),
    'model_wrapper_cfg': ('model_wrapper', 'MMDistributedDataParallel', ()),
    'index': ('index', None, ('path',))}
# Of an argument's name: the registry, and the type where none is given.
_INNER: dict[str, tuple[Registry | None, str | None]] = {
    'dataset': (registry.DATASETS, None), 'datasets': (registry.DATASETS, None),
    'pipeline': (registry.TRANSFORMS, None), 'transforms': (registry.TRANSFORMS, None),
    'image_encoder': (registry.MODELS, None), 'head': (registry.MODELS, None),
    'backbone': (registry.MODELS, None), 'pooling': (registry.MODELS, None),
    'projection': (registry.MODELS, 'retrieval.Projection'),
    'whitening': (registry.MODELS, 'retrieval.Whitening'),
    'data_preprocessor': (registry.MODELS, 'retrieval.RetrievalDataPreprocessor'),
    'index': (registry.INDEXES, 'retrieval.ExactIndex'), 'rerank': (registry.RERANKERS, None),
    'optimizer': (_BY_NAME['optimizer'], None), 'vis_backends': (_BY_NAME['vis_backend'], None)}
