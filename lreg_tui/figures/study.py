"""Figures of a study's report."""

from __future__ import annotations

from pathlib import Path

from engine.figures import Block
from lreg_tui.figures import page


def draw(block: Block, path: Path) -> None:
    """Draw one figure into a file. Raises LregError where it cannot be written."""
    with page.styled():
        page.save(page.draw_page([block]), path, block.caption)
