import contextlib
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from retrieval.evaluation import MatchCalibration
from retrieval.gallery import Gallery

from ..scenes import scene
from .conftest import run


@pytest.fixture
def queries(folder, tmp_path):
    """Copies of gallery pictures under other names: their originals must be found first."""
    (tmp_path / 'queries').mkdir()
    return tmp_path / 'queries'


def test_a_gallery_knows_its_config_and_checkpoint(gallery, checkpoint):
    opened = Gallery.load(gallery)
    assert len(opened) == 20 and opened.labels is not None
    assert opened.source['checkpoint'] == str(checkpoint)
    assert (gallery.parent / opened.source['config_file']).is_file()
    assert opened.fingerprint.weights and opened.fingerprint.pipeline


def test_copies_find_their_originals(gallery, queries, tmp_path):
    originals = list(Gallery.load(gallery).ids)[::6]
    for number, path in enumerate(originals):
        shutil.copy(path, queries / f'{number}.png')
    out = tmp_path / 'out'
    status, printed, err = run('search', gallery, queries, '--topk', 3, '--out', out)
    assert status == 0, err
    answers = json.loads((out / 'results.json').read_text())
    assert len(answers) == len(originals)
    for answer, original in zip(answers, originals, strict=True):
        assert len(answer['results']) == 3
        best = answer['results'][0]
        assert best['id'] == original and best['rank'] == 1
        assert best['score'] == pytest.approx(1, abs=1e-5)
        assert best['label'] in original
    assert (out / 'rankings.png').is_file() and '0.png' in printed


def test_a_gallery_picture_does_not_find_itself(gallery, tmp_path):
    path = Gallery.load(gallery).ids[3]
    status, _, err = run('search', gallery, path, '--out', tmp_path)
    assert status == 0, err
    answer = json.loads((tmp_path / 'results.json').read_text())[0]
    assert path not in [hit['id'] for hit in answer['results']]


def test_a_folder_can_be_the_gallery(config, checkpoint, folder, tmp_path):
    status, _, err = run('search', folder, folder / 'class1' / '0.png', '--config', config,
                         '--checkpoint', checkpoint, '--out', tmp_path, '--topk', 4,
                         '--no-cache')
    assert status == 0, err
    assert len(json.loads((tmp_path / 'results.json').read_text())[0]['results']) == 4


def test_a_bare_folder_is_searched_with_the_default_encoder(folder, tmp_path, monkeypatch):
    root = tmp_path / 'own pictures'
    for name in ('class0', 'class1', 'class2'):
        shutil.copytree(folder / name, root / name)
    monkeypatch.chdir(tmp_path)
    query = [root.name + '/class1/0.png', folder / 'class2' / '0.png']
    status, printed, err = run('search', root.name, *query, '--topk', 3)
    assert status == 0, err
    assert '0 images as before, 15 new' in printed
    own, copy = json.loads((tmp_path / 'work_dirs/search/results.json').read_text())
    assert str(root / 'class1' / '0.png') not in [hit['path'] for hit in own['results']]
    assert copy['results'][0]['path'] == str(root / 'class2' / '0.png')
    assert copy['results'][0]['label'] == 'class2'
    assert copy['results'][0]['score'] == pytest.approx(1, abs=1e-4)
    assert (root / '.retrieval' / 'default.safetensors').is_file()
    (root / 'class0' / '0.png').unlink()
    shutil.copy(folder / 'class0' / '0.png', root / 'class0' / 'new.png')
    status, printed, err = run('search', root, *query)
    assert status == 0 and '14 images as before, 1 new, 0 changed, 1 gone' in printed, err


def test_nothing_is_kept_where_it_is_not_wanted(config, checkpoint, folder, tmp_path):
    shutil.copytree(folder, tmp_path / 'pictures', ignore=shutil.ignore_patterns('.*'))
    arguments = [tmp_path / 'pictures', folder / 'class1' / '0.png', '--config', config,
                 '--checkpoint', checkpoint, '--out', tmp_path]
    status, printed, err = run('search', *arguments, '--no-cache')
    assert status == 0 and 'as before' not in printed, err
    assert not (tmp_path / 'pictures' / '.retrieval').exists()
    status, printed, err = run('search', *arguments)
    assert status == 0 and '40 new' in printed, err
    assert (tmp_path / 'pictures' / '.retrieval' / 'small-epoch_2.safetensors').is_file()


