"""Data of the figures: what is drawn, as plain numbers. Nothing here knows matplotlib or, but for `rule`, torch."""

from __future__ import annotations

from engine.figures.base import Axis, Block, Line, Panel, Point, Who
from engine.figures.choice import FIGURES, LANDSCAPE, blocks
from engine.figures.evaluated import Evaluated, evaluated

__all__ = ["FIGURES", "Axis", "Block", "LANDSCAPE", "Evaluated", "Line", "Panel", "Point", "Who", "blocks", "evaluated"]
