"""Run loggers: a run's records sent to a tracker of experiments as well, where the user says so. One file each.

The user names them, by --log-to or in $LREG_LOG_TO; a preset or a run folder never does. `--log-to` adds to the
variable, so that workers in the background, and those of a study, have it too.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.base.errors import LregError, Problem, SettingsError
from engine.base.settings import show

if TYPE_CHECKING:
    from engine.export.loggers.base import RunLogger

LOGGERS = ("mlflow", "trackio", "wandb")  # a file here each, of the name of the package that it needs
VARIABLE = "LREG_LOG_TO"


def in_use() -> list[str]:
    """The loggers that were named, each once. Raises LregError for one that is not known or not installed."""
    return _checked(os.environ.get(VARIABLE, "").split(","))


def use(names: Iterable[str]) -> None:
    """Use more loggers, here and in every process started from here. Raises LregError as `in_use`."""
    if checked := _checked([*in_use(), *names]):
        os.environ[VARIABLE] = ",".join(checked)


def _checked(names: Iterable[str]) -> list[str]:
    known = list(dict.fromkeys(filter(None, names)))
    for name in known:
        if name not in LOGGERS:
            raise SettingsError([Problem("--log-to", show(name), ", ".join(LOGGERS))])
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name, as wandb leaves one, is no package
            raise LregError(f"--log-to {name}: the package {name} is not installed: pip install {name}")
    return known


def logger_class(name: str) -> type[RunLogger]:
    """The logger of a name; its package is imported by the first object of it."""
    found: type[RunLogger] = importlib.import_module(f"engine.export.loggers.{name}").Logger
    return found
