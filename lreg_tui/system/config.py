"""What a user has set for good: ~/.config/lreg/config.toml, checked as presets are.

theme = "lreg-light"

[keys]
stop = "X"
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.errors import Problem, SettingsError
from engine.base.metrics import is_known
from engine.base.settings import Setting, check_table, did_you_mean, show, unknown_key
from engine.presets import document
from lreg_tui.system.keys import KEYS

COLUMNS = "metrics, keys of presets"
SETTINGS = (
    Setting("theme", ("str",), "", "the theme, as the palette calls it; else that of the last time"),
    Setting("columns", ("str[]",), (), f"columns of the table of runs to begin with: {COLUMNS}; else whichever fit"),
    Setting("refresh", ("float",), None, "seconds between two looks at the runs; else 1, or 3 with --slow-link", 0.2),
    Setting("smoothing", ("float",), None, "smoothing of noisy curves to begin with; else 0.9", 0.0, maximum=0.999),
)
OTHER_KEY = re.compile(r"[^\s\d]|0|f([2-9]|1[0-2])")
ALLOWED = "a character, or f2 to f12, that means nothing else"


@dataclass(frozen=True)
class Config:
    """The defaults stand for what the file does not say. `keys`: of meanings, by their names in `system.keys`."""

    theme: str = ""
    columns: tuple[str, ...] = ()
    refresh: float | None = None
    smoothing: float | None = None
    keys: Mapping[str, str] = field(default_factory=dict)


def path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".config") / "lreg" / "config.toml"


def load(themes: Iterable[str], columns: Collection[str]) -> Config:
    """What the file says. Raises SettingsError with all that is wrong in it.

    `themes` and `columns`: those that there are; columns may also be metrics and keys of presets.
    """
    where = path()
    if not os.path.lexists(where):
        return Config()
    tables = document.parse(where, str(where))
    keys = tables.pop("keys", {})
    schema = [dataclasses.replace(SETTINGS[0], choices=tuple(themes)), *SETTINGS[1:]]
    values, problems = check_table({key: tables[key] for key in tables if key in Config.__dataclass_fields__}, schema)
    problems += (unknown_key(key, Config.__dataclass_fields__) for key in tables if key not in values)
    for name in values["columns"] or ():
        if name not in columns and "." not in name and not is_known(name):
            allowed = f"a list of {', '.join(columns)}, {COLUMNS}"
            problems.append(Problem("columns", show(name), allowed, did_you_mean(name, columns)))
    problems += _problems_of(keys) if isinstance(keys, dict) else [Problem("keys", show(keys), "a table")]
    if problems:
        raise SettingsError(problems, str(where))
    return Config(**values, keys=keys)


def _problems_of(keys: Mapping[str, Any]) -> Iterator[Problem]:
    after = {name: meaning for meaning, key in KEYS.items() if meaning not in keys for name in key.names.split(",")}
    for meaning, name in keys.items():
        changeable = [other for other, key in KEYS.items() if key.is_changeable]
        if meaning not in changeable:
            yield unknown_key(f"keys.{meaning}", changeable)
        elif not isinstance(name, str) or not OTHER_KEY.fullmatch(name):
            yield Problem(f"keys.{meaning}", show(name), ALLOWED)
        elif (other := after.setdefault(name.replace(",", "comma"), meaning)) != meaning:
            yield Problem(f"keys.{meaning}", show(name), ALLOWED, f"it means {other}")
