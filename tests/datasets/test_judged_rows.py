import pytest

from retrieval.datasets import UnreadableImageError
from retrieval.datasets.judged_rows import JudgedRowsDataset

from .toys import save

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]


class Three(JudgedRowsDataset):
    """Three files, of which the ground truth is about the first two; one cannot be read."""

    def __init__(self, root, split, broken, **kwargs):
        self.root, self.split, self.broken = root, split, broken
        super().__init__(pipeline=PIPELINE, **kwargs)

    def load_data_list(self):
        self.num_judged = 2
        paths = [save(self.root / f'{row}.png') for row in range(3)]
        paths[self.broken].write_bytes(b'no image')
        return [{'img_path': str(path)} for path in paths]


@pytest.mark.parametrize('split, broken, skipped', [
    ('gallery', 1, False), ('gallery', 2, True), ('query', 1, True)])
def test_what_is_skipped(tmp_path, split, broken, skipped):
    dataset = Three(tmp_path, split, broken, on_unreadable='skip')
    assert 'unreadable' not in dataset[0]['data_samples']
    if skipped:
        assert dataset[broken]['data_samples'].unreadable
    else:
        with pytest.raises(UnreadableImageError, match=r'1\.png.*cannot be skipped'):
            dataset[broken]
        with pytest.raises(UnreadableImageError):
            dataset[broken - 3]
    with pytest.raises(UnreadableImageError):
        Three(tmp_path, split, broken)[broken]


def test_a_gallery_is_not_cut(tmp_path):
    with pytest.raises(ValueError, match="Three with split='gallery' cannot be cut"):
        Three(tmp_path, 'gallery', 0, indices=2)
    assert len(Three(tmp_path, 'query', 0, indices=2)) == 2