def test_no_match_is_an_answer(gallery, folder, tmp_path):
    MatchCalibration(1.5, method='platt', slope=1.).save(tmp_path / 'strict.json')
    MatchCalibration(-1., method='platt', slope=1.).save(tmp_path / 'lax.json')
    for name, match in (('strict', False), ('lax', True)):
        status, printed, err = run('search', gallery, folder / 'class0' / '0.png', '--out',
                                   tmp_path, '--calibration', tmp_path / f'{name}.json')
        answer = json.loads((tmp_path / 'results.json').read_text())[0]
        assert status == 0 and answer['match'] is match, err
        assert ('no match' in printed) is not match and bool(answer['results']) is match
    assert 0 < answer['results'][0]['probability'] < 1


def test_an_unreadable_query_is_reported_or_stops(gallery, queries, folder, tmp_path):
    data = (folder / 'class0' / '0.png').read_bytes()
    (queries / 'cut.png').write_bytes(data[:len(data) // 2])
    shutil.copy(folder / 'class0' / '1.png', queries / 'whole.png')
    (queries / 'gone.png').symlink_to(tmp_path / 'nowhere')
    status, _, err = run('search', gallery, queries, '--out', tmp_path, '--strict')
    assert status == 2 and 'cut.png' in err
    status, printed, err = run('search', gallery, queries, '--out', tmp_path)
    assert status == 0 and 'rankings.png' in printed, err
    cut, gone, whole = json.loads((tmp_path / 'results.json').read_text())
    assert 'cut.png' in cut['query'] and cut['error'] and len(whole['results']) == 10
    assert 'gone.png' in gone['error'] and printed.count(': not read: ') == 2


def test_with_unreadable_queries_alone_no_picture_is_claimed(gallery, queries, tmp_path):
    (queries / 'cut.png').write_text('nonsense')
    (tmp_path / 'rankings.png').write_text('of an earlier search')
    status, printed, err = run('search', gallery, queries / 'cut.png', '--out', tmp_path)
    assert status == 2 and 'no query could be read' in err and 'rankings.png' not in printed
    assert not (tmp_path / 'rankings.png').exists()
    assert 'cut.png' in json.loads((tmp_path / 'results.json').read_text())[0]['error']


def test_unreadable_images_of_a_folder_are_passed_over_and_listed_at_the_end(
        config, checkpoint, folder, tmp_path):
    root = tmp_path / 'pictures'
    shutil.copytree(folder / 'class0', root / 'a' / 'b')
    (root / 'broken.png').write_text('nonsense')
    (root / 'a' / 'gone.png').symlink_to(tmp_path / 'nowhere')
    arguments = ['search', root, root / 'a' / 'b' / '0.png', '--config', config, '--checkpoint',
                 checkpoint, '--out', tmp_path / 'out']
    status, printed, err = run(*arguments, '--strict')
    assert status == 2 and 'gone.png' in err
    for counts in ('5 new', '5 images as before, 0 new'):
        status, printed, err = run(*arguments)
        assert status == 0 and counts in printed and '2 not readable' in printed, err
        assert '0.png: ' in printed.splitlines()[-2]
        *_, first, second, third = err.splitlines()
        assert first.startswith('2 images could not be read')
        assert 'gone.png' in second and 'broken.png' in third
    assert len(list((root / '.retrieval').iterdir())) == 1


@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGINT])
def test_a_search_that_is_stopped_keeps_what_it_encoded(config, checkpoint, folder, tmp_path,
                                                        monkeypatch, sent):
    from retrieval.retrievers import ImageToImageRetriever

    shutil.copytree(folder, tmp_path / 'p')
    arguments = ['search', tmp_path / 'p', tmp_path / 'p' / 'class1' / '0.png', '--config', config,
                 '--checkpoint', checkpoint, '--out', tmp_path]
    real = ImageToImageRetriever.embed
    calls = []

    def embed(self, inputs):
        calls.append(len(inputs))
        if len(calls) == 2:
            os.kill(os.getpid(), sent)
        return real(self, inputs)
    monkeypatch.setattr(ImageToImageRetriever, 'embed', embed)
    with contextlib.suppress(KeyboardInterrupt):
        assert run(*arguments)[0] in (143, 130)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not (tmp_path / 'p' / '.retrieval' / 'small-epoch_2.safetensors').exists()
    status, printed, err = run(*arguments)
    assert status == 0 and f'{calls[0]} images as before' in printed and calls[0] == 32, err


