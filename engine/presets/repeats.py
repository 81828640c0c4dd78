"""A preset as settings by key path ("penalty.sam.rho"); which of them make runs repeats of each other, that is an arm,
and what these are called."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# keys that say nothing about how the learned optimizer is meta-trained, but for the seed
NAMES = ("name", "description", "tags", "seed", "threads")
PARENT = "meta.init_from"
TELLING = re.compile(r"\.(weight|rho|radius)$")  # worth a line wherever there is a penalty or a term
SEED_ENDING = re.compile(r"[-_. ]+(?:s|seed|meta-?seed)[-_=]?\d+$", re.IGNORECASE)
CUT_ENDING = re.compile(r"[-_. ]+(?:s|seed|meta-?seed)?[-_=]?\d*$", re.IGNORECASE)  # where the names begin to differ


def flatten(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested tables by its path; of several tasks by their numbers."""
    tables = values.items() if isinstance(values, Mapping) else enumerate(values)
    for key, value in tables:
        key_path = f"{path}.{key}" if path else str(key)
        is_tasks = path == "" and key == "task"
        if isinstance(value, Mapping) or is_tasks:
            yield from flatten(value[0] if is_tasks and len(value) == 1 else value, key_path)
        else:
            yield key_path, value


def arm_identity(flat: Mapping[str, Any]) -> str:
    """What the runs of an arm have in common: all but seed and names. One that starts from another run is none that
    starts from scratch."""
    settings = {key: value for key, value in flat.items() if key not in NAMES}
    return frozen(settings | {PARENT: bool(flat.get(PARENT))})


def frozen(value: Any) -> str:
    """A value as text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, default=str)


def common_name(names: Sequence[str]) -> str:
    """What the names of repeats have in common: without their seeds; else the first."""
    stripped = [SEED_ENDING.sub("", name) for name in names]
    if len(set(stripped)) == 1:
        return stripped[0] or names[0]
    common = CUT_ENDING.sub("", os.path.commonprefix(list(names))).rstrip("-_. ")
    return common if len(common) > 1 else names[0]
