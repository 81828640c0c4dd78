"""RunHead: two lines on one run: who and how far it is, and what it is."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from lreg_tui.runs.feed import RunRow
from lreg_tui.text.present import clean, duration, progress, state_text

BAR = 20  # columns of the progress bar


class RunHead(Static):
    """What it shows may have been written by strangers, and is plain text."""

    def __init__(self, run_id: str, *, id: str | None = None) -> None:
        super().__init__(content(None, run_id, False), markup=False, id=id)
        self.run_id = run_id

    def show_run(self, row: RunRow | None, is_gone: bool) -> None:
        """`row` is the last that was known of the run; `is_gone`: its folder is no longer there."""
        self.update(content(row, self.run_id, is_gone))


def content(row: RunRow | None, run_id: str, is_gone: bool) -> Text:
    """Two lines: who and how far, and what it is."""
    if row is None:
        return Text.assemble(
            (clean(run_id, 120), "bold"), "\n", ("no such run here" if is_gone else "looking …", "dim")
        )
    line = Text.assemble((clean(row.name, 60), "bold"), "  ", state_text(row.state))
    if is_gone:
        line.append("  its folder is gone", "bold red")
    if row.state != "finished":
        full = round(BAR * row.progress)
        line.append("  ").append("━" * full, "bold").append("─" * (BAR - full), "dim")
    line.append(f" {progress(row.step, row.total)}")
    line.append(f"  {row.kind.unit} {row.step}/{row.total}" if row.total else "", "dim")
    line.append(f"  ETA {duration(row.eta_s)}" if row.is_live and row.eta_s is not None else "")
    learned = " ".join(filter(None, [row.optimizer, " ".join(row.penalties)]))
    parts = [row.id, row.task, learned, "" if row.seed is None else f"seed {row.seed}", row.device]
    parts.append(" ".join(f"#{tag}" for tag in row.tags))
    line.append("\n").append("  ".join(clean(part, 80) for part in parts if part), "dim")
    return line
