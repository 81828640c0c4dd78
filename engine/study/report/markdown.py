"""Markdown that reads well as it stands, too: padded tables, numbers of equal precision, text made harmless."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from engine.base.errors import printable, shortened

SPECIAL = re.compile(r"([\\`*\[\]<>|~$&]|(?<!\w)[_#]|_(?!\w))")  # an underscore within a word is one
BLOCK = re.compile(r"\n *((?:[-+*=]|#+|>|\d+[.)])(?=\s|$))")  # at a line's beginning a list, a quotation or a heading
CODE = re.compile(r"`[^`]*`")
WIDTH = 100
NOTHING = "–"
LONGEST = 1000


def text(value: Any) -> str:
    """Text from strangers on one line, that Markdown shows as it stands."""
    return SPECIAL.sub(r"\\\1", shortened(printable(str(value)), LONGEST))


def code(value: Any) -> str:
    """Text from strangers as code."""
    harmless = shortened(printable(str(value)), LONGEST).replace("`", "'").replace("|", r"\|")
    return f"`{harmless}`" if harmless else ""


def codes(values: Iterable[Any]) -> str:
    return ", ".join(map(code, values))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose columns are padded; the first `left` ones stand left. Cells are Markdown already."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if index < left else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    padded = [
        [f"{cell:{'<' if index < left else '>'}{widths[index]}}" for index, cell in enumerate(line)]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def paragraph(text: str, first: str = "", indent: str = "") -> str:
    """Prose in lines that fit a terminal; code is not broken."""
    whole = CODE.sub(lambda match: match[0].replace(" ", "\0"), text)
    how: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    lines = textwrap.wrap(whole, WIDTH, initial_indent=first, subsequent_indent=indent, **how)
    return BLOCK.sub(r" \1", "\n".join(lines)).replace("\0", " ") + "\n"


def bullets(lines: Iterable[str]) -> str:
    return "".join(paragraph(line, "- ", "  ") for line in lines)


def number(value: float | None, digits: int = 3, size: float | None = None, sign: bool = False) -> str:
    """A measured number with so many digits: 0.234, 12.3, 1.20e-05. `size`: of that whose decimals it has."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size, plus = abs(value if size is None else size), "+" if sign else ""
    if size and not 1e-4 <= size < 1e6:
        return f"{value:{plus}.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size or 1)))
    return _without_sign_of_zero(f"{value:{plus}.{decimals}f}")


def interval(middle: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    """A mean and its interval with as many decimals: 0.234 (0.221 to 0.250)."""
    if middle is None or low is None or high is None:
        return number(middle, sign=sign)
    size = max(abs(low), abs(high), abs(middle))
    numbers = [number(value, 3, size, sign) for value in (middle, low, high)]
    return f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


def percent(middle: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    """A share as percent, or a difference of shares in points: 93.51 (93.20 to 93.80)."""
    if middle is None:
        return NOTHING
    plus = "+" if sign else ""
    numbers = [_without_sign_of_zero(f"{100 * end:{plus}.2f}") for end in (middle, low, high) if end is not None]
    return numbers[0] if len(numbers) < 3 else f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


def half_width(middle: float | None, ci95: float | None) -> str:
    """A mean and the half-width of its interval: 0.2341 ± 0.0120."""
    return number(middle, 4) + ("" if middle is None or ci95 is None else f" ± {number(ci95, 4, middle)}")


def duration(seconds: float) -> str:
    """Hours, or minutes below one hour."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def count(number: int, thing: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _without_sign_of_zero(text: str) -> str:
    return text.lstrip("+-") if float(text) == 0 else text
