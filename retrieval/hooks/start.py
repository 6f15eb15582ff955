"""Where a training starts, and whether it came further than that."""
from __future__ import annotations

import logging
from typing import Any

from mmengine.dist import broadcast
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop

from ..checks import real_number
from ..distributed import unwrapped
from ..encoders import ImageEncoder, start_at_components
from ..registry import HOOKS, unknown_name
from ..retrievers import cache_features
from ..retrievers.build import config_pipeline
from ..retrievers.extraction import cache_file, extraction_loader

_PROJECTION = 'image_encoder.projection.'
CURVE = 'curve_of_validations'  # a name that begins with val would be logged


@HOOKS.register_module()
class StartAtComponentsHook(Hook):
    """Lets the encoder's projection start at the principal components of the training features.

    A projection that starts anew throws away what the backbone knows, and a short training does not
    bring it back. The training images are encoded once, through the test pipeline, and their
    features kept in the work dir, where ``train_on_embeddings`` finds them too. A projection whose
    weights came from a checkpoint, one with a hidden layer and none at all stay as they are.

    Raises:
        ValueError: the config has no training set, or no pipeline for tests.
    """

    priority = 'ABOVE_NORMAL'  # before the weights are averaged, and before the first validation

    def __init__(self) -> None:
        self._loaded = False

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Note whether it has a projection."""
        self._loaded = any(name.startswith(_PROJECTION) for name in checkpoint['state_dict'])

    def before_train(self, runner: Any) -> None:
        """Encode the training set and set the projection."""
        model = unwrapped(runner.model)
        encoder = getattr(model, 'image_encoder', None)
        if (self._loaded or runner.iter or not isinstance(encoder, ImageEncoder)
                or not list(encoder.projection.parameters())):
            return
        loader, pipeline = runner.cfg.get('train_dataloader'), config_pipeline(runner.cfg)
        if not loader or pipeline is None:
            raise ValueError('StartAtComponentsHook encodes the images of train_dataloader through '
                             'the pipeline of test_dataloader, and the config lacks one of them.')
        loader = extraction_loader(loader, pipeline)
        features, _ = cache_features(model, loader, cache_file(runner.work_dir, loader, 'pooling'))
        if start_at_components(encoder.projection, features.embeddings):
            for weight in encoder.projection.parameters():
                broadcast(weight.data)  # the last digit may differ between machines
            runner.logger.info(f'The projection starts at the {encoder.embedding_size} principal '
                               f'components of {len(features)} training features.')


@HOOKS.register_module()
class AveragedWeightsHook(EMAHook):
    """The engine's moving average of the weights, over the last share of the run.

    Validation, its gallery and the saved checkpoints use the average. The engine's hook is told a
    momentum, which fits one length of the run, and copies the weights before they are initialised,
    so that a validation before the first step would see others.

    Args:
        share: how far back the average reaches, as a share of the run's iterations: a step so long
            ago counts 1/e of the last one.
        kwargs: those of MMEngine's ``EMAHook``, without a momentum.

    Raises:
        ValueError: a share outside (0, 1).
    """

    def __init__(self, share: float = 0.1, **kwargs: Any) -> None:
        self.share = real_number('share', share, above=0, below=1)
        super().__init__(momentum=0.5, **kwargs)

    def before_train(self, runner: Any) -> None:
        """Begin at the weights that training begins at."""
        super().before_train(runner)
        self.ema_model.momentum = 1 / max(self.share * runner.max_iters, 1)
        if not runner.iter:
            self.ema_model.module.load_state_dict(self.src_model.state_dict())


@HOOKS.register_module()
class CompareWithStartHook(Hook):
    """Validates before the first step, and says at the end whether the training helped.

    The untrained encoder is epoch 0 of every log and curve, and a candidate for the best
    checkpoint. At the end all validations are listed, and the best is compared with the start.

    Args:
        metric: the metric to compare by; None: the one that the best checkpoint is kept by, else
            the first.
        rule: ``'greater'`` or ``'less'`` is better.

    Raises:
        ValueError: another rule, or a metric that is not computed.
    """

    priority = 'LOWEST'

    def __init__(self, metric: str | None = None, rule: str = 'greater') -> None:
        if rule not in ('greater', 'less'):
            raise ValueError(unknown_name('rule', rule, ('greater', 'less')))
        self.metric, self.rule = metric, rule
        self._training = False

    def before_train(self, runner: Any) -> None:
        """Validate, where there is something to validate by and nothing was trained yet."""
        self._training = runner.val_loop is not None
        if self._training and not runner.iter:
            runner.message_hub.update_info(CURVE, [])
            runner.val_loop.run()

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Note a validation; checkpoints carry the list."""
        if self._training:
            curve = list(runner.message_hub.runtime_info.get(CURVE, []))
            curve.append({'step': _step(runner), **{
                name: float(value) for name, value in (metrics or {}).items()
                if isinstance(value, (int, float))}})
            runner.message_hub.update_info(CURVE, curve)

    def after_train(self, runner: Any) -> None:
        """List the validations, and compare."""
        curve = runner.message_hub.runtime_info.get(CURVE, []) if self._training else []
        self._training = False
        if curve:
            metric = self._metric(runner, curve[-1])
            unit = 'iteration' if isinstance(runner.train_loop, IterBasedTrainLoop) else 'epoch'
            runner.logger.info(_table(curve, unit))
            level, sentence = compared(curve, metric, unit, self.rule)
            runner.logger.log(level, sentence)

    def _metric(self, runner: Any, metrics: dict[str, float]) -> str:
        names = [name for name in metrics if name != 'step' and '/num_' not in name]
        wanted = self.metric
        for hook in runner.hooks:
            if wanted is None and isinstance(hook, CheckpointHook) and hook.save_best:
                wanted = hook.key_indicators[0]
        wanted = names[0] if wanted in (None, 'auto') else wanted
        if wanted not in names:
            raise ValueError(unknown_name('metric', wanted, names))
        return str(wanted)


