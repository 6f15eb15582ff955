"""The start of a training: what the projection is, what is averaged, and what it is compared with.
"""
import json
import logging

import pytest
import torch
from mmengine.hooks import Hook

from retrieval.encoders import principal_components
from retrieval.hooks import AveragedWeightsHook, CompareWithStartHook, compared
from retrieval.registry import HOOKS, MODELS

from .interrupting import assert_resumes_exactly, build

BEST = dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='embedding/Recall@1',
                            rule='greater'))


@HOOKS.register_module(force=True)
class Notes(Hook):
    """Keeps the weights before the first step, and what each validation used."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        Notes.start, Notes.used = weights(runner.model), []

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        Notes.used.append((runner.epoch, weights(runner.model)))


@MODELS.register_module(force=True)
class FlatBackbone(torch.nn.Flatten):
    num_features = 64

    def forward(self, inputs):
        return super().forward(inputs / 99)


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def projected(settings):
    settings['model']['image_encoder'] = dict(
        type='ImageEncoder', backbone=dict(type='FlatBackbone'), pooling=None, projection=4)


def trained(tmp_path, *hooks, change=None, **options):
    def both(settings):
        settings['default_hooks'] = {**settings['default_hooks'], **BEST}
        if change:
            change(settings)
    runner = build(tmp_path, both, hooks=[*hooks, dict(type='Notes')], val=True, **options)
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append((record.levelno, record.getMessage()))
    runner.logger.setLevel('INFO')
    runner.logger.addHandler(handler)
    runner.train()
    return runner, said


def test_the_untrained_encoder_is_epoch_0_of_table_curve_and_checkpoints(tmp_path):
    runner, said = trained(tmp_path, dict(type='CompareWithStartHook'), epochs=2)
    curve = runner.message_hub.get_info('curve_of_validations')
    assert [one['step'] for one in curve] == [0, 1, 2]
    assert Notes.used[0][0] == 0
    assert all(torch.equal(Notes.used[0][1][name], value) for name, value in Notes.start.items())
    table = next(text for _, text in said if text.startswith('All validations'))
    assert not any('curve' in text for _, text in said)  # the engine logs what begins with val
    assert [line.split()[0] for line in table.splitlines()[1:]] == ['epoch', '0', '1', '2']
    assert f'{curve[0]["embedding/Recall@1"]:.2f}' in table.splitlines()[2]
    scalars = [json.loads(line) for path in tmp_path.rglob('scalars.json')
               for line in path.read_text().splitlines()]
    assert [one['step'] for one in scalars if 'embedding/Recall@1' in one] == [0, 1, 2]
    level, sentence = said[-1]
    assert 'embedding/Recall@1 was' in sentence and level in (logging.INFO, logging.WARNING)


def test_where_training_spoils_the_start_it_is_kept_and_said(tmp_path):
    def spoil(settings):
        projected(settings)
        settings['optim_wrapper']['optimizer'] = dict(type='SGD', lr=1e4)
        settings['train_cfg']['max_epochs'] = 1
    runner, said = trained(tmp_path, dict(type='StartAtComponentsHook'),
                           dict(type='CompareWithStartHook'), change=spoil)
    curve = runner.message_hub.get_info('curve_of_validations')
    assert curve[1]['embedding/Recall@1'] < curve[0]['embedding/Recall@1']
    best = torch.load(next(tmp_path.glob('best_*epoch_0.pth')), weights_only=False)['state_dict']
    assert all(torch.equal(best[name], value) for name, value in Notes.start.items())
    assert said[-1][0] == logging.WARNING and said[-1][1].startswith('TRAINING DID NOT HELP')


def curve_of(*values):
    return [{'step': step, 'R': value} for step, value in enumerate(values)]


@pytest.mark.parametrize('values, rule, level, says', [
    ((60., 64.5, 63.), 'greater', 20, 'helped: R was 60.00 at the start and is 64.50 at best '
                                      r'\(epoch 1\), by 4.50, 63.00 at the end'),
    ((60., 64.5), 'greater', 20, r'by 4\.50\.$'),
    ((60., 50., 55.), 'greater', 30, r'NOT HELP: R was 60.00 at the start and 55.00 at best '
                                     r'\(epoch 2\)\. Keep the encoder as it was \(epoch 0\)'),
    ((60., 60.), 'greater', 30, 'NOT HELP'),
    ((60., 50., 55.), 'less', 20, r'is 50.00 at best \(epoch 1\), by 10.00, 55.00 at the end'),
    ((60.,), 'greater', 20, 'at the start alone')])
def test_the_comparison(values, rule, level, says):
    import re
    found, sentence = compared(curve_of(*values), 'R', rule=rule)
    assert found == level and re.search(says, sentence)


def test_a_list_without_its_start_is_not_compared():
    assert 'not measured at the start' in compared(curve_of(1., 2.)[1:], 'R')[1]


def test_a_resumed_run_remembers_its_start(tmp_path):
    whole, resumed = assert_resumes_exactly(tmp_path, 11, [dict(type='CompareWithStartHook'),
                                                           dict(type='AveragedWeightsHook')],
                                            val=True)
    curves = [run.message_hub.get_info('curve_of_validations') for run in (whole, resumed)]
    assert curves[0] == curves[1] and [one['step'] for one in curves[0]] == [0, 1, 2]


def test_iterations(tmp_path):
    def change(settings):
        settings['train_cfg'] = dict(type='ResumableIterTrainLoop', max_iters=4, val_interval=2)
        settings['default_hooks'] = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False))
        settings['log_processor'] = dict(by_epoch=False)
    runner, said = trained(tmp_path, dict(type='CompareWithStartHook'), change=change)
    assert [one['step'] for one in runner.message_hub.get_info('curve_of_validations')] == [0, 2, 4]
    assert any('iteration' in text for _, text in said)


def test_a_metric_that_is_not_computed(tmp_path):
    with pytest.raises(ValueError, match="Unknown metric 'embedding/Recall@2'.*Recall@1"):
        trained(tmp_path, dict(type='CompareWithStartHook', metric='embedding/Recall@2'), epochs=1)
    with pytest.raises(ValueError, match="Did you mean 'greater'"):
        CompareWithStartHook(rule='greate')


def test_the_projection_starts_at_the_components_of_the_training_set(tmp_path):
    runner, said = trained(tmp_path, dict(type='StartAtComponentsHook'),
                           change=projected, epochs=1)
    images = torch.stack([torch.from_numpy(item['img']) for item in (
        runner.train_dataloader.dataset.get_data_info(row) for row in range(23))])
    fit = principal_components(images.reshape(23, 64).float() / 99, 4)
    start = Notes.start['image_encoder.projection.linear.weight']
    overlap = start.double() @ torch.from_numpy(fit.projection).T
    torch.testing.assert_close(overlap.abs(), torch.eye(4, dtype=torch.float64), atol=1e-4, rtol=0)
    assert any('4 principal components of 23' in text for _, text in said)
    assert list(tmp_path.glob('pooling-*.safetensors'))


def test_a_projection_of_a_checkpoint_stays(tmp_path):
    state = {'image_encoder.projection.linear.weight': torch.eye(4, 64),
             'image_encoder.projection.linear.bias': torch.zeros(4)}
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'given.pth')
    trained(tmp_path, dict(type='StartAtComponentsHook'), change=projected, epochs=1,
            load_from=str(tmp_path / 'given.pth'))
    assert torch.equal(Notes.start['image_encoder.projection.linear.weight'], torch.eye(4, 64))


def test_an_encoder_without_a_projection_is_left_alone(tmp_path):
    runner, said = trained(tmp_path, dict(type='StartAtComponentsHook'), epochs=1)
    assert not any('principal components' in text for _, text in said)


def test_the_average_begins_at_the_start_and_has_the_length_of_the_run(tmp_path):
    runner, _ = trained(tmp_path, dict(type='StartAtComponentsHook'),
                        dict(type='CompareWithStartHook'),
                        dict(type='AveragedWeightsHook', share=0.25), change=projected, epochs=2)
    hook = next(hook for hook in runner.hooks if isinstance(hook, AveragedWeightsHook))
    assert hook.ema_model.momentum == pytest.approx(1 / 3)  # of 12 iterations
    assert all(torch.equal(Notes.used[0][1][name], value) for name, value in Notes.start.items())
    name = 'image_encoder.projection.linear.weight'
    average = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict'][name]
    torch.testing.assert_close(average, Notes.used[-1][1][name])
    assert not torch.allclose(average, runner.model.state_dict()[name])
    with pytest.raises(ValueError, match='share must be above 0 and below 1'):
        AveragedWeightsHook(share=1)


def one_of_two(number, folder):
    import torch.distributed as dist

    from ..processes import leave_group
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=number,
                            world_size=2)
    runner, _ = trained(folder, dict(type='StartAtComponentsHook'),
                        dict(type='AveragedWeightsHook'), dict(type='CompareWithStartHook'),
                        change=projected, epochs=1, launcher='none')
    start = Notes.start['image_encoder.projection.linear.weight']
    both = [torch.zeros_like(start) for _ in range(2)]
    dist.all_gather(both, start)
    assert torch.equal(*both)
    curve = runner.message_hub.get_info('curve_of_validations')
    assert [one['step'] for one in curve] == [0, 1]
    leave_group()


@pytest.mark.slow
def test_two_processes_start_alike(tmp_path):
    import torch.multiprocessing as mp
    mp.spawn(one_of_two, args=(tmp_path,), nprocs=2)
