import numpy as np
import pytest
import torch
import torch._dynamo.utils
from mmengine.config import Config

from retrieval.runs.config import _classes_for_a_batch, compile_options, complete, folder_config

from ..commands.conftest import draw_classes, run

counters = torch._dynamo.utils.counters


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
    assert kinds == ['CheckHeadHook', 'CheckRunHook', 'PreparePrototypeHook',
                     'ReproducibleTrainingHook', 'StopOnNonFiniteHook']


@pytest.mark.parametrize('given, want', [
    (None, None), (False, None), (dict(backend='aot_eager'), dict(backend='aot_eager'))])
def test_compile_takes_what_torch_takes(given, want):
    assert compile_options(given) == want


@pytest.mark.parametrize('given, error, says', [
    ('yes', TypeError, 'must be True or arguments'),
    (dict(backend='eager', fullgrph=True), ValueError, "'fullgrph'.*Did you mean 'fullgraph'")])
def test_compile_refuses_what_torch_does_not_take(given, error, says):
    with pytest.raises(error, match=says):
        compile_options(given)


def test_compile_says_that_a_compiler_is_missing(monkeypatch):
    monkeypatch.setenv('PATH', '')
    monkeypatch.setenv('CXX', 'no-such-compiler')
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(ValueError, match="'no-such-compiler' is not there.*aot_eager"):
        compile_options(True)
    assert compile_options(dict(backend='aot_eager'))


@pytest.mark.slow
def test_a_compiled_encoder_trains_to_the_same_weights(config, tmp_path):
    counters.clear()
    weights = []
    for options in ([], ['--cfg-options', 'compile.backend=eager']):
        out = tmp_path / str(len(options))
        status, _, err = run('train', config, '--work-dir', out, '--no-validate', *options)
        assert status == 0, err
        weights.append(torch.load(out / 'epoch_2.pth', weights_only=True)['state_dict'])
    assert counters['frames']['ok'] > 0
    assert list(weights[0]) == list(weights[1])
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('sizes, expected', [
    ([5] * 50, (32, 4)), ([3, 3, 2], (3, 3)), ([1, 1, 9], (3, 2))])
def test_batches_fit_the_classes(sizes, expected):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert _classes_for_a_batch(labels) == expected


def test_the_config_of_a_folder(tmp_path):
    draw_classes(tmp_path / 'own', classes=6, each=2)
    config = folder_config(tmp_path / 'own')
    assert config.train_dataloader.batch_size == 6 and config.train_dataloader.batch_sampler.m == 2
    assert config.model.image_encoder.projection == 128
    assert config.model.prototype.dataset.split == config.val_dataloader.dataset.split == 'test'


def test_folders_that_cannot_be_learned_from(tmp_path):
    draw_classes(tmp_path / 'few', classes=2, each=3)
    with pytest.raises(ValueError, match='at least two classes'):
        folder_config(tmp_path / 'few')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no images'):
        folder_config(tmp_path / 'empty')
