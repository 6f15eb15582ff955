"""A config over images turned into one over their extracted features, and its runs."""
from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from .fitted_checkpoint import each_image_once, extract, extraction_loader, with_pipeline

_KEPT_HOOKS = ('PreparePrototypeHook', 'PrepareProtoBeforeValLoopHook', 'ReproducibleTrainingHook')
_TRAINED = ('image_encoder.projection.', 'image_encoder.whitening.', 'head.')


def trained_weights(state: dict[str, Any]) -> dict[str, Any]:
    """The weights that stand behind the features, by name."""
    return {name: value for name, value in state.items() if name.startswith(_TRAINED)}


def check_trainable(config: Any) -> None:
    """Raises ValueError for a config that lacks what is trained, or what to train it with."""
    if not config.get('train_dataloader'):
        raise ValueError('The config has no train_dataloader, so there is nothing to train on.')
    if config.model.get('head') is None:
        raise ValueError('The config has no head, so there is no loss to train by: give it one, '
                         "such as head=dict(type='MetricHead', loss=dict(type='PML.…')).")
    if not isinstance(config.model.get('prototype'), dict):
        raise ValueError("The config's prototype must be a dataloader here, since the gallery is "
                         'encoded with the projection that is trained.')
    if not isinstance(config.model.image_encoder, dict):
        raise ValueError('What is trained stands behind the backbone and pooling of an '
                         'ImageEncoder, and this config has a sequence of encoders.')


def set_projection(config: Any, width: int | None, hidden: int | None) -> None:
    """Put a projection of that width into a config, and tell a loss that has to know it."""
    if width is None:
        if hidden is not None:
            raise ValueError('--hidden is the layer before the projection: give --projection too.')
        return
    config.model.image_encoder.projection = dict(out_features=width) if hidden is None else dict(
        out_features=width, hidden_features=hidden)
    head = config.model.head
    losses = head.get('loss')
    for part in losses if isinstance(losses, (list, tuple)) else [losses]:
        if isinstance(part, dict) and 'embedding_size' in part:
            part['embedding_size'] = width
    if 'in_features' in head:
        head['in_features'] = width


def set_schedule(config: Any, epochs: int | None, lr: float | None) -> None:
    """AdamW with a cosine, where the config has no schedule or another one is asked for."""
    if epochs is None and lr is None and config.get('optim_wrapper') and config.get('train_cfg'):
        return
    epochs = 20 if epochs is None else epochs
    rate = 1e-3 if lr is None else lr
    if epochs < 1 or not rate > 0:
        raise ValueError(f'epochs must be at least 1 and lr above 0, got {epochs} and {rate}.')
    config.train_cfg = dict(type='retrieval.ResumableTrainLoop', max_epochs=epochs)
    config.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(
        type='AdamW', lr=rate, weight_decay=1e-4))
    config.param_scheduler = [dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True,
                                   eta_min=rate / 100, convert_to_iter_based=True)]


