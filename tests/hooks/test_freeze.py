from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.hooks import Hook
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retrieval.hooks import FreezeBatchNormHook, FreezeHook
from retrieval.registry import HOOKS

from ..processes import leave_group
from .interrupting import assert_resumes_exactly, build

LAYERS = 'image_encoder.layers'


@HOOKS.register_module(force=True)
class Trace(Hook):
    """Keeps the weights, the modes and what has gradients after each iteration."""

    priority = 'HIGHEST'
    seen: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model
        Trace.seen.append(dict(
            state={name: value.clone() for name, value in model.state_dict().items()},
            training={name for name, part in model.named_modules() if part.training},
            trainable={name for name, one in model.named_parameters() if one.requires_grad}))


def traced(tmp_path, *hooks, **options):
    Trace.seen = []
    runner = build(tmp_path, hooks=[*hooks, dict(type='Trace')], **options)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    return before, Trace.seen, runner


def same(before, after, prefix):
    names = [name for name in before if name.startswith(prefix)]
    assert names
    return [torch.equal(before[name], after[name]) for name in names]


@pytest.mark.parametrize('val, length', [(True, dict(epochs=1)), (False, dict(iterations=6))])
def test_frozen_and_released(tmp_path, val, length):
    before, seen, runner = traced(tmp_path, dict(type='FreezeHook', modules=LAYERS, **length),
                                  val=val, epochs=2)
    for step in seen[:6]:
        assert all(same(before, step['state'], LAYERS))  # batch norm's statistics too
        assert not any(name.startswith(LAYERS) for name in step['training'])
        assert 'head.losses.arc_face.W' in step['trainable'] and 'head' in step['training']
    assert not any(same(before, seen[0]['state'], 'head.losses'))
    assert not any(same(seen[5]['state'], seen[6]['state'], LAYERS))
    assert f'{LAYERS}.3' in seen[6]['training']  # dropout
    assert len(seen[6]['trainable']) == len(list(runner.model.parameters()))
    assert all(parameter.requires_grad for parameter in runner.model.parameters())
    assert runner.model.training != val


def test_for_the_whole_run_and_left_as_it_came(tmp_path):
    before, seen, runner = traced(tmp_path, dict(type='FreezeHook', modules=[f'{LAYERS}.1']),
                                  epochs=1)
    assert all(all(same(before, step['state'], f'{LAYERS}.1')) for step in seen)
    assert not any(same(before, seen[-1]['state'], f'{LAYERS}.4'))
    assert all(parameter.requires_grad for parameter in runner.model.parameters())
    counted = sum(len(group['params']) for group in runner.optim_wrapper.param_groups)
    assert counted == len(list(runner.model.parameters()))


@pytest.mark.parametrize('turned', [False, True])
def test_overlapping_hooks_in_either_order(tmp_path, turned):
    hooks = [dict(type='FreezeHook', modules=LAYERS, iterations=3),
             dict(type='FreezeHook', modules=[f'{LAYERS}.1', f'{LAYERS}.2'])]
    before, seen, _ = traced(tmp_path, *(hooks[::-1] if turned else hooks), epochs=1)
    for step in seen:
        assert all(same(before, step['state'], f'{LAYERS}.1'))
        assert all(same(before, step['state'], f'{LAYERS}.2'))
    assert all(same(before, seen[2]['state'], f'{LAYERS}.4'))
    assert not any(same(before, seen[3]['state'], f'{LAYERS}.4'))


def test_norms_may_stay_after_the_release(tmp_path):
    before, seen, _ = traced(tmp_path, dict(type='FreezeHook', modules=LAYERS, iterations=2,
                                            norm_eval=True), epochs=1)
    assert all(same(before, seen[-1]['state'], f'{LAYERS}.2.running'))
    assert not any(same(before, seen[-1]['state'], f'{LAYERS}.2.weight'))
    assert f'{LAYERS}.2' not in seen[-1]['training'] and f'{LAYERS}.3' in seen[-1]['training']


@pytest.mark.parametrize('affine, modules', [(False, LAYERS), (True, None)])
def test_batch_norm_always(tmp_path, affine, modules):
    before, seen, _ = traced(tmp_path, dict(type='FreezeBatchNormHook', affine=affine,
                                            modules=modules), epochs=1, val=True)
    assert all(same(before, seen[-1]['state'], f'{LAYERS}.2.running'))
    assert all(same(before, seen[-1]['state'], f'{LAYERS}.2.num'))
    assert same(before, seen[-1]['state'], f'{LAYERS}.2.weight') == [affine]
    assert not any(same(before, seen[-1]['state'], f'{LAYERS}.1'))
    assert all(f'{LAYERS}.2' not in step['training'] for step in seen)


