"""The colours of a study's results: even steps of brightness that every kind of colour vision tells apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from rich.style import Style
from rich.text import Text
from textual.color import Gradient

from lreg_tui.charts import heat
from lreg_tui.studies.study_rows import GridRow
from lreg_tui.text import present

STEPS = 32  # colours of the scale
CAP = 0.9  # the share of the figures within the scale: a run that failed to learn must not take all colours
GRADIENT = Gradient.from_colors(*reversed(heat.COLOURS))  # bright is best
SHADES = " " + heat.SHADES[1:]  # whose dot means another thing here


@dataclass(frozen=True)
class Scale:
    """Where figures are between the least, which is best, and most of the greatest; logarithmic where that goes."""

    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, rows: Iterable[GridRow]) -> Scale | None:
        """None where there are no figures."""
        cells = (cell for row in rows for cell in row.cells if cell is not None)
        values = sorted(cell.value for cell in cells if cell.value is not None and math.isfinite(cell.value))
        return cls(values[0], values[math.ceil(CAP * (len(values) - 1))]) if values else None

    def place(self, value: float) -> float:
        """0 for the best, 1 for what is as bad as the scale goes."""
        low, high = self.low, self.high
        if low > 0:
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
            text.append(shade(step / STEPS) if plain else " ", "" if plain else style(step))
        return text.append(f" {present.setting(self.high, 3)}", "dim")


def shade(place: float) -> str:
    """The denser, the better."""
    return SHADES[min(int((1 - place) * len(SHADES)), len(SHADES) - 1)]


@lru_cache(STEPS)
def style(step: int) -> Style:
    """Black or white, whichever can be read on a colour of the scale."""
    ground = GRADIENT.get_color(step / (STEPS - 1))
    return Style(color=ground.get_contrast_text(1.0).rich_color, bgcolor=ground.rich_color)
