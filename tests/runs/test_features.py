"""A config over features: which sets are extracted, and what is left of the config."""
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from retrieval.gallery import Gallery
from retrieval.runs import features
from retrieval.runs.features import FeatureSets

PIPELINE = [dict(type='LoadImage'), dict(type='PackInputs')]
EVALUATOR = dict(type='EmbeddingMetrics', metrics=['Recall@1'])


def loader(root, **options):
    return dict(batch_size=4, num_workers=2, persistent_workers=True, dataset=dict(
        type='ImageFolder', data_root=root, pipeline=PIPELINE), **options)


def config(**parts):
    encoder = dict(type='ImageEncoder', backbone=dict(type='Toy'), pooling=dict(type='GeM'),
                   normalize=False, projection=2)
    return Config(dict(
        model=dict(type='ImageToImageRetriever', image_encoder=encoder, prototype=loader('test'),
                   data_preprocessor=dict(mean=[1.], to_onehot=True, num_classes=5),
                   head=dict(type='Head'), pretrained='x', train_cfg=dict(augments=[])),
        train_dataloader=loader('train'), test_dataloader=loader('test'),
        test_evaluator=EVALUATOR, load_from='x', resume=True, data_preprocessor=dict(mean=[1.]),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook'), logger=dict(interval=3)),
        custom_hooks=[dict(type='EMAHook'), dict(type='retrieval.PreparePrototypeHook'),
                      dict(type='CheckRunHook')], **parts))


@pytest.fixture
def extracted(monkeypatch):
    """Which folders were extracted, with what beside; nothing is encoded."""
    done = []

    def extract(model, loader, folder, part, anew, beside):
        root = loader['dataset']['data_root']
        done.append((root, part, anew, list(beside)))
        return Gallery(np.eye(7)), Path(folder) / f'{root}.safetensors'
    monkeypatch.setattr(features, 'extract', extract)
    return done


def test_each_set_is_extracted_once_and_read_from_its_file(extracted, tmp_path):
    sets = FeatureSets('model', config(), tmp_path, anew=True)
    assert [(root, part, anew) for root, part, anew, _ in extracted] == [
        ('train', 'pooling', True), ('test', 'pooling', True)]
    made = sets.config
    for name, one in (('train', made.train_dataloader), ('test', made.val_dataloader),
                      ('test', made.model.prototype)):
        load, pack = one['dataset']['pipeline']
        assert load == dict(type='retrieval.LoadCachedFeatures',
                            file=str(tmp_path / f'{name}.safetensors'))
        assert pack['type'] == 'retrieval.PackInputs'
        assert one['num_workers'] == 0 and one['batch_size'] == 4
        assert 'persistent_workers' not in one


def test_the_model_is_what_stands_behind_the_pooling(extracted, tmp_path):
    given = config()
    made = FeatureSets('model', given, tmp_path).config
    encoder = made.model.image_encoder
    assert encoder.backbone == dict(type='retrieval.CachedFeatures', num_features=7)
    assert (encoder.pooling, encoder.normalize, encoder.projection) == (None, False, 2)
    assert made.model.data_preprocessor == dict(type='retrieval.RetrievalDataPreprocessor',
                                                to_onehot=True, num_classes=5)
    assert made.data_preprocessor is made.model.pretrained is made.model.train_cfg is None
    assert given.model.pretrained == 'x', 'the config over images stays as it is'


def test_it_is_validated_by_the_validation_set_else_by_the_test_set(extracted, tmp_path):
    made = FeatureSets('model', config(), tmp_path).config
    assert made.val_evaluator == EVALUATOR and made.val_cfg == {}
    assert made.test_dataloader is made.test_evaluator is made.test_cfg is None
    other = dict(EVALUATOR, metrics=['mAP'])
    made = FeatureSets('model', config(val_dataloader=loader('val'), val_evaluator=other),
                       tmp_path).config
    assert made.val_evaluator == other and made.val_dataloader['dataset']['data_root'] == 'val'
    bare = config()
    bare.test_dataloader = bare.test_evaluator = None
    made = FeatureSets('model', bare, tmp_path).config
    assert made.val_dataloader is made.val_evaluator is made.val_cfg is None


def test_no_checkpoints_and_only_hooks_of_the_run(extracted, tmp_path):
    made = FeatureSets('model', config(), tmp_path).config
    assert made.load_from is None and made.resume is False
    assert made.default_hooks.checkpoint is None and made.default_hooks.logger.interval == 3
    assert [hook.type for hook in made.custom_hooks] == ['retrieval.PreparePrototypeHook',
                                                         'CheckRunHook']


@pytest.mark.parametrize(('made', 'says'), [(True, 'extracted in '), (False, 'as they were')])
def test_it_says_what_was_done(made, says, tmp_path, monkeypatch, capsys):
    gallery = Gallery(np.eye(3), skipped={'a.png': 'is damaged'})
    asked = []

    def cache_features(*given):
        asked.append(given)
        return gallery, made
    monkeypatch.setattr('retrieval.retrievers.cache_features', cache_features)
    found, path = features.extract('model', loader('train'), tmp_path, 'pooling', True, ['beside'])
    assert found is gallery and path.parent == tmp_path
    assert asked == [('model', loader('train'), path, 'pooling', True, ['beside'])]
    printed = capsys.readouterr().out
    assert f'3 x 3 features in {path}, {says}' in printed and 'skipped a.png: is damaged' in printed
