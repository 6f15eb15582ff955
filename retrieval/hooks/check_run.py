"""What would go wrong in the course of a run, said before it begins."""
from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, DataLoader

from ..distributed import unwrapped
from ..registry import HOOKS
from ..retrievers import evaluation_mode
from .freeze import FreezeHook
from .losses import LossWeightScheduleHook
from .schedules import misfits


@HOOKS.register_module()
class CheckRunHook(Hook):
    """Says which schedule does not fit the run, and refuses a batch that cannot be trained on.

    An epoch's last batch may hold one image, of which batch normalisation in training mode makes
    nothing where it has one value a channel, as behind the pooling. The first image of an epoch is
    sent through the encoder, without training it, to see which norms these are.

    Raises:
        ValueError: a batch of one image, and such a norm.
    """

    priority = 'VERY_LOW'  # when other hooks have frozen what they freeze

    def __init__(self) -> None:
        self._checked = -1

    def before_train(self, runner: Any) -> None:
        """Say what in the schedules does not fit the run."""
        self._checked = -1
        for sentence in [*misfits(runner), *_hooks_that_outlast(runner)]:
            runner.logger.warning(f'{sentence} Give it the length of the run, or shares of it '
                                  "(type='ShareOfRun', see docs/training_hooks.md).")

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Look at an epoch's batches before the first of them."""
        if self._checked == runner.epoch:
            return
        self._checked = runner.epoch
        loop = runner.train_loop
        loader = loop.dataloader
        short = smallest_batch(loader)
        if short != 1 or loop.max_iters < len(loader):
            return
        name = norm_of_one_value(unwrapped(runner.model), data_batch)
        if name is None:
            return
        sampler: Any = loader.sampler
        size, images = loader.batch_size or 1, len(sampler)
        if size == 1:
            given, instead = 'Every batch has one image', 'write a larger batch_size'
        else:
            given = (f'The last batch of an epoch has one image ({images} images in batches of '
                     f'{size})')
            instead = f'write drop_last=True into train_dataloader, or batch_size={size - 1}'
        raise ValueError(f'{given}, and the batch normalisation {name!r} cannot be trained on one '
                         f"value a channel: {instead}, or freeze it with "
                         "custom_hooks=[dict(type='FreezeBatchNormHook')].")


def smallest_batch(loader: DataLoader[Any]) -> int | None:
    """The number of images in the smallest batch of an epoch; None where that is not known.

    Example:
        >>> smallest_batch(DataLoader(range(9), batch_size=4))
        1
    """
    batches: Any = loader.batch_sampler
    images: Any = loader.sampler
    if type(batches) is not BatchSampler or not hasattr(images, '__len__'):
        return None
    rest = len(images) % batches.batch_size
    return batches.batch_size if batches.drop_last or not rest else rest


@torch.no_grad()
def norm_of_one_value(model: Any, batch: Any) -> str | None:
    """The name of a batch norm in training mode that gets one value a channel from one image.

    Args:
        model: a retriever.
        batch: a batch of its training; of several views of an image nothing is known.
    """
    inputs: Any = batch.get('inputs') if isinstance(batch, dict) else None
    if inputs is None or not len(inputs) or not isinstance(inputs[0], torch.Tensor):
        return None
    training = {norm: name for name, norm in model.named_modules()
                if isinstance(norm, _BatchNorm) and norm.training}
    values = {norm: 1 for norm in training if isinstance(norm, nn.BatchNorm1d)}  # if none comes
    handles = [norm.register_forward_pre_hook(
        lambda norm, given: values.update({norm: given[0][:, 0].numel()})) for norm in training]
    try:
        with evaluation_mode(model):
            data = model.data_preprocessor({'inputs': [inputs[0]]}, False)
            model(data['inputs'], mode='tensor')
    finally:
        for handle in handles:
            handle.remove()
    return next((training[norm] for norm, count in values.items() if count == 1), None)


def _hooks_that_outlast(runner: Any) -> list[str]:
    """Which hooks wait for an epoch or an iteration that the run does not reach."""
    loop, found = runner.train_loop, []
    for hook in runner.hooks:
        by_epoch = getattr(hook, 'by_epoch', True)
        if isinstance(hook, LossWeightScheduleHook):
            last = max([hook.end or 0, *hook.milestones])
        elif isinstance(hook, FreezeHook) and (hook.epochs or hook.iterations):
            by_epoch, last = bool(hook.epochs), hook.epochs or hook.iterations or 0
        else:
            continue
        length = loop.max_epochs if by_epoch else loop.max_iters
        if last >= length + isinstance(hook, LossWeightScheduleHook) and not (
                by_epoch and isinstance(loop, IterBasedTrainLoop)):
            unit = 'epoch' if by_epoch else 'iteration'
            found.append(f'{type(hook).__name__} has its end at {unit} {last}, and the run ends at '
                         f'{length}.')
    return found
