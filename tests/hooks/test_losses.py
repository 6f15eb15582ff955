import math

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import ConcatDataset

from retrieval.datasets import RepeatDataset
from retrieval.hooks import AdaptiveMarginHook, CheckHeadHook, LossWeightScheduleHook
from retrieval.hooks.losses import check_dataset
from retrieval.losses import adaptive_margins
from retrieval.registry import HOOKS

from .interrupting import assert_resumes_exactly, build
from .running import ToyPictures
from .running import build as build_run


@HOOKS.register_module(force=True)
class Weights(Hook):
    """Keeps the weights that a batch was trained with, and the losses."""

    seen: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        head = runner.model.head
        Weights.seen.append(head.weights['pairs'] if hasattr(head, 'weights')
                            else head.loss_weight)
        Weights.outputs = outputs


def two_losses(settings):
    settings['model']['head']['loss'] = [
        dict(type='PML.ArcFaceLoss', num_classes=3, embedding_size=4, name='classes'),
        dict(type='PML.ContrastiveLoss', name='pairs', loss_weight=7.0)]


def classifier(settings):
    settings['model']['head'] = dict(type='ClassificationHead', num_classes=3, in_features=4)


def hook(**options):
    return dict(type='LossWeightScheduleHook', **options)


@pytest.mark.parametrize('options, wanted', [
    (dict(weights=[1, 0], begin=1, end=3), [1, 1, 0.5, 0, 0]),
    (dict(weights=[0.2, 1], end=4, schedule='cosine'),
     [0.2 + 0.8 * (1 - math.cos(math.pi * t / 4)) / 2 for t in range(5)]),
    (dict(weights=[0, 1, 0.1], milestones=[1, 3], schedule='step'), [0, 1, 1, 0.1, 0.1])])
def test_the_schedules(options, wanted):
    made = LossWeightScheduleHook(**options)
    assert [made.weight_at(count) for count in range(5)] == pytest.approx(wanted)


@pytest.mark.parametrize('options, wanted', [
    (dict(weights=[1, 0], end=1), [1.0] * 6 + [0.0] * 6),
    (dict(weights=[1, 0], end=10, by_epoch=False), [max(1 - i / 10, 0) for i in range(12)]),
    (dict(weights=[0, 3], schedule='step', milestones=[4], by_epoch=False), [0] * 4 + [3] * 8)])
def test_a_term_of_a_metric_head_in_a_run(tmp_path, options, wanted):
    Weights.seen = []
    runner = build(tmp_path, two_losses, epochs=2, interval=9, hooks=[
        hook(loss='pairs', **options), dict(type='Weights')])
    runner.train()
    assert Weights.seen == pytest.approx(wanted)
    assert runner.model.head.weights['classes'] == 1.0
    logged, _ = runner.message_hub.get_scalar('train/weight_pairs').data
    assert logged == pytest.approx(wanted)
    assert (float(Weights.outputs['loss_pairs'].detach()) == 0) == (wanted[-1] == 0)


def test_the_only_loss_and_other_heads(tmp_path):
    runner = build(tmp_path / 'one', hooks=[hook(weights=[2, 4], end=2)], epochs=1)
    runner.train()
    assert runner.model.head.weights == {'arc_face': 2.0}
    Weights.seen = []
    runner = build(tmp_path / 'two', classifier, hooks=[
        hook(weights=[2, 4], end=2), dict(type='Weights')], epochs=2)
    runner.train()
    assert Weights.seen == [2.0] * 6 + [3.0] * 6


@pytest.mark.parametrize('options', [
    dict(end=15, by_epoch=False), pytest.param(dict(end=3), marks=pytest.mark.slow)])
def test_a_killed_run_resumes_exactly(tmp_path, options):
    assert_resumes_exactly(tmp_path, 11, [hook(loss='pairs', weights=[1, 0.1], **options)],
                           change=two_losses)


@pytest.mark.parametrize('options, change, error, says', [
    (dict(loss='pair'), two_losses, ValueError, "loss of head 'pair'.*mean 'pairs'"),
    (dict(), two_losses, ValueError, 'Valid names: classes, pairs'),
    (dict(head='haed'), None, ValueError, "'haed'.*mean 'head'"),
    (dict(head='image_encoder'), None, TypeError, 'ToyEncoder, which has neither'),
    (dict(loss='pairs'), classifier, ValueError, "leave loss='pairs' out")])
def test_wrong_names(tmp_path, options, change, error, says):
    made = LossWeightScheduleHook([1, 0], end=2, **options)
    with pytest.raises(error, match=says):
        made.before_train(build(tmp_path, change))


