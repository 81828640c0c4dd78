"""Text of the dashboard: its first line, and what stands in place of runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from engine.runs.store import RunStore
from lreg_tui.runs.groups import STATE_ORDER, STUDY
from lreg_tui.runs.run_columns import column
from lreg_tui.runs.run_lines import MOST_OVERLAID
from lreg_tui.runs.run_list import NO_CURVE
from lreg_tui.runs.run_table import RunTable
from lreg_tui.system.keys import key_of
from lreg_tui.text import present

CALM = ("finished", "stopped")  # states that the head does not count


def head(table: RunTable, filter: str, root: str) -> Text:
    """What there is, in a line that may be cut: how many runs, filter, marks, states, hidden order, where."""
    runs = table.runs
    counts = runs.states
    text = Text("lreg  ", "bold", no_wrap=True, overflow="ellipsis")
    jobs = sum(not row.kind.has_curves for row in runs.listed)
    text.append(present.count(len(runs.listed) - jobs, "run"), "not bold")
    text.append(f" + {present.count(jobs, 'transfer')}" if jobs else "", "not bold")
    text.append(f"  /{present.clean(filter, 60)}" if filter else "", "bold")
    parts = [marks(list(runs.marked.values()))] if runs.marked else []
    parts += [f"{counts[state]} {state}" for state in STATE_ORDER if counts[state] and state not in CALM]
    text.append("".join(f"  {part}" for part in parts), "not bold")
    if runs.grouped_by not in ("", STUDY):
        text.append(f"  by {present.clean(runs.grouped_by, 40)}", "not bold")
    if len(runs.shown) > 1 and table.columns and runs.sorted_by not in [each.key for each in table.columns]:
        text.append(f"  {'▼' if runs.reverse else '▲'}{column(runs.sorted_by).heading}", "not bold")
    return text.append(f"  {present.clean(root, 80)}", "not bold dim")


def marks(numbers: Sequence[int]) -> str:
    """How many runs are marked, by the numbers of their curves; transfer jobs, which have none, are counted apart."""
    jobs = numbers.count(NO_CURVE)
    curves = len(numbers) - jobs
    counted = [f"{curves} marked" + f", {MOST_OVERLAID} drawn" * (curves > MOST_OVERLAID)] if curves else []
    counted += [present.count(jobs, "transfer") + " marked" * (not counted)] if jobs else []
    return " + ".join(counted)


def instead(root: str, has_looked: bool, filter: str) -> Text:
    """What stands in place of runs: `filter` has left none, or else there are none."""
    path_text = present.clean(root, 200)
    if not has_looked:
        return Text(f"looking into {path_text} …", "dim")
    if filter:
        line = f"{key_of('search')} changes the filter, esc takes it away"
        return Text(f"No run matches {present.clean(filter)}\n\n{line}")
    new = "" if Path(root).is_dir() else ", which will be created"
    text = Text(f"No runs yet in {path_text}{new}\n\n")
    text.append(key_of("add"), "bold")
    text.append("   pick a preset and start a run: quickstart takes under a minute\n\n")
    text.append("Runs that are started elsewhere appear by themselves:\n    lreg run quickstart --detach")
    is_usual = RunStore().root == Path(root).absolute()
    return text.append("" if is_usual else f" --runs-dir {present.clean(shlex.quote(root))}")
