"""What a picture is of another, against how it was made of it."""
import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.gallery import Fingerprint, Gallery
from retrieval.search import proof
from retrieval.search.proof import COPIES, SURE, Evidence, prove, prove_duplicates

from ..scenes import pasted, resized, scene


def save(path, picture, taken=None, **options):
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    Image.fromarray(np.ascontiguousarray(picture)).save(path, exif=exif, **options)
    return str(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """An original, what was made of it, and others; each file named by what it is."""
    folder = tmp_path_factory.mktemp('pictures')
    first, second = scene(0), scene(1)
    written = first.copy()
    written[100:130, 60:300] = 255
    save(folder / 'original.png', first)
    (folder / 'same bytes.png').write_bytes((folder / 'original.png').read_bytes())
    for name, picture, options in (
            ('same pixels.bmp', first, {}), ('re-encoded.jpg', first, dict(quality=20)),
            ('resized.png', resized(first, 180, 135), {}),
            ('resized 2.jpg', resized(first, 200, 150), dict(quality=50)),
            ('cropped.png', first[40:220, 50:310], {}),
            ('cropped 2.jpg', resized(first[40:220, 50:310], 130, 90), dict(quality=60)),
            ('edited mirrored.png', first[:, ::-1], {}), ('edited turned.png', np.rot90(first), {}),
            ('edited darker.png', first // 2, {}), ('edited written.png', written, {}),
            ('part.png', pasted(resized(first[20:200, 40:280], 200, 150), second, 90, 80), {}),
            ('similar.png', second, {})):
        save(folder / name, picture, **options)
    return folder


NAMES = ['same bytes.png', 'same pixels.bmp', 're-encoded.jpg', 'resized.png', 'resized 2.jpg',
         'cropped.png', 'cropped 2.jpg', 'edited mirrored.png', 'edited turned.png',
         'edited darker.png', 'edited written.png', 'part.png', 'similar.png']


@pytest.mark.parametrize('name', NAMES)
def test_each_kind_is_proved_either_way(folder, name):
    one, other = (Evidence(folder / file) for file in (name, 'original.png'))
    kind = next(kind for kind in (*COPIES, 'part', 'similar') if name.startswith(kind))
    for found in (prove(one, other), prove(other, one)):
        assert found.kind == kind, found
        plain = found.as_dict()
        assert plain['kind'] == kind and (plain['box'] is None) == (
            kind in ('same bytes', 'same pixels', 'similar'))


@pytest.mark.parametrize('name', ['cropped.png', 'edited written.png'])
def test_two_thirds_of_an_overlap_are_what_one_watermark_makes_alike(folder, monkeypatch, name):
    one, other = (Evidence(folder / file) for file in (name, 'original.png'))
    for share, copy in ((0.68, False), (0.71, True)):
        monkeypatch.setattr(proof, '_share', lambda *_, share=share: (share, share))
        assert (prove(one, other).kind != 'similar') == copy


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


def test_groups_keep_the_best_and_name_what_is_only_near(folder):
    names = sorted(path.name for path in folder.iterdir())
    gallery = Gallery(torch.ones(len(names), 2), [str(folder / name) for name in names])
    told = []
    found = prove_duplicates(gallery, neighbors=len(names),
                             progress=lambda title, count: told.append((title, count)) or int)
    group, second = found.groups
    # into this one a part was pasted
    assert {names[row] for row in second.rows} == {'part.png', 'similar.png'}
    assert second.members[0].proof.kind == 'edited'
    # the same bytes and pixels as others, but the BMP file is the largest
    assert names[group.keep] == 'same pixels.bmp'
    of = {names[row]: (names[by], proof.kind) for row, by, proof in group.members}
    assert set(of) == set(names) - {'same pixels.bmp', 'part.png', 'similar.png'}
    assert of['original.png'][1] == 'same pixels'
    for name, (by, kind) in of.items():
        # the smaller crop is the larger one, resized
        assert name.startswith(kind) or (name, kind) == ('cropped 2.jpg', 'resized') or name in (
            'original.png', 'same bytes.png'), (name, kind)
        assert kind not in SURE or by in ('same pixels.bmp', 'cropped.png')
    assert {names[row] for pair in found.parts for row in pair[:2]} >= {'part.png'}
    assert told[0] == ('reading pictures', len(names)) and not found.unreadable
    plain = found.as_dict()
    assert plain['groups'][0]['keep'] == str(folder / 'same pixels.bmp')


def test_a_picture_goes_to_the_surest_copy_of_another_set(folder):
    def gallery(*names):
        return Gallery(torch.ones(len(names), 2), [str(folder / name) for name in names])
    own = gallery('same bytes.png', 'resized.png', 'similar.png')
    found = prove_duplicates(own, other=gallery('resized.png', 'original.png'))
    (group,), names = found.groups, [name.rsplit('/', 1)[1] for name in found.ids]
    assert names[group.keep] == 'original.png'
    assert [(names[row], names[of], proof.kind) for row, of, proof in group.members] == [
        ('same bytes.png', 'original.png', 'same bytes'),
        ('resized.png', 'original.png', 'resized')]  # the other file of that name is itself
    shifted = Gallery(torch.ones(1, 3), ['a.png'])
    with pytest.raises(ValueError, match='columns'):
        prove_duplicates(own, other=shifted)
    made = [Gallery(torch.ones(1, 2), ['a'], fingerprint=Fingerprint(weights=number))
            for number in '12']
    with pytest.raises(ValueError, match='another model'):
        prove_duplicates(made[0], other=made[1])


def test_of_equal_proofs_the_nearer_one_counts_and_bursts_stand_by_themselves(tmp_path):
    view, later = scene(5, 400, 300), '2024:05:01 12:00:0'
    names = [save(tmp_path / f'{number}.jpg', view[4:, number:number + 380],
                  taken=f'{later}{3 * number}', quality=95) for number in range(2)]
    twice = [save(tmp_path / f'{quality}.jpg', view[4:, :380], taken=f'{later}0', quality=quality)
             for quality in (40, 50)]
    there = Gallery(torch.tensor([[1., 0.5], [1, 0.1]]), twice)
    found = prove_duplicates(Gallery(torch.tensor([[1., 0.]]), names[:1]), other=there)
    assert [(group.keep, group.members[0].proof.kind) for group in found.groups] == [
        (2, 're-encoded')]
    found = prove_duplicates(Gallery(torch.ones(2, 2), [twice[0], names[1]]),
                             other=Gallery(torch.ones(1, 2), names[:1]))
    (copies,), (shots,) = found.groups, found.bursts
    assert [copies.keep, copies.members[0].row, shots.keep, shots.members[0].row] == [2, 0, 2, 1]


def test_a_link_is_no_copy_of_its_file(folder, tmp_path):
    (tmp_path / 'a link.png').symlink_to(folder / 'original.png')  # first by name
    names = [str(tmp_path / 'a link.png'), *(
        str(folder / name) for name in ('original.png', 'resized.png'))]
    found = prove_duplicates(Gallery(torch.ones(3, 2), names))
    assert [(group.keep, [member.row for member in group.members]) for group in found.groups] == [
        (1, [2])]


def test_what_cannot_be_read_is_listed_and_what_is_not_near_is_not_compared(folder, tmp_path):
    (tmp_path / 'broken.png').write_text('nonsense')
    ids = [str(folder / 'original.png'), str(tmp_path / 'broken.png'), 'nowhere',
           str(folder / 'resized.png')]
    far = Gallery(torch.tensor([[1., 0], [1, .1], [1, .2], [0, 1]]), ids)
    found = prove_duplicates(far, threshold=0.9)
    assert found.unreadable == [1, 2] and not found.groups and found.compared == 0
    assert prove_duplicates(far, threshold=-1).groups[0].members[0].row == 3
    with pytest.raises(ValueError, match='neighbors'):
        prove_duplicates(far, neighbors=0)
