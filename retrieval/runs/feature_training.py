"""Training what stands behind a frozen encoder, by runs over :mod:`~retrieval.runs.features`."""
from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from ..checks import real_number, whole_number
from .config import build_runner
from .training import train as run_training

_TRAINED = ('image_encoder.projection.', 'image_encoder.whitening.', 'head.')


def trained_weights(state: dict[str, Any]) -> dict[str, Any]:
    """The weights that stand behind the features, by name."""
    return {name: value for name, value in state.items() if name.startswith(_TRAINED)}


def check_trainable(config: Any) -> None:
    """Raise ValueError for a config that lacks what is trained, or what to train it with."""
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
    epochs = whole_number('--epochs', 20 if epochs is None else epochs)
    rate = real_number('--lr', 1e-3 if lr is None else lr, above=0)
    config.train_cfg = dict(type='retrieval.ResumableTrainLoop', max_epochs=epochs)
    config.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(
        type='AdamW', lr=rate, weight_decay=1e-4))
    config.param_scheduler = [dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True,
                                   eta_min=rate / 100, convert_to_iter_based=True)]


def evaluate(config: Any, state: dict[str, Any], projected: bool = True) -> dict[str, float]:
    """The metrics of the validation set with some weights; empty where there is none.

    Args:
        config: over features.
        state: the weights behind the features.
        projected: False for the features themselves, without projection and whitening.
    """
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
    config = _run_config(config, 'training')
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    runner = build_runner(config, 'none')
    if not any(weight.requires_grad for weight in runner.model.parameters()):
        raise ValueError('There is nothing to train: the config has no projection, and its head '
                         'no weights. Give --projection, such as 128.')
    runner.register_hook(_Start(state), priority='VERY_HIGH')
    run_training(runner)
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
