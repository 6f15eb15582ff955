"""Training whose result does not depend on where it was interrupted."""
from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler as _EngineInfiniteSampler
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import Tensor

from ..datasets import InfiniteSampler, seed_datasets, set_epoch_of_datasets
from ..distributed import rank, world_size
from ..registry import HOOKS, LOOPS


def seed_everything(*entropy: int) -> None:
    """Seed ``random``, numpy and torch from a few numbers, mixed so that neighbours differ."""
    words = np.random.SeedSequence(list(entropy)).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  (what transforms draw from)
    torch.manual_seed((int(words[2]) << 32) | int(words[3]))


@HOOKS.register_module()
class ReproducibleTrainingHook(Hook):
    """Makes all randomness of a training step a function of (seed, process, iteration).

    Samplers shuffle by (seed, epoch), transforms draw by (seed, epoch, index), and dropout and
    batch augmentation by (seed, process, iteration). MMEngine restores no random state on
    resuming; with this there is none to restore, so a run that is killed and resumed ends with
    the weights of one that was not.

    Gradients that are still being accumulated (``accumulative_counts``) go into the checkpoint,
    which the engine leaves out. Several processes hold different ones: there, let checkpoints fall
    on whole steps.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._gradients: dict[str, Tensor] = {}

    def before_train(self, runner: Any) -> None:
        """Agree on one seed: a resumed run may have taken it from its checkpoint.

        Raises:
            ValueError: a sampler was given another ``batch_size`` than the dataloader has.
        """
        agreed = [runner.seed]
        broadcast_object_list(agreed)
        self.seed = int(agreed[0])
        loader = runner.train_loop.dataloader
        for sampler in _samplers(loader):
            if isinstance(getattr(sampler, 'seed', None), int):
                sampler.seed = self.seed
        _check_batch_size(loader)
        for name, weight in runner.model.named_parameters():
            if name in self._gradients:
                weight.grad = self._gradients[name].to(weight)
        self._gradients = {}

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add the gradients that no step has used yet; after a step there are none."""
        gradients = {name: weight.grad.cpu() for name, weight in runner.model.named_parameters()
                     if weight.grad is not None}
        if gradients and world_size() == 1:
            checkpoint['gradients'] = gradients

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the gradients for the step that they are for."""
        self._gradients = checkpoint.get('gradients', {}) if runner._resume else {}

    def before_train_epoch(self, runner: Any) -> None:
        """Tell the dataset and every sampler which epoch begins."""
        loop = runner.train_loop
        seed_datasets(loop.dataloader.dataset, self.seed, runner.epoch)
        _set_epoch(loop.dataloader, runner.epoch)
        if isinstance(getattr(loop, 'dataloader_iterator', None), _InfiniteDataloaderIterator):
            # It drew its first batches when the loop was built, before there was a seed.
            _end_workers(loop.dataloader)
            loop.dataloader_iterator = _InfiniteDataloaderIterator(loop.dataloader)
        seed_everything(self.seed, rank(), runner.epoch, 1)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model itself draws."""
        seed_everything(self.seed, rank(), runner.iter, 2)


def _samplers(loader: Any) -> Iterator[Any]:
    """The samplers of a dataloader, each once: MMEngine tells only one of them the epoch."""
    seen: list[Any] = []
    for owner in (loader, getattr(loader, 'batch_sampler', None)):
        for sampler in (getattr(owner, 'sampler', None), owner if owner is not loader else None):
            if sampler is not None and not any(sampler is other for other in seen):
                seen.append(sampler)
                yield sampler


def _set_epoch(loader: Any, epoch: int) -> None:
    """Tell every sampler of a dataloader which epoch begins."""
    for sampler in _samplers(loader):
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(epoch)


def _check_batch_size(loader: Any) -> None:
    """A sampler that composes batches is not told their size, and would compose others."""
    told = getattr(loader.sampler, 'batch_size', None)
    if told is not None and loader.batch_size != told:
        name = type(loader.sampler).__name__
        raise ValueError(
            f'{name} composes batches of {told}, the dataloader has batch_size='
            f'{loader.batch_size}: give both the same, or write {name.replace("Sampler", "")}'
            'BatchSampler as `batch_sampler`, which is told.')


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's epoch-based loop, which goes on in the middle of an epoch.

    The engine's own loop starts a cut epoch from its beginning and so trains on some batches
    twice. Here the batches that the checkpoint has seen are drawn and passed over.
    """

    def run_epoch(self) -> None:
        """Train one epoch, or the rest of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self._epoch * len(self.dataloader)
        for batch_idx, data_batch in enumerate(self.dataloader):
            if batch_idx >= done:
                self.run_iter(batch_idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterTrainLoop(IterBasedTrainLoop):
    """MMEngine's iteration-based loop, whose batches depend on the iteration alone.

    The engine's own tells only the sampler that a pass over the dataset begins, so that
    augmentations repeat; it waits two seconds there; and on resuming it decodes every batch that
    was used. Here the dataset is told too, and only the present pass is drawn again, with an
    ``InfiniteSampler`` nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _end_workers(self.dataloader)  # the engine begins to draw here, before there is a seed
        self.dataloader_iterator = iter(())

    def run(self) -> Any:
        """Train, from where the checkpoint stopped."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.dataloader_iterator = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            val_loop = self.runner.val_loop
            due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
            if val_loop is not None and self._iter >= self.val_begin and due:
                val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _batches(self) -> Iterator[Any]:
        """The batches from the present iteration on, pass after pass."""
        loader = self.dataloader
        if isinstance(loader.sampler, InfiniteSampler):
            loader.sampler.start = self._iter * loader.batch_size
            yield from loader
        if isinstance(loader.sampler, _EngineInfiniteSampler):
            yield from islice(loader, self._iter, None)
        number, done = divmod(self._iter, len(loader))
        while True:
            _set_epoch(loader, number)
            set_epoch_of_datasets(loader.dataset, number)
            for batch_idx, batch in enumerate(loader):
                if batch_idx >= done:
                    yield batch
            number, done = number + 1, 0


def _end_workers(loader: Any) -> None:
    """End the workers of a dataloader that keeps them; it starts others when it is iterated."""
    if loader._iterator is not None:
        loader._iterator._shutdown_workers()
        loader._iterator = None
