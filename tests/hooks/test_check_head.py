import numpy as np
import pytest
from torch.utils.data import ConcatDataset

from retrieval.hooks import CheckHeadHook
from retrieval.hooks.check_head import check_dataset

from .running import ToyPictures, build


class Labelled:
    def __init__(self, labels):
        self.labels = None if labels is None else np.array(labels)


def test_a_class_that_the_head_lacks_is_seen_before_the_first_batch(tmp_path):
    runner = build(tmp_path, hooks=[dict(type='CheckHeadHook'), dict(type='StopAt', iteration=0)])
    with pytest.raises(KeyboardInterrupt):  # three classes of three
        runner.train()
    runner.model.head.num_classes = 2
    with pytest.raises(ValueError, match=r'MetricHead have num_classes=2.*from 0 to 1, and 7 of '
                                         r'the 23 .*\(2\), the first is row 2: .*num_classes=3'):
        CheckHeadHook().before_train(runner)


def test_a_batch_that_the_memory_cannot_hold(tmp_path):
    runner = build(tmp_path)
    runner.build_train_loop(runner._train_loop)
    runner.model.head.batch_size = 4
    CheckHeadHook().before_train(runner)
    runner.model.head.batch_size = 3
    with pytest.raises(ValueError, match='batches of 4.*memory_size=3'):
        CheckHeadHook().before_train(runner)


@pytest.mark.parametrize('dataset', [
    Labelled([0, 1, 2]), Labelled(None), Labelled([]), object(),
    ConcatDataset([ToyPictures(count=3, lazy_init=True)])])
def test_what_there_is_nothing_to_say_of(dataset):
    check_dataset(dataset, 3, 'Head')


def test_what_is_said():
    with pytest.raises(ValueError, match=r'2 of the 4 .*\(-1, 5\), the first is row 1.*from 0, or'):
        check_dataset(Labelled([0, 5, -1, 2]), 3, 'Head')
    with pytest.raises(ValueError, match='10, 11, 12, …'):
        check_dataset(Labelled(range(30)), 3, 'Head')
