"""Names of a config's own, as configs for MMEngine have them everywhere, and what is none."""
import pytest
from mmengine.config import Config

from retrieval.config.own_names import check_option_names, check_own_names
from retrieval.config.reading import read_config

BASE = '''
data_root = '{{$NO_SUCH_VARIABLE:data}}'
img_size, num_classes = 224, 10
dataset_type = 'InShop'
train_pipeline = [dict(type='LoadImage'), dict(type='Resize', scale=(img_size, img_size))]
train_cfg_common = dict(max_epochs=3)
train_dataset = dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline)
train_dataloader = dict(dataset=train_dataset, batch_size=num_classes)
train_cfg = dict(type='ResumableTrainLoop', **train_cfg_common)
query_dataloader = dict(batch_size=2)
_val_dataloader = dict(batch_size=4)
author = 'somebody'
for part in ('a', 'b'):
    pass
'''


def written(folder, text, name='mine.py'):
    (folder / name).write_text(text)
    return read_config(folder / name)


def test_names_in_use_marked_or_like_no_setting_are_the_configs_own(tmp_path):
    config = written(tmp_path, BASE)
    check_own_names(config)
    assert config.train_dataloader.dataset.data_root == 'data' and config.author == 'somebody'
    config.dump(tmp_path / 'written.py')  # where nothing shows any more what was in use
    check_own_names(read_config(tmp_path / 'written.py'))


def test_names_that_an_heir_uses(tmp_path):
    written(tmp_path, 'train_dataloaders = dict(batch_size=3)\n', 'base.py')
    for text in ('train_dataloader = {{_base_.train_dataloaders}}',
                 'train_dataloader = _base_.train_dataloaders'):
        check_own_names(written(tmp_path, f"_base_ = './base.py'\n{text}\n"))


@pytest.mark.parametrize('line, near', [
    ('optim_wraper = dict(lr=1)', 'optim_wrapper'), ('modle = dict(topk=3)', 'model'),
    ('test_evaluater = []', 'test_evaluator'), ('train_loader = dict()', 'train_dataloader'),
    ('custom_hook = []', 'custom_hooks'), ("optimizer = dict(type='SGD', lr=1)", 'optim_wrapper'),
    ('load_form = "x.pth"', 'load_from')])
def test_misspelt_names_are_refused(line, near, tmp_path):
    for config in (written(tmp_path, BASE + line), Config(written(tmp_path, line).to_dict())):
        with pytest.raises(ValueError, match=f"Unknown setting .*'{near}'"):
            check_own_names(config)
    (tmp_path / 'mine.yaml').write_text('optim_wraper: {lr: 1}')
    with pytest.raises(ValueError, match='optim_wrapper'):
        check_own_names(read_config(tmp_path / 'mine.yaml'))


def test_a_name_that_the_base_has_used_already(tmp_path):
    written(tmp_path, BASE, 'base.py')
    with pytest.raises(ValueError, match="'data_root' in .*mine.py' changes nothing"):
        check_own_names(written(tmp_path, "_base_ = './base.py'\ndata_root = 'other'\n"))
    check_own_names(written(tmp_path, "_base_ = './base.py'\ndata_root = 'other'\n"
                                      'test_dataloader = dict(dataset=dict(data_root=data_root))'))


@pytest.mark.parametrize('key, says', [
    ('modle.topk', "'modle'. Did you mean 'model'"), ('note', "Unknown setting 'note'"),
    ('data_root', 'Set train_dataloader.dataset.data_root instead'),
    ('train_pipeline.0.type', 'Set train_dataloader.dataset.pipeline instead')])
def test_options_that_would_change_nothing(key, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        check_option_names(written(tmp_path, BASE), [key])


def test_options_that_change_something(tmp_path):
    check_option_names(written(tmp_path, BASE), [
        'model.topk', 'train_cfg.max_epochs', 'author', '_mine', 'query_dataloader.batch_size'])
