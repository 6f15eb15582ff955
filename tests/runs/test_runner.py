import warnings

from mmengine.config import Config

from retrieval.runs.config import build_runner, load_config

from ..commands.conftest import run


def test_a_run_logs_what_its_user_can_use(config, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.config.config.FormatCode', None)  # nothing waits for it
    with warnings.catch_warnings(record=True) as caught:
        status, _, err = run('train', config, '--work-dir', tmp_path, '--cfg-options',
                             'log_level=INFO', 'train_cfg.max_epochs=1',
                             'optim_wrapper.optimizer.weight_decay=0.1',
                             'optim_wrapper.paramwise_cfg.norm_decay_mult=0')
    assert status == 0, err
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert len([line for line in log.splitlines() if ' - mmengine - ' in line]) < 10, log
    assert all(word not in log for word in ('custom_hooks', 'LoggerHook', 'paramwise', 'CPU cap'))
    assert f'config: {tmp_path / config.name}' in log and 'Epoch(val)' in log
    assert 'torch ' in log.splitlines()[0] and 'embedding/Recall@1' in log
    assert not [one for one in caught if 'deprecated' in str(one.message)]
    kept = Config.fromfile(tmp_path / config.name)  # the whole of it, to be run again
    assert kept.train_cfg.max_epochs == 1 and kept.model.image_encoder.projection == 8


def test_unused_parameters_are_found_on_several_processes_of_a_cpu(config, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('retrieval.distributed.init_cpu_group', lambda launcher: None)
    monkeypatch.setattr('retrieval.runs.runner.QuietRunner.from_cfg', made.append)
    loaded = load_config(config, dict(find_unused_parameters=True), str(tmp_path))
    build_runner(loaded, 'pytorch')
    assert made[0].model_wrapper_cfg.find_unused_parameters is True
