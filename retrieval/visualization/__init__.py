"""Pictures of results: ranking grids, contact sheets, curves."""
from __future__ import annotations

from .drawing import Pictures, opened_picture
from .embedding_map import components, two_dimensions
from .grids import RankedQuery, RankedResult, draw_image_grid, draw_ranking_grid
from .plots import plot_curves, plot_trade_off
from .text import distinct_names

__all__ = [
    'Pictures', 'RankedQuery', 'RankedResult', 'components', 'distinct_names', 'draw_image_grid',
    'draw_ranking_grid', 'opened_picture', 'plot_curves', 'plot_trade_off', 'two_dimensions',
]
