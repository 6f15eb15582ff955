"""The decoders give the same pictures and catch the same damage; Pillow alone is the oracle."""
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from retrieval.datasets import LoadImage, UnreadableImageError, read_image
from retrieval.image_io import DECODERS

from .photos import jpeg, photo

KINDS = {
    '4:2:0': {'subsampling': 2}, '4:2:2': {'subsampling': 1}, '4:4:4': {'subsampling': 0},
    'progressive': {'progressive': True}, 'restarts': {'restart_marker_blocks': 3},
    'poor': {'quality': 10}, 'best': {'quality': 100}, 'optimised': {'optimize': True},
    'comment': {'comment': b'a\xff\xd9b'}, 'kept as RGB': {'keep_rgb': True},
}


@pytest.fixture
def counted(monkeypatch):
    """How often OpenCV really decoded."""
    calls = []
    decode = cv2.imdecode

    def imdecode(*arguments):
        calls.append(1)
        return decode(*arguments)

    monkeypatch.setattr(cv2, 'imdecode', imdecode)
    return calls


def written(tmp_path, data, name='a.jpg'):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('color', ['rgb', 'bgr', 'gray'])
@pytest.mark.parametrize('kind', KINDS)
def test_the_same_pixels(tmp_path, kind, color, counted):
    """Bit for bit here, where both carry libjpeg-turbo; two grey values are allowed to others."""
    for size in ((101, 67), (16, 8), (1, 1), (250, 3)):
        path = written(tmp_path, jpeg(photo(*size), **KINDS[kind]))
        want = read_image(path, color, decoder='pillow')
        assert not counted
        found = read_image(path, color)
        assert counted.pop()
        assert found.shape == want.shape and found.dtype == np.uint8
        assert np.abs(found.astype(int) - want).max() <= 2
        assert found.flags.c_contiguous and found.flags.writeable


@pytest.mark.parametrize('color', ['rgb', 'bgr', 'gray'])
def test_grey_files(tmp_path, color, counted):
    path = written(tmp_path, jpeg(photo()[..., 0], quality=90))
    found = read_image(path, color)
    assert counted and found.flags.c_contiguous
    np.testing.assert_allclose(found, read_image(path, color, decoder='pillow'), atol=2)


def test_without_the_flag_of_newer_opencv(tmp_path, monkeypatch):
    path = written(tmp_path, jpeg(photo()))
    want = read_image(path, decoder='pillow')
    monkeypatch.delattr(cv2, 'IMREAD_COLOR_RGB', raising=False)
    np.testing.assert_allclose(read_image(path), want, atol=2)


def exif(tag):
    entries = Image.Exif()
    entries[0x0112] = tag
    return entries


UNUSUAL = {
    'turned': lambda: jpeg(photo(), exif=exif(6)),
    'turned by XMP': lambda: jpeg(photo(), xmp=b'<x tiff:Orientation="3"/>'),
    'CMYK': lambda: jpeg(Image.fromarray(photo()).convert('CMYK')),
    'bytes after the end': lambda: jpeg(photo()) + b'more',
    'another picture after the end': lambda: jpeg(photo()) + jpeg(photo(9, 9))[:-1],
    'PNG': lambda: encoded(Image.fromarray(photo()), 'PNG'),
    'palette': lambda: encoded(Image.fromarray(photo()).quantize(16), 'GIF'),
    'transparent': lambda: encoded(Image.fromarray(photo()).convert('RGBA'), 'PNG'),
    'WebP': lambda: encoded(Image.fromarray(photo()), 'WEBP'),
}


