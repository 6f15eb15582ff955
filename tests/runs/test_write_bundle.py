"""What is written into a bundle, and what is refused before there is one."""
import json
import re
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import Config

from retrieval.evaluation import MatchCalibration, evaluate
from retrieval.gallery import Gallery
from retrieval.index import FaissIndex, gallery_digest
from retrieval.runs import write_bundle as module
from retrieval.runs.bundle import Bundle, is_bundle
from retrieval.runs.write_bundle import check_target, write_bundle

from .conftest import CONFIG, STEPS


def test_a_name_is_free_or_an_empty_folder(tmp_path):
    check_target(tmp_path / 'new')
    (tmp_path / 'empty').mkdir()
    check_target(tmp_path / 'empty')
    (tmp_path / 'file').touch()
    for taken in (tmp_path / 'file', tmp_path):
        with pytest.raises(FileExistsError, match='is there already'):
            check_target(taken)


def test_only_what_a_search_needs_is_carried():
    whole = dict(CONFIG, optim_wrapper=dict(type='X'), data_preprocessor=dict(mean=[1.]),
                 custom_imports=dict(imports=['own']))
    whole['model'] = dict(CONFIG['model'], index=dict(type='retrieval.FaissIndex', factory='Flat',
                                                      path='x', on_disk='y'))
    found = json.loads(module._settings(Config(whole), trust=False))
    assert set(found) == {'model', 'pipeline', 'default_scope', 'data_preprocessor'}
    assert set(found['model']) == {'type', 'image_encoder', 'data_preprocessor', 'topk', 'index'}
    assert found['model']['index'] == dict(type='retrieval.FaissIndex', factory='Flat')
    assert found['default_scope'] == 'retrieval'
    assert [step['type'].rpartition('.')[2] for step in found['pipeline']] == [
        step['type'] for step in STEPS]
    assert 'custom_imports' in json.loads(module._settings(Config(whole), trust=True))


def test_a_gallery_with_classes_is_measured(monkeypatch):
    rows = np.repeat(np.eye(3), 2, axis=0)
    found, on = module._measured(Gallery(rows, labels=[0, 0, 1, 1, 2, 2]), 'cosine_similarity')
    assert found == {'Recall@1': 100, 'MAP@R': 100, 'mAP': 100} and '6 rows' in on
    for other in (Gallery(rows), Gallery(rows, labels=range(6))):
        assert module._measured(other, 'cosine_similarity') == (None, None)
    monkeypatch.setattr(module, '_MOST_MEASURED', 5)
    assert module._measured(Gallery(rows, labels=[0, 0, 1, 1, 2, 2]), 'euclidean') == (None, None)


def test_the_weights_are_those_of_the_encoder_and_the_metrics_those_given(trained, tmp_path):
    write_bundle(tmp_path / 'mine.zip', CONFIG, trained / 'weights.pth', metrics={'mAP': 12.5},
                 measured_on='pictures of mine')
    with zipfile.ZipFile(tmp_path / 'mine.zip') as archive:
        assert sorted(archive.namelist()) == ['README.md', 'config.json', 'model.safetensors']
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}
        made = json.loads(archive.read('config.json'))
    assert made['metrics'] == {'mAP': 12.5} and made['measured_on'] == 'pictures of mine'
    assert made['embedding_size'] == 4 and set(made['versions']) >= {'retrieval', 'torch'}
    state = torch.load(trained / 'weights.pth', weights_only=True)['state_dict']
    read = Bundle.open(tmp_path / 'mine.zip').retriever().state_dict()
    assert all(torch.equal(value, state[name]) for name, value in read.items())
    assert [path.name for path in tmp_path.iterdir()] == ['mine.zip']


def test_an_index_whose_lists_are_in_a_file_of_their_own(tmp_path):
    (tmp_path / 'x.index').touch()
    (tmp_path / f'x.index.{"0" * 32}.lists').touch()
    with pytest.raises(ValueError, match='build it without --on-disk'):
        module._copy(tmp_path / 'x.index', tmp_path / 'index.safetensors')


def test_what_it_holds(whole, trained):
    bundle = Bundle.open(whole)
    assert {path.name for path in bundle.folder.iterdir()} == {
        'config.json', 'model.safetensors', 'README.md', 'gallery.safetensors',
        'calibration.json', 'index.safetensors'}
    gallery = Gallery.load(bundle.file('gallery.safetensors'))
    assert gallery.source['checkpoint'] == 'model.safetensors'
    held = b''.join(path.read_bytes() for path in bundle.folder.iterdir())
    assert b'/secret' not in held and b'of/this/machine' not in held
    made = bundle.manifest
    assert made['embedding_size'] == 4 and made['fingerprint'] == gallery.fingerprint.as_dict()
    expected = evaluate(gallery.embeddings, gallery.labels, metrics=['Recall@1', 'MAP@R', 'mAP'])
    assert made['metrics'] == {name: expected[name] for name in ('Recall@1', 'MAP@R', 'mAP')}


def test_parts_of_another_model_are_refused_and_nothing_is_left(trained, tmp_path):
    torch.manual_seed(5)
    other = dict(CONFIG, model=dict(CONFIG['model']))
    out = tmp_path / 'new' / 'bundle'
    with pytest.raises(ValueError, match='made by another model'):
        write_bundle(out, other, gallery=trained / 'gallery.safetensors')
    MatchCalibration(0.5, similarity='euclidean').save(tmp_path / 'other.json')
    with pytest.raises(ValueError, match="similarity 'euclidean'"):
        write_bundle(out, CONFIG, trained / 'weights.pth', calibration=tmp_path / 'other.json')
    index = FaissIndex()
    index.add(torch.eye(4), list('abcd'))
    index.gallery_digest = gallery_digest(torch.eye(4), list('abcd'))
    index.save(tmp_path / 'other.index')
    with pytest.raises(ValueError, match='gallery'):
        write_bundle(out, CONFIG, trained / 'weights.pth', index=tmp_path / 'other.index',
                     gallery=trained / 'gallery.safetensors')
    with pytest.raises(ValueError, match='give the gallery too'):
        write_bundle(out, CONFIG, index=tmp_path / 'other.index')
    with pytest.raises(FileNotFoundError, match='gone'):
        write_bundle(out, CONFIG, trained / 'weights.pth', calibration=tmp_path / 'gone.json')
    assert list(out.parent.iterdir()) == []


def test_nothing_is_overwritten(trained, tmp_path):
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken' / 'file').write_text('mine')
    with pytest.raises(FileExistsError, match='is there already'):
        write_bundle(tmp_path / 'taken', CONFIG, trained / 'weights.pth')
    (tmp_path / 'empty').mkdir()
    write_bundle(tmp_path / 'empty', CONFIG, trained / 'weights.pth')
    assert is_bundle(tmp_path / 'empty')


def test_a_config_that_json_has_not_is_refused(tmp_path):
    config = dict(CONFIG, model=dict(CONFIG['model'], similarity_fn=torch.cdist))
    with pytest.raises(ValueError, match='values that JSON has not'):
        write_bundle(tmp_path / 'out', config)


def test_a_setting_that_is_not_carried_is_noticed(monkeypatch, tmp_path):
    import retrieval.runs.write_bundle as module

    given = module._settings

    def without_normalisation(config, trust):
        parts = json.loads(given(config, trust))
        parts['model']['image_encoder']['normalize'] = False
        return json.dumps(parts)

    monkeypatch.setattr(module, '_settings', without_normalisation)
    with pytest.raises(ValueError, match=re.escape('encodes a picture to other numbers')):
        write_bundle(tmp_path / 'out', CONFIG)
