"""A preset as settings by key path ("penalty.sam.rho"), and which of them make runs repeats of each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

# keys that say nothing about how the learned optimizer is meta-trained, but for the seed
NAMES = ("name", "description", "tags", "seed", "threads")
PARENT = "meta.init_from"


def flatten(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested tables by its path; of several tasks by their numbers."""
    tables = values.items() if isinstance(values, Mapping) else enumerate(values)
    for key, value in tables:
        here = f"{path}.{key}" if path else str(key)
        is_tasks = path == "" and key == "task"
        if isinstance(value, Mapping) or is_tasks:
            yield from flatten(value[0] if is_tasks and len(value) == 1 else value, here)
        else:
            yield here, value


def arm_identity(flat: Mapping[str, Any]) -> str:
    """What the runs of an arm have in common: all but seed and names. One that starts from another run is none that
    starts from scratch."""
    settings = {key: value for key, value in flat.items() if key not in NAMES}
    return frozen(settings | {PARENT: bool(flat.get(PARENT))})


def frozen(value: Any) -> str:
    """A value as text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, default=str)
