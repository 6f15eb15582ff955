"""Curves over epochs, iterations or ranks."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..gallery import write_atomically


def plot_curves(series: Mapping[str, Sequence[tuple[float, float]]], path: str | os.PathLike,
                xlabel: str = '', ylabel: str = '', title: str = '') -> None:
    """Draw one curve a name, through its points ``(x, y)``, and write the picture.

    The figure has a canvas of its own, so no window system and no global state is touched.

    Raises:
        ValueError: no curve has a point.
    """
    if not any(len(points) for points in series.values()):
        raise ValueError(f'There is nothing to draw for {str(path)!r}: the curves '
                         f'{list(series)} have no points.')
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
