"""What the preset editor says of a preset: its title line, its problems, and where in the text these stand."""

from __future__ import annotations

import re
from pathlib import Path

from textual.content import Content

from engine.base.errors import Problem
from lreg_tui.presets.form_lines import MUTED
from lreg_tui.presets.preset_edit import HERE, Checked
from lreg_tui.presets.preset_file import Draft, label_of
from lreg_tui.presets.toml_lines import line_of
from lreg_tui.text.present import clean


def content(problem: Problem) -> Content:
    """A problem as a line: key, what was found, what is allowed, the hint."""
    source = f" ({label_of(Path(problem.source))})" if problem.source not in ("", HERE) else ""
    hint = f"  {problem.hint}" if problem.hint else ""
    if not problem.path:  # about the text as a whole
        return Content.assemble(
            ("✗ ", "$error bold"),
            (clean(f"{source.strip()} ", 60) if source else "", "bold"),
            clean(problem.found, 300),
        )
    return Content.assemble(
        ("✗ ", "$error bold"),
        (clean(problem.path, 80), "bold"),
        (clean(source, 60), MUTED),
        clean(f"  found {problem.found}", 200),
        (clean(hint, 160), "$accent"),
        (clean(f"  allowed: {problem.allowed}", 100 if hint else 300), MUTED),
    )


def title(draft: Draft, is_unsaved: bool, checked: Checked | None) -> Content:
    """What is edited, whether it is saved, whether it is right, and where it comes from or lives."""
    where = f"from {draft.taken_from}" if draft.file is None else str(draft.file)
    parts = [(clean(draft.title, 40), "bold")]
    parts += [("  ● not saved", "$accent")] if is_unsaved else []
    count = len(checked.problems) if checked is not None else 0
    if checked is None:
        parts.append(("  checking …", MUTED))
    elif count:
        parts.append((f"  ✗ {count} problem{'s' if count > 1 else ''}", "$error bold"))
    else:
        parts.append(("  ✓ valid", "$success"))
    parts.append((f"  {clean(where, 100)}", MUTED))  # last: narrow screens cut it off
    return Content.assemble(*parts)


def place_of(problem: Problem, text: str) -> int | None:
    """The line of the text that a problem is about, if it is about this text."""
    if problem.source not in ("", HERE):
        return line_of(text, "extends")
    if problem.path:
        return line_of(text, problem.path)
    found = re.search(r"line (\d+)", problem.found)
    return int(found.group(1)) - 1 if found else None
