import pytest
from mmengine.config import Config

from retrieval.commands.configuration import complete


@pytest.mark.parametrize('given, want', [
    (dict(by_epoch=True, max_epochs=2), dict(type='retrieval.ResumableTrainLoop', max_epochs=2)),
    (dict(by_epoch=False, max_iters=9), dict(type='retrieval.ResumableIterTrainLoop', max_iters=9)),
    (dict(type='IterBasedTrainLoop', max_iters=9), dict(type='IterBasedTrainLoop', max_iters=9))])
def test_the_loop_that_resumes_is_the_default(given, want):
    assert complete(Config(dict(model=dict(), train_cfg=given))).train_cfg.to_dict() == want
