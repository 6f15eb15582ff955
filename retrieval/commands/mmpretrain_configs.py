"""Running an unmodified retrieval config of mmpretrain."""
from __future__ import annotations

from typing import Any

_OURS = ('ImageToImageRetriever', 'RetrievalRecall', 'RetrievalAveragePrecision')


def is_mmpretrain(config: Any) -> bool:
    """Whether the config is one of mmpretrain's with its retriever."""
    return (config.get('default_scope') == 'mmpretrain'
            and str(config.model.get('type')).rsplit('.', 1)[-1] == 'ImageToImageRetriever')


def _renamed(part: Any) -> Any:
    if part.get('type') in (*_OURS, *(f'mmpretrain.{name}' for name in _OURS)):
        part['type'] = 'retrieval.' + part['type'].rsplit('.', 1)[-1]
    return part


def adopt(config: Any) -> None:
    """Give retriever, metrics and prototype hook of such a config to this package.

    Encoder, head, datasets and pipelines stay mmpretrain's and are built by it.
    """
    _renamed(config.model)
    for key in ('val_evaluator', 'test_evaluator'):
        evaluator = config.get(key)
        if evaluator:
            parts = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
            config[key] = [_renamed(part) for part in parts]
    hooks = config.get('custom_hooks') or []
    config.custom_hooks = [
        hook for hook in hooks
        if str(hook.get('type')).rsplit('.', 1)[-1] != 'PrepareProtoBeforeValLoopHook']