def encoded(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize('kind', UNUSUAL)
def test_unusual_files_are_pillows(tmp_path, kind, counted):
    path = written(tmp_path, UNUSUAL[kind]())
    np.testing.assert_array_equal(read_image(path), read_image(path, decoder='pillow'))
    assert not counted


def test_an_upright_tag_does_not_matter(tmp_path, counted):
    path = written(tmp_path, jpeg(photo(), exif=exif(1)))
    read_image(path)
    assert counted


def with_thumbnail():
    """A file whose EXIF data holds a whole JPEG file, end marker and all, as cameras write it."""
    entries = Image.Exif()
    entries[0x010F] = 'maker'
    inner = jpeg(photo(20, 16))
    whole = jpeg(photo())
    segment = b'Exif\0\0' + entries.tobytes() + inner
    return whole[:2] + b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + whole[2:]


@pytest.mark.parametrize('kind', ['4:2:0', 'progressive', 'restarts', 'with a thumbnail'])
def test_a_file_cut_anywhere_is_an_error(tmp_path, kind):
    data = with_thumbnail() if kind == 'with a thumbnail' else jpeg(photo(61, 43), **KINDS[kind])
    path = written(tmp_path, data)
    assert np.array_equal(read_image(path), read_image(path, decoder='pillow'))
    ends = [place + 2 for place in range(len(data)) if data[place:place + 2] == b'\xff\xd9'][:-1]
    for length in [*range(0, len(data), 7), *range(len(data) - 12, len(data)), *ends]:
        path.write_bytes(data[:length])
        for decoder in DECODERS:
            with pytest.raises(UnreadableImageError, match='a.jpg'):
                read_image(path, decoder=decoder)


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('min_edge', [None, 8])
@pytest.mark.parametrize('damage', [
    lambda data: data[:len(data) // 2] + bytes(len(data) - len(data) // 2),  # a hole in the disk
    lambda data: data[:-600] + b'\xff' * 600,
    lambda data: data[:len(data) // 2] + b'\n' + b'text' * 99,
    lambda data: data[:2] + data[400:],  # the head is gone
    lambda data: data[100:],
    lambda data: data[:10] + b'\xff\xd9',
    lambda data: data.replace(b'\xff\xc0\x00\x11\x08', b'\xff\xc0\x00\x11\x0c'),  # 12 bits
    lambda data: b'',
    lambda data: b'<html>not found</html>'])
def test_damage_is_an_error(tmp_path, damage, decoder, min_edge):
    whole = jpeg(photo(200, 150))
    path = written(tmp_path, damage(whole))
    assert path.read_bytes() != whole
    with pytest.raises(UnreadableImageError, match='a.jpg'):
        read_image(path, decoder=decoder, min_edge=min_edge)


def test_where_opencv_fails_pillow_decides(tmp_path, monkeypatch):
    path = written(tmp_path, jpeg(photo()))
    want = read_image(path)

    def broken(*arguments):
        raise cv2.error('no')

    for stand_in in (broken, lambda *a: None, lambda *a: want[:5]):
        monkeypatch.setattr(cv2, 'imdecode', stand_in)
        np.testing.assert_array_equal(read_image(path), want)


# A smaller picture ------------------------------------------------------------------------------

@pytest.mark.parametrize('size, min_edge, want', [
    ((401, 300), 75, (101, 75)), ((401, 300), 76, (201, 150)), ((401, 300), 151, (401, 300)),
    ((300, 401), 37, (38, 51)), ((400, 300), 1, (50, 38)), ((400, 300), 999, (400, 300))])
@pytest.mark.parametrize('decoder', DECODERS)
def test_min_edge(tmp_path, size, min_edge, want, decoder):
    path = written(tmp_path, jpeg(photo(*size)))
    small = read_image(path, decoder=decoder, min_edge=min_edge)
    assert small.shape == (want[1], want[0], 3) and min(small.shape[:2]) >= min(min_edge, *size)
    step = round(size[0] / want[0])
    whole = np.pad(read_image(path), [(0, want[1] * step - size[1]), (0, want[0] * step - size[0]),
                                      (0, 0)], mode='edge')
    blocks = whole.reshape(want[1], step, want[0], step, 3).mean((1, 3))
    assert np.abs(small - blocks).mean() < 1


def test_min_edge_of_turned_and_other_files(tmp_path):
    turned = written(tmp_path, jpeg(photo(400, 300), exif=exif(6)))
    results = LoadImage(min_edge=100)({'img_path': str(turned)})
    assert results['img'].shape == (200, 150, 3) and results['ori_shape'] == (400, 300)
    png = written(tmp_path, encoded(Image.fromarray(photo(400, 300)), 'PNG'), 'a.png')
    assert read_image(png, min_edge=10).shape == (300, 400, 3)


def test_a_box_is_cut_from_the_whole_picture(tmp_path):
    path = str(written(tmp_path, jpeg(photo(400, 300))))
    boxed = LoadImage(min_edge=10)({'img_path': path, 'box': (40, 20, 240, 120)})
    np.testing.assert_array_equal(boxed['img'], read_image(path)[20:120, 40:240])


@pytest.mark.parametrize('arguments, message', [
    ({'decoder': 'cv2'}, "decoder 'cv2'.*opencv"), ({'color': 'hsv'}, 'color'),
    ({'min_edge': 0}, 'min_edge must be')])
def test_what_cannot_be_asked_for(tmp_path, arguments, message):
    path = written(tmp_path, jpeg(photo()))
    for call in (lambda: read_image(path, **arguments), lambda: LoadImage(**arguments)):
        with pytest.raises(ValueError, match=message):
            call()