def test_epochs_in_a_loop_of_iterations(tmp_path):
    def change(settings):
        settings['train_cfg'] = dict(type='ResumableIterTrainLoop', max_iters=2)
    with pytest.raises(ValueError, match='counts iterations only'):
        LossWeightScheduleHook([1, 0], end=2).before_train(build(tmp_path, change))


@pytest.mark.parametrize('options, says', [
    (dict(schedule='liner', end=2), "'liner'.*mean 'linear'"), (dict(), 'begin < end'),
    (dict(begin=3, end=2), 'begin < end'), (dict(weights=[1, 2, 3], end=2), 'two weights'),
    (dict(weights=[1, -2], end=2), 'not negative'), (dict(end=2, milestones=[1]), 'no milestones'),
    (dict(schedule='step'), 'takes milestones'),
    (dict(schedule='step', milestones=[2, 1], weights=[1, 2, 3]), 'rising'),
    (dict(schedule='step', milestones=[1], end=4), 'neither begin nor end'),
    (dict(schedule='step', milestones=[1, 2]), '2 milestones want 3 weights, got 2')])
def test_wrong_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        LossWeightScheduleHook(**dict(weights=[1, 0]) | options)


HOOK = [dict(type='AdaptiveMarginHook')]


def adaptive(settings, num_classes=3):
    settings['model']['head']['loss'] = dict(
        type='AdaptiveSubCenterArcFaceLoss', num_classes=num_classes, embedding_size=4, scale=8)


def margins(runner):
    return next(iter(runner.model.head.losses.values())).margins


def test_margins_are_those_of_the_counts_and_are_saved(tmp_path):
    runner = build(tmp_path, lambda settings: adaptive(settings, 4), hooks=HOOK, epochs=1)
    assert len(set(margins(runner).tolist())) == 1
    runner.train()
    wanted = adaptive_margins([8, 8, 7, 0])  # of the 23 pictures
    assert torch.equal(margins(runner), wanted)
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    assert torch.equal(saved['head.losses.adaptive_sub_center_arc_face.margins'], wanted)


def test_a_wrapper_counts_what_it_gives(tmp_path):
    runner = build(tmp_path, adaptive)
    runner.train_loop.dataloader.__dict__['dataset'] = RepeatDataset(ToyPictures(), 3)
    AdaptiveMarginHook().before_train(runner)
    assert torch.equal(margins(runner), adaptive_margins([24, 24, 21]))


def test_margin_a_killed_run_resumes_exactly(tmp_path):
    whole, resumed = assert_resumes_exactly(tmp_path, 10, HOOK, change=adaptive)
    assert torch.equal(margins(resumed), adaptive_margins([8, 8, 7]))


def test_what_cannot_be_counted_is_refused(tmp_path):
    with pytest.raises(ValueError, match='no loss with margins by class'):
        AdaptiveMarginHook().before_train(build(tmp_path))
    runner = build(tmp_path, lambda settings: adaptive(settings, 2))
    with pytest.raises(ValueError, match='labels up to 2.*num_classes=2'):
        AdaptiveMarginHook().before_train(runner)
    runner.train_loop.dataloader.__dict__['dataset'] = [1, 2]
    with pytest.raises(ValueError, match='no labels'):
        AdaptiveMarginHook().before_train(runner)


def test_on_several_processes_the_first_ones_counts_are_taken(tmp_path, monkeypatch):
    runner = build(tmp_path, adaptive)
    monkeypatch.setattr('retrieval.hooks.losses.all_gather_list',
                        lambda items: [[1, 16, 81], *items])
    AdaptiveMarginHook().before_train(runner)
    assert torch.equal(margins(runner), adaptive_margins([1, 16, 81]))


class Labelled:
    def __init__(self, labels):
        self.labels = None if labels is None else np.array(labels)


def test_a_class_that_the_head_lacks_is_seen_before_the_first_batch(tmp_path):
    runner = build_run(tmp_path,
                       hooks=[dict(type='CheckHeadHook'), dict(type='StopAt', iteration=0)])
    with pytest.raises(KeyboardInterrupt):  # three classes of three
        runner.train()
    runner.model.head.num_classes = 2
    with pytest.raises(ValueError, match=r'MetricHead have num_classes=2.*from 0 to 1, and 7 of '
                                         r'the 23 .*\(2\), the first is row 2: .*num_classes=3'):
        CheckHeadHook().before_train(runner)


def test_a_batch_that_the_memory_cannot_hold(tmp_path):
    runner = build_run(tmp_path)
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
