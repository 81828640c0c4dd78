"""What the dashboard finds again the next time: order, filter, metrics, panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

METRICS = ("meta_loss", "sharpness", "test_accuracy")
LONGEST = 200


@dataclass(frozen=True)
class Layout:
    """`panel` is the place of the one that narrow screens show: a metric's, or that of the log after them."""

    sort: str = "age"
    reverse: bool = False
    filter: str = ""
    metrics: tuple[str, ...] = METRICS
    panel: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Layout:
        """Take what fits: the file may have been written by another version, or by anybody."""
        sort, text, panel, metrics = (values.get(key) for key in ("sort", "filter", "panel", "metrics"))
        known = [name for name in metrics if _is_word(name)] if isinstance(metrics, list) else []
        return cls(
            sort=str(sort) if _is_word(sort) else cls.sort,
            reverse=values.get("reverse") is True,
            filter=str(text) if _is_word(text) else "",
            metrics=tuple(known) if len(known) == len(METRICS) else METRICS,
            panel=panel if isinstance(panel, int) and 0 <= panel <= len(METRICS) else 0,
        )


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable()
