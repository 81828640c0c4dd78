"""What a run needs before it starts: its device, its data, what it starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.base.device import pick_device


def check_inputs(
    tasks: Iterable[Mapping[str, Any]],
    device: str,
    data_dir: Path | None,
    *,
    optimizer: Mapping[str, Any] | None = None,
    start: Path | None = None,
    option: str = "--device",
) -> None:
    """Find out before a run is created that its device or its data is missing. Imports torch and reads the data.

    `tasks`: checked [task] tables, also as JSON gives them back.

    `optimizer`: the [optimizer] table, whose learned optimizer is to train the tasks. `start`: the run whose learned
    optimizer it starts from, which is to fit that table. `option`: what names the device. Raises LregError.
    """
    where = pick_device(device, option)
    from engine.presets.preset import from_mapping
    from engine.tasks.table import check_tasks

    how: dict[str, Any] = {"data_dir": data_dir, "device": where}
    if optimizer is not None:
        from engine.optimizers.learned.base import from_table

        how["check"] = from_table(optimizer).check_task
    for values in tasks:
        check_tasks(from_mapping({"task": values}).tasks[0], **how)
    if optimizer is not None and start is not None:
        from engine.meta_training.meta_parameters import check_start
        from engine.runs.checkpoint import load_frozen

        check_start(optimizer, load_frozen(start))
