"""Charts are well-formed and stand where their numbers are."""
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from retrieval.report import charts


def parsed(chart):
    return ElementTree.fromstring(str(chart))


def test_a_curve_goes_where_its_points_are():
    root = parsed(charts.line_chart({'a': [(1, 0), (2, 50), (4, 100)]}, 'K', 'percent', 'a curve',
                                    powers=True, dots=True))
    line, = root.iter('polyline')
    places = [tuple(map(float, place.split(','))) for place in line.get('points').split()]
    assert places[1] == pytest.approx([(places[0][i] + places[2][i]) / 2 for i in (0, 1)], abs=.11)
    assert places[0][1] > places[2][1]  # a page counts from above
    assert len(list(root.iter('circle'))) == 3
    texts = [text.text for text in root.iter('text')]
    assert {'1', '2', '4', 'K', 'percent', '0', '100'} <= set(texts)


def test_what_is_not_finite_is_left_out_and_long_curves_are_thinned():
    root = parsed(charts.line_chart({'a': [(0, 1), (1, float('nan')), (2, float('inf')), (3, 2)]},
                                    'x', 'y', 'a'))
    assert len(next(root.iter('polyline')).get('points').split()) == 2
    long = parsed(charts.line_chart({'a': [(x, x) for x in range(100_000)]}, 'x', 'y', 'a'))
    assert len(next(long.iter('polyline')).get('points').split()) <= 601


@pytest.mark.parametrize('points', [[], [(1, 1)], [(1, 5), (2, 5)]])
def test_few_points(points):
    assert 'nan' not in str(charts.line_chart({'a': points}, 'x', 'y', 'a'))


def test_bins_and_a_mark():
    counts = np.array([1., 3., 0.])
    root = parsed(charts.histogram({'a': counts, 'b': counts}, np.array([0., 1., 2., 3.]), 'x', 'y',
                                   'bins', mark=('here', 1.5)))
    path = next(root.iter('path')).get('d')
    heights = [float(y) for _, y in re.findall(r'L([\d.]+),([\d.]+)', path)]
    base, top = max(heights), min(heights)
    assert heights[0] == pytest.approx(base - (base - top) / 3, abs=.1)
    line, = (one for one in root.iter('line') if one.get('class') == 'mark')
    (left, _), *_, (right, _) = re.findall(r'L([\d.]+),([\d.]+)', path)
    assert float(line.get('x1')) == pytest.approx((float(left) + float(right)) / 2, abs=.1)
    assert 'here' in ''.join(root.itertext())


def test_strange_names_are_escaped():
    name = '</svg><script>alert(1)</script>'
    for chart in (charts.line_chart({name: [(0, 1)], 'b': []}, name, name, name, dots=True),
                  charts.histogram({name: np.ones(2), 'b': np.ones(2)}, np.arange(3.), name, name,
                                   name),
                  charts.scatter({name: (np.zeros((1, 2)), [name])}, name)):
        assert '<script' not in chart
        assert len(list(parsed(chart).iter('svg'))) == 1