def compared(curve: list[dict[str, float]], metric: str, unit: str = 'epoch',
             rule: str = 'greater') -> tuple[int, str]:
    """The best of a list of validations against the first, as a log level and a sentence.

    Args:
        curve: each validation's metrics, and after how many epochs or iterations (``step``).
        metric: the metric to compare by.
        unit: what ``step`` counts.
        rule: ``'greater'`` or ``'less'`` is better.

    Example:
        >>> compared([{'step': 0, 'R': 60.0}, {'step': 1, 'R': 64.5}], 'R')[1]
        'Training helped: R was 60.00 at the start and is 64.50 at best (epoch 1), by 4.50.'
    """
    def better(one: dict[str, float]) -> float:
        return one[metric] if rule == 'greater' else -one[metric]

    start, trained = curve[0], curve[1:]
    if start['step']:
        return logging.INFO, f'{metric} was not measured at the start, so there is no comparison.'
    if not trained:
        return logging.INFO, f'{metric} was measured at the start alone.'
    best, last = max(trained, key=better), trained[-1]  # the first of several
    gain = better(best) - better(start)
    at = f'{best[metric]:.2f} at best ({unit} {best["step"]:g})'
    end = '' if last is best else f', {last[metric]:.2f} at the end'
    if gain > 0:
        return logging.INFO, (f'Training helped: {metric} was {start[metric]:.2f} at the start and '
                              f'is {at}, by {gain:.2f}{end}.')
    return logging.WARNING, (
        f'TRAINING DID NOT HELP: {metric} was {start[metric]:.2f} at the start and {at}{end}. Keep '
        f'the encoder as it was ({unit} 0), or train what stands behind it: train_on_embeddings.')


def _step(runner: Any) -> int:
    """How many epochs, or iterations, are done."""
    is_by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
    return int(runner.iter if is_by_iter else runner.epoch)


def _table(curve: list[dict[str, float]], unit: str) -> str:
    """All validations, a line each, the metrics that all of them have."""
    names = [name for name in curve[-1] if name != 'step' and '/num_' not in name
             and all(name in one for one in curve)]
    lines = [f'{unit:>9}  ' + '  '.join(names)]
    lines += [f'{one["step"]:9g}  ' + '  '.join(f'{one[name]:{len(name)}.2f}' for name in names)
              for one in curve]
    return 'All validations:\n' + '\n'.join(lines)
