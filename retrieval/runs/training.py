"""A run's training and its test, with a bar where somebody watches, and a word on what
interruptions leave.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import Hook

from .last_checkpoint import last_checkpoint


def train(runner: Any) -> None:
    """Train a built run.

    Raises:
        KeyboardInterrupt: it was interrupted; the message says how far it had come, and what is
            kept.
        FloatingPointError: the loss is not finite, see
            :class:`retrieval.hooks.StopOnNonFiniteHook`.
    """
    try:
        with _bar(runner, 'Training', runner.max_iters):
            runner.train()
    except KeyboardInterrupt:
        last = _last_sound(runner)
        kept = ('There is no checkpoint yet.' if last is None else
                f'The last checkpoint is {last!r}: --resume goes on from there.')
        raise KeyboardInterrupt(f'Training was at iteration {runner.iter} of {runner.max_iters}. '
                                f'{kept}') from None


def _last_sound(runner: Any) -> str | None:
    """The checkpoint that resuming finds; the run may have been at writing another one."""
    from ..hooks.finite import last_written

    try:
        return last_checkpoint(runner.work_dir)[0] or last_written(runner)
    except ValueError:  # there is none that is whole
        return None


def test(runner: Any) -> dict[str, float]:
    """Test a built run; its metrics by name."""
    batches = runner.test_loop.dataloader
    with _bar(runner, 'Testing', len(batches)):
        return runner.test()


@contextmanager
def _bar(runner: Any, title: str, total: int) -> Iterator[None]:
    """A progress bar under the lines of the run's log."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from ..progress import progress_bar

    with progress_bar(title, total, 'batch') as bar:
        if bar.disable:
            yield
            return
        runner.register_hook(_Advance(bar), priority='LOWEST')
        with logging_redirect_tqdm([runner.logger], type(bar)):
            yield


class _Advance(Hook):
    """Draws how far training, or a test, has come."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def before_train(self, runner: Any) -> None:
        self.bar.n = self.bar.initial = runner.iter  # of a resumed run
        self.bar.refresh()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        if isinstance(outputs, dict) and 'loss' in outputs:
            self.bar.set_postfix(loss=f'{outputs["loss"].item():.4g}', refresh=False)
        self.bar.update()

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                        outputs: Any = None) -> None:
        self.bar.update()
