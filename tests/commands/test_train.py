"""Training from a config, and what is refused before it begins."""
import os

import pytest
import torch

from .conftest import run


def test_training_leaves_checkpoints_logs_and_the_best(work_dir):
    names = os.listdir(work_dir)
    assert 'epoch_2.pth' in names and 'last_checkpoint' in names and 'small.py' in names
    assert any(name.startswith('best_embedding_Recall@1') for name in names)
    run_dir = next(entry for entry in work_dir.iterdir() if entry.is_dir())
    written = [path.name for path in run_dir.rglob('*')]
    assert 'scalars.json' in written
    assert any(name.startswith('events.out.tfevents') for name in written)
    assert not list(work_dir.rglob('*.tmp'))


def test_the_gallery_is_not_in_the_checkpoint(checkpoint):
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    assert all(name.startswith(('image_encoder.', 'head.')) for name in state)
    assert 'head.losses.ArcFaceLoss.W' in state or any('W' in name for name in state)


def test_resume_goes_on_from_the_last(config, work_dir, tmp_path):
    import shutil
    shutil.copytree(work_dir, tmp_path / 'again')
    (tmp_path / 'again' / 'last_checkpoint').write_text(str(tmp_path / 'again' / 'epoch_1.pth'))
    status, _, err = run('train', config, '--work-dir', tmp_path / 'again', '--resume')
    assert status == 0, err
    one, two = (torch.load(path / 'epoch_2.pth', weights_only=True)['state_dict']
                for path in (work_dir, tmp_path / 'again'))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize('wrapper', ['OptimWrapper', 'AmpOptimWrapper'])
def test_amp_trains_in_bfloat16_without_a_gpu(config, tmp_path, wrapper):
    status, _, err = run('train', config, '--work-dir', tmp_path, '--amp', '--no-validate',
                         '--cfg-options', 'train_cfg.max_epochs=1', f'optim_wrapper.type={wrapper}')
    assert status == 0, err
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_the_learning_rate_is_scaled(config, tmp_path):
    from retrieval.commands import train
    arguments = train.parser().parse_args([str(config), '--auto-scale-lr'])
    assert train.configure(arguments).auto_scale_lr.enable


@pytest.mark.parametrize('arguments, words', [
    (['train', '/nowhere/config.py'], 'no config'),
    (['train', '{config}', '--resume', '/nowhere/x.pth'], 'no checkpoint'),
    (['test', '{config}', '/nowhere/x.pth'], '/nowhere/x.pth'),
    (['test', '{config}', '{checkpoint}', '--out', 'x.pkl'], '.json'),
    (['test', '{config}', '{checkpoint}', '--cfg-options', 'model.topk=0'], 'at least 1'),
    (['test', '{config}', '{checkpoint}', '--cfg-options', 'model.type=ImageRetriever'],
     'ImageToImageRetriever'),
    (['test', '{config}', '{checkpoint}', '--cfg-options', 'model.image_encoder.projection=9'],
     'embeddings of width 9'),
    (['test', '{config}', '{checkpoint}', '--cfg-options', 'model.image_encoder.projection=9',
      'model.head.loss.embedding_size=9'], 'another shape'),
    (['train', '{config}', '--cfg-options', 'model.head.loss.num_classes=2'], 'num_classes=2'),
    (['test', '{config}', '{checkpoint}', '--cfg-options',
      'model.prototype.dataset.data_root=/nowhere'], '/nowhere'),
    (['dump_prototype', '{config}', '{checkpoint}', 'gallery.pth'], '.safetensors'),
    (['train', '{config}', '--cfg-options', 'train_dataloader.dataset.type=ImageFoldr'],
     'ImageFolder'),
])
def test_wrong_input_gets_one_message(config, checkpoint, tmp_path, arguments, words):
    names = dict(config=config, checkpoint=checkpoint)
    command, *rest = [argument.format(**names) for argument in arguments]
    if command != 'dump_prototype':
        rest += ['--work-dir', tmp_path]
    status, _, err = run(command, *rest)
    assert status == 2 and words in err and 'Traceback' not in err, err


def test_a_checkpoint_of_another_architecture(config, checkpoint, tmp_path):
    deeper = 'model.image_encoder.backbone.layers=[2,1,1,1]'
    for command, *arguments in (('test', config, checkpoint),
                                ('train', config, '--resume', checkpoint)):
        status, _, err = run(command, *arguments, '--work-dir', tmp_path, '--cfg-options', deeper)
        assert status == 2 and 'lacks blocks of the model' in err, err
    status, _, err = run('train', config, '--work-dir', tmp_path, '--cfg-options', deeper,
                         f'load_from={checkpoint}')
    assert status == 2 and 'lacks blocks of the model' in err, err
    assert not list(tmp_path.glob('*.pth'))
    (tmp_path / 'page.pth').write_text('<html>not found</html>')
    status, _, err = run('test', config, tmp_path / 'page.pth', '--work-dir', tmp_path)
    assert status == 2 and 'web page' in err and 'Traceback' not in err


def test_options_change_the_config(config, tmp_path):
    from retrieval.commands import train

    def configured(*options):
        return train.configure(train.parser().parse_args([str(config), *options]))
    plain = configured('--work-dir', str(tmp_path))
    assert plain.work_dir == str(tmp_path) and plain.val_dataloader is not None
    assert not plain.get('resume') and plain.optim_wrapper.type == 'OptimWrapper'
    assert configured('--no-validate').val_dataloader is None
    assert configured('--amp').optim_wrapper.type != 'OptimWrapper'
    again = configured('--resume')
    assert again.resume and again.load_from is None
    assert configured('--resume', 'x.pth').load_from == 'x.pth'


@pytest.mark.parametrize(('options', 'says'), [
    (['--cfg-options', 'train_dataloader=None'], 'nothing to train'),
    (['--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'], 'base_batch_size=…')])
def test_options_that_do_not_fit_the_config(config, options, says):
    from retrieval.commands import train
    with pytest.raises(ValueError, match=says):
        train.configure(train.parser().parse_args([str(config), *options]))


def test_the_last_results_are_those_of_the_validation():
    from types import SimpleNamespace

    from retrieval.commands.train import last_metrics

    logged = {'train/loss': 3.0, 'val/embedding/mAP': 50.0, 'val/search/Recall@1': 25.0}
    runner = SimpleNamespace(message_hub=SimpleNamespace(log_scalars={
        name: SimpleNamespace(current=lambda value=value: value)
        for name, value in logged.items()}))
    assert last_metrics(runner) == {'embedding/mAP': 50.0, 'search/Recall@1': 25.0}
