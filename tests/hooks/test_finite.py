"""Training ends with the loss, and keeps what was good."""
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from retrieval.hooks.finite import not_finite
from retrieval.registry import HOOKS, MODELS

from .running import BUILT, config


@MODELS.register_module(force=True)
class SometimesNaN(nn.Module):
    """A head with one weight and a memory, whose terms become NaN at certain steps."""

    def __init__(self, at, term='loss_b', value=float('nan')):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer('mask', torch.full((2,), float('-inf')))
        self.at, self.term, self.value, self.count = at, term, value, 0

    def loss(self, feats, data_samples, **kwargs):
        losses = dict(loss_a=(feats * self.weight).square().mean(), loss_b=feats.mean(),
                      spread=feats.std().detach())
        if self.count in self.at:
            losses[self.term] = losses[self.term] * self.value
        self.count += 1
        return losses


@HOOKS.register_module(force=True)
class Spoil(Hook):
    """Puts an infinity into a part of the run before an iteration."""

    priority = 'VERY_HIGH'

    def __init__(self, part, at):
        self.part, self.at = part, at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            if self.part == 'weights':
                runner.model.head.weight.data.fill_(float('inf'))
            elif self.part == 'average':
                hook = next(one for one in runner.hooks if hasattr(one, 'ema_model'))
                next(hook.ema_model.parameters()).data.fill_(float('nan'))
            else:
                next(iter(runner.optim_wrapper.optimizer.state.values()))['exp_avg'].fill_(
                    float('nan'))


def run(work_dir, head, hooks=(), steps=None, change=None, **options):
    settings = config(work_dir, hooks=[*hooks, dict(type='StopOnNonFiniteHook', steps=steps)],
                      **options)
    settings['model']['head'] = dict(type='SometimesNaN', **head)
    settings['default_hooks']['checkpoint']['max_keep_ckpts'] = 1
    if change is not None:
        change(settings)
    BUILT.append(Runner.from_cfg(Config(settings)))
    return BUILT[-1]


def saved(folder):
    """The names of the checkpoints, all of which are finite but for the mask."""
    for path in folder.glob('*.pth'):
        held = torch.load(path, weights_only=True)
        parts = {name: held[name] for name in held if name not in ('meta', 'message_hub')}
        assert all('mask' in name for name in not_finite(parts))
    return sorted(path.name for path in folder.glob('*.pth'))


def by_iterations(settings):
    settings['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=18)


@pytest.mark.parametrize('change', [None, by_iterations])
@pytest.mark.parametrize('term, value', [
    ('loss_b', float('nan')), ('loss_a', float('inf')), ('spread', float('nan'))])
def test_it_ends_at_the_first_and_names_term_and_checkpoint(term, value, change, tmp_path):
    runner = run(tmp_path, dict(at=[7], term=term, value=value), change=change, by_epoch=False,
                 interval=3)
    with pytest.raises(FloatingPointError, match=rf'{term} = .*iteration 8.*iter_6\.pth') as error:
        runner.train()
    assert 'loss_a = nan' not in str(error.value) and saved(tmp_path) == ['iter_6.pth']


def test_a_number_of_steps_may_be_borne(tmp_path):
    runner = run(tmp_path, dict(at=[2, 3, 7, 8, 9, 12], term='spread'), steps=3)
    with pytest.raises(FloatingPointError, match='for 3 steps: spread = nan at iteration 10'):
        runner.train()
    with pytest.raises(ValueError, match='steps must be'):
        HOOKS.build(dict(type='StopOnNonFiniteHook', steps=0))


def test_a_gradient_scaler_passes_over_some(tmp_path):
    runner = run(tmp_path, dict(at=range(3, 9), term='spread'))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper.loss_scaler = object()
    runner.train()
    assert runner.iter == 18


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('part', ['weights', 'average', 'optimizer'])
def test_nothing_that_is_not_finite_is_saved(part, by_epoch, tmp_path):
    """Nor is the only checkpoint deleted for one that cannot be written."""
    hooks = [dict(type='Spoil', part=part, at=12), dict(type='EMAHook', momentum=0.5)]
    runner = run(tmp_path, dict(at=()), hooks, by_epoch=by_epoch, interval=1 if by_epoch else 6)
    with pytest.raises(FloatingPointError, match='are not finite, and are not saved.*last good'):
        runner.train()
    assert saved(tmp_path) == ['epoch_1.pth' if by_epoch else 'iter_6.pth']
