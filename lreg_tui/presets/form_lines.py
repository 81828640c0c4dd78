"""How the lines of the preset form look: a heading, a setting, what is said about it. Content only, no widgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from textual.content import Content

from engine.base.settings import Setting, show
from lreg_tui.presets.preset_edit import HERE, Row, Table, shown
from lreg_tui.text import present

MUTED = "$foreground 55%"  # $text-muted is bright in a Content
NAME_WIDTH = 19
MARK_WIDTH = 2
MARKS = {HERE: ("● ", "$primary"), "": ("  ", MUTED)}
INHERITED = ("○ ", "$foreground")
ADD = "add:penalty"
LEGEND = "   ● set here, even to the default   ○ inherited"


class FormLine(NamedTuple):
    """`identity`: a setting's path, table:PATH for a heading, or ADD. The cursor may pass over headings."""

    identity: str
    content: Content
    is_passed_over: bool = False


def lines(
    tables: Sequence[Table], width: int, words: Sequence[str] = (), only_here: bool = False, can_add: bool = False
) -> Iterator[FormLine]:
    """The lines that fit: `words` are looked for in keys, help, values; `only_here` leaves what the text itself says.

    `can_add`: there are penalties left to add.
    """
    last = _last_before_meta(tables)
    for table in tables:
        rows = [row for row in table.rows if _fits(row, table, words, only_here)]
        if rows or (table.is_penalty and not words and (not only_here or table.origin)):
            yield FormLine(f"table:{table.path}", heading(table), not table.is_penalty)
            yield from (FormLine(row.path, line(row, width)) for row in rows)
        if table.path == last and not words and can_add and not only_here:
            yield FormLine(ADD, Content.styled("  + add a penalty", MUTED))


def _last_before_meta(tables: Sequence[Table]) -> str:
    """The table below which penalties are added."""
    paths = [table.path for table in tables]
    return paths[paths.index("meta") - 1] if "meta" in paths[1:] else ""


def _fits(row: Row, table: Table, words: Sequence[str], only_here: bool) -> bool:
    if only_here and row.origin != HERE and row.problem is None:
        return False
    text = f"{row.path} {table.path or 'preset'} {row.setting.help} {shown(row.value)}".lower()
    return all(word in text for word in words)


def value_width(width: int) -> int:
    """Columns for values in a form of this width: what names and notes leave, within reason."""
    return max(12, min(44, width - 1 - MARK_WIDTH - NAME_WIDTH - 22))


def heading(table: Table) -> Content:
    """A table's name, whom a penalty is inherited from, and what is wrong with the table as a whole."""
    parts = [Content.styled(present.clean(table.path) or "preset", "$primary bold")]
    parts += [] if table.path else [Content.styled(LEGEND, MUTED)]
    if table.is_penalty and table.origin not in (HERE, ""):
        parts.append(Content.styled(f"  from {present.clean(table.origin, 40)}", MUTED))
    parts += [Content.styled(f"  {present.clean(problem, 120)}", "$error") for problem in table.problems]
    return Content("").join(parts)


def line(row: Row, width: int) -> Content:
    """Mark, name, value, and where the value comes from, or what it would be by default."""
    mark, style = MARKS.get(row.origin, INHERITED)
    value = shown(row.value) or '""'
    if row.problem is not None:
        mark, style, value = "✗ ", "$error", show(row.value)  # with the quotes that may be what is wrong
    is_here = row.origin == HERE
    default = "the default" if _is_default(row) else f"default {default_of(row.setting)}"
    note = default if is_here else f"from {row.origin}" if row.origin else ""
    return Content.assemble(
        (mark, style),
        (fitted(row.setting.name, NAME_WIDTH), "bold" if is_here else ""),
        (fitted(value, value_width(width)), f"{style} bold" if is_here else style),
        (f" {present.clean(note, 60)}", MUTED),
    )


def about(row: Row, problem: str) -> Content:
    """Three lines: the key, its help, and what is wrong, or else what is allowed."""
    source = f"   from {present.clean(row.origin, 60)}" if row.origin else ""
    if row.origin == HERE:
        source = f"   ● set here{', to the default' * _is_default(row)}; del takes it out again"
    allowed = f"{row.setting.describe()}; default {default_of(row.setting)}"
    last = (f"✗ {present.clean(problem, 300)}", "$error") if problem else (present.clean(allowed, 300), MUTED)
    return Content.assemble((row.path, "bold"), (source, MUTED), f"\n{present.clean(row.setting.help, 200)}\n", last)


def _is_default(row: Row) -> bool:
    return shown(row.value) == shown(row.setting.default)


def default_of(setting: Setting) -> str:
    return shown(setting.default) or "empty"


def fitted(text: str, width: int) -> str:
    """Cut or filled to a number of columns, the last of them free."""
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, width - 2) + "… " if cell_len(text) >= width else set_cell_size(text, width)
