"""Pictures of results: ranking grids, contact sheets, curves."""
from __future__ import annotations

from .curves import plot_curves
from .image_grid import draw_image_grid
from .pictures import Pictures
from .ranking_grid import RankedQuery, RankedResult, draw_ranking_grid
from .trade_off import plot_trade_off

__all__ = ['Pictures', 'RankedQuery', 'RankedResult', 'draw_image_grid', 'draw_ranking_grid',
           'plot_curves', 'plot_trade_off']
