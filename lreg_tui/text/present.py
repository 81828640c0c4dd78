"""Text for people: numbers, durations, states; and everything from run folders made harmless to print.

Used by the command line and the console alike. Colours are names that a terminal theme maps, never codes.
"""

from __future__ import annotations

import math
import re
import time
import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.base import metrics

if TYPE_CHECKING:
    from rich.text import Text

    from engine.base.metrics import Metric

NOTHING = "–"
LARGEST, LONGEST_LINE = 200_000, 5_000  # characters of a preset that can be shown and edited at once
PLUS_MINUS = " ± "
MILLION = 1e6  # from here on figures have an exponent
STATE_STYLES = {
    "queued": "dim",
    "running": "green",
    "paused": "yellow",
    "stopping": "yellow",
    "stopped": "yellow",
    "finished": "bold green",
    "failed": "bold red",
    "crashed": "bold red",
}


def clean(value: Any, limit: int = 500) -> str:
    """Text from strangers on one line, without control characters, escape codes or direction marks."""
    text = str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    spaced = re.sub(r"[\t\n\r]", " ", text)
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_obeyed(character) else character for character in spaced)


def shorten(text: str, width: int) -> str:
    """Text on at most `width` columns of the terminal."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…" if width > 0 else ""


def without_controls(text: str) -> str:
    """Text of any number of lines without what a terminal obeys, of any length."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(character for character in lines if character in "\n\t" or not _is_obeyed(character))


def clean_block(value: Any) -> str:
    """Text from strangers that may have several lines."""
    return "\n".join(clean(line, 4000) for line in str(value).splitlines())


def clean_toml(text: str) -> str:
    """A TOML document with the same meaning, whose strings have escapes in place of what a terminal would obey."""
    return "".join(
        f"\\U{ord(character):08x}" if _is_obeyed(character) and character != "\n" else character for character in text
    )


def _is_obeyed(character: str) -> bool:
    """True for control characters, direction marks and the like."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def text(value: Any, style: str = "") -> Text:
    """Text for Rich that is never read as markup."""
    from rich.text import Text

    return Text(clean(value), style=style)


def state_text(state: str) -> Text:
    return text(state, STATE_STYLES.get(state, ""))


def bar(share: float, width: int = 24) -> Text:
    """How much of something is done, 0 to 1."""
    from rich.text import Text

    full = round(width * share)
    return Text.assemble(("━" * full, "bold"), ("─" * (width - full), "dim"))


def number(value: float | None, digits: int = 4) -> str:
    """A measured figure, always with as many digits: 0.2341, 12.34, 32.00, 1.200e-05. Integers stay whole: 60000.

    Whole digits before the point are never dropped below a million: 12345.6 is 12346.
    """
    if value is None or not math.isfinite(value):
        return not_finite(value)
    if value == 0 or (isinstance(value, int) and abs(value) < MILLION):
        return str(int(value))
    if not 1e-3 <= abs(value) < MILLION - 0.5:  # which would be rounded to a million
        return f"{value:.{digits - 1}e}"
    if abs(value) >= 10**digits - 0.5:
        return f"{value:.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def not_finite(value: float | None) -> str:
    """nan, inf or -inf: a figure is never silent on a divergence. A dash for what is not known."""
    return NOTHING if value is None else f"{value:g}"


def setting(value: float | None, digits: int = 4) -> str:
    """A number that somebody chose, as short as it was typed: 1, 0.1, 0.03162."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def metric(name: str, value: float | None) -> str:
    """A metric's value in the form of its unit."""
    unit = metrics.metric(name).unit
    if value is None or not math.isfinite(value):
        return not_finite(value)
    if unit == "count" and float(value).is_integer():
        return number(int(value))
    return size(value) if unit == "bytes" else percent(value) if unit == "share" else number(value)


def label(metric: str | Metric, radius: float | str | None = None) -> str:
    """What people read for a metric; where one is known, with the radius that it was measured at."""
    metric = metrics.metric(metric) if isinstance(metric, str) else metric
    words = clean(metric.words, 60)
    return f"{words} at {clean(radius, 12)}" if radius and metric.name in metrics.AT_RADIUS else words


def heading(metric: str | Metric, radius: float | str | None = None) -> str:
    """The same over a column of a table, where it may be broken."""
    words = label(metric, radius)
    return words.replace(" at ", "\nat ") if " at " in words else "\n".join(words.rsplit(" ", 1))


def percent(share: float | None, digits: int = 1) -> str:
    if share is None or not math.isfinite(share):
        return not_finite(share)
    return f"{100 * share:.{digits}f}%" if abs(share) < MILLION else f"{number(100 * share)}%"


def interval(mean: dict[str, Any], as_percent: bool = False, plus_minus: str = PLUS_MINUS) -> str:
    """Mean ± half-width of its confidence interval."""
    middle, half = mean.get("mean"), mean.get("ci95")
    if middle is None:
        return NOTHING
    if as_percent:
        return f"{100 * middle:.1f}%" if half is None else f"{100 * middle:.1f}{plus_minus}{100 * half:.1f}%"
    if middle and not 1e-4 <= abs(middle) < MILLION:
        return number(middle, 3) if half is None else f"{number(middle, 3)}{plus_minus}{number(half, 3)}"
    decimals = 2 - math.floor(math.log10(abs(middle))) if middle else 2
    return plus_minus.join(f"{value:.{max(decimals, 0)}f}" for value in (middle, half) if value is not None)


def duration(seconds: float | None) -> str:
    """A length of time in two units: 45s, 3m 20s, 5h 12m, 2d 4h."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return NOTHING
    whole = int(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // smaller_size}{smaller}"
    return f"{whole}s"


def local_time(unix_s: float) -> str:
    """A moment by the clock of whoever reads it, with its zone: 2026-11-21 13:02:50 CET."""
    moment = datetime.fromtimestamp(unix_s).astimezone()
    return clean(f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname() or moment.strftime('%z')}", 60)  # of some TZ, no name


def count(number: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def age(created: float | None) -> str:
    return NOTHING if created is None else duration(max(0.0, time.time() - created)).split(" ")[0]


def progress(step: int, total: int) -> str:
    return percent(min(step / total, 1.0), 0) if total else NOTHING


def size(count: float | None) -> str:
    """Bytes as people say them."""
    if count is None or not math.isfinite(count):
        return not_finite(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{number(count) if abs(count) >= MILLION else f'{count:.1f}'} TiB"
