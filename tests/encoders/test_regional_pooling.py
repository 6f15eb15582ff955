import math

import pytest
import torch
from torch import nn

from retrieval.encoders import RMAC, RegionalGeM
from retrieval.encoders.regional_pooling import regions


def published_regions(height, width, levels):
    """The windows as the authors' code walks over them, in floating point."""
    steps = torch.arange(2., 8.)
    short = min(height, width)
    between = (max(height, width) - short) / (steps - 1)
    index = int((((short ** 2 - short * between) / short ** 2) - 0.4).abs().argmin())
    more_down = index + 1 if height > width else 0
    more_across = index + 1 if width > height else 0
    for level in range(1, levels + 1):
        side = math.floor(2 * short / (level + 1))
        half = math.floor(side / 2 - 1)

        def corners(size, count, side=side, half=half):
            step = 0 if count == 1 else (size - side) / (count - 1)
            return [math.floor(half + i * step + 1e-9) - half for i in range(count)]

        for top in corners(height, level + more_down):
            for left in corners(width, level + more_across):
                yield top, left, side


@pytest.mark.parametrize('size', [(7, 7), (6, 9), (12, 5), (4, 30), (16, 21)])
@pytest.mark.parametrize('levels', [1, 3, 4])
def test_regions_are_those_of_the_authors(size, levels):
    found = regions(*size, levels)
    assert found == list(published_regions(*size, levels))
    assert all(top + side <= size[0] and left + side <= size[1] for top, left, side in found)


def test_a_map_narrower_than_a_region():
    """Seven regions overlap most nearly by 40 %; at level 2 a region would have no width."""
    assert regions(1, 5, 3) == [(0, i * 4 // 6, 1) for i in range(7)]


def test_rmac_sums_the_normalised_maxima():
    features = torch.rand(2, 4, 5, 8)
    expected = torch.zeros(2, 4)
    for picture, total in zip(features, expected, strict=True):
        for top, left, height, width in [(0, 0, 5, 8), *(
                (t, x, s, s) for t, x, s in published_regions(5, 8, 2))]:
            maxima = [max(picture[c, y, x].item() for y in range(top, top + height)
                          for x in range(left, left + width)) for c in range(4)]
            length = math.sqrt(sum(value ** 2 for value in maxima))
            total += torch.tensor([value / length for value in maxima])
    torch.testing.assert_close(RMAC(levels=2)(features), expected)
    torch.testing.assert_close(RMAC(levels=2)((None, features)), expected)
    square = torch.rand(1, 3, 4, 4)
    tokens = square.flatten(2).transpose(1, 2)
    torch.testing.assert_close(RMAC()(tokens), RMAC()(square))


def test_regional_gem_is_the_mean_with_torchs_power_pooling():
    features = torch.rand(2, 3, 6, 5)
    pool = nn.LPPool2d(2.5, 5, stride=1)
    around = pool(nn.ReflectionPad2d(2)(features / 25 ** (1 / 2.5)))
    torch.testing.assert_close(RegionalGeM()(features), 0.5 * features + 0.5 * around)
    tokens = features[:, :, :5].flatten(2).transpose(1, 2)
    assert RegionalGeM(size=3)(tokens).shape == (2, 3, 5, 5)
    assert torch.isfinite(RegionalGeM()(-features)).all()


@pytest.mark.parametrize('make, says', [
    (lambda: RMAC(levels=0), 'levels'),
    (lambda: RegionalGeM(size=4), 'odd'),
    (lambda: RegionalGeM(p=0), 'above 0'),
    (lambda: RegionalGeM()(torch.rand(1, 2, 2, 9)), 'too small'),
    (lambda: RMAC()(torch.rand(1, 7, 3)), 'no square'),
    (lambda: RMAC()(torch.rand(1, 7)), 'pooling=None'),
])
def test_bad_input(make, says):
    with pytest.raises(ValueError, match=says):
        make()
