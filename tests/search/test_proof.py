"""What a picture is of another, against how it was made of it."""
import numpy as np
import pytest

from retrieval.search import proof
from retrieval.search.proof import COPIES, Evidence, prove

from ..scenes import pasted, resized, scene
from .pictures import save

NAMES = ['same bytes.png', 'same pixels.bmp', 're-encoded.jpg', 'resized.png', 'resized 2.jpg',
         'cropped.png', 'cropped 2.jpg', 'edited mirrored.png', 'edited turned.png',
         'edited darker.png', 'edited written.png', 'part.png', 'similar.png']


@pytest.mark.parametrize('name', NAMES)
def test_each_kind_is_proved_either_way(versions, name):
    one, other = (Evidence(versions / file) for file in (name, 'original.png'))
    kind = next(kind for kind in (*COPIES, 'part', 'similar') if name.startswith(kind))
    for found in (prove(one, other), prove(other, one)):
        assert found.kind == kind, found
        plain = found.as_dict()
        assert plain['kind'] == kind and (plain['box'] is None) == (
            kind in ('same bytes', 'same pixels', 'similar'))


@pytest.mark.parametrize('name', ['cropped.png', 'edited written.png'])
def test_two_thirds_of_an_overlap_are_what_one_watermark_makes_alike(versions, monkeypatch, name):
    one, other = (Evidence(versions / file) for file in (name, 'original.png'))
    for share, copy in ((0.68, False), (0.71, True)):
        monkeypatch.setattr(proof, '_share', lambda *_, share=share: (share, share))
        assert (prove(one, other).kind in COPIES) == copy


@pytest.mark.parametrize('over', ['picture', 'colour'])
def test_what_is_left_around_something_in_the_middle_is_a_part(over):
    first = scene(0)
    middle = scene(1, 240, 180) if over == 'picture' else np.full((180, 240, 3), 90, np.uint8)
    covered = pasted(middle, first, 60, 45)
    for one, other in ((covered, first), (first, covered), (resized(covered, 180, 135), first)):
        found = prove(Evidence(one), Evidence(other))
        assert found.kind == 'part' and found.alike < 0.7, found
        np.testing.assert_allclose(found.registration.box, (0, 0, 1, 1), atol=0.03)
    # the box is of what both have
    cut, whole = Evidence(covered[:, ::-1][:, :320]), Evidence(first)
    found = prove(cut, whole)
    assert found.kind == 'part' and found.registration.mirrored
    np.testing.assert_allclose(found.registration.box, (1 / 9, 0, 8 / 9, 1), atol=0.03)
    np.testing.assert_allclose(found.registration.own_box, (0, 0, 1, 1), atol=0.03)
    assert prove(Evidence(pasted(scene(1, 330, 250), first, 15, 10)), whole).kind == 'similar'


def test_one_layer_over_two_pictures_is_no_part_of_both():
    """The lines of a watermark look alike, but not what is between them; a bar is plain."""
    for layer in ('watermark', 'bar'):
        both = [scene(0) // 2, scene(1) // 2 + 60]
        for picture in both:
            if layer == 'watermark':
                picture[30:240:12, 40:200] = picture[30:240:12, 40:200] // 2 + 120
                picture[30:240, 40:200:12] = picture[30:240, 40:200:12] // 2 + 120
            else:
                picture[150:] = 240
                picture[180:190, 40:200:8] = picture[220:230, 60:300:6] = 0
        assert prove(*map(Evidence, both)).kind == 'similar', layer


def test_plain_pictures_are_the_same_only_by_their_pixels():
    plain = np.full((60, 80, 3), 200, np.uint8)
    assert prove(Evidence(plain), Evidence(plain.copy())).kind == 'same pixels'
    assert prove(Evidence(plain), Evidence(plain[:30, :40])).kind == 'similar'
    assert prove(Evidence(plain), Evidence(plain - 1)).kind == 'similar'


def test_shots_of_a_burst_are_no_copies(tmp_path):
    """The same view some seconds later, and with something else before it an hour later."""
    view, later = scene(5, 400, 300), '2024:05:01 12:00:0'
    shots = [Evidence(save(tmp_path / f'{number}.jpg', view[4:, number:number + 380],
                           taken=f'{later}{3 * number}', quality=95)) for number in range(2)]
    assert prove(*shots).kind == 'burst'
    same = Evidence(save(tmp_path / 'same.jpg', view[4:, :380], taken=f'{later}0', quality=50))
    assert prove(shots[0], same).kind == 're-encoded'
    after = Evidence(save(tmp_path / 'after.jpg', view[4:, :380], taken='2024:05:01 13:00:00'))
    assert prove(shots[0], after).kind == 'similar', 'another exposure is no copy'
    moved = Evidence(save(tmp_path / 'moved.jpg', scene(6), taken=f'{later}5'))
    assert prove(shots[0], moved, 0.95).kind == 'burst'
    assert prove(shots[0], moved, 0.5).kind == 'similar'
