import errno
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from retrieval import image_files, image_io
from retrieval.datasets import MissingImageError, UnreadableImageError, read_image
from retrieval.image_io import as_image_array, convert_color

RED, GREEN = (255, 0, 0), (0, 128, 0)


@pytest.fixture
def scene():
    """Four coloured quarters and a gradient: every orientation looks different."""
    image = np.zeros((8, 12, 3), np.uint8)
    image[:4, :6], image[:4, 6:], image[4:, :6] = RED, GREEN, (0, 0, 255)
    image[4:, 6:] = np.arange(24).reshape(4, 6, 1) * 10
    return image


def test_colours(tmp_path, scene):
    path = tmp_path / 'a.png'
    Image.fromarray(scene).save(path)
    np.testing.assert_array_equal(read_image(path), scene)
    np.testing.assert_array_equal(read_image(path, 'bgr'), scene[..., ::-1])
    luma = scene @ np.array([299, 587, 114]) / 1000  # ITU-R 601
    gray = read_image(str(path), 'gray')
    assert gray.shape == (8, 12, 1) and np.abs(gray[..., 0] - luma).max() <= 1
    for color in ('rgb', 'bgr', 'gray'):
        image = read_image(path, color)
        assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable


def test_gray_files_become_three_channels(tmp_path):
    path = tmp_path / 'a.png'
    Image.new('L', (5, 4), 77).save(path)
    np.testing.assert_array_equal(read_image(path), np.full((4, 5, 3), 77))
    np.testing.assert_array_equal(read_image(path, 'gray'), np.full((4, 5, 1), 77))


# The Exif standard says where the 0th row and column of the stored picture are seen.
UPRIGHT = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1],
           4: lambda a: a[::-1], 5: lambda a: a.transpose(1, 0, 2),
           6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
           8: lambda a: np.rot90(a, 1)}


@pytest.mark.parametrize('tag', [*range(1, 9), 0, 42])
def test_orientation(tmp_path, scene, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / 'a.png'
    Image.fromarray(scene).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), UPRIGHT.get(tag, UPRIGHT[1])(scene))


def test_damaged_exif_does_not_matter(tmp_path, scene):
    path = tmp_path / 'a.png'
    Image.fromarray(scene).save(path, exif=b'Exif\0\0nonsense')
    np.testing.assert_array_equal(read_image(path), scene)


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    values = (np.arange(64, dtype=np.uint16) * 1024).reshape(8, 8)
    for name in ('a.png', 'a.tif'):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name, 'gray')[..., 0], values >> 8)
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 2], values >> 8)


def test_sixteen_bit_colour(tmp_path):
    import cv2
    values = (np.arange(192, dtype=np.uint16) * 333).reshape(8, 8, 3)
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png', 'bgr'), values >> 8)


def test_thirty_two_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / 'a.tif')
    with pytest.raises(UnreadableImageError, match='32-bit values'):
        read_image(tmp_path / 'a.tif')


def test_palette_and_bits(tmp_path, scene):
    few = Image.fromarray(scene).quantize(16)
    few.save(tmp_path / 'a.gif')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.gif'), np.asarray(few.convert('RGB')))
    bits = np.indices((4, 4)).sum(0) % 2 == 0
    Image.fromarray(bits).save(tmp_path / 'b.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'b.png', 'gray')[..., 0], bits * 255)


def test_cmyk(tmp_path):
    Image.new('RGB', (16, 16), (200, 30, 60)).convert('CMYK').save(tmp_path / 'a.jpg', quality=100)
    image = read_image(tmp_path / 'a.jpg').astype(int)
    assert np.abs(image - [200, 30, 60]).max() < 10


def test_transparency_shows_the_background(tmp_path):
    layers = np.zeros((2, 2, 4), np.uint8)  # black, and transparent to various degrees
    layers[..., 3] = [[0, 255], [51, 102]]
    Image.fromarray(layers).save(tmp_path / 'a.png')
    want = np.array([[255, 0], [204, 153]])
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png')[..., 0], want)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png', 'gray')[..., 0], want)
    assert read_image(tmp_path / 'a.png', background=0).max() == 0
    palette = Image.new('P', (2, 2), 0)
    palette.putpalette([10, 20, 30] * 256)
    palette.save(tmp_path / 'p.png', transparency=0)
    assert (read_image(tmp_path / 'p.png') == 255).all()
    Image.new('LA', (2, 2), (0, 0)).save(tmp_path / 'la.png')
    assert (read_image(tmp_path / 'la.png') == 255).all()


@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp', 'a.bmp', 'a.gif', 'a.tif'])
@pytest.mark.parametrize('share', [0.95, 0.5, 0.02, 0])
def test_truncated_files_are_errors(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=Image.registered_extensions()[name[1:]])
    path = tmp_path / name
    path.write_bytes(buffer.getvalue()[:int(share * len(buffer.getvalue()))])
    with pytest.raises(UnreadableImageError, match=name):
        read_image(path)


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match='There is no image'):
        read_image(tmp_path / 'absent.png')
    with pytest.raises(UnreadableImageError, match='Cannot open'):
        read_image(tmp_path)
    (tmp_path / 'a.png').write_text('text')
    with pytest.raises(UnreadableImageError, match=r'4 bytes\): no known image format'):
        read_image(tmp_path / 'a.png')


def test_the_machines_trouble_is_not_the_images(tmp_path, monkeypatch):
    def exhausted(path):
        raise OSError(errno.EMFILE, 'Too many open files')

    monkeypatch.setattr(image_files, 'open_regular', exhausted)
    with pytest.raises(OSError, match='Too many') as caught:
        read_image('a.png')
    assert not isinstance(caught.value, UnreadableImageError)


def test_errors_are_what_callers_expect_and_travel():
    assert issubclass(UnreadableImageError, OSError)
    assert issubclass(UnreadableImageError, ValueError)
    assert issubclass(MissingImageError, FileNotFoundError)
    assert str(pickle.loads(pickle.dumps(MissingImageError('no a.png')))) == 'no a.png'


def test_pictures_in_memory():
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert as_image_array(gray) is gray
    assert convert_color(gray, 'rgb').shape == (2, 3, 3)
    assert as_image_array(Image.fromarray(gray)).shape == (2, 3, 1)
    assert as_image_array(Image.new('RGBA', (3, 2))).shape == (2, 3, 3)
    with pytest.raises(TypeError, match='The photo must hold'):
        as_image_array(np.zeros((2, 2)), 'photo')
    with pytest.raises(TypeError, match='got list'):
        as_image_array([[1]])
    for shape in ((2, 2, 4), (0, 2), (2,), (1, 2, 2, 3)):
        with pytest.raises(ValueError, match=r'shape \(H, W\)'):
            as_image_array(np.zeros(shape, np.uint8))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16', 'transparent'])
@pytest.mark.parametrize('color', ['rgb', 'gray'])
def test_a_large_picture_is_converted_in_bands(tmp_path, monkeypatch, mode, color):
    """To the same pixels as at once."""
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (23, 17, 4), np.uint8))
    if mode == 'I;16':
        picture = Image.fromarray(random.integers(0, 2 ** 16, (23, 17)).astype(np.uint16))
    elif mode == 'transparent':
        picture = picture.convert('RGB').quantize(16)
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / 'a.png', **({'transparency': 3} if mode == 'transparent' else {}))
    whole = read_image(tmp_path / 'a.png', color)
    monkeypatch.setattr(image_io, '_BAND', 100)
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png', color), whole)
