"""The engine's average of the weights (EMAHook) with a retriever."""
import pytest
import torch
from mmengine.hooks import Hook

from retrieval.registry import HOOKS

from .interrupting import assert_resumes_exactly, build

MOMENTUM = 0.3


@HOOKS.register_module(force=True)
class Average(Hook):
    """Averages the weights once more, and keeps what an evaluation used."""

    priority = 'LOWEST'

    def before_run(self, runner):
        self.average = None
        Average.evaluated = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        weights = {name: value.detach().clone() for name, value in
                   runner.model.named_parameters()}
        if self.average is None:
            self.average = weights
        else:
            for name, value in weights.items():
                self.average[name] = (1 - MOMENTUM) * self.average[name] + MOMENTUM * value

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model
        images = torch.stack([item['inputs'] for item in runner.val_dataloader.dataset]).float()
        used = {name: value.detach().clone() for name, value in model.named_parameters()}
        Average.evaluated.append((used, dict(self.average), model.gallery.embeddings.clone(),
                                  model.embed(images)))


EMA = [dict(type='EMAHook', momentum=MOMENTUM), dict(type='Average')]


def test_evaluation_and_gallery_use_the_average(tmp_path):
    runner = build(tmp_path, hooks=EMA, val=True, epochs=2)
    runner.train()
    assert len(Average.evaluated) == 12
    for used, average, gallery, now in Average.evaluated:
        torch.testing.assert_close(used, average)
        torch.testing.assert_close(gallery, now, atol=1e-5, rtol=1e-5)
    name = 'image_encoder.layers.1.weight'
    assert not torch.allclose(runner.model.state_dict()[name], used[name])
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    torch.testing.assert_close(saved['state_dict'][name], used[name])


@pytest.mark.parametrize('more', [
    [dict(type='FreezeHook', modules='image_encoder.layers.1', iterations=9)],
    pytest.param([], marks=pytest.mark.slow)])
def test_a_killed_run_resumes_exactly(tmp_path, more):
    whole, resumed = assert_resumes_exactly(tmp_path, 11, [*EMA[:1], *more])
    averages = [next(hook for hook in run.hooks if type(hook).__name__ == 'EMAHook')
                .ema_model.state_dict() for run in (whole, resumed)]
    assert int(averages[0]['steps']) == 12
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])
