"""Hooks that keep parts of the model from being trained, and how a hook finds its part."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.hooks import Hook
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..checks import real_number
from ..distributed import unwrapped
from ..registry import HOOKS, unknown_name


def part_of(model: nn.Module, name: str) -> nn.Module:
    """A submodule by its dotted name, such as ``image_encoder.backbone``.

    Raises:
        ValueError: there is none; the message lists the nearest names.
    """
    parts = dict(model.named_modules())
    parts.pop('')
    if name not in parts:
        raise ValueError(unknown_name(f'part of {type(model).__name__}', name, parts))
    return parts[name]


def check_epochs(runner: Any, what: str) -> None:
    """Refuse to count epochs where the loop counts iterations only.

    Raises:
        ValueError: the training loop is iteration-based.
    """
    from mmengine.runner import IterBasedTrainLoop  # late: it takes seconds

    if isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ValueError(f'{what} counts epochs, and the loop of this run '
                         f'({type(runner.train_loop).__name__}) counts iterations only: give '
                         'iterations instead.')


@HOOKS.register_module()
class FreezeHook(Hook):
    """Freezes parts of the model, for the beginning of a run or all of it.

    A frozen part gets no gradients, keeps its statistics (it is in evaluation mode, whatever calls
    ``model.train()``), and leaves no graph behind. Its parameters stay in the optimiser, which
    passes over parameters without a gradient, weight decay included; so a checkpoint from before
    the release resumes after it. What is frozen depends on the epoch or iteration alone.

    On several processes ``DistributedDataParallel`` is made before any hook runs, and waits for
    the gradients of what was trainable then. So a config with this hook sets
    ``find_unused_parameters=True`` (at the top, or in its ``model_wrapper_cfg``), which costs a
    walk through the graph in each iteration; without it the hook refuses. Parameters that the
    model itself froze when it was built are not waited for, and not released either.

    Args:
        modules: dotted names of submodules, such as ``'image_encoder.backbone'``.
        epochs: they are released after so many; None: see ``iterations``.
        iterations: they are released after so many; with no length they stay frozen.
        norm_eval: whether the batch norms inside keep their statistics after the release too; their
            scale and shift are then trained.
        share: they are released after this share of the run's iterations.

    Raises:
        ValueError: several lengths or one that is negative, a share outside [0, 1], a name that is
            not in the model, epochs in an iteration-based loop, nothing left to train, or a wrapper
            that waits for gradients.
    """

    def __init__(self, modules: str | Sequence[str], epochs: int | None = None,
                 iterations: int | None = None, norm_eval: bool = False,
                 share: float | None = None) -> None:
        if sum(length is not None for length in (epochs, iterations, share)) > 1:
            raise ValueError('Give epochs, iterations or a share of the run, one of them.')
        for name, value in (('epochs', epochs), ('iterations', iterations)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ValueError(f'{name} must be a number of at least 0, got {value!r}.')
        self.names = [modules] if isinstance(modules, str) else list(modules)
        if not self.names:
            raise ValueError("modules is empty: name at least one, as 'image_encoder.backbone'.")
        self.epochs = epochs
        self.iterations = iterations
        self.share = None if share is None else real_number('share', share, 0, 1)
        self.norm_eval = norm_eval
        self._parts: list[nn.Module] = []
        self._norms: list[nn.Module] = []
        self._trainable: list[nn.Parameter] = []
        self._held = False

    def before_run(self, runner: Any) -> None:
        """Find the parts, before any hook has frozen one."""
        model = unwrapped(runner.model)
        self._parts = [part_of(model, name) for name in self.names]
        self._norms = list(_batch_norms(self._parts)) if self.norm_eval else []
        self._trainable = [parameter for part in self._parts for parameter in part.parameters()
                           if parameter.requires_grad]

    def before_train(self, runner: Any) -> None:
        """Freeze, and see that the run can go on so."""
        if self.share is not None:
            self.iterations = round(self.share * runner.max_iters)
        if self.epochs is not None:
            check_epochs(runner, f'{type(self).__name__}(epochs={self.epochs})')
        if not self._is_frozen(runner):
            return
        _check_wrapper(runner.model, self._trainable)
        self._freeze()
        if not any(parameter.requires_grad for parameter in unwrapped(runner.model).parameters()):
            raise ValueError(f'{type(self).__name__} freezes {", ".join(self.names)}, and nothing '
                             'of the model is left to train: freeze less, or give the model a '
                             'projection or a loss with weights.')

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Freeze again: ``model.train()`` and other hooks may have undone it."""
        if self._is_frozen(runner):
            self._freeze()
        for norm in self._norms:
            norm.eval()

    # Released after an iteration, not before one, so that where hooks overlap each has its say in
    # `before_train_iter`, whatever their order.
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Release after the last frozen iteration."""
        if self.iterations is not None and runner.iter + 1 >= self.iterations:
            self._release()

    def after_train_epoch(self, runner: Any) -> None:
        """Release after the last frozen epoch."""
        if self.epochs is not None and runner.epoch + 1 >= self.epochs:
            self._release()

    def after_train(self, runner: Any) -> None:
        """Leave the parameters as they came; the mode is now that of whoever evaluates."""
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        self._held = False

    def _is_frozen(self, runner: Any) -> bool:
        if self.epochs is not None:
            return runner.epoch < self.epochs
        return self.iterations is None or runner.iter < self.iterations

    def _freeze(self) -> None:
        self._held = True
        for part in self._parts:
            part.eval()
        for parameter in self._trainable:
            parameter.requires_grad_(False)

    def _release(self) -> None:
        if self._held:
            self._held = False
            for part in self._parts:
                part.train()
            for parameter in self._trainable:
                parameter.requires_grad_(True)


@HOOKS.register_module()
class FreezeBatchNormHook(FreezeHook):
    """Keeps batch norms in evaluation mode for the whole run, so that their statistics stay.

    Batches of few classes, as samplers for metric learning make them, have statistics that are not
    the dataset's. Synchronised batch norm counts, layer norm has no statistics.

    Args:
        modules: dotted names of submodules whose batch norms are meant; None: the whole model.
        affine: whether their scale and shift are frozen too; on several processes that needs
            ``find_unused_parameters=True``, see :class:`FreezeHook`.

    Raises:
        ValueError: there is no batch norm in the modules.
    """

    def __init__(self, modules: str | Sequence[str] | None = None, affine: bool = False) -> None:
        super().__init__('the whole model' if modules is None else modules)
        self.whole = modules is None
        self.affine = affine

    def before_run(self, runner: Any) -> None:
        """Find the batch norms."""
        model = unwrapped(runner.model)
        inside = [model] if self.whole else [part_of(model, name) for name in self.names]
        self._parts = list(_batch_norms(inside))
        if not self._parts:
            raise ValueError(f'There is no batch norm in {", ".join(self.names)}: leave '
                             'FreezeBatchNormHook out.')
        self._trainable = [parameter for part in self._parts for parameter in part.parameters()
                           if parameter.requires_grad] if self.affine else []


def _batch_norms(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        yield from (part for part in module.modules() if isinstance(part, _BatchNorm))


def _check_wrapper(model: Any, parameters: Sequence[nn.Parameter]) -> None:
    """A wrapper that waits for gradients that never come stops at the second iteration."""
    if not isinstance(model, DistributedDataParallel) or not parameters:
        return
    if model.static_graph or not model.find_unused_parameters:
        given = ('static_graph=True' if model.static_graph else 'find_unused_parameters=False')
        raise ValueError(f'The model is wrapped for several processes with {given}, which waits '
                         'for the gradients of what is frozen now: write '
                         'find_unused_parameters=True (and no static_graph) at the top of the '
                         'config, or into model_wrapper_cfg where there is one.')
