import pytest
import torch
from mmengine.hooks import Hook

from retrieval.hooks import PreparePrototypeHook
from retrieval.registry import HOOKS

from .running import build


@HOOKS.register_module(force=True)
class Watch(Hook):
    """Keeps, while an evaluation runs, the gallery and what the encoder would make of it now."""

    priority = 'VERY_LOW'
    seen: list = []

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._look(runner)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._look(runner)

    def _look(self, runner):
        model = runner.model
        images = torch.stack([item['inputs'] for item in runner.test_dataloader.dataset]).float()
        Watch.seen.append((model.gallery.embeddings.clone(), model.embed(images)))


@pytest.mark.parametrize('ema', [False, True])
def test_gallery_and_queries_are_encoded_with_the_same_weights(tmp_path, ema):
    Watch.seen = []
    runner = build(tmp_path, val=True, ema=ema, epochs=2, hooks=[dict(type='Watch')])
    runner.train()
    runner.test()
    assert len(Watch.seen) == 18  # two validations and a test of six batches
    for gallery, now in Watch.seen:
        torch.testing.assert_close(gallery, now, atol=1e-5, rtol=1e-5)
    first, second, tested = Watch.seen[0][0], Watch.seen[6][0], Watch.seen[12][0]
    assert not torch.equal(first, second)
    if not ema:  # the engine's hook starts its average anew when another run begins
        torch.testing.assert_close(second, tested)


def test_with_averaged_weights_the_average_is_what_is_tested(tmp_path):
    Watch.seen = []
    runner = build(tmp_path, val=True, ema=True, epochs=1, hooks=[dict(type='Watch')])
    runner.train()
    images = torch.stack([item['inputs'] for item in runner.test_dataloader.dataset]).float()
    trained = runner.model.eval().embed(images)
    assert not torch.allclose(Watch.seen[0][0], trained, atol=1e-4)


def test_a_set_that_is_its_own_gallery_is_encoded_once(tmp_path):
    runner = build(tmp_path)
    metrics = runner.test()
    assert runner.model.image_encoder.seen == 23
    assert metrics['embedding/num_queries'] == 23
    assert not runner.model.holder.queries_in_gallery
    runner.model.test_step(dict(inputs=[torch.zeros(1, 8, 8)]))
    assert runner.model.image_encoder.seen == 24


def test_the_configured_search_and_the_embeddings_tell_the_same(tmp_path):
    metrics = build(tmp_path).test()
    assert metrics['embedding/Recall@1'] == pytest.approx(metrics['search/Recall@1'])


def test_the_name_that_mmpretrain_gives_it():
    assert HOOKS.get('PrepareProtoBeforeValLoopHook') is PreparePrototypeHook


def test_another_model_is_refused(tmp_path):
    runner = build(tmp_path)
    runner.model = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match='Linear.*ImageToImageRetriever'):
        PreparePrototypeHook().before_test_epoch(runner)
