"""Markdown that reads well as it stands, too: padded tables, numbers of equal precision, text made harmless."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from engine.base.errors import printable, shortened

SPECIAL = re.compile(r"([\\`*\[\]<>|~$&]|(?<!\w)[_#]|_(?!\w))")  # an underscore within a word is one
BLOCK = re.compile(r"(?:[-+*=]|#+|>|\d+[.)])(?:\s|$)")
CODE = re.compile(r"`[^`]*`")
WIDTH = 100
NOTHING = "–"
LONGEST = 1000
LEFT, RIGHT = "left", "right"


def text(value: Any) -> str:
    """Text from strangers on one line, that Markdown shows as it stands."""
    return SPECIAL.sub(r"\\\1", shortened(printable(str(value)), LONGEST))


def code(value: Any) -> str:
    """Text from strangers as code."""
    found = shortened(printable(str(value)), LONGEST).replace("`", "'").replace("|", r"\|")
    return f"`{found}`" if found else ""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose columns are padded; the first `left` ones stand left. Cells are Markdown already."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[index]) for line in lines)) for index in range(len(headings))]
    rule = ["-" * width if index < left else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    shown = [lines[0], rule, *lines[1:]]
    return "\n".join(_line(line, widths, left) for line in shown) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [
        cell.ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def paragraph(text: str) -> str:
    """Prose in lines that fit a terminal."""
    return _wrapped(text, "")


def bullets(lines: Iterable[str]) -> str:
    return "".join(_wrapped(line, "  ", first="- ") for line in lines)


def _wrapped(text: str, indent: str, first: str = "") -> str:
    wrapper = textwrap.TextWrapper(WIDTH, first, indent, break_long_words=False, break_on_hyphens=False)
    whole = CODE.sub(lambda match: match[0].replace(" ", "\0"), text)  # code is not broken
    found = [line.replace("\0", " ") for line in wrapper.wrap(whole)]
    joined = found[:1]
    for line in found[1:]:
        if BLOCK.match(line.strip()):  # at the beginning of a line it would be a list, a quotation or a heading
            joined[-1] += f" {line.strip()}"
        else:
            joined.append(line)
    return "\n".join(joined) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """A measured figure with so many digits: 0.234, 12.3, 1.20e-05."""
    return NOTHING if value is None or not math.isfinite(value) else _shown(value, _decimals(value, digits), digits)


def interval(middle: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    """A mean and its interval with as many decimals: 0.234 (0.221 to 0.250)."""
    if middle is None:
        return NOTHING
    if low is None or high is None:
        return _shown(middle, _decimals(middle, 3), 3, sign)
    decimals = _decimals(max(abs(low), abs(high), abs(middle)), 3)
    found = [_shown(value, decimals, 3, sign) for value in (middle, low, high)]
    return f"{found[0]} ({found[1]} to {found[2]})"


def percent(middle: float | None, low: float | None, high: float | None, sign: bool = False) -> str:
    """A share as percent, or a difference of shares in points: 93.51 (93.20 to 93.80)."""
    if middle is None:
        return NOTHING
    found = [NOTHING if value is None else _shown(100 * value, 2, 3, sign) for value in (middle, low, high)]
    return found[0] if low is None or high is None else f"{found[0]} ({found[1]} to {found[2]})"


def half_width(middle: float | None, ci95: float | None, digits: int = 4) -> str:
    """A mean and the half-width of its interval: 0.2341 ± 0.0120."""
    if middle is None or ci95 is None:
        return number(middle, digits)
    decimals = _decimals(middle, digits)
    return f"{_shown(middle, decimals, digits)} ± {_shown(ci95, decimals, digits)}"


def duration(seconds: float) -> str:
    """Hours, or minutes below one hour."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def count(number: int, thing: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _decimals(value: float, digits: int) -> int | None:
    """None where an exponent is needed."""
    if value == 0:
        return digits - 1
    size = abs(value)
    return max(0, digits - 1 - math.floor(math.log10(size))) if 1e-4 <= size < 1e6 else None


def _shown(value: float, decimals: int | None, digits: int, sign: bool = False) -> str:
    plus = "+" if sign else ""
    if decimals is None:
        return f"{value:{plus}.{digits - 1}e}"
    shown = f"{value:{plus}.{decimals}f}"
    return shown.lstrip("+-") if float(shown) == 0 else shown
