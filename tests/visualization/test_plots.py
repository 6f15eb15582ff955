import numpy as np
import pytest
from PIL import Image

from retrieval.visualization import plot_curves, plot_trade_off
from retrieval.visualization.plots import frontier


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


def test_the_frontier_against_every_pair():
    numbers = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in numbers.integers(0, 9, (40, 2))]
    plain = {a for a in points if not any(
        (b[0] >= a[0] and b[1] >= a[1]) and b != a for b in points)}
    assert frontier(points) == plain


def test_a_picture_is_written(tmp_path):
    series = {'HNSW16': [(0.9, 500.0), (0.99, 100.0)], 'SQ8': [(0.8, 50.0)]}
    plot_trade_off(series, tmp_path / 'a.png', 10, exact=20, least=0.95, chosen=(0.99, 100.0))
    drawn = np.asarray(Image.open(tmp_path / 'a.png').convert('RGB'))
    assert drawn.shape[1] > 1000 and (drawn.reshape(-1, 3) < 100).any()
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']
    with pytest.raises(ValueError, match='nothing to draw'):
        plot_trade_off({'SQ8': []}, tmp_path / 'b.png', 10)
