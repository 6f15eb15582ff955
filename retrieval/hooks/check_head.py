"""What of a head can be known to be wrong before it is trained."""
from __future__ import annotations

from collections import Counter
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..datasets import labels_of
from ..distributed import world_size
from ..registry import HOOKS


@HOOKS.register_module()
class CheckHeadHook(Hook):
    """Compares the head with the training set and its dataloader before the first epoch.

    It asks the head for ``num_classes`` and ``batch_size``, and does nothing where there are none;
    nor where the dataset does not know its labels.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Look at the classes of all training images, and at the size of the batches.

        Raises:
            ValueError: a class outside the head's ``num_classes``, or a batch that its memory
                cannot hold.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        head = getattr(model, 'head', None)
        loader = runner.train_loop.dataloader
        num_classes = getattr(head, 'num_classes', None)
        if isinstance(num_classes, int):
            check_dataset(loader.dataset, num_classes, type(head).__name__)
        most = getattr(head, 'batch_size', None)
        size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
        if isinstance(most, int) and isinstance(size, int):
            everyone = size * (world_size() if getattr(head, 'gather', False) else 1)
            if everyone > most:
                raise ValueError(
                    f'The processes together train on batches of {everyone}, and the memory of the '
                    f'loss has only memory_size={most}: make it larger, or the batches smaller.')


def check_dataset(dataset: Any, num_classes: int, head: str) -> None:
    """Refuse a training set with classes that a head has no weights for.

    Raises:
        ValueError: a label is outside ``[0, num_classes)``; the first image is named.
    """
    labels = labels_of(dataset)
    if labels is None or not len(labels):
        return
    wrong = (labels < 0) | (labels >= num_classes)
    if not wrong.any():
        return
    counts = Counter(labels[wrong].tolist())
    shown = ', '.join(map(str, sorted(counts)[:10])) + (', …' if len(counts) > 10 else '')
    hint = ('number the classes from 0' if min(counts) < 0 else
            f'write num_classes={int(labels.max()) + 1} into the loss')
    raise ValueError(
        f'The losses of {head} have num_classes={num_classes}, so classes go from 0 to '
        f'{num_classes - 1}, and {int(wrong.sum())} of the {len(labels)} training images have '
        f'others ({shown}), the first is row {int(wrong.argmax())}: {hint}, or choose the '
        'training images by class.')
