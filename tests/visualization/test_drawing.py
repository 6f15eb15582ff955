import os

import numpy as np
import pytest
from PIL import Image

from retrieval.visualization import Pictures, drawing


def test_letterbox_keeps_the_shape():
    image = np.zeros((10, 40, 3), np.uint8)
    square = np.asarray(drawing.letterbox(image, 80))
    assert square.shape == (80, 80, 3)
    assert (square[30:50] == 0).all() and (square[:30] == drawing.LETTERBOX).all()
    assert np.asarray(drawing.letterbox(image[:, :1, 0], 20)).shape == (20, 20, 3)


def test_kinds_of_pictures(tmp_path):
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for image in (gray, gray[..., None], np.repeat(gray[..., None], 3, 2), Image.fromarray(gray)):
        np.testing.assert_array_equal(np.asarray(drawing.as_picture(image))[..., 1], gray)
    wide = gray.astype(np.uint16) << 8
    Image.fromarray(wide).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(np.asarray(drawing.as_picture(tmp_path / 'a.png'))[..., 0], gray)
    assert drawing.as_picture(Image.new('RGBA', (2, 2))).getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gray).save(tmp_path / 'b.png', exif=exif)
    assert drawing.as_picture(str(tmp_path / 'b.png')).size == (2, 3)


def test_no_pictures(tmp_path):
    (tmp_path / 'text.png').write_text('text')
    crossed = drawing.no_picture(30).tobytes()
    for image in (None, tmp_path / 'absent.png', tmp_path / 'text.png'):
        assert drawing.letterbox(image, 30).tobytes() == crossed
    for wrong in (np.zeros((2, 2)), 3, [[1]]):
        with pytest.raises(TypeError, match='path, a Pillow image or an array of uint8'):
            drawing.letterbox(wrong, 30)
    for shape in ((2, 2, 4), (0, 3), (3,)):
        with pytest.raises(ValueError, match='shape'):
            drawing.letterbox(np.zeros(shape, np.uint8), 30)


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / 'new' / 'a.png'
    drawing.save_picture(Image.new('RGB', (3, 3), 'red'), path)
    before = path.read_bytes()

    def half(self, name, **kwargs):
        with open(name, 'wb') as file:
            file.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(Image.Image, 'save', half)
    with pytest.raises(OSError, match='disk full'):
        drawing.save_picture(Image.new('RGB', (3, 3)), path)
    assert path.read_bytes() == before and os.listdir(path.parent) == ['a.png']
    with pytest.raises(ValueError, match=r"ends in '\.xyz'"):
        drawing.save_picture(Image.new('RGB', (3, 3)), tmp_path / 'a.xyz')


class Known:
    """As datasets answer: identities, and entries before the pipeline."""

    def __init__(self, entries):
        self.entries = entries
        self.sample_ids = list(entries)

    def get_data_info(self, row):
        return dict(self.entries[self.sample_ids[row]])


def test_finds_pictures_by_identity(tmp_path):
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    path = str(tmp_path / 'a.png')
    found = Pictures([None, object(), Known({'x': {'img': pixels}}), Known({
        'x': {'img': pixels * 0}, 'y': {'img_path': path}, 'z': {'img_path': path,
                                                                'box': (2, 1, 5, 99)}})])
    for name in ('x', 'y', path):  # the first dataset that knows it, a file of a dataset, a file
        np.testing.assert_array_equal(np.asarray(found.of(name))[..., 0], pixels)
    np.testing.assert_array_equal(np.asarray(found.of('z'))[..., 0], pixels[1:, 2:5])


def test_unknown_and_unreadable_pictures_are_none(tmp_path):
    (tmp_path / 'text.png').write_text('text')
    found = Pictures([Known({'x': {'img_path': 'absent.png'}, 'y': {}})])
    for name in ('x', 'y', 'nobody', str(tmp_path / 'text.png'), str(tmp_path)):
        assert found.of(name) is None
