"""Groups of pictures, against how they were made of one another."""
import pytest
import torch

from retrieval.gallery import Fingerprint, Gallery
from retrieval.search.proof import SURE
from retrieval.search.proved_duplicates import prove_duplicates

from ..scenes import resized, scene
from .pictures import save


def test_groups_keep_the_best_and_name_what_is_only_near(versions):
    names = sorted(path.name for path in versions.iterdir())
    gallery = Gallery(torch.ones(len(names), 2), [str(versions / name) for name in names])
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
    assert plain['groups'][0]['keep'] == str(versions / 'same pixels.bmp')


def test_a_picture_goes_to_the_surest_copy_of_another_set(versions):
    def gallery(*names):
        return Gallery(torch.ones(len(names), 2), [str(versions / name) for name in names])
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


def test_a_part_in_another_picture_is_listed_after_it_was_grouped_with_that(versions, tmp_path):
    background = save(tmp_path / 'larger.png', resized(scene(1), 480, 360))
    names = [background, *(str(versions / name) for name in ('original.png', 'part.png'))]
    found = prove_duplicates(Gallery(torch.ones(3, 2), names))
    assert [group.rows for group in found.groups] == [[0, 2]]
    assert [(row, of, proof.kind) for row, of, proof in found.parts] == [(2, 1, 'part')]
    found = prove_duplicates(Gallery(torch.ones(2, 2), names[1:]))  # neither is in a group
    assert not found.groups and len(found.parts) == 1


def test_a_link_is_no_copy_of_its_file(versions, tmp_path):
    (tmp_path / 'a link.png').symlink_to(versions / 'original.png')  # first by name
    names = [str(tmp_path / 'a link.png'), *(
        str(versions / name) for name in ('original.png', 'resized.png'))]
    found = prove_duplicates(Gallery(torch.ones(3, 2), names))
    assert [(group.keep, [member.row for member in group.members]) for group in found.groups] == [
        (1, [2])]


def test_what_cannot_be_read_is_listed_and_what_is_not_near_is_not_compared(versions, tmp_path):
    (tmp_path / 'broken.png').write_text('nonsense')
    ids = [str(versions / 'original.png'), str(tmp_path / 'broken.png'), 'nowhere',
           str(versions / 'resized.png')]
    far = Gallery(torch.tensor([[1., 0], [1, .1], [1, .2], [0, 1]]), ids)
    found = prove_duplicates(far, threshold=0.9)
    assert found.unreadable == [1, 2] and not found.groups and found.compared == 0
    assert prove_duplicates(far, threshold=-1).groups[0].members[0].row == 3
    with pytest.raises(ValueError, match='neighbors'):
        prove_duplicates(far, neighbors=0)
