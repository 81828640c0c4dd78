"""The colours of a study's results: even steps of brightness that every kind of colour vision tells apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from rich.style import Style
from rich.text import Text
from textual.color import Color, Gradient

from lreg_tui.charts import heat
from lreg_tui.studies.study_rows import GridRow
from lreg_tui.text import present
from lreg_tui.widgets.contrast import contrast

STEPS = 32  # colours of the scale
CAP = 0.9  # the share of the figures within the scale: a run that failed to learn must not take all colours
GRADIENT = Gradient.from_colors(*reversed(heat.COLOURS))  # bright is best
SHADES = " " + heat.SHADES[1:]  # whose dot means another thing here
INKS = (Color(0, 0, 0), Color(255, 255, 255))


@dataclass(frozen=True)
class Scale:
    """Where figures are between the least, which is best, and most of the greatest; logarithmic where that goes."""

    low: float = 0.0
    high: float = 0.0
    is_log: bool = False

    @classmethod
    def of(cls, rows: Iterable[GridRow]) -> Scale | None:
        """None where there are no figures."""
        cells = (cell for row in rows for cell in row.cells if cell is not None)
        values = sorted(cell.value for cell in cells if cell.value is not None and math.isfinite(cell.value))
        if not values:
            return None
        return cls(values[0], values[math.ceil(CAP * (len(values) - 1))], values[0] > 0)

    def place(self, value: float) -> float:
        """0 for the best, 1 for what is as bad as the scale goes."""
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0

    def step(self, value: float) -> int:
        """Which of the colours."""
        return min(int(self.place(value) * STEPS), STEPS - 1)

    def shade(self, value: float) -> str:
        """What stands in for the colour where there are none."""
        return shade(self.place(value))

    def legend(self, plain: bool) -> Text:
        """The scale, best first. `plain`: without colours."""
        text = Text(f"{present.setting(self.low, 3)} ", "dim", end="")
        for step in range(0, STEPS, STEPS // 8):
            if plain:
                text.append(shade(step / STEPS))
            else:
                text.append("█", Style(color=colour(step).rich_color))
        return text.append(f" {present.setting(self.high, 3)}", "dim")


def shade(place: float) -> str:
    """The denser, the better."""
    return SHADES[min(int((1 - place) * len(SHADES)), len(SHADES) - 1)]


@lru_cache(STEPS)
def colour(step: int) -> Color:
    return GRADIENT.get_color(step / (STEPS - 1))


@lru_cache(STEPS)
def style(step: int) -> Style:
    """Black or white, whichever can be read on a colour of the scale."""
    ground = colour(step)
    ink = max(INKS, key=lambda ink: contrast(ink, ground))
    return Style(color=ink.rich_color, bgcolor=ground.rich_color)
