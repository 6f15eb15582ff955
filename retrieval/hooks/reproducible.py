"""Training whose result does not depend on where it was interrupted."""
from __future__ import annotations

import os
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler as _EngineInfiniteSampler
from mmengine.dist import broadcast_object_list
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import Tensor

from ..datasets import InfiniteSampler, seed_datasets, set_epoch_of_datasets
from ..distributed import rank, world_size
from ..registry import HOOKS, LOOPS
from .schedules import go_on_as_configured, schedules_of


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

    A position in an epoch means something only among the same batches. So the checkpoint says what
    an epoch is made of (images, batch size, processes, sampler, accumulation); where that is
    different in the run that goes on, its epoch is begun anew, iterations are counted in its own
    units, and the schedules go on from there. What is begun anew is said.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._gradients: dict[str, Tensor] = {}
        self._resumed: dict[str, Any] | None = None

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
        if self._resumed is not None:
            self._go_on(runner, self._resumed)
        for name, weight in runner.model.named_parameters():
            if name in self._gradients:
                weight.grad = self._gradients[name].to(weight)
        self._gradients, self._resumed = {}, None

    def _go_on(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Find the place in this run that a checkpoint stands for, and say where it differs."""
        loop, say = runner.train_loop, runner.logger.warning
        then, now = checkpoint.get('epoch_shape'), epoch_shape(runner)
        same = then == now
        changes = 'the checkpoint does not say of which batches its epochs are' if not then else \
            ', '.join(f'{name} {then.get(name)!r} -> {value!r}' for name, value in now.items()
                      if then.get(name) != value)
        if not same:
            self._gradients = {}
        if isinstance(loop, IterBasedTrainLoop):
            if isinstance(loop, ResumableIterTrainLoop) and loop.go_on(
                    checkpoint.get('passes'), then, same):
                say(f'Epochs are others than in the checkpoint ({changes}): the present pass over '
                    'the images begins anew.')
        elif not same:
            batches = (then or now)['batches']
            inside = loop._iter - loop._epoch * batches
            if inside == batches:  # written after the last batch, before the end of the epoch
                loop._epoch, inside = loop._epoch + 1, 0
                for schedule in schedules_of(runner):
                    if schedule.by_epoch:
                        schedule.step()
            loop._iter = loop._epoch * now['batches']
            if then or inside:
                begins = 'begins anew, and ' if inside else ''
                say(f'Epochs are others than in the checkpoint ({changes}): epoch '
                    f'{loop._epoch + 1} {begins}has {now["batches"]} batches.')
            runner.optim_wrapper.initialize_count_status(runner.model, loop.iter, loop.max_iters)
        if go_on_as_configured(runner):
            say('The schedules are others than in the checkpoint: they go on as this config has '
                f'them at iteration {loop.iter} of {loop.max_iters}.')
        done, end = (loop.iter, loop.max_iters)
        if done >= end:
            say(f'The checkpoint is at iteration {done} of {end}, so nothing is left to train: '
                'raise max_epochs or max_iters to train longer.')

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add of what an epoch is made, and the gradients that no step has used yet."""
        loop = runner._train_loop
        if isinstance(loop, BaseLoop):
            checkpoint['epoch_shape'] = epoch_shape(runner)
            if isinstance(loop, ResumableIterTrainLoop):
                checkpoint['passes'] = dict(loop.passes)
        gradients = {name: weight.grad.cpu() for name, weight in runner.model.named_parameters()
                     if weight.grad is not None}
        if gradients and world_size() == 1:
            checkpoint['gradients'] = gradients

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keep what the resumed run needs; checkpoints that it names are this run's, wherever the
        work dir stood when it was written.
        """
        if not runner._resume:
            return
        self._gradients = checkpoint.get('gradients', {})
        self._resumed = {name: checkpoint.get(name) for name in ('epoch_shape', 'passes')}
        folder = runner.work_dir
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and hook.out_dir not in (None, runner.work_dir):
                folder = os.path.join(hook.out_dir, os.path.basename(runner.work_dir.rstrip('/')))
        known = checkpoint.get('message_hub', {}).get('runtime_info', {})
        for name, path in known.items():
            if name.startswith(('best_ckpt', 'last_ckpt')) and isinstance(path, str):
                known[name] = os.path.join(folder, os.path.basename(path))

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


def epoch_shape(runner: Any) -> dict[str, Any]:
    """What decides which batches an epoch of a run has, in plain values.

    Args:
        runner: one whose training loop is built.
    """
    loader = runner.train_loop.dataloader
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
    return dict(images=len(loader.dataset), batch_size=size, processes=world_size(),
                batches=len(loader), samplers=[_description(one) for one in _samplers(loader)],
                accumulative_counts=getattr(runner.optim_wrapper, '_accumulative_counts', 1))


def _description(sampler: Any) -> str:
    """A sampler's type and its plain settings, but for what differs between epochs and processes.
    """
    values = {**getattr(getattr(sampler, 'composition', None), '__dict__', {}), **vars(sampler)}
    plain = sorted((name, value) for name, value in values.items()
                   if isinstance(value, (bool, int, float, str))
                   and name not in ('epoch', 'seed', 'rank', 'start'))
    return f'{type(sampler).__name__}({", ".join(f"{name}={value!r}" for name, value in plain)})'


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

    Attributes:
        passes: since which ``iteration`` the batches are counted, which pass over the dataset was
            the ``number``-th then, and how many images had been ``drawn`` on all processes. A run
            that was resumed with other batches counts from there.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _end_workers(self.dataloader)  # the engine begins to draw here, before there is a seed
        self.dataloader_iterator = iter(())
        self.passes = dict(iteration=0, number=0, drawn=0)

    def go_on(self, passes: dict[str, int] | None, then: dict[str, Any] | None,
              same: bool) -> bool:
        """Take a checkpoint's place in the passes over the dataset.

        Args:
            passes: those of the checkpoint.
            then: the shape of its epochs; None where it does not say.
            same: whether it is this run's.

        Returns:
            Whether a pass is begun anew.
        """
        if passes is None or then is None or same:
            self.passes = passes or self.passes
            return False
        since = self._iter - passes['iteration']
        number, inside = divmod(since, then['batches'])
        drawn = passes['drawn'] + since * (then['batch_size'] or 1) * then['processes']
        images = len(self.dataloader.dataset)
        if images != then['images']:
            number, inside = divmod(drawn, then['images'])
            number, drawn = number - passes['number'], number * images
        elif isinstance(self.dataloader.sampler, (InfiniteSampler, _EngineInfiniteSampler)):
            inside = 0  # which goes on with the next image, whatever the batches are
        self.passes = dict(iteration=self._iter, number=passes['number'] + number, drawn=drawn)
        return bool(inside)

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
        loader, since = self.dataloader, self._iter - self.passes['iteration']
        together = (loader.batch_size or 1) * world_size()
        drawn = self.passes['drawn'] + since * together
        if isinstance(loader.sampler, InfiniteSampler):
            loader.sampler.start = -(-drawn // world_size())
            yield from loader
        if isinstance(loader.sampler, _EngineInfiniteSampler):
            yield from islice(loader, -(-drawn // together), None)
        number, done = divmod(since, len(loader))
        number += self.passes['number']
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