def test_names_below_the_pictures_are_those_of_files(gallery, folder, tmp_path, monkeypatch):
    from retrieval import visualization

    drawn = []
    monkeypatch.setattr(visualization, 'draw_ranking_grid',
                        lambda rows, *args, **kwargs: drawn.extend(rows))
    query = folder / 'class4' / '0.png'
    status, _, err = run('search', gallery, query, '--out', tmp_path)
    assert status == 0, err
    (_, title), results = drawn[0]
    assert title == 'class4/0.png'
    hits = json.loads((tmp_path / 'results.json').read_text())[0]['results']
    assert [caption for *_, caption in results] == ['/'.join(hit['id'].split('/')[-2:])
                                                    for hit in hits]


def test_an_address_is_refused(gallery, tmp_path):
    status, _, err = run('search', gallery, 'https://example.org/cat.jpg', '--out', tmp_path)
    assert status == 2 and 'nothing is downloaded' in err and 'curl' in err


def test_a_gallery_of_another_pipeline_is_refused(gallery, folder, tmp_path):
    arguments = [gallery, folder / 'class0' / '0.png', '--out', tmp_path, '--cfg-options',
                 'test_dataloader.dataset.pipeline.1.scale=(12,12)']
    status, _, err = run('search', *arguments)
    assert status == 2 and 'test pipeline' in err
    status, _, err = run('search', *arguments, '--ignore-fingerprint')
    assert status == 0, err


@pytest.mark.parametrize('arguments, words', [
    (['/nowhere/g.safetensors', '{picture}'], 'no gallery'),
    (['{gallery}', '/nowhere/x.png'], '/nowhere/x.png'),
    (['{gallery}', '{picture}', '--topk', '0'], '--topk'),
    (['{folder}', '{picture}', '--checkpoint', 'x.pth'], '--config'),
    (['{folder}', '{picture}', '--cfg-options', 'a=1'], '--config'),
])
def test_wrong_input_gets_one_message(gallery, folder, tmp_path, arguments, words):
    names = dict(gallery=gallery, folder=folder, picture=folder / 'class0' / '0.png')
    status, _, err = run('search', *[a.format(**names) for a in arguments], '--out', tmp_path)
    assert status == 2 and words in err and 'Traceback' not in err, err


def test_a_moved_checkpoint_is_asked_for(gallery, folder, tmp_path):
    opened = Gallery.load(gallery)
    opened.source['checkpoint'] = '/nowhere/gone.pth'
    shutil.copy(gallery.parent / opened.source['config_file'], tmp_path)
    opened.save(tmp_path / 'g.safetensors')
    status, _, err = run('search', tmp_path / 'g.safetensors', folder / 'class0' / '0.png')
    assert status == 2 and '--checkpoint' in err


def test_a_link_to_a_store_is_searched(gallery, folder, tmp_path):
    from retrieval.gallery import GalleryStore, switch
    opened = Gallery.load(gallery)
    GalleryStore.create(tmp_path / 'v1' / 'g.gallery', opened)
    shutil.copy(gallery.parent / opened.source['config_file'], tmp_path / 'v1')
    switch(tmp_path / 'current', tmp_path / 'v1' / 'g.gallery')
    status, _, err = run('search', tmp_path / 'current', folder / 'class0' / '0.png', '--out',
                         tmp_path)
    assert status == 0, err
    assert len(json.loads((tmp_path / 'results.json').read_text())[0]['results']) == 10


