import os
import stat

import numpy as np
import pytest
import torch

from retrieval.gallery import Fingerprint, Gallery, StringColumn, write_atomically


def example(**kwargs):
    torch.manual_seed(0)
    defaults = dict(
        ids=['a.png', 'ü.png', 'c/d.png'], labels=[2, 2**24 + 1, 2**53], metadata=dict(
            camera=[3, 1, 2], city=['Bern', 'Zürich', '']),
        fingerprint=Fingerprint('w', 'p', None), source=dict(checkpoint='x.pth'),
        skipped={'bad.png': 'truncated'})
    return Gallery(torch.randn(3, 4), **{**defaults, **kwargs})


def test_a_gallery_comes_back_as_it_was_written(tmp_path):
    gallery = example(label_names=None)
    path = tmp_path / 'sub' / 'gallery.safetensors'
    gallery.save(path)
    again = Gallery.load(path)
    assert torch.equal(again.embeddings, gallery.embeddings)
    assert list(again.ids) == ['a.png', 'ü.png', 'c/d.png'] and again.identified
    assert again.labels.tolist() == [2, 2**24 + 1, 2**53]
    assert list(again.metadata['city']) == ['Bern', 'Zürich', '']
    assert again.metadata['camera'].tolist() == [3, 1, 2]
    assert again.describe(1) == dict(camera=1, city='Zürich')
    assert again.fingerprint == Fingerprint('w', 'p', None)
    assert again.source['checkpoint'] == 'x.pth' and 'torch' in again.source['versions']
    assert again.skipped == {'bad.png': 'truncated'}
    assert again.rows == {'a.png': 0, 'ü.png': 1, 'c/d.png': 2}
    assert [p.name for p in path.parent.iterdir()] == ['gallery.safetensors']


def test_label_names(tmp_path):
    gallery = example(labels=[0, 1, 7], label_names=['cat', 'dog'])
    gallery.save(tmp_path / 'g.safetensors')
    again = Gallery.load(tmp_path / 'g.safetensors')
    assert [again.label_name(row) for row in range(3)] == ['cat', 'dog', '7']
    assert example(labels=None).label_name(0) is None


def test_a_bare_tensor_has_no_identity(tmp_path):
    gallery = Gallery(torch.randn(3, 4))
    assert not gallery.identified and list(gallery.ids) == ['0', '1', '2']
    gallery.save(tmp_path / 'g.safetensors')
    assert not Gallery.load(tmp_path / 'g.safetensors').identified


def test_saved_tensors_are_galleries(tmp_path):
    vectors = torch.randn(5, 3)
    torch.save(vectors, tmp_path / 'proto.pth')
    np.save(tmp_path / 'proto.npy', vectors.numpy().astype(np.float64))
    for name in ('proto.pth', 'proto.npy'):
        torch.testing.assert_close(Gallery.load(tmp_path / name).embeddings, vectors)


@pytest.mark.parametrize('embeddings, error', [
    (torch.zeros(0, 4), 'empty'), (torch.zeros(4, 0), 'empty'), (torch.zeros(4), r'\(N, D\)'),
    (torch.tensor([[0., 1.], [float('nan'), 0.]]), 'row 1'),
    (torch.tensor([[0., float('inf')]]), 'not finite')])
def test_embeddings_that_cannot_be_searched(embeddings, error):
    with pytest.raises(ValueError, match=error):
        Gallery(embeddings)


def test_other_wrong_arguments():
    with pytest.raises(TypeError, match='floating-point'):
        Gallery(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match='list'):
        Gallery([[0.0]])
    with pytest.raises(ValueError, match="'a' occurs twice"):
        example(ids=['a', 'b', 'a'])
    with pytest.raises(ValueError, match='2 labels'):
        example(labels=[1, 2])
    with pytest.raises(ValueError, match="'city'"):
        example(metadata=dict(city=['x']))
    with pytest.raises(ValueError, match='whole numbers'):
        example(labels=[0.5, 1, 2])


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / 'g.safetensors'
    example().save(path)
    data = path.read_bytes()
    for cut in (0, 4, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match='g.safetensors'):
            Gallery.load(path)
    with pytest.raises(FileNotFoundError, match='dump_prototype'):
        Gallery.load(tmp_path / 'none.safetensors')


def test_what_is_no_gallery_is_refused(tmp_path):
    from safetensors.torch import save_file
    save_file(dict(x=torch.zeros(2)), tmp_path / 'x.safetensors')
    with pytest.raises(ValueError, match='no gallery'):
        Gallery.load(tmp_path / 'x.safetensors')
    torch.save(dict(state_dict={}), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='must be a tensor'):
        Gallery.load(tmp_path / 'x.pth')
    torch.save(eval, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='evil.pth'):
        Gallery.load(tmp_path / 'evil.pth')


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / 'g.safetensors'
    path.write_text('old')

    def fails(name):
        with open(name, 'w') as handle:
            handle.write('half')
        raise OSError('No space left on device')
    with pytest.raises(OSError, match='No space'):
        write_atomically(path, fails)
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['g.safetensors']


def test_a_written_file_has_the_usual_permissions(tmp_path):
    umask = os.umask(0o022)
    try:
        write_atomically(tmp_path / 'f', lambda name: open(name, 'w').close())
        assert stat.S_IMODE((tmp_path / 'f').stat().st_mode) == 0o644
    finally:
        os.umask(umask)


def test_string_columns():
    strings = ['', 'a', 'äöü', '日本', 'x' * 1000]
    column = StringColumn.from_strings(strings)
    assert list(column) == strings and column[-1] == strings[-1] and column[1:3] == strings[1:3]
    assert column == strings and len(StringColumn.from_strings([])) == 0
    with pytest.raises(IndexError):
        column[5]
    with pytest.raises(ValueError, match='damaged'):
        StringColumn(column.data, column.offsets.flip(0))
