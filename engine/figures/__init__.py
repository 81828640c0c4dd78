"""Data of the figures: what is drawn, as plain numbers. Nothing here knows matplotlib or, but for `rule`, torch."""

from __future__ import annotations

from engine.figures.base import Axis, Block, Evaluated, Line, Panel, Point, Who, evaluated
from engine.figures.choice import FIGURES, LANDSCAPE, blocks

__all__ = ["FIGURES", "Axis", "Block", "LANDSCAPE", "Evaluated", "Line", "Panel", "Point", "Who", "blocks", "evaluated"]