@pytest.mark.parametrize('named', ['g.config.py', '{folder}/elsewhere.py'])
def test_a_program_that_a_gallery_names_is_not_run(gallery, folder, tmp_path, named):
    named = named.format(folder=tmp_path)
    mark, program = tmp_path / 'ran', tmp_path / named.rpartition('/')[2]
    program.write_text(f'open({str(mark)!r}, "w")\nmodel = dict(type="ImageToImageRetriever")\n')
    opened = Gallery.load(gallery)
    own, opened.source = opened.source, dict(config_file=named, config=program.read_text(),
                                             checkpoint=opened.source['checkpoint'])
    path = tmp_path / 'g.safetensors'
    opened.save(path)
    query = folder / 'class0' / '0.png'
    for options in ([], ['--trust']):
        status, _, err = run('search', path, query, *options, '--out', tmp_path)
        assert status == 2 and '--config' in err and named in err, err
    for command in (['cluster', path, '--k', 2], ['find_duplicates', path],
                    ['calibrate', path, tmp_path / 'c.json'], ['compare_galleries', path, path],
                    ['gallery', 'info', path]):
        out = [] if command[0] in ('calibrate', 'gallery', 'compare_galleries') else [
            '--out', tmp_path]
        status, _, err = run(*command, *out)
        assert status == 0, err
    opened.source = dict(own, settings=own['settings'].replace('"MetricHead"', '"os.system"'))
    opened.save(path)
    status, _, err = run('search', path, query, '--out', tmp_path)
    assert status == 2 and "type='os.system' in model.head" in err and '--trust' in err
    assert run('cluster', path, '--k', 2, '--out', tmp_path)[0] == 0
    assert not mark.exists()


