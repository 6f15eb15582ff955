"""Training whose result does not depend on where it was interrupted."""
from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from ..datasets import seed_datasets
from ..distributed import rank
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
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Agree on one seed: a resumed run may have taken it from its checkpoint."""
        agreed = [runner.seed]
        broadcast_object_list(agreed)
        self.seed = int(agreed[0])
        for sampler in _samplers(runner.train_loop.dataloader):
            if isinstance(getattr(sampler, 'seed', None), int):
                sampler.seed = self.seed

    def before_train_epoch(self, runner: Any) -> None:
        """Tell the dataset and every sampler which epoch begins."""
        loader = runner.train_loop.dataloader
        seed_datasets(loader.dataset, self.seed, runner.epoch)
        for sampler in _samplers(loader):
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(runner.epoch)
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
