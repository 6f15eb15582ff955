"""Charts as inline SVG, whose colours are those of the page around them."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 10, 42
_MOST = 600  # points of a curve; a page shows no more of them


class _Frame:
    """The axes of a chart: where a value stands on the canvas, and the ticks."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], xlabel: str, ylabel: str,
                 powers: bool = False) -> None:
        self.powers = powers
        self.low, self.high = _apart(*map(self.scaled, x))
        self.bottom, self.top = _apart(*y)
        self.xlabel, self.ylabel = xlabel, ylabel

    def scaled(self, x: float) -> float:
        return math.log2(x) if self.powers else x

    def x(self, value: float) -> float:
        share = (self.scaled(value) - self.low) / (self.high - self.low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.bottom) / (self.top - self.bottom)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def xticks(self) -> list[float]:
        if not self.powers:
            return _ticks(self.low, self.high)
        exponents = range(math.ceil(self.low), math.floor(self.high) + 1)
        return [2. ** one for one in exponents][::max(1, len(exponents) // 6)]

    def axes(self) -> Markup:
        parts = [Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
                        '<text x="{}" y="{}" text-anchor="end">{}</text>').format(
            _LEFT, _WIDTH - _RIGHT, self.y(tick), self.y(tick), _LEFT - 6, self.y(tick) + 4,
            _number(tick)) for tick in _ticks(self.bottom, self.top)]
        parts += [Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            self.x(tick), _HEIGHT - _BOTTOM + 16, _number(tick)) for tick in self.xticks()]
        parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, self.xlabel))
        parts.append(Markup('<text transform="translate(12 {}) rotate(-90)" '
                            'text-anchor="middle">{}</text>').format(
            (_TOP + _HEIGHT - _BOTTOM) / 2, self.ylabel))
        return Markup('').join(parts)


def _apart(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(tick) for tick in ticks if low - slack <= tick <= high + slack]


def _number(value: float) -> str:
    """A tick's number: ``0.25``, ``1000``, without trailing zeros.

    Example:
        >>> _number(0.25), _number(1000.0), _number(-0.0)
        ('0.25', '1000', '0')
    """
    return f'{value + 0.0:.6g}' if abs(value) > 1e-12 else '0'


def _figure(inside: Sequence[Markup], label: str, legend: Mapping[str, str]) -> Markup:
    """An SVG with its legend below, which wraps where there is little room."""
    key = Markup('').join(Markup('<span><i class="{}"></i>{}</span>').format(style, name)
                          for name, style in legend.items()) if len(legend) > 1 else ''
    return Markup('<figure class="chart"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}'
                  '</svg><figcaption>{}</figcaption></figure>').format(
        _WIDTH, _HEIGHT, label, Markup('').join(inside), key)


def line_chart(series: Mapping[str, Points], xlabel: str, ylabel: str, label: str, *,
               powers: bool = False, y: tuple[float, float] | None = None,
               dots: bool = False) -> Markup:
    """Curves through points ``(x, y)``, one a name; those that are not finite are left out.

    Args:
        series: the points of each curve.
        xlabel, ylabel: of the axes.
        label: what the chart shows, for who does not see it.
        powers: the horizontal axis is logarithmic, in powers of 2.
        y: the ends of the vertical axis; the default is those of the points.
        dots: mark the points, with their values as a tooltip.

    Example:
        >>> chart = line_chart({'<a>': [(0, 1), (1, 2)]}, 'x', 'y', 'a < b')
        >>> 'polyline' in chart, '<a>' in chart, 'a &lt; b' in chart
        (True, False, True)
    """
    kept = {name: [(float(a), float(b)) for a, b in points
                   if math.isfinite(a) and math.isfinite(b)] for name, points in series.items()}
    everything = [point for points in kept.values() for point in points] or [(1., 0.)]
    xs, ys = zip(*everything, strict=True)
    frame = _Frame((min(xs), max(xs)), y or (min(ys), max(ys)), xlabel, ylabel, powers)
    inside, legend = [frame.axes()], {}
    for number, (name, points) in enumerate(kept.items()):
        style = f's{number % 6}'
        legend[name] = style
        step = max(1, -(-len(points) // _MOST))
        shown = [*points[:-1:step], points[-1]] if points else []
        inside.append(Markup('<polyline class="{}" points="{}"/>').format(
            style, ' '.join(f'{frame.x(a)},{frame.y(b)}' for a, b in shown)))
        if dots:
            inside += [Markup('<circle class="{}" cx="{}" cy="{}" r="3"><title>{}</title></circle>')
                       .format(style, frame.x(a), frame.y(b), f'{_number(a)}: {b:.2f}')
                       for a, b in shown]
    return _figure(inside, label, legend)


def histogram(counts: Mapping[str, np.ndarray], edges: np.ndarray, xlabel: str, ylabel: str,
              label: str, *, mark: tuple[str, float] | None = None) -> Markup:
    """Filled outlines over the same bins, one a name.

    Args:
        counts: ``(B,)`` numbers by name.
        edges: ``(B + 1,)``, rising.
        xlabel, ylabel, label: as of :func:`line_chart`.
        mark: the name of a vertical line, and where it stands.

    Example:
        >>> chart = histogram({'a': np.array([1, 2])}, np.array([0., 1., 2.]), 'x', 'y', 'two bins')
        >>> chart.count('<path')
        1
    """
    highest = max(float(values.max()) for values in counts.values())
    frame = _Frame((edges[0], edges[-1]), (0, highest or 1), xlabel, ylabel)
    inside, legend = [frame.axes()], {}
    for number, (name, values) in enumerate(counts.items()):
        legend[name] = f's{number}'
        corners = [f'M{frame.x(edges[0])},{frame.y(0)}']
        for left, right, value in zip(edges, edges[1:], values, strict=False):
            corners.append(f'L{frame.x(left)},{frame.y(value)}L{frame.x(right)},{frame.y(value)}')
        corners.append(f'L{frame.x(edges[-1])},{frame.y(0)}Z')
        inside.append(Markup('<path class="area s{}" d="{}"/>').format(number, ''.join(corners)))
    if mark is not None and edges[0] <= mark[1] <= edges[-1]:
        legend[mark[0]] = 'mark'
        inside.append(Markup('<line class="mark" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            frame.x(mark[1]), _TOP, _HEIGHT - _BOTTOM))
    return _figure(inside, label, legend)


def scatter(groups: Mapping[str, tuple[np.ndarray, Sequence[str]]], label: str) -> Markup:
    """Points ``(M, 2)`` in [-1, 1], by group, each with a tooltip.

    Example:
        >>> scatter({'right': (np.zeros((1, 2)), ['a<b'])}, 'a map').count('a&lt;b')
        1
    """
    width, height, edge = 720, 520, 10
    inside, legend = [], {}
    for number, (name, (points, titles)) in enumerate(groups.items()):
        legend[name] = f's{number % 8}'
        places = zip(edge + (points[:, 0] + 1) / 2 * (width - 2 * edge),
                     edge + (1 - points[:, 1]) / 2 * (height - 2 * edge), titles, strict=True)
        inside.append(Markup('<g class="s{}">{}</g>').format(number % 8, Markup('').join(Markup(
            '<circle cx="{:.1f}" cy="{:.1f}" r="3.2"><title>{}</title></circle>').format(
                x, y, title) for x, y, title in places)))
    key = Markup('').join(Markup('<span><i class="{}"></i>{}</span>').format(style, name)
                          for name, style in legend.items())
    return Markup('<figure class="map"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}'
                  '</svg><figcaption>{}</figcaption></figure>').format(
        width, height, escape(label), Markup('').join(inside), key)
