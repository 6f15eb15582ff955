import numpy as np
import pytest
from PIL import Image

from retrieval.datasets.copies import ALTERATIONS, altered, unique_motifs


@pytest.fixture(scope='module')
def photograph():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((240, 180), Image.Resampling.BICUBIC)


OTHER = Image.new('RGB', (200, 260), 'white')


def correlation(one, two):
    pixels = [np.asarray(part.resize((32, 32)), dtype=float).ravel() for part in (one, two)]
    return np.corrcoef(*pixels)[0, 1]


UPRIGHT = [name for name in ALTERATIONS if name not in ('turned', 'mirrored', 'several')]


@pytest.mark.parametrize('name', UPRIGHT)
def test_what_is_seen_lies_where_it_is_said(name, photograph):
    copy = altered(photograph, name, 'a', OTHER)
    for box, size in ((copy.seen, photograph.size), (copy.place, copy.image.size)):
        assert 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]
    close = {'text': .8, 'watermark': .8, 'noisy': .9, 'tinted': .8, 'contrast': .9,
             'rotated-15': .2, 'rotated-4': .7, 'grey': .5, 'brighter': .9, 'jpeg-8': .9}
    assert correlation(copy.image.crop(copy.place),
                       photograph.crop(copy.seen)) > close.get(name, .97)


def test_what_is_turned_or_mirrored(photograph):
    pixels = np.asarray(photograph)
    assert np.array_equal(altered(photograph, 'mirrored', 'a').image, pixels[:, ::-1])
    assert np.array_equal(altered(photograph, 'turned', 'a').image, np.rot90(pixels))
    copy = altered(photograph, 'several', 'a')
    mirrored = copy.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert correlation(mirrored, photograph.crop(copy.seen)) > .7


@pytest.mark.parametrize(('name', 'area'), [('crop-80', .8), ('crop-50', .5), ('crop-20', .2)])
def test_a_crop_has_its_share_of_the_area(name, area, photograph):
    copy = altered(photograph, name, 'a')
    assert np.array_equal(copy.image, photograph.crop(copy.seen))
    assert copy.image.width * copy.image.height / (240 * 180) == pytest.approx(area, rel=.02)


@pytest.mark.parametrize(('name', 'area'), [('pasted-50', .5), ('pasted-20', .2)])
def test_a_part_covers_its_share_of_another_picture(name, area, photograph):
    place = altered(photograph, name, 'a', Image.new('RGB', (300, 220))).place
    covered = (place[2] - place[0]) * (place[3] - place[1]) / (300 * 220)
    assert covered == pytest.approx(area, rel=.05)


@pytest.mark.parametrize('size', [(240, 180), (180, 240), (200, 200)])
def test_no_corner_is_left_of_a_rotation(size):
    for name in ('rotated-4', 'rotated-15'):
        copy = altered(Image.new('RGB', size, 'white'), name, 'a')
        assert np.asarray(copy.image).min() > 250


def test_everybody_has_the_same_copies(photograph):
    for name in ALTERATIONS:
        first, second = (altered(photograph.copy(), name, 'a', OTHER.copy()) for _ in range(2))
        assert np.array_equal(first.image, second.image) and first.seen == second.seen
    assert altered(photograph, 'crop-50', 'a').seen != altered(photograph, 'crop-50', 'b').seen
    assert np.asarray(OTHER).min() == 255, 'what is pasted into stays as it is'


def test_wrong_input(photograph):
    with pytest.raises(ValueError, match='there are jpeg-35'):
        altered(photograph, 'jpeg', 'a')
    with pytest.raises(ValueError, match='another picture'):
        altered(photograph, 'pasted-50', 'a')


def test_motifs(photograph):
    night = photograph.point(lambda value: 255 - value // 2)
    pictures = [('day', photograph), ('small', photograph.resize((60, 45))), ('night', night),
                ('turned', photograph.rotate(180)), ('plain', Image.new('RGB', (90, 90), 'red'))]
    assert [name for name, _ in unique_motifs(pictures)] == ['day', 'turned']
