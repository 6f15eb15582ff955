"""Work dirs that were moved, copied or damaged."""
import os
import shutil

import pytest
import torch

from retrieval.runs.last_checkpoint import last_checkpoint


def write(path, epoch, **more):
    path.parent.mkdir(exist_ok=True)
    state = dict(state_dict=dict(a=torch.randn(2000)), optimizer={}, message_hub={},
                 meta=dict(epoch=epoch, iter=5 * epoch, time=f'20260101_00000{epoch}'))
    torch.save({**state, **more}, path)
    return path


@pytest.fixture
def work_dir(tmp_path):
    """Three checkpoints, the best, and the note."""
    for epoch in (1, 2, 3):
        last = write(tmp_path / 'w' / f'epoch_{epoch}.pth', epoch)
    torch.save(dict(state_dict={}, meta=dict(epoch=9, iter=9, time='2027')),
               tmp_path / 'w' / 'best_embedding_Recall@1_epoch_3.pth')
    (tmp_path / 'w' / 'last_checkpoint').write_text(str(last))
    return tmp_path / 'w'


def test_a_copy_takes_its_own_and_a_moved_folder_the_moved(work_dir, tmp_path):
    assert last_checkpoint(work_dir) == (str(work_dir / 'epoch_3.pth'), [])
    shutil.copytree(work_dir, tmp_path / 'copy')
    assert last_checkpoint(tmp_path / 'copy') == (str(tmp_path / 'copy' / 'epoch_3.pth'), [])
    shutil.move(work_dir, tmp_path / 'moved')
    assert last_checkpoint(tmp_path / 'moved') == (str(tmp_path / 'moved' / 'epoch_3.pth'), [])


def test_a_copy_without_the_last_does_not_reach_into_the_original(work_dir, tmp_path):
    shutil.copytree(work_dir, tmp_path / 'copy')
    (tmp_path / 'copy' / 'epoch_3.pth').unlink()
    found, said = last_checkpoint(tmp_path / 'copy')
    assert found == str(tmp_path / 'copy' / 'epoch_2.pth') and len(said) == 1


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path):
    data = bytearray(path.read_bytes())
    at = data.index(torch.load(path)['state_dict']['a'].numpy().tobytes()[:40])
    data[at] ^= 255
    path.write_bytes(bytes(data))


def empty(path):
    path.write_bytes(b'')


@pytest.mark.parametrize('damage', [cut, zeros, flipped, empty])
def test_past_a_damaged_one_the_newest_sound(damage, work_dir):
    damage(work_dir / 'epoch_3.pth')
    found, said = last_checkpoint(work_dir)
    assert found == str(work_dir / 'epoch_2.pth')
    assert "epoch_3.pth' is passed over" in said[0] and 'epoch_2.pth' in said[1]


@pytest.mark.parametrize('note', [None, '', '\n', '/nowhere/epoch_8.pth', '\0\0\0'])
def test_without_a_note(note, work_dir):
    (work_dir / 'last_checkpoint').unlink()
    if note is not None:
        (work_dir / 'last_checkpoint').write_text(note)
    found, said = last_checkpoint(work_dir)
    assert found == str(work_dir / 'epoch_3.pth') and 'the newest that is sound' in said[0]


def test_checkpoints_that_are_kept_elsewhere(work_dir, tmp_path):
    for epoch in (4, 5):
        last = write(tmp_path / 'kept' / f'iter_{epoch}.pth', epoch)
    (work_dir / 'last_checkpoint').write_text(str(last))
    assert last_checkpoint(work_dir) == (str(last), [])
    cut(last)
    assert last_checkpoint(work_dir)[0] == str(tmp_path / 'kept' / 'iter_4.pth')


def test_no_sound_one_is_an_error_that_names_each(work_dir, tmp_path):
    for path in work_dir.glob('epoch*'):
        cut(path)
    with pytest.raises(ValueError, match=r'no sound checkpoint.*epoch_3.*epoch_1.*--resume'):
        last_checkpoint(work_dir)
    assert last_checkpoint(tmp_path) == (None, [])