@pytest.mark.parametrize('hook, killed_at', [
    (dict(type='FreezeHook', modules=LAYERS, epochs=1), 5),  # resumed while it is frozen
    pytest.param(dict(type='FreezeHook', modules=LAYERS, iterations=7, norm_eval=True), 11,
                 marks=pytest.mark.slow),  # and after
    pytest.param(dict(type='FreezeBatchNormHook', affine=True), 6, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_exactly(tmp_path, hook, killed_at):
    whole, resumed = assert_resumes_exactly(tmp_path, killed_at, [hook])
    wanted, found = (run.optim_wrapper.state_dict()['state'] for run in (whole, resumed))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[n]['exp_avg'], found[n]['exp_avg']) for n in wanted)


def test_iteration_based_loops(tmp_path):
    def change(settings):
        settings['train_cfg'] = dict(type='ResumableIterTrainLoop', max_iters=6)
    before, seen, _ = traced(tmp_path, dict(type='FreezeHook', modules=LAYERS, iterations=3),
                             change=change, by_epoch=False)
    assert [all(same(before, step['state'], LAYERS)) for step in seen] == [True] * 3 + [False] * 3
    runner = build(tmp_path, change, hooks=[dict(type='FreezeHook', modules=LAYERS, epochs=3)])
    with pytest.raises(ValueError, match='counts iterations only'):
        runner.train()


@pytest.mark.parametrize('hook, says', [
    (FreezeHook('image_encoder.layer'), "'image_encoder.layer'.*Did you mean 'image_encoder.lay"),
    (FreezeHook(''), "part of ImageToImageRetriever ''"),
    (FreezeBatchNormHook('head'), 'no batch norm in head')])
def test_wrong_parts(tmp_path, hook, says):
    with pytest.raises(ValueError, match=says):
        hook.before_run(build(tmp_path))


def test_nothing_left_to_train(tmp_path):
    runner = build(tmp_path, hooks=[dict(type='FreezeHook', modules=['image_encoder', 'head'])])
    with pytest.raises(ValueError, match='nothing of the model is left'):
        runner.train()


@pytest.mark.parametrize('options, says', [
    (dict(epochs=1, iterations=2), 'one of them'), (dict(epochs=-1), 'epochs must be'),
    (dict(iterations=1.5), 'iterations must be'), (dict(modules=[]), 'modules is empty')])
def test_wrong_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        FreezeHook(**dict(modules='head') | options)


def process(number, path, world):
    """The first layer is frozen for two of four iterations."""
    dist.init_process_group('gloo', init_method=f'file://{path}', rank=number, world_size=world)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    first = model[0].weight.detach().clone()
    runner = SimpleNamespace(iter=0, model=DistributedDataParallel(model))
    hook = FreezeHook('0', iterations=2)
    hook.before_run(runner)
    with pytest.raises(ValueError, match='find_unused_parameters=True'):
        hook.before_train(runner)
    runner.model = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    hook.before_train(runner)
    for runner.iter in range(4):
        hook.before_train_iter(runner, runner.iter)
        optimizer.zero_grad()
        runner.model(torch.ones(2, 3) * (number + 1)).square().sum().backward()
        optimizer.step()
        hook.after_train_iter(runner, runner.iter)
        assert torch.equal(first, model[0].weight) == (runner.iter < 2)
        for parameter in model.parameters():
            gathered = [torch.zeros_like(parameter) for _ in range(world)]
            dist.all_gather(gathered, parameter.detach())
            assert all(torch.equal(gathered[0], other) for other in gathered)


def test_a_wrapper_for_several_processes(tmp_path):
    try:
        process(0, tmp_path / 'store', 1)
    finally:
        dist.destroy_process_group()


def process_that_ends(number, store, world):
    process(number, store, world)
    leave_group()


@pytest.mark.slow
def test_on_two_processes(tmp_path):
    mp.spawn(process_that_ends, args=(tmp_path / 'store', 2), nprocs=2)


def test_a_share_of_the_run(tmp_path):
    before, seen, _ = traced(tmp_path, dict(type='FreezeHook', modules=LAYERS, share=0.25),
                             epochs=2)
    held = [all(same(before, step['state'], LAYERS)) for step in seen]
    assert held == [True] * 3 + [False] * 9
    with pytest.raises(ValueError, match='one of them'):
        FreezeHook(LAYERS, epochs=1, share=0.5)
    with pytest.raises(ValueError, match='share must be at least 0 and at most 1'):
        FreezeHook(LAYERS, share=2)
