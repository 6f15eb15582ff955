import pytest
from mmengine.config import Config

from retrieval.commands.configuration import complete


@pytest.mark.parametrize('given, want', [
    (dict(by_epoch=True, max_epochs=2), dict(type='retrieval.ResumableTrainLoop', max_epochs=2)),
    (dict(by_epoch=False, max_iters=9), dict(type='retrieval.ResumableIterTrainLoop', max_iters=9)),
    (dict(type='IterBasedTrainLoop', max_iters=9), dict(type='IterBasedTrainLoop', max_iters=9))])
def test_the_loop_that_resumes_is_the_default(given, want):
    assert complete(Config(dict(model=dict(), train_cfg=given))).train_cfg.to_dict() == want


@pytest.mark.parametrize('given', [[], [dict(type='CheckHeadHook')],
                                   [dict(type='retrieval.CheckHeadHook')]])
def test_every_run_gets_its_hooks_once(given):
    config = complete(Config(dict(model=dict(), custom_hooks=given)))
    kinds = sorted(hook.type.rsplit('.', 1)[-1] for hook in config.custom_hooks)
    assert kinds == ['CheckHeadHook', 'PreparePrototypeHook', 'ReproducibleTrainingHook']
