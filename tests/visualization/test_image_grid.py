import numpy as np
import pytest
from PIL import Image

from retrieval.visualization import draw_image_grid


def test_pictures_stand_in_rows(tmp_path):
    images = [np.full((5, 5), value, np.uint8) for value in (0, 50, 100, 150, 200)]
    sheet = draw_image_grid(images, path=tmp_path / 'a.png', columns=2, cell=32)
    pixels = np.asarray(sheet)[..., 0]
    for position, value in enumerate((0, 50, 100, 150, 200)):
        row, column = divmod(position, 2)
        step = (pixels.shape[0] - 4) // 3
        top, left = 4 + row * step, 4 + column * 36
        assert (pixels[top:top + 32, left:left + 32] == value).all()
    assert Image.open(tmp_path / 'a.png').size == sheet.size == (4 + 2 * 36, pixels.shape[0])


def test_captions_and_title_make_room():
    images = [np.zeros((5, 5), np.uint8)] * 2
    heights = [draw_image_grid(images, captions).height
               for captions in (None, ['a', 'b'], ['a\nb', 'c'])]
    assert heights[0] == heights[1] < heights[2]
    assert draw_image_grid(images, title='x').height > heights[0]


def test_bad_arguments():
    images = [np.zeros((5, 5), np.uint8)]
    with pytest.raises(ValueError, match='at least one picture'):
        draw_image_grid([])
    with pytest.raises(ValueError, match='1 pictures and 2 captions'):
        draw_image_grid(images, ['a', 'b'])
    with pytest.raises(ValueError, match='cell'):
        draw_image_grid(images, cell=2)
