"""The prototype of a config follows its gallery_dataloader, and pipelines are compared."""
import pytest
from mmengine.config import Config

from retrieval.retrievers import configured_prototype
from retrieval.retrievers.prototype import loader_pipeline, pipelines_warning

DATA = '''
gallery_dataloader = dict(batch_size=4, dataset=dict(
    type='ImageFolder', data_root='a', pipeline=[dict(type='LoadImage'), dict(type='PackInputs')]))
other = dict(batch_size=9, dataset=dict(type='ImageFolder', data_root='other'))
'''
IDIOM = '''_base_ = './data.py'
model = dict(type='ImageToImageRetriever', prototype={{_base_.gallery_dataloader}})
'''
DEFAULT = '''_base_ = './data.py'
model = dict(type='ImageToImageRetriever')
'''
CHANGED = '''_base_ = './leaf.py'
gallery_dataloader = dict(dataset=dict(data_root='b'))
'''


@pytest.fixture
def write(tmp_path):
    def write(**texts):
        for name, text in dict(data=DATA, **texts).items():
            (tmp_path / f'{name}.py').write_text(text)
        return Config.fromfile(tmp_path / f'{name}.py')
    return write


@pytest.mark.parametrize('leaf', [IDIOM, DEFAULT], ids=['idiom', 'default'])
def test_it_follows_through_three_levels(write, leaf):
    assert configured_prototype(write(leaf=leaf)).dataset.data_root == 'a'
    assert configured_prototype(write(leaf=leaf, child=CHANGED)).dataset.data_root == 'b'
    config = write(leaf=leaf, child=CHANGED, grandchild='''_base_ = './child.py'
gallery_dataloader = dict(batch_size=7)
''')
    found = configured_prototype(config)
    assert (found.batch_size, found.dataset.data_root) == (7, 'b')
    config.merge_from_dict({'gallery_dataloader.dataset.data_root': 'c'})
    assert configured_prototype(config).dataset.data_root == 'c'
    found.batch_size = 1
    assert config.gallery_dataloader.batch_size == 7, 'it is no copy'


def test_the_idiom_in_a_file_that_changes_the_loader_itself(write):
    config = write(leaf=IDIOM + "gallery_dataloader = dict(dataset=dict(data_root='b'))\n")
    assert config.model.prototype.dataset.data_root == 'a'
    assert configured_prototype(config).dataset.data_root == 'b'


def test_a_printed_config_may_be_inherited(write, tmp_path):
    config = write(leaf=DEFAULT)
    config.model.prototype = configured_prototype(config)
    child = write(leaf=config.pretty_text, child=CHANGED)
    assert child.model.prototype.dataset.data_root == 'a'
    assert configured_prototype(child).dataset.data_root == 'b'


@pytest.mark.parametrize('leaf', [IDIOM, DEFAULT], ids=['idiom', 'default'])
@pytest.mark.parametrize('named, want', [
    ('{{_base_.other}}', 'other'),
    ("dict(_delete_=True, dataset=dict(type='CSVDataset', data_root='c'))", 'c'),
])
def test_one_that_is_named_wins(write, leaf, named, want):
    config = write(leaf=leaf, child=CHANGED + f'model = dict(prototype={named})\n')
    found = configured_prototype(config)
    assert found == config.model.prototype and found.dataset.data_root == want


@pytest.mark.parametrize('leaf', [IDIOM, DEFAULT], ids=['idiom', 'default'])
def test_a_path_wins(write, leaf):
    config = write(leaf=leaf, child=CHANGED)
    config.model.prototype = 'gallery.safetensors'
    assert configured_prototype(config) == 'gallery.safetensors'


def test_a_part_is_laid_over_the_loader(write):
    config = write(leaf=DEFAULT, child=CHANGED + '''
model = dict(prototype=dict(batch_size=2, dataset=dict(split='test')))
''')
    found = configured_prototype(config)
    assert found.dataset.to_dict() == dict(
        type='ImageFolder', data_root='b', split='test',
        pipeline=[dict(type='LoadImage'), dict(type='PackInputs')])
    assert found.batch_size == 2


def test_one_that_was_set_later_to_what_a_base_has_stays(write):
    config = write(leaf=DEFAULT, child=CHANGED)
    config.model.prototype = Config.fromfile(
        config.filename.replace('child', 'data')).gallery_dataloader
    assert configured_prototype(config).dataset.data_root == 'a'


def test_without_a_loader():
    assert configured_prototype(Config(dict(model=dict(prototype='x.pth')))) == 'x.pth'
    assert configured_prototype(Config(dict(model=dict(type='X')))) is None
    assert configured_prototype(Config(dict(gallery_dataloader=dict(batch_size=1)))) is not None


LOAD, PACK = dict(type='LoadImage'), dict(type='PackInputs')
SMALL, LARGE = dict(type='Resize', scale=(8, 8)), dict(type='Resize', scale=(16, 16))


@pytest.mark.parametrize('queries, gallery', [
    ([LOAD, SMALL, PACK], [dict(type='retrieval.LoadImage'), dict(type='Resize', scale=[8.0, 8])]),
    ([dict(LOAD, crop_box=False), dict(type='CropBox', margin=3), SMALL], [LOAD, SMALL]),
    ([LOAD, dict(PACK, meta_keys=('box',))], [LOAD, PACK]),
    ([dict(type='LoadCachedFeatures', file='a')], [dict(type='LoadCachedFeatures', file='b')]),
    (None, [LOAD]), ([LOAD], None),
])
def test_pipelines_that_make_the_same_pictures(queries, gallery):
    assert pipelines_warning(queries, gallery, 'val_dataloader') is None


@pytest.mark.parametrize('queries, gallery, parts', [
    ([LOAD, SMALL, PACK], [LOAD, LARGE, PACK],
     ['only the queries Resize(scale=(8, 8)); only the gallery Resize(scale=(16, 16))']),
    ([LOAD, PACK], [LOAD, LARGE, PACK], ['only the gallery Resize(scale=(16, 16))']),
    ([LOAD, SMALL, LARGE], [LOAD, LARGE, SMALL], ['another order']),
    ([LOAD, SMALL, SMALL], [LOAD, SMALL], ['number']),
    ([[LOAD, SMALL], [LOAD, LARGE]], [LOAD, SMALL], ['only the queries Resize(scale=(16, 16))']),
    ([dict(LOAD, color='bgr')], [LOAD], ["only the queries LoadImage(color='bgr')"]),
])
def test_pipelines_that_do_not(queries, gallery, parts):
    message = pipelines_warning(queries, gallery, 'val_dataloader')
    for part in (*parts, '`val_dataloader`', 'gallery_dataloader'):
        assert part in message


def test_the_pipeline_of_a_loader():
    inner = dict(type='X', pipeline=[LOAD])
    for dataset in (inner, dict(type='RepeatDataset', dataset=inner),
                    dict(type='ConcatDataset', datasets=[inner])):
        assert loader_pipeline(dict(dataset=dataset)) == [LOAD]
    assert loader_pipeline(dict(dataset=dict(type='X'))) is None
    assert loader_pipeline('gallery.safetensors') is loader_pipeline(None) is None
