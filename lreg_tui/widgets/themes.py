"""Themes, and how well colours are told apart, also by the colour-blind (Okabe & Ito); and screens without colours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import BUILTIN_THEMES, Theme

SERIES = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00")
"""Colours of the series of a chart, in order: sky blue, orange, green, purple, yellow, vermilion."""

MARKERS = ("●", "▲", "■", "◆", "✚", "▼")
"""Their marks in legends, so that colour is never the only difference."""

DEFAULT = "lreg-dark"


def _scroll_bars(bar: str, track: str) -> dict[str, str]:
    """Quiet ones: a grey bar on the background."""
    tracks = (
        "scrollbar-background",
        "scrollbar-background-hover",
        "scrollbar-background-active",
        "scrollbar-corner-color",
    )
    return {"scrollbar": bar, **dict.fromkeys(tracks, track)}


THEMES = (
    Theme(
        name="lreg-dark",
        primary="#56b4e9",
        secondary="#009e73",
        accent="#e69f00",
        warning="#f0e442",
        error="#d55e00",
        success="#009e73",
        background="#101418",
        surface="#161b21",
        panel="#1e252d",
        foreground="#d8dee6",
        dark=True,
        variables=_scroll_bars("#42464b", "#101418"),
    ),
    Theme(
        name="lreg-light",
        primary="#0072b2",
        secondary="#009e73",
        accent="#b35900",
        warning="#8a6d00",
        error="#b03a00",
        success="#00704f",
        background="#fbfbf9",
        surface="#f2f2ee",
        panel="#e6e6e0",
        foreground="#20242a",
        dark=False,
        variables=_scroll_bars("#c4c5c5", "#fbfbf9"),
    ),
    Theme(  # black, white and two hues that every kind of colour vision tells apart
        name="lreg-colour-blind",
        primary="#56b4e9",
        secondary="#56b4e9",
        accent="#e69f00",
        warning="#e69f00",
        error="#e69f00",
        success="#56b4e9",
        background="#000000",
        surface="#0a0a0a",
        panel="#1a1a1a",
        foreground="#ffffff",
        dark=True,
        variables=_scroll_bars("#404040", "#000000"),
    ),
)


def names() -> list[str]:
    """Of all themes that there are, our own first."""
    return list(dict.fromkeys((*(theme.name for theme in THEMES), *BUILTIN_THEMES)))


ANSI = ("surface", "error", "success", "warning", "primary", "secondary", "primary", "foreground")
"""What a theme has in place of black, red, green, yellow, blue, magenta, cyan and white."""


def terminal_theme(variables: Mapping[str, str]) -> TerminalTheme:
    """The colours of a theme (its CSS variables) for texts that name colours as terminals do."""
    colours = {name: Color.parse(variables[name]).rgb for name in {*ANSI, "background"}}
    return TerminalTheme(colours["background"], colours["foreground"], [colours[name] for name in ANSI])


CONTRAST = 3.0  # least ratio of a line's brightness to that of its background


def contrast(one: Color, other: Color) -> float:
    """Contrast ratio as WCAG 2 defines it, 1 to 21."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: Color) -> float:
    """Relative luminance as WCAG 2 defines it, 0 to 1."""
    parts = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def visible(colour: Color, background: Color) -> Color:
    """The colour, moved away from the background until it stands out."""
    towards = Color(0, 0, 0) if background.brightness > 0.5 else Color(255, 255, 255)
    candidates = (colour.blend(towards, share) for share in (0.0, 0.15, 0.3, 0.45))
    return next((tone for tone in candidates if contrast(tone, background) >= CONTRAST), colour.blend(towards, 0.6))


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
