"""Answers as plain values and as drawings, over a gallery that is written out."""
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval.answers import described, draw, expand, file_of, placed, ranking_rows
from retrieval.gallery import Gallery
from retrieval.visualization import Pictures


@pytest.fixture
def files(tmp_path):
    """Three pictures, each of one colour."""
    found = []
    for name, colour in (('red', (255, 0, 0)), ('green', (0, 255, 0)), ('blue', (0, 0, 255))):
        Image.new('RGB', (40, 20), colour).save(tmp_path / f'{name}.png')
        found.append(str(tmp_path / f'{name}.png'))
    return found


@pytest.fixture
def gallery(files):
    return Gallery(np.eye(3), files, labels=['warm', 'cold', 'cold'],
                   metadata={'number': [5, 6, 7]})


class Judge:
    """A calibration with a threshold for each class, whose probability is half the score."""

    method = 'half'

    def threshold_of(self, label):
        return {'warm': 0.9, 'cold': 0.5}[label]

    def probability(self, score):
        return score / 2


def match(box, **options):
    return SimpleNamespace(**dict(inliers=9, box=box, own_box=(0, 0, 1, 0.123456), mirrored=False)
                           | options)


def test_files_and_folders_are_expanded_in_their_order(files, tmp_path, monkeypatch):
    (tmp_path / 'notes.txt').touch()
    monkeypatch.setenv('HOME', str(tmp_path))
    assert expand([files[0], tmp_path]) == [files[0], *sorted(files)]
    assert expand(['~/red.png']) == [files[0]]


@pytest.mark.parametrize(('path', 'error', 'says'), [
    ('HTTPS://example.org/a.png', ValueError, 'nothing is downloaded'),
    ('{}/empty', ValueError, 'holds no image'),
    ('{}/x.png', FileNotFoundError, 'no image '), ('{}/x', FileNotFoundError, 'image or folder'),
    ('{}/x.d/', FileNotFoundError, 'image or folder')])
def test_what_there_is_not(path, error, says, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(error, match=says):
        expand([path.format(tmp_path)])


def test_every_row_is_described_in_its_order(gallery, files):
    answer = described('asked', [2, 0], [0.75, 0.1234567], gallery)
    assert answer == dict(query='asked', results=[
        dict(rank=1, score=0.75, row=2, id=files[2], label='cold', path=files[2],
             metadata={'number': 7}),
        dict(rank=2, score=0.123457, row=0, id=files[0], label='warm', path=files[0],
             metadata={'number': 5})])


def test_a_calibration_leaves_out_by_class_and_says_how_probable(gallery):
    answer = described(None, [0, 1, 2], [0.8, 0.6, 0.4], gallery, Judge())
    assert [(hit['rank'], hit['row'], hit['probability']) for hit in answer['results']] == [
        (1, 1, 0.3)]
    assert answer['match'] is True
    assert described(None, [0], [0.8], gallery, Judge())['match'] is False


def test_a_threshold_goes_before_the_calibrations(gallery):
    answer = described(None, [0, 1, 2], [0.8, 0.6, 0.4], gallery, Judge(), threshold=0.6)
    assert [hit['row'] for hit in answer['results']] == [0, 1]
    bare = SimpleNamespace(method=None, threshold_of=lambda label: 0)
    assert 'probability' not in described(None, [0], [1], gallery, bare)['results'][0]


def test_matches_stay_with_their_rows(gallery):
    found = described(None, [0, 1, 2], [0.9, 0.1, 0.8], gallery, threshold=0.5,
                      matches=[None, match((0, 0, 1, 1)),
                               match((0, 0.25, 0.5, 0.5), mirrored=True)])
    assert [hit['box'] for hit in found['results']] == [None, [0, 0.25, 0.5, 0.5]]
    assert [hit['inliers'] for hit in found['results']] == [0, 9]
    assert found['results'][1]['mirrored'] and found['results'][1]['query_box'][3] == 0.1235
    assert placed(None) == dict(inliers=0, box=None, query_box=None, mirrored=None)


def test_drawings_are_noted_in_their_answers(gallery, files, tmp_path):
    answers = [described(files[0], [1], [0.5], gallery), dict(query='x', error='cannot be read'),
               described('gone', [0], [1.0], Gallery(np.eye(1), ['elsewhere']))]
    draw(answers, [], tmp_path / 'drawn', files, cell=32)
    assert answers[0]['picture'] == str(tmp_path / 'drawn' / '0000_red.png')
    assert [path.name for path in (tmp_path / 'drawn').iterdir()] == ['0000_red.png']
    assert 'picture' not in answers[1] and 'picture' not in answers[2]
    pixels = np.asarray(Image.open(answers[0]['picture']).convert('RGB')).reshape(-1, 3)
    assert {(255, 0, 0), (0, 255, 0)} <= set(map(tuple, pixels))


def test_captions_and_frames(gallery, files, tmp_path):
    answer = described(files[0], [1, 2], [0.9, 0.8], gallery, Judge(),
                       matches=[match((0.5, 0, 0.5, 1)), match((0, 0, 1, 1))])
    (asked, results), = ranking_rows([answer], Pictures([]))
    assert asked[1] == 'red.png' and asked[0].getpixel((0, 0)) == (255, 0, 0)
    assert [(score, caption) for _, score, _, caption in results] == [
        (0.9, 'green.png\ncold\np = 0.450'), (0.8, 'blue.png\ncold\np = 0.400')]
    part, whole = results[0][0], results[1][0]
    frame = [column for column in range(part.width) if part.getpixel((column, 10)) != (0, 255, 0)]
    assert frame and min(frame) >= part.width // 2 - 2, 'around the right half'
    assert whole.getcolors() == [(whole.width * whole.height, (0, 0, 255))]


def test_a_query_without_a_match_still_has_its_row(gallery, files):
    answer = described(files[0], [1], [0.5], gallery, threshold=0.9)
    (asked, results), = ranking_rows([answer], Pictures([]))
    assert asked[1] == 'red.png\nno match' and results == []


def test_the_file_of_an_identity(files, monkeypatch):
    assert file_of(files[0]) == files[0] == file_of(f'{files[0]}#0,0,5,5')
    assert file_of('nowhere.png') is None and file_of('') is None
