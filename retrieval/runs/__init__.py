"""Runs: from a config, or a bundle, to a model and to MMEngine's Runner."""
from __future__ import annotations

from .bundle import load

__all__ = ['load']
