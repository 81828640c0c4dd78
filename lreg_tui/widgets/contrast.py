"""How well two colours can be told apart."""

from __future__ import annotations

from textual.color import Color

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
