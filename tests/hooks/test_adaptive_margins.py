import pytest
import torch

from retrieval.datasets import RepeatDataset
from retrieval.heads import adaptive_margins
from retrieval.hooks import AdaptiveMarginHook

from .interrupting import assert_resumes_exactly, build
from .running import ToyPictures

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


def test_a_killed_run_resumes_exactly(tmp_path):
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
    monkeypatch.setattr('retrieval.hooks.adaptive_margins.all_gather_list',
                        lambda items: [[1, 16, 81], *items])
    AdaptiveMarginHook().before_train(runner)
    assert torch.equal(margins(runner), adaptive_margins([1, 16, 81]))
