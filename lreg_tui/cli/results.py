"""The result table of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import results
from engine.runs import RunReader
from lreg_tui import present

if TYPE_CHECKING:
    from rich.table import Table


def table(reader: RunReader) -> Table | None:
    """Learned optimizer, untrained, and hand-designed optimizers side by side; None before they were measured."""
    rows = results.run_rows(reader)
    return result_table(rows) if rows else None


def result_table(rows: list[dict[str, Any]]) -> Table:
    """Means over seeds with 95% confidence intervals."""
    from rich import box
    from rich.table import Table

    radius = next((row["sharpness"]["radius"] for row in rows if row["sharpness"]["radius"]), None)
    found = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    found.caption_justify = "left"
    several = len({row["inner_step"] for row in rows}) > 1
    found.add_column("optimizer", overflow="fold", min_width=11)
    if several:
        found.add_column("step", justify="right")
    at_radius = f"sharpness\nat {present.clean(radius, 12)}" if radius else "sharpness"
    for heading in ("learning\nrate", "train loss", "test loss", "test\naccuracy", at_radius):
        found.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        label = present.text(row["label"])
        if row["diverged"]:
            label.append(f" ({row['diverged']} of {row['seeds']} diverged)", style="red")
        found.add_row(
            label,
            *([str(row["inner_step"])] if several else []),
            present.number(row["learning_rate"]) if row["learning_rate"] is not None else "",
            present.interval(row["train_loss"]),
            present.interval(row["test_loss"]),
            present.interval(row["test_accuracy"], as_percent=True),
            present.interval(row["sharpness"]),
        )
    at = "" if several else f"after {rows[0]['inner_step']} inner steps, "
    seeds = max(row["seeds"] for row in rows)
    found.caption = present.text(f"{at}{seeds} fresh optimizees each, mean ± 95% confidence interval", "dim")
    return found
