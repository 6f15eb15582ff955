import pytest

from retrieval.doctor.rehearsal import (
    examine_config,
    in_words,
    judge_overlap,
    judge_positives,
    judge_relevant,
    same_bytes,
)

from ..commands.conftest import CONFIG, draw_classes


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('classes')
    draw_classes(folder)
    return folder


def write(tmp_path, folder, more=''):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=str(folder)) + more)
    return path


def by_name(found):
    names = {}
    for one in found:
        names.setdefault(one.name, []).append(one)
    return names


@pytest.fixture(scope='module')
def sound(tmp_path_factory, folder):
    """What is found in a sound config."""
    path = write(tmp_path_factory.mktemp('config'), folder)
    found = by_name(examine_config(path))
    assert sorted(one.name for one in path.parent.iterdir()) == ['config.py']  # nothing is kept
    return found


def test_a_sound_config_has_no_errors(sound):
    assert [one for several in sound.values() for one in several if one.level == 'error'] == []
    assert {'config', 'training', 'positives', 'gallery', 'queries', 'index', 'classes', 'relevant',
            'self-matches', 'protocol', 'time', 'memory'} <= set(sound)


def test_what_is_counted_is_right(sound):
    assert '4 for training, 4 for testing, none in both' in sound['classes'][0].found
    assert sound['self-matches'][0].found.startswith('20 of 20 queries')
    assert 'a batch of 8 trains' in sound['training'][0].found
    assert sound['protocol'][0].found.endswith('20 queries against 20 rows')
    assert 'an epoch of 2 batches' in sound['time'][0].found


def test_pictures_that_are_trained_and_tested(tmp_path, folder):
    found = by_name(examine_config(write(tmp_path, folder), {'train_dataloader.dataset.split': None,
                                                             'model.head.loss.num_classes': 8}))
    assert found['leakage'][0].level == 'error' and found['leakage'][0].found.startswith('20 ')
    assert 'all of which are trained on' in found['classes'][0].found


@pytest.mark.parametrize('options, name, part', [
    ({'model.head.loss.num_classes': 2}, 'training', 'num_classes=2'),
    ({'model.image_encoder.projction': 8}, 'config', 'projection'),
    ({'model.index': dict(type='FaissIndex', factory='IVFF')}, 'index', 'IVFF'),
    ({'model.index': dict(type='FaissIndex', factory='IVF64,Flat')}, 'index', '64 rows')])
def test_an_error_is_a_finding(tmp_path, folder, options, name, part):
    found = by_name(examine_config(write(tmp_path, folder), options))
    assert [one.level for one in found[name]] == ['error'] and part in found[name][0].found


@pytest.mark.parametrize('labels, classifies, level', [
    ([0, 0, 1, 1], False, 'ok'), ([0, 1, 2, 3], False, 'error'), ([0, 1, 2, 3], True, 'ok'),
    ([0, 0, 1, 2, 3, 4], False, 'warning'), ([0, 0, 0], False, 'error')])
def test_positives_of_a_batch(labels, classifies, level):
    found = judge_positives(labels, classifies)
    assert found.level == level and (level == 'ok') == (not found.advice)


def test_classes_in_both():
    assert judge_overlap('ab', 'cd').level == judge_overlap('abcd', 'cd').level == 'ok'
    assert judge_overlap('ab', 'bc').level == 'warning'


def test_queries_with_nothing_to_find():
    assert judge_relevant('ab', 'ab', [False, False]).level == 'ok'
    assert judge_relevant('ab', 'ab', [True, False]).level == 'warning'
    assert judge_relevant('ab', 'cd', [False, False]).level == 'error'


def test_equal_files_under_other_names(tmp_path):
    for name, text in (('a', 'same'), ('b', 'same'), ('c', 'else'), ('d', 'longer')):
        (tmp_path / name).write_text(text)
    a, b, c, d = (str(tmp_path / name) for name in 'abcd')
    assert same_bytes([a, c], [b, d]) == [(a, b)]


def test_a_protocol_in_words():
    text = in_words(dict(type='retrieval.EmbeddingMetrics', protocol='Market1501'))
    assert 'camera' in text and 'mAP' in text and 'exact' in text
    assert in_words(dict(type='EmbeddingMetrics', metrics='mAP', average='macro')) == \
        'EmbeddingMetrics: mAP by cosine_similarity, mean over classes, exact ranking'
