"""Pictures of screens as SVG files: made, kept, compared. Import it as `tui.pictures`.

A file says which Textual and Rich it was made with. On those the picture has to be the same to the letter; on others,
which may draw a scroll bar or space a footer otherwise, the words of every line have to be.
"""

from __future__ import annotations

import difflib
import html
import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("snapshots")
UPDATE = "LREG_UPDATE_SNAPSHOTS"
COLUMN = 12.2  # width of a character in Rich's SVG
MOST_SHOWN = 40  # lines of a difference
TEXT = re.compile(r'<text class="[^"]*" x="([\d.]+)"[^>]*clip-path="url\(#terminal-line-(\d+)\)">(.*?)</text>')
STAMP = re.compile(r"<!-- (.*?) -->\n")


def take(app: Any) -> str:
    """The screen as SVG, without what differs from one time to the next: ids, and fonts that come from elsewhere."""
    svg = app.export_screenshot(title="lreg", simplify=True)
    svg = re.sub(r"terminal-\d+-", "terminal-", svg)
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<rect [^>]*width="0"[^>]*/>', "", svg)  # there or not, as a line was drawn in pieces or at once
    return f"<!-- {made_with()} -->\n{svg.strip()}\n"


def made_with() -> str:
    versions = {name: importlib.metadata.version(name).split(".") for name in ("textual", "rich")}
    return ", ".join(f"{name} {'.'.join(version[:2])}" for name, version in versions.items())


def grid(svg: str) -> list[str]:
    """The text of a picture, line by line."""
    lines: dict[int, list[str]] = {}
    for x, number, escaped in TEXT.findall(svg):
        line = lines.setdefault(int(number), [])
        column, text = round(float(x) / COLUMN), html.unescape(escaped).replace("\N{NO-BREAK SPACE}", " ")
        line.extend(" " * (column + len(text) - len(line)))
        line[column : column + len(text)] = text
    return ["".join(lines.get(number, ())).rstrip() for number in range(max(lines, default=-1) + 1)]


def check(name: str, svg: str, kept_in: Path, folder: Path = FOLDER) -> None:
    """Compare a picture with the one that was accepted; a picture that differs is left in `kept_in`.

    With LREG_UPDATE_SNAPSHOTS set, accept it instead.
    """
    accepted = folder / f"{name}.svg"
    if os.environ.get(UPDATE):
        folder.mkdir(exist_ok=True)
        accepted.write_text(svg, encoding="utf-8")
        return
    hint = f"look at {kept_in / accepted.name}; {UPDATE}=1 accepts it"
    before = accepted.read_text(encoding="utf-8") if accepted.is_file() else ""
    if told := difference(before, svg):
        (kept_in / accepted.name).write_text(svg, encoding="utf-8")
        raise AssertionError(f"{name}: {told}\n{hint}")


def difference(before: str, now: str) -> str:
    """How two pictures differ; "" where they do not, as far as the versions that they were made with let one say."""
    if not before:
        return "there is no accepted picture"
    if before == now:
        return ""
    old, new = grid(before), grid(now)
    if _stamp(before) != _stamp(now):
        old, new = ([" ".join(line.split()) for line in lines] for lines in (old, new))
        if old == new:
            return ""
    if old == new:
        return "the text is the same, its colours or styles are not"
    found = list(difflib.unified_diff(old, new, "accepted", "now", lineterm="", n=0))
    return "\n".join(["the text differs", *found[:MOST_SHOWN]])


def _stamp(svg: str) -> str:
    found = STAMP.match(svg)
    return found.group(1) if found else ""