class FeatureSets:
    """The sets of a config as features.

    Args:
        model: the retriever whose encoder extracts them.
        config: the config over images.
        folder: where they are kept.
        anew: extract them, even if they are there.
    """

    def __init__(self, model: Any, config: Any, folder: str | os.PathLike,
                 anew: bool = False) -> None:
        from .config import test_pipeline

        self.model, self.folder, self.anew = model, folder, anew
        self._files: dict[str, Path] = {}
        self.training, file = self._extracted(config.train_dataloader, test_pipeline(config))
        self.width = self.training.dim
        self.config = self._over_features(config, file)

    def _extracted(self, loader: Any, pipeline: list | None = None) -> tuple[Any, Path]:
        return extract(self.model, extraction_loader(loader, pipeline), self.folder, 'pooling',
                       self.anew)

    def _loader(self, loader: Any, file: Path | None = None) -> dict:
        """A dataloader's config that gives features; each set is extracted once."""
        from ..gallery import hash_settings

        if file is None:
            key = hash_settings(each_image_once(loader['dataset']))
            if key not in self._files:
                self._files[key] = self._extracted(loader)[1]
            file = self._files[key]
        pipeline = [dict(type='retrieval.LoadCachedFeatures', file=str(file)),
                    dict(type='retrieval.PackInputs')]
        changed = dict(loader, dataset=with_pipeline(loader['dataset'], pipeline), num_workers=0)
        changed.pop('persistent_workers', None)
        changed.pop('prefetch_factor', None)
        return changed

    def _over_features(self, config: Any, file: Path) -> Any:
        from retrieval.retrievers import loader_pipeline, warn_of_pipelines

        changed = copy.deepcopy(config)
        changed.train_dataloader = self._loader(config.train_dataloader, file)
        kind = 'val' if config.get('val_dataloader') and config.get('val_evaluator') else 'test'
        loader, evaluator = (config.get(f'{kind}_{what}') for what in ('dataloader', 'evaluator'))
        if loader and evaluator:
            warn_of_pipelines(loader_pipeline(loader), loader_pipeline(config.model.prototype),
                              f'{kind}_dataloader')
            changed.val_dataloader, changed.val_evaluator = self._loader(loader), evaluator
            changed.val_cfg = dict()
        else:
            changed.val_dataloader = changed.val_evaluator = changed.val_cfg = None
        changed.test_dataloader = changed.test_evaluator = changed.test_cfg = None
        model = changed.model
        model.prototype = self._loader(config.model.prototype)
        given = model.image_encoder
        model.image_encoder = dict(
            type='retrieval.ImageEncoder', pooling=None, normalize=given.get('normalize', True),
            backbone=dict(type='retrieval.CachedFeatures', num_features=self.width),
            projection=given.get('projection'), whitening=given.get('whitening'))
        model.train_cfg = model.pretrained = None
        model.data_preprocessor = _labels_only(
            model.get('data_preprocessor') or changed.get('data_preprocessor'))
        changed.data_preprocessor = changed.load_from = None
        changed.resume = False
        changed.log_level = 'WARNING'
        changed.default_hooks = dict(changed.get('default_hooks') or {}, checkpoint=None)
        changed.custom_hooks = [hook for hook in changed.get('custom_hooks') or []
                                if str(hook.get('type')).rsplit('.', 1)[-1] in _KEPT_HOOKS]
        return changed


def _labels_only(preprocessor: Any) -> dict | None:
    """Of a data preprocessor's settings those that are not about pixels."""
    given = preprocessor or {}
    kept = {name: given[name] for name in ('to_onehot', 'num_classes') if name in given}
    return dict(type='retrieval.RetrievalDataPreprocessor', **kept)


def evaluate(config: Any, state: dict[str, Any], projected: bool = True) -> dict[str, float]:
    """The figures of the validation set with some weights; empty where there is none.

    Args:
        config: over features.
        state: the weights behind the features.
        projected: False for the features themselves, without projection and whitening.
    """
    from .config import build_runner

    if not config.get('val_dataloader'):
        return {}
    config = _run_config(config, 'evaluation')
    config.train_dataloader = config.train_cfg = config.optim_wrapper = None
    config.param_scheduler = None
    if not projected:
        config.model.image_encoder.projection = config.model.image_encoder.whitening = None
        config.model.head = None
    runner = build_runner(config, 'none')
    if projected:
        runner.model.load_state_dict(state, strict=False)
    return {name: float(value) for name, value in runner.val().items()}


def train(config: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Train from some weights behind the features; returns them as they are then."""
    from .config import build_runner

    config = _run_config(config, 'training')
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    runner = build_runner(config, 'none')
    if not any(weight.requires_grad for weight in runner.model.parameters()):
        raise ValueError('There is nothing to train: the config has no projection, and its head '
                         'no weights. Give --projection, such as 128.')
    runner.register_hook(_Start(state), priority='VERY_HIGH')
    runner.train()
    return {name: value.cpu() for name, value in runner.model.state_dict().items()}


class _Start(Hook):
    """Loads weights when the engine has initialised the model, which would undo it."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def before_train(self, runner: Any) -> None:
        runner.model.load_state_dict(self.state, strict=False)


def _run_config(config: Any, name: str) -> Any:
    """A copy with a name of its own, which the engine wants of every run in a process.

    Its text is not formatted: the engine writes it out several times a run, and formatting it
    takes longer than the training.
    """
    import secrets

    from mmengine.config import Config

    changed = Config(config.to_dict(), format_python_code=False)
    changed.visualizer = None
    changed.experiment_name = f'embeddings-{name}-{secrets.token_hex(4)}'
    return changed
