"""Plots: curves over epochs, iterations or ranks, and recall against queries per second."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import write_atomically
from .text import plot_fonts

_MARKS = 'osD^vP*X<>'


def plot_curves(series: Mapping[str, Sequence[tuple[float, float]]], path: str | os.PathLike[str],
                xlabel: str = '', ylabel: str = '', title: str = '') -> None:
    """Draw one curve a name, through its points ``(x, y)``, and write the picture.

    The figure has a canvas of its own, so no window system and no global state is touched.

    Raises:
        ValueError: no curve has a point.
    """
    if not any(len(points) for points in series.values()):
        raise ValueError(f'There is nothing to draw for {str(path)!r}: the curves '
                         f'{list(series)} have no points.')
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with plot_fonts([*series, xlabel, ylabel, title]):
        figure = Figure(figsize=(7, 4.2), dpi=120, layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for name, points in series.items():
            xs, ys = [x for x, _ in points], [y for _, y in points]
            axes.plot(xs, ys, label=name, linewidth=1.6, marker='o' if len(xs) <= 30 else None,
                      markersize=4)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_title(title)
        axes.grid(True, color='0.9')
        axes.spines[['top', 'right']].set_visible(False)
        if len(series) > 1:
            axes.legend(frameon=False)
        kind = Path(path).suffix.lstrip('.').lower() or 'png'
        write_atomically(Path(path), lambda name: figure.savefig(name, format=kind))


def plot_trade_off(series: Mapping[str, Sequence[tuple[float, float]]],
                   path: str | os.PathLike[str], k: int, exact: float | None = None,
                   least: float | None = None, chosen: tuple[float, float] | None = None,
                   title: str = '') -> None:
    """Draw one line an index through its points ``(recall, queries per second)``.

    Args:
        series: by name; those that are nowhere fastest at their recall are drawn pale.
        path: the picture.
        k: of the recall.
        exact: the rate of exact search, drawn as a line across.
        least: the recall that was asked for, drawn as a line up.
        chosen: the point to ring.

    Raises:
        ValueError: there is no point to draw.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        raise ValueError(f'There is nothing to draw for {str(path)!r}: no index was measured.')
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with plot_fonts([*series, title]):
        figure = Figure(figsize=(9.5, 5), dpi=120, layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        best = frontier(points)
        colours = iter(colormaps['tab10'].colors * 10)  # type: ignore[attr-defined]
        marks = iter(_MARKS * 100)
        for name, line in series.items():
            ordered = sorted(line)
            bright = bool(best & set(ordered))
            axes.plot([x for x, _ in ordered], [y for _, y in ordered], marker=next(marks),
                      color=next(colours) if bright else '0.8', label=name if bright else None,
                      linewidth=1.4, markersize=5, zorder=3 if bright else 2)
        if exact is not None:
            axes.axhline(exact, color='0.3', linestyle=':', linewidth=1.2, label='exact search')
        if least is not None:
            axes.axvline(least, color='0.3', linestyle='--', linewidth=1, label=f'recall {least:g}')
        if chosen is not None:
            axes.plot(*chosen, 'o', markersize=14, markerfacecolor='none', markeredgecolor='black',
                      label='chosen', zorder=4)
        axes.set_yscale('log')
        axes.set_xlabel(f'recall@{k}')
        axes.set_ylabel('queries per second')
        axes.set_title(title)
        axes.grid(True, which='both', color='0.93')
        axes.spines[['top', 'right']].set_visible(False)
        figure.legend(loc='outside right upper', frameon=False, fontsize=8)
        kind = Path(path).suffix.lstrip('.').lower() or 'png'
        write_atomically(Path(path), lambda name: figure.savefig(name, format=kind))


def frontier(points: Sequence[tuple[float, float]]) -> set[tuple[float, float]]:
    """The points that no other surpasses in both numbers."""
    best, highest = set(), float('-inf')
    for point in sorted(points, key=lambda point: (-point[0], -point[1])):
        if point[1] > highest:
            best.add(point)
            highest = point[1]
    return best
