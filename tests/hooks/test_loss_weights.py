import math

import pytest
from mmengine.hooks import Hook

from retrieval.hooks import LossWeightScheduleHook
from retrieval.registry import HOOKS

from .interrupting import assert_resumes_exactly, build


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
