"""How the dashboard was left, from one time to the next; its first line, and what stands in place of runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from engine.base.metrics import USUAL_HEADLINE
from engine.runs.store import RunStore
from lreg_tui.runs.groups import STATE_ORDER, STUDY
from lreg_tui.runs.run_columns import column, is_column
from lreg_tui.runs.run_list import MOST_OVERLAID, NO_CURVE
from lreg_tui.runs.run_table import RunTable, TableLayout
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
    if len(runs.lines) > 1 and table.columns and runs.sorted_by not in [each.key for each in table.columns]:
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


TABLE = tuple(TableLayout.__dataclass_fields__)
OF_STORE = ("filter", *TABLE)  # what is remembered for each run store apart
METRICS = ("meta_loss", "sharpness", USUAL_HEADLINE.name)
LONGEST = 200  # of what is remembered


@dataclass(frozen=True)
class DashboardLayout(TableLayout):
    """`panel` is the place of the one that narrow screens show: a metric's, or that of the log after them."""

    filter: str = ""
    metrics: tuple[str, ...] = METRICS
    panel: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DashboardLayout:
        """Take what fits: the file may have been written by another version, or by anybody."""
        sort, text, panel, metrics = (values.get(key) for key in ("sort", "filter", "panel", "metrics"))
        valid = [name for name in metrics if _is_word(name)] if isinstance(metrics, list) else []
        columns, group = values.get("columns"), values.get("group", cls.group)
        return cls(
            sort=str(sort) if is_column(sort) else cls.sort,
            reverse=values.get("reverse") is True,
            columns=tuple(filter(is_column, columns)) if isinstance(columns, (list, tuple)) else (),
            differing=values.get("differing") is True,
            group=str(group) if group == "" or _is_word(group) else cls.group,
            filter=str(text) if _is_word(text) else "",
            metrics=tuple(valid) if len(valid) == len(METRICS) else METRICS,
            panel=panel if isinstance(panel, int) and 0 <= panel <= len(METRICS) else 0,
        )


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable()
