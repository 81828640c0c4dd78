"""Text of the dashboard: its first line, and what stands in place of runs."""

from __future__ import annotations

from collections import Counter

from rich.text import Text

from lreg_tui import present
from lreg_tui.widgets.run_columns import BY_KEY, STATE_ORDER
from lreg_tui.widgets.run_table import RunTable

CALM = ("finished", "stopped")  # states that the head does not count


def head(table: RunTable, filter: str, root: str) -> Text:
    """What there is, in a line: how many runs in which states, marks, filter, an order that no heading shows, where."""
    runs = table.runs
    counts = Counter(row.state for row in runs.shown)
    parts = [f"{len(runs.shown)} run{'s' * (len(runs.shown) != 1)}"]
    parts += [f"{counts[state]} {state}" for state in STATE_ORDER if counts[state] and state not in CALM]
    parts += [f"{len(runs.marked)} marked"] if runs.marked else []
    text = Text("lreg  ", "bold", no_wrap=True, overflow="ellipsis").append("  ".join(parts), "not bold")
    text.append(f"  /{present.clean(filter, 60)}" if filter else "", "bold")
    if table.columns and runs.sorted_by not in [column.key for column in table.columns]:
        text.append(f"  {'▼' if runs.reverse else '▲'}{BY_KEY[runs.sorted_by].heading}", "not bold")
    return text.append(f"  {present.clean(root, 80)}", "not bold dim")


def instead(root: str, has_looked: bool, filter: str) -> Text:
    """What stands in place of runs: `filter` has left none, or else there are none."""
    root = present.clean(root, 200)
    if not has_looked:
        return Text(f"looking into {root} …", "dim")
    if filter:
        return Text(f"No run matches {present.clean(filter)}\n\n/ changes the filter, esc takes it away")
    text = Text(f"No runs yet in {root}\n\n")
    text.append("n", "bold").append("   pick a preset and start a run: quickstart takes about a minute\n\n")
    return text.append("Runs that are started elsewhere appear by themselves:\n\n    lreg run quickstart")
