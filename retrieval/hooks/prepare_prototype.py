"""The hook that keeps the prototype and the weights together."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from ..distributed import unwrapped
from ..evaluation.needed_columns import check_columns
from ..registry import HOOKS
from ..retrievers import (
    BaseRetriever,
    ImageToImageRetriever,
    configured_prototype,
    loader_pipeline,
    warn_of_pipelines,
)


@HOOKS.register_module(name=['PreparePrototypeHook', 'PrepareProtoBeforeValLoopHook'])
class PreparePrototypeHook(Hook):
    """Encodes the prototype before every validation and test, and hands it to the metrics.

    It acts late, at ``before_val_epoch`` and ``before_test_epoch`` with LOW priority: only there
    have hooks that swap weights (an exponential moving average) put in those that the queries
    will be encoded with. Metrics with a ``set_gallery`` are given the gallery. Once a run it warns
    where the queries go through another pipeline than the gallery.

    A retriever without a prototype gets that of the Runner's config, see
    :func:`retrieval.retrievers.configured_prototype`.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._compared: set[str] = set()

    def before_run(self, runner: Any) -> None:
        """Let the prototype be what became of the config's ``gallery_dataloader``.

        Raises:
            ValueError: an evaluation needs a column that the queries or the gallery do not keep.
        """
        for kind in ('val', 'test'):
            check_columns(runner.cfg.get(f'{kind}_evaluator'), runner.cfg.get(f'{kind}_dataloader'),
                          configured_prototype(runner.cfg))
        model = unwrapped(runner.model)
        if not isinstance(model, ImageToImageRetriever):
            return
        given, configured = model.prototype, configured_prototype(runner.cfg)
        is_stale = isinstance(given, Mapping) and given != configured and \
            given == runner.cfg.get('model', {}).get('prototype')
        if configured is not None and (given is None or is_stale):
            model.search_in(configured)

    def before_val_epoch(self, runner: Any) -> None:
        """Prepare for validation."""
        self._prepare(runner, runner.val_loop, 'val_dataloader')

    def before_test_epoch(self, runner: Any) -> None:
        """Prepare for testing."""
        self._prepare(runner, runner.test_loop, 'test_dataloader')

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Queries outside an evaluation are always encoded."""
        self._model(runner).end_evaluation()

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Queries outside an evaluation are always encoded."""
        self._model(runner).end_evaluation()

    def _prepare(self, runner: Any, loop: Any, name: str) -> None:
        model = self._model(runner)
        if name not in self._compared:
            self._compared.add(name)
            queries = loader_pipeline(loop.dataloader) or loader_pipeline(runner.cfg.get(name))
            warn_of_pipelines(queries, loader_pipeline(getattr(model, 'prototype', None)), name)
        gallery = model.begin_evaluation(loop.dataloader.dataset)
        for metric in loop.evaluator.metrics:
            if gallery is not None and hasattr(metric, 'set_gallery'):
                metric.set_gallery(gallery)

    @staticmethod
    def _model(runner: Any) -> Any:
        model = unwrapped(runner.model)
        if not isinstance(model, BaseRetriever):
            raise TypeError(f'PreparePrototypeHook wants a retriever as the model, got '
                            f'{type(model).__name__}. Take it out of custom_hooks, or set model='
                            "dict(type='ImageToImageRetriever', …).")
        return model
