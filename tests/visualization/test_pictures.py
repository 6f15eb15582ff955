import numpy as np
from PIL import Image

from retrieval.visualization import Pictures


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
