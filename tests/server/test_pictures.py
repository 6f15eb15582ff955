"""Pictures of rows, their thumbnails, and uploads that make room for new ones."""
import hashlib
import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval.image_files import UnreadableImageError
from retrieval.server.pictures import (
    SIZES,
    NoPictureError,
    Pictures,
    UnknownUploadError,
    Uploads,
    as_jpeg,
    fitting_size,
)

from .conftest import jpeg

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def file(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')
    return str(tmp_path / 'a.png')


def pictures(tmp_path, datasets=(), **options):
    return Pictures(tmp_path / 'state', datasets, **options)


def known(**entries):
    """A dataset that has these pictures by their ids."""
    return SimpleNamespace(sample_ids=list(entries), get_data_info=lambda row: list(
        entries.values())[row])


def test_ids_are_files_with_a_box_or_without(file, tmp_path):
    found = pictures(tmp_path)
    assert found.path_of(file) == file == found.path_of(f'{file}#1,2,9,8')
    np.testing.assert_array_equal(found.read(file), PIXELS)
    np.testing.assert_array_equal(found.read(f'{file}#1,2,9,8'), PIXELS[2:8, 1:9])
    np.testing.assert_array_equal(found.read(f'{file}#-5,2,9,99'), PIXELS[2:, :9])
    assert found.file_or_part(file) == file
    assert found.file_or_part(f'{file}#1,2,9,8').shape == (6, 8, 3)


def test_ids_that_are_no_files_of_here(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pictures(tmp_path).path_of('a.png') is None, 'a file of wherever it was started'
    outside = pictures(tmp_path, only_in=str(tmp_path / 'photos') + os.sep)
    assert outside.path_of(file) is None
    with pytest.raises(NoPictureError, match="picture of 'a.png' is not on this machine"):
        outside.read(file)


def test_pictures_of_datasets_come_first(file, tmp_path):
    grey = np.full((4, 6), 9, np.uint8)
    found = pictures(tmp_path, [object(), known(x=dict(img=grey), y=dict(img_path=file)), known(
        x=dict(img_path=file), z=dict(img_path=file, box=(0, 0, 5, 5)))])
    assert found.read('x').tolist() == [[[9, 9, 9]] * 6] * 4
    assert found.path_of('x') is None and found.path_of('y') == file
    np.testing.assert_array_equal(found.read('z'), PIXELS[:5, :5])


def test_what_was_added_is_kept_and_forgotten(file, tmp_path):
    found = pictures(tmp_path)
    found.keep('new', jpeg(Image.new('RGB', (3, 2), 'red')))
    assert found.read('new').shape == (2, 3, 3)
    assert pictures(tmp_path).read('new').shape == (2, 3, 3), 'after a restart'
    found.forget('new')
    found.forget(file)
    assert found.path_of('new') is None and os.path.exists(file)


def test_browsers_get_what_they_show(file, tmp_path):
    found = pictures(tmp_path)
    assert found.original(file) == (Path(file).read_bytes(), 'image/png')
    Image.fromarray(PIXELS).save(tmp_path / 'a.tif')
    for name, size in ((str(tmp_path / 'a.tif'), (30, 20)), (f'{file}#0,0,5,9', (5, 9))):
        data, kind = found.original(name)
        image = Image.open(io.BytesIO(data))
        assert kind == 'image/jpeg' and image.format == 'JPEG' and image.size == size
    (tmp_path / 'b.png').write_text('text')
    with pytest.raises(UnreadableImageError):
        found.original(str(tmp_path / 'b.png'))


def test_thumbnails_are_made_once_and_anew_for_another_picture(file, tmp_path, monkeypatch):
    found = pictures(tmp_path)
    small = found.thumbnail(file, 10)
    assert Image.open(io.BytesIO(small)).size == (15, 10)
    with monkeypatch.context() as patch:
        patch.setattr(found, 'read', lambda *given, **options: pytest.fail('it was made already'))
        assert found.thumbnail(file, 10) == small
    tags = {found.tag(file, 10), found.tag(file, 20), found.tag(f'{file}#0,0,5,5', 10)}
    Image.fromarray(PIXELS[:, ::-1]).save(file)
    os.utime(file, (5, 5))
    assert len(tags | {found.tag(file, 10)}) == 4
    assert found.thumbnail(file, 10) != small
    assert found.tag('nowhere', 10) == found.tag('nowhere', 10)


def test_jpeg_within_a_size():
    assert Image.open(io.BytesIO(as_jpeg(PIXELS, 90))).size == (30, 20)
    assert Image.open(io.BytesIO(as_jpeg(PIXELS, 90, (15, 99)))).size == (15, 10)
    assert [fitting_size(size) for size in (1, 128, 129, 5000)] == [128, 128, 256, SIZES[-1]]


def sent(width):
    return jpeg(Image.new('RGB', (width, 8)))


def test_uploads_are_known_by_their_bytes(tmp_path):
    uploads = Uploads(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new('RGB', (9, 8)).save(out, 'JPEG', exif=exif)
    name, width, height = uploads.add(out.getvalue())
    assert name == hashlib.sha256(out.getvalue()).hexdigest() and (width, height) == (8, 9)
    assert uploads.add(out.getvalue())[0] == name and len(os.listdir(tmp_path)) == 1
    assert uploads.path(name) == tmp_path / name and uploads.read(name).shape == (9, 8, 3)
    assert Uploads(tmp_path).read(name).shape == (9, 8, 3)


@pytest.mark.parametrize(('data', 'says'), [
    (b'', 'empty'), (b'text', 'upload'), (sent(9)[:-40], 'upload'), (sent(90), '720')])
def test_what_is_no_upload(data, says, tmp_path):
    with pytest.raises(UnreadableImageError, match=says):
        Uploads(tmp_path, max_pixels=700).add(data)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', ['0' * 64, 'a', '../' + 'a' * 61, '.' * 64])
def test_uploads_that_there_are_not(name, tmp_path):
    with pytest.raises(UnknownUploadError, match='send the picture again'):
        Uploads(tmp_path).path(name)


def test_the_oldest_make_room(tmp_path):
    sizes = [len(sent(width)) for width in (8, 16, 24)]
    uploads = Uploads(tmp_path, most_bytes=sum(sizes) - 1)
    names = [uploads.add(sent(width))[0] for width in (8, 16)]
    uploads.add(sent(8))  # it is the newer one now
    last = uploads.add(sent(24))[0]
    assert set(os.listdir(tmp_path)) == {names[0], last}
    for name in (names[0], last):
        os.utime(tmp_path / name, (1, 1))
    again = Uploads(tmp_path)  # expired
    newest = again.add(sent(32))[0]
    assert os.listdir(tmp_path) == [newest]
