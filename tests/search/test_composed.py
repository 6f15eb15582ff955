"""Words and pictures in one query, each with its weight: against sums that are written out."""
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from retrieval import ImageRetrievalInferencer
from retrieval.evaluation import MatchCalibration
from retrieval.search.composed import QueryPart, name_of, sum_of, weighted

PIPELINE = [dict(type='LoadImage'), dict(type='PackInputs')]
COLOURS = {'red': (250, 5, 5), 'green': (5, 250, 5), 'blue': (5, 5, 250), 'yellow': (200, 200, 5)}


class Colours(nn.Module):
    """Mean colours, and the names of colours."""

    has_words = True

    def forward(self, images):
        return images.mean((2, 3))

    def embed_words(self, texts):
        return torch.tensor([COLOURS.get(text, (1, 1, 1)) for text in texts], dtype=torch.float32)

    def word_state(self):
        return []


@pytest.fixture
def folder(tmp_path):
    for name, colour in COLOURS.items():
        Image.new('RGB', (8, 8), colour).save(tmp_path / f'{name}.png')
    return tmp_path


@pytest.fixture
def find(folder):
    return ImageRetrievalInferencer(Colours(), str(folder), pipeline=PIPELINE, progress=False)


def names(answer):
    return [hit['id'].rsplit('/', 1)[1].split('.')[0] for hit in answer['results']]


def test_words_find_pictures(find):
    red, blue = find.composed([dict(text='red')], [dict(text='blue')], topk=2)
    assert names(red) == ['red', 'yellow'] and names(blue)[0] == 'blue'
    assert red['query'] == '"red"' and len(red['results']) == 2


def test_scores_are_those_of_the_sum(find, folder):
    parts = [dict(image=str(folder / 'yellow.png')), dict(text='red', weight=-1.5)]
    answer, = find.composed(parts)
    unit = {name: functional.normalize(torch.tensor(colour, dtype=torch.float32), dim=0)
            for name, colour in COLOURS.items()}
    query = functional.normalize(unit['yellow'] - 1.5 * unit['red'], dim=0)
    expected = {name: float(query @ unit[name]) for name in COLOURS}
    assert names(answer) == sorted(set(COLOURS) - {'yellow'}, key=lambda name: -expected[name])
    for name, hit in zip(names(answer), answer['results'], strict=True):
        assert hit['score'] == pytest.approx(expected[name], abs=1e-5)
    assert answer['query'] == f'{folder}/yellow.png - 1.5 "red"'


def test_pictures_alone_and_from_memory(find, folder):
    array = np.full((8, 8, 3), (9, 9, 240), np.uint8)
    answer, = find.composed([QueryPart(image=array), QueryPart(image=folder / 'red.png')], topk=1)
    assert names(answer) == ['blue'], 'a picture of the query is no answer to it'
    alone, = find.composed([dict(image=str(folder / 'red.png'))])
    same, = find(str(folder / 'red.png'))
    assert alone == same


def test_filter_threshold_and_calibration(find, folder):
    assert names(find.composed([dict(text='red')], threshold=0.99)[0]) == ['red']
    mask = np.array([not path.endswith('red.png') for path in find.model.gallery.ids])
    assert names(find.composed([dict(text='red')], filter=mask, topk=1)[0]) == ['yellow']
    find.calibration = MatchCalibration(0.99, method='platt', slope=9.)
    words, = find.composed([dict(text='red')])
    assert len(words['results']) == 4 and 'match' not in words, 'it is of pictures'
    picture, = find.composed([dict(image=str(folder / 'red.png'))])
    assert picture['match'] is False


@pytest.mark.parametrize(('given', 'error', 'message'), [
    ([], ValueError, 'without parts'), ([dict(text='a', image='b')], ValueError, 'one of text and'),
    ([{}], ValueError, 'one of text and'), ([dict(txt='a')], TypeError, 'a dict with text'),
    (['red'], TypeError, 'a dict with text'), ([dict(text=3)], TypeError, 'is words, got int'),
    ([dict(text='red', weight=0)], ValueError, 'and not 0'),
    ([dict(text='red', weight=float('nan'))], ValueError, 'and not 0'),
    ([dict(text='')], ValueError, 'not empty'),
    ([dict(text='red'), dict(text='red', weight=-1)], ValueError, 'take each other away'),
    ([dict(image='nowhere.png')], FileNotFoundError, 'nowhere.png')])
def test_what_is_no_query(find, given, error, message):
    with pytest.raises(error, match=message):
        find.composed(given)


def test_a_folder_is_no_part(find, folder):
    with pytest.raises(ValueError, match='one picture, and not a folder'):
        find.composed([dict(image=str(folder))])


def test_names_and_weights():
    assert name_of([QueryPart(text='a', weight=-2)]) == '- 2 "a"'
    assert name_of([QueryPart(image=np.zeros((2, 2, 3), np.uint8))]) == 'a picture'
    assert weighted('2:a:b') == (2.0, 'a:b') and weighted('.5:a', -1) == (-.5, 'a')
    assert weighted('a: b') == (1.0, 'a: b')
    one = torch.tensor([[3., 4.]])
    assert torch.equal(sum_of([QueryPart(text='a')], one), one[0])
    assert sum_of([QueryPart(text='a', weight=-1)], one).tolist() == pytest.approx([-.6, -.8])
