"""Themes of the console. Run colours come from a palette that colour-blind people can tell apart (Okabe & Ito)."""

from __future__ import annotations

from collections.abc import Mapping

from rich.terminal_theme import TerminalTheme
from textual.color import Color
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
