"""A gallery is encoded anew by another model, in steps, and searched meanwhile."""
import importlib.util
import json
from contextlib import closing
from pathlib import Path

import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.retrievers import build_retriever

from .conftest import run


@pytest.fixture(scope='module')
def models(config, tmp_path_factory):
    """Two checkpoints without training, and the old one's gallery."""
    folder = tmp_path_factory.mktemp('models')
    for name, seed in (('old', 0), ('new', 1)):
        torch.manual_seed(seed)
        torch.save(dict(state_dict=build_retriever(str(config)).state_dict()),
                   folder / f'{name}.pth')
    status, _, err = run('dump_prototype', config, folder / 'old.pth', folder / 'old.safetensors')
    assert status == 0, err
    return folder


def test_a_migration_in_steps(config, models, folder, tmp_path):
    old, new = models / 'old.safetensors', tmp_path / 'new.gallery'
    ids = list(Gallery.load(old).ids)
    (tmp_path / 'returned.json').write_text(json.dumps({ids[-1]: 7, ids[3]: 2}))
    arguments = ['migrate', old, new, '--config', config, '--checkpoint', models / 'new.pth']
    link = tmp_path / 'current'
    status, printed, err = run(*arguments, '--counts', tmp_path / 'returned.json', '--rows', 12,
                               '--switch', link)
    assert status == 0 and f'12 of {len(ids)} (' in printed, err
    assert 'first 10 results in common' in printed and 'are left' in printed
    assert not link.exists()
    made = Gallery.load(new)
    assert list(made.ids[:2]) == [ids[-1], ids[3]] and len(made) == 12

    status, printed, err = run('search', old, folder / 'class1', '--beside', new, '--topk', 2,
                               '--out', tmp_path)
    assert status == 0, err
    hits = [answer['results'][0] for answer in
            json.loads((tmp_path / 'results.json').read_text())]
    assert len(hits) == 5 and all(hit['score'] <= 1.0001 for hit in hits)

    status, printed, err = run(*arguments, '--switch', link)
    assert status == 0 and f'{len(ids)} of {len(ids)} (100%)' in printed, err
    assert 'back: retrieval compare_galleries' in printed
    made = Gallery.load(link)
    assert set(made.ids) == set(ids)
    before = Gallery.load(old).subset(Gallery.load(old).find(list(made.ids)))
    assert [made.label_name(row) for row in range(len(made))] == \
        [before.label_name(row) for row in range(len(made))]
    encoded = build_retriever(str(config), models / 'new.pth')
    assert made.fingerprint.weights == encoded.fingerprint().weights
    status, printed, err = run('compare_galleries', new, old, '--switch', link)
    assert status == 0 and Gallery.load(link).fingerprint.weights == before.fingerprint.weights, err


def test_what_an_encoder_by_name_has_encoded_is_searched_without_saying_it_again(
        models, folder, tmp_path):
    """Beside the old model, whose pictures have another size, and alone."""
    new = tmp_path / 'new.gallery'
    status, _, err = run('migrate', models / 'old.safetensors', new, '--encoder',
                         'efficientnet-lite0', '--rows', 12)
    assert status == 0, err
    picture, copy = next(iter(Gallery.load(new).ids)), tmp_path / 'copy.png'
    copy.write_bytes(Path(picture).read_bytes())
    for words in ([models / 'old.safetensors', copy, '--beside', new], [new, copy]):
        status, _, err = run('search', *words, '--topk', 1, '--out', tmp_path)
        assert status == 0, err
        answer, = json.loads((tmp_path / 'results.json').read_text())
        assert answer['results'][0]['id'] == picture


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ('pymilvus', 'milvus_lite'))),
                    reason='needs pymilvus and milvus-lite')
def test_a_collection_is_switched_when_all_is_encoded(config, models, folder, tmp_path):
    from retrieval.index import MilvusIndex
    from retrieval.retrievers.prototype import fill_index
    old, new = Gallery.load(models / 'old.safetensors'), tmp_path / 'new.gallery'
    options = ['--cfg-options', 'model.index.type=MilvusIndex',
               f'model.index.uri={tmp_path}/a.db', 'model.index.collection=shop']
    arguments = ['migrate', models / 'old.safetensors', new, '--config', config, '--checkpoint',
                 models / 'new.pth', '--fill-index']
    status, printed, err = run(*arguments)
    assert status == 2 and 'in no Milvus' in err and not new.exists()
    with closing(MilvusIndex(f'{tmp_path}/a.db', 'shop')) as index:
        fill_index(index, old)
        status, printed, err = run(*arguments, '--rows', 12, *options)
        assert status == 0 and "collection='shop') was not switched" in printed, err
        assert index.is_current()
        status, printed, err = run(*arguments, *options, '--json')
        assert status == 0 and json.loads(printed)['switched'], err
        assert f'kept from before: {len(old)} rows of the model' in err
        assert not index.is_current()
        index.refresh()
        made = Gallery.load(new)
        assert list(index.ids) == list(made.ids) and index.fingerprint == made.fingerprint
        assert index.metadata_of([made.ids[0]])[0]['label_name'] == made.label_name(0)
        index.undo()
        assert list(index.ids) == list(old.ids) and index.fingerprint == old.fingerprint
        status, printed, err = run(*arguments, *options)  # once more, with nothing to encode
        index.refresh()
        assert status == 0 and list(index.ids) == list(made.ids), err
    status, printed, err = run('search', new, folder / 'class1', '--out', tmp_path)
    assert status == 0, err  # it is a gallery by itself


@pytest.mark.parametrize(('text', 'message'), [
    ('[1]', 'does not hold counts by id'), ('{"a": "b"}', 'does not hold counts by id')])
def test_counts_that_are_none(config, models, tmp_path, text, message):
    (tmp_path / 'x.json').write_text(text)
    status, _, err = run('migrate', models / 'old.safetensors', tmp_path / 'new.gallery',
                         '--config', config, '--checkpoint', models / 'new.pth',
                         '--counts', tmp_path / 'x.json')
    assert status == 2 and message in err and not (tmp_path / 'new.gallery').exists()


def test_a_gallery_without_ids(config, models, tmp_path):
    Gallery(torch.eye(3)).save(tmp_path / 'bare.safetensors')
    status, _, err = run('migrate', tmp_path / 'bare.safetensors', tmp_path / 'new.gallery',
                         '--config', config, '--checkpoint', models / 'new.pth')
    assert status == 2 and 'has no ids' in err
