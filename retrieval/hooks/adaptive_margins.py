"""The hook that counts the classes for losses with a margin for each."""
from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.hooks import Hook

from ..datasets.wrappers import labels_of
from ..distributed import all_gather_list
from ..registry import HOOKS
from .parts import model_of


@HOOKS.register_module()
class AdaptiveMarginHook(Hook):
    """Sets the margins of losses from how many samples each class of the training set has.

    It works on every loss of the model that has ``set_class_counts``, such as
    :class:`~retrieval.heads.AdaptiveSubCenterArcFaceLoss`, whose arguments say how counts become
    margins. Samples that a dataset wrapper repeats count as often as it does. On several processes
    the first one's counts are taken, so that margins are alike. A resumed run counts again, and so
    comes to the same margins while its dataset is the same; the checkpoint holds them for runs
    without this hook.

    Raises:
        ValueError: no loss has margins to set, the training set has no labels, or a label lies
            beyond the loss's classes.
    """

    def before_train(self, runner: Any) -> None:
        """Count, and set the margins."""
        losses = {name: part for name, part in model_of(runner).named_modules()
                  if callable(getattr(part, 'set_class_counts', None))}
        if not losses:
            raise ValueError('AdaptiveMarginHook found no loss with margins by class: take it out '
                             'of custom_hooks, or set '
                             "loss=dict(type='AdaptiveSubCenterArcFaceLoss', …).")
        labels = labels_of(runner.train_loop.dataloader.dataset)
        if labels is None:
            raise ValueError('AdaptiveMarginHook counts the classes of the training set, which has '
                             'no labels: give the loss class_counts instead.')
        for name, loss in losses.items():
            counts = np.bincount(labels, minlength=loss.num_classes)
            if len(counts) > loss.num_classes:
                raise ValueError(f'The training set has labels up to {len(counts) - 1}, and the '
                                 f'loss {name!r} num_classes={loss.num_classes}.')
            loss.set_class_counts(all_gather_list([counts.tolist()])[0])
            runner.logger.info(f'{name}: margins from {loss.margins.min():.2f} to '
                               f'{loss.margins.max():.2f} degrees over {loss.num_classes} classes')
