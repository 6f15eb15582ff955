"""A config as it is after its bases and options."""
from mmengine.config import Config

from .conftest import run


def test_what_is_printed_can_be_read_again(config):
    status, out, _ = run('print_config', config, '--cfg-options', 'model.topk=3',
                         'train_dataloader.batch_size=5')
    found = Config.fromstring(out, '.py')
    assert status == 0 and found.model.topk == 3 and found.train_dataloader.batch_size == 5
    assert found.model.head.loss.num_classes == 4


def test_a_shipped_one_by_its_name():
    status, out, _ = run('print_config', 'arcface/resnet10-arcface_4e_glyphs')
    assert status == 0 and Config.fromstring(out, '.py').model.type.endswith('Retriever')


def test_what_is_no_config():
    status, _, err = run('print_config', 'nowhere.py')
    assert status == 2 and 'nowhere.py' in err


def test_print_config_shows_what_is_inherited(config):
    status, out, _ = run('print_config', config, '--cfg-options', 'model.topk=3')
    assert status == 0 and 'topk=3' in out and 'PreparePrototypeHook' in out


def test_paths_of_configs_may_begin_at_home(config, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(config.parent))
    status, out, err = run('print_config', f'~/{config.name}', '--cfg-options',
                           "train_dataloader.dataset=dict(data_root='~/pictures')")
    assert status == 0 and f"data_root='{config.parent}/pictures'" in out, err