@pytest.fixture(scope='module')
def dual_bundle(tmp_path_factory):
    """A bundle of a tiny encoder of images and words."""
    pytest.importorskip('transformers')
    from retrieval.runs.write_bundle import write_bundle

    from ..dual_models import make_dual

    root = tmp_path_factory.mktemp('dual')
    make_dual(root / 'hub', 'siglip')
    encoder = dict(type='ImageEncoder', pooling=None, backbone=dict(
        type='DualEncoder', weights=str(root / 'hub')))
    steps = [dict(type='LoadImage'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
    write_bundle(root / 'dual', dict(
        model=dict(type='ImageToImageRetriever', image_encoder=encoder),
        test_dataloader=dict(dataset=dict(pipeline=steps))))
    return root / 'dual'


def test_words_search_a_folder(folder, dual_bundle, tmp_path):
    def asked(*arguments):
        status, printed, err = run('search', folder, *arguments, '--encoder', dual_bundle,
                                   '--topk', 3, '--out', tmp_path, '--no-cache')
        assert status == 0, err
        return json.loads((tmp_path / 'results.json').read_text()), printed

    image = folder / 'class1' / '0.png'
    (words, picture), printed = asked('a red bicycle', image)
    assert words['query'] == '"a red bicycle"' and len(words['results']) == 3
    assert picture['query'] == str(image) and '"a red bicycle": ' in printed
    assert (tmp_path / 'rankings.png').is_file()
    (mixed,), _ = asked(image, '--plus', 'at night', '--minus', '0.5:snow')
    assert mixed['query'] == f'{image} + "at night" - 0.5 "snow"'
    assert str(image) not in [hit['id'] for hit in mixed['results']]
    (again,), _ = asked('a red bicycle', '--minus', f'2:{image}')
    assert [hit['id'] for hit in again['results']] != [hit['id'] for hit in words['results']]


@pytest.mark.parametrize(('query', 'message'), [
    ('a red bicycle', r"resnet10t has no text tower.*\('a red bicycle'\).*siglip2-base"),
    ('bicycle.jgp', "There is no image 'bicycle.jgp'"), ('some/where', 'There is no image or')])
def test_words_want_an_encoder_of_words(folder, config, checkpoint, tmp_path, query, message):
    status, _, err = run('search', folder, query, '--config', config, '--checkpoint', checkpoint,
                         '--out', tmp_path, '--no-cache')
    assert status == 2 and re.search(message, err), err


def test_each_query_is_cut_without_labels(gallery, folder, tmp_path):
    """The same picture is a match for sure; the threshold follows the query, not the gallery."""
    opened = Gallery.load(gallery)
    opened.save(tmp_path / 'queries.safetensors')
    answers = {}
    for name, cut in (('auto', 'auto'), ('few', 0.05)):
        status, _, err = run('search', gallery, folder / 'class0', '--cut', cut, '--topk', 3,
                             '--out', tmp_path / name)
        assert status == 0, err
        answers[name] = json.loads((tmp_path / name / 'results.json').read_text())
        assert all(len(one['results']) <= 3 and 'match' in one for one in answers[name])
        assert all(hit['probability'] >= 0.119 for one in answers[name] for hit in one['results'])
    for one, few in zip(answers['auto'], answers['few'], strict=True):
        assert one['results'][:len(few['results'])] == few['results']
    status, _, err = run('search', gallery, tmp_path / 'queries.safetensors', '--cut', 'auto',
                         '--topk', 4, '--out', tmp_path)
    assert status == 0, err
    found = json.loads((tmp_path / 'results.json').read_text())
    assert len(found) == len(opened) and any(one['match'] for one in found)
    for cut, message in (('none', 'auto, or a share'), ('1.5', 'auto, or a share')):
        status, _, err = run('search', gallery, folder, '--cut', cut)
        assert status == 2 and message in err
    status, _, err = run('search', gallery, folder, '--cut', 'auto', '--calibration', 'x.json')
    assert status == 2 and ('give one of them' in err or 'no calibration' in err)


def test_a_part_finds_the_whole_and_where_it_lies(tmp_path):
    (tmp_path / 'own').mkdir()
    for number in range(4):
        Image.fromarray(scene(number)).save(tmp_path / 'own' / f'{number}.png')
    Image.fromarray(scene(2)[60:220, 90:300]).save(tmp_path / 'part.png')
    status, printed, err = run('search', tmp_path / 'own', tmp_path / 'part.png', '--parts',
                               '--rerank', 'local', '--topk', 2, '--out', tmp_path / 'out')
    assert status == 0, err
    (answer,) = json.loads((tmp_path / 'out' / 'results.json').read_text())
    first, second = answer['results']
    assert first['id'].endswith('2.png') and first['score'] > 1 and first['inliers'] > 50
    assert first['box'] == pytest.approx([.25, 60 / 270, 210 / 360, 160 / 270], abs=0.01)
    assert first['query_box'] == pytest.approx([0, 0, 1, 1], abs=0.02)
    assert second['box'] is None and second['score'] <= 1
    assert {path.name for path in (tmp_path / 'own' / '.retrieval').iterdir()} == {
        'default-parts.safetensors', 'local-features.sqlite'}
    sheet = np.asarray(Image.open(tmp_path / 'out' / 'rankings.png')).astype(int)
    yellow = (sheet[..., 0] > 220) & (sheet[..., 1] > 220) & (sheet[..., 2] < 60)
    assert yellow.sum() > 40, 'the box is not drawn'


def test_parts_are_made_when_a_folder_is_encoded(gallery, folder, tmp_path):
    status, _, err = run('search', gallery, folder, '--parts')
    assert status == 2 and 'is for a folder' in err
    status, _, err = run('search', folder, gallery.parent / 'x.png', '--parts', '--encoder',
                         'resnet50')
    assert status == 2


@pytest.mark.parametrize('option', [['--parts'], ['--rerank', 'local'],
                                    ['--beside', 'new.gallery']])
def test_what_needs_pictures_is_refused_beside_embeddings(gallery, tmp_path, option):
    status, _, err = run('search', gallery, gallery, *option, '--out', tmp_path)
    assert status == 2 and f'{option[0]} encodes or compares pictures' in err


def test_words_are_refused_before_a_folder_is_encoded(folder, tmp_path):
    shutil.copytree(folder / 'class1', tmp_path / 'pictures')
    status, _, err = run('search', tmp_path / 'pictures', 'a red bicycle', '--out', tmp_path / 'o')
    assert status == 2 and 'efficientnet-lite0 has no text tower' in err
    assert not (tmp_path / 'pictures' / '.retrieval').exists()
