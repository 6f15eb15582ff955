import numpy as np
import pytest
from PIL import Image

from retrieval.visualization import plot_curves


def test_draws_every_curve(tmp_path):
    rising, falling = [(x, x) for x in range(50)], [(x, 50 - x) for x in range(50)]
    plot_curves({'one': rising}, tmp_path / 'one.png')
    plot_curves({'one': rising, 'two': falling, 'empty': []}, tmp_path / 'two.png', 'x', 'y', 't')
    one, two = (np.asarray(Image.open(tmp_path / name).convert('RGB')).astype(int)
                for name in ('one.png', 'two.png'))

    def orange(picture):  # the second colour of the cycle
        return ((np.abs(picture - [255, 127, 14]) < 30).all(-1)).sum()
    assert orange(one) == 0 and orange(two) > 300


def test_formats_and_missing_folders(tmp_path):
    plot_curves({'a': [(0, 1), (1, float('nan'))]}, tmp_path / 'x' / 'a.svg')
    assert '<svg' in (tmp_path / 'x' / 'a.svg').read_text()
    assert [path.name for path in (tmp_path / 'x').iterdir()] == ['a.svg']


def test_nothing_to_draw(tmp_path):
    for series in ({}, {'loss': []}):
        with pytest.raises(ValueError, match='nothing to draw'):
            plot_curves(series, tmp_path / 'a.png')
    with pytest.raises(ValueError, match='xyz'):
        plot_curves({'a': [(0, 1)]}, tmp_path / 'a.xyz')
    assert list(tmp_path.iterdir()) == []
