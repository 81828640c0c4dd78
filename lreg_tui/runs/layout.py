"""DashboardLayout: how the dashboard was left, from one time to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.base.metrics import USUAL_HEADLINE
from lreg_tui.runs.groups import STUDY
from lreg_tui.runs.run_columns import is_column

TABLE = ("sort", "reverse", "columns", "differing", "group")
OF_STORE = ("filter", *TABLE)  # what is remembered for each run store apart
METRICS = ("meta_loss", "sharpness", USUAL_HEADLINE.name)
LONGEST = 200  # of what is remembered


@dataclass(frozen=True)
class DashboardLayout:
    """`panel` is the place of the one that narrow screens show: a metric's, or that of the log after them."""

    sort: str = "age"
    reverse: bool = False
    columns: tuple[str, ...] = ()
    differing: bool = False
    group: str = STUDY
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
            columns=tuple(filter(is_column, columns)) if isinstance(columns, list) else (),
            differing=values.get("differing") is True,
            group=str(group) if group == "" or _is_word(group) else cls.group,
            filter=str(text) if _is_word(text) else "",
            metrics=tuple(valid) if len(valid) == len(METRICS) else METRICS,
            panel=panel if isinstance(panel, int) and 0 <= panel <= len(METRICS) else 0,
        )


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable()
