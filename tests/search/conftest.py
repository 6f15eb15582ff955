"""Pictures that are made of one another, once for all tests."""
import numpy as np
import pytest

from ..scenes import pasted, resized, scene
from .pictures import save


@pytest.fixture(scope='session')
def versions(tmp_path_factory):
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
