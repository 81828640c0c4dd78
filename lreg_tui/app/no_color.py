"""What a screen looks like without colours: in bold, dim and reverse video, on the terminal's own background."""

from __future__ import annotations

from functools import lru_cache

from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

from lreg_tui.widgets.contrast import contrast

STANDS_OUT = 1.5  # contrast of two backgrounds, from which the brighter one means something: a cursor, a scroll bar
RECEDES = 3.0  # contrast of text and background, below which the text is to stand back


class NoColour(LineFilter):
    """Takes every colour away, and says what they said by other means. Textual itself would make them grey."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(text, style and plain(style, background), control) for text, style, control in segments]


@lru_cache(4096)
def plain(style: Style, background: Color) -> Style:
    """A style without colours, for a widget of such a background."""
    front, back = (style.bgcolor, style.color) if style.reverse else (style.color, style.bgcolor)
    ground = _known(back) or background
    text = _known(front)
    stands_out = style.reverse or contrast(ground, background) >= STANDS_OUT
    recedes = text is not None and contrast(text, ground) < RECEDES
    return Style(
        bold=style.bold,
        dim=style.dim or (recedes and not stands_out) or None,
        italic=style.italic,
        underline=style.underline,
        strike=style.strike,
        reverse=stands_out or None,
        meta=style.meta or None,
    )


def _known(colour: RichColor | None) -> Color | None:
    """None for the terminal's own."""
    return None if colour is None or colour.is_default else Color.from_rich_color(colour)
