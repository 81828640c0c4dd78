"""Plug-ins: members from outside the package. The user names them: by installing, by --plugin, or in $LREG_PLUGINS.

A preset or a run folder never names any: those are data, and execute nothing. `--plugin` adds to the variable, so every
process that is started from there has the same ones. Imports no torch; loading a plug-in does.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.base.errors import LregError

GROUP = "lreg.plugins"
VARIABLE = "LREG_PLUGINS"


@dataclass(frozen=True)
class Plugin:
    """A file, by its absolute path, or a module, by its name; `origin` says who named it."""

    name: str
    origin: str

    @property
    def is_file(self) -> bool:
        return _is_file(self.name)

    def files(self) -> list[Path]:
        """The Python files that it consists of; none where it cannot be found."""
        if self.is_file:
            return [Path(self.name)] if os.path.isfile(self.name) else []
        try:
            spec = importlib.util.find_spec(self.name)
        except Exception:  # whatever the package around it raises; loading it says so
            return []
        if spec is None or spec.origin is None or not os.path.isfile(spec.origin):
            return []
        origin = Path(spec.origin)
        return sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]

    def sha256(self) -> str:
        """Of the contents of its files; "" where there are none."""
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files()]
        if len(digests) < 2:
            return "".join(digests)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def facts(self) -> dict[str, str]:
        """What a run's run.json says of it."""
        return {"name": self.name, "origin": self.origin, "sha256": self.sha256()}

    def load(self) -> None:
        """Import it, which registers its members. Raises LregError where that fails."""
        try:
            if self.is_file:
                _import_file(self.name)
            else:
                importlib.import_module(self.name)
        except (Exception, SystemExit) as error:  # it is not our code
            reason = " ".join(str(error).split())[:300]
            raise LregError(f"plug-in {self.name} ({self.origin}): {type(error).__name__}: {reason}") from error


_loaded: set[str] = set()
_loading: list[str] = []
_is_off = False


def load() -> None:
    """Import the plug-ins in use, each once in a process. Raises LregError where one cannot be."""
    for plugin in in_use():
        if plugin.name not in _loaded and not _loading:  # one that looks up members while it registers its own
            _loading.append(plugin.name)
            try:
                plugin.load()
            finally:
                _loading.clear()
            _loaded.add(plugin.name)


def is_loading() -> bool:
    """Whether a plug-in is being imported."""
    return bool(_loading)


def in_use() -> list[Plugin]:
    """Those that were named, and those that are installed, each once."""
    if _is_off:
        return []
    named = [Plugin(_full(name), f"${VARIABLE}") for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    return list({plugin.name: plugin for plugin in [*named, *_installed()]}.values())


def switch_off() -> None:
    """Use none in this process."""
    global _is_off
    _is_off = True


def use(names: Iterable[str], option: str = "--plugin") -> None:
    """Use more plug-ins, here and in every process started from here. Raises LregError for one that is not there."""
    for name in map(_full, names):
        if _is_file(name) and not os.path.isfile(name):
            raise LregError(f"{option}: found {name}, no such file; allowed: a Python file, or a module's name")
        if not _is_file(name) and not all(part.isidentifier() for part in name.split(".")):
            raise LregError(f"{option}: found {name!r}; allowed: a Python file, or a module's name")
        if os.pathsep in name:
            raise LregError(f"{option}: {name}: a path with {os.pathsep} cannot be used")
        before = os.environ.get(VARIABLE, "")
        if name not in before.split(os.pathsep):
            os.environ[VARIABLE] = os.pathsep.join(filter(None, [before, name]))


def changes(recorded: Any) -> tuple[list[str], list[str]]:
    """Of the plug-ins that a run.json records, the names of those not in use now, and of those that have changed."""
    now = {plugin.name: plugin for plugin in in_use()}
    facts = [item for item in recorded if isinstance(item, dict)] if isinstance(recorded, list) else []
    missing = [str(item.get("name")) for item in facts if item.get("name") not in now]
    present = [item for item in facts if item.get("name") in now]
    return missing, [item["name"] for item in present if now[item["name"]].sha256() != item.get("sha256")]


@cache
def _installed() -> tuple[Plugin, ...]:
    from importlib.metadata import entry_points  # and with it the e-mail parser: not for every command

    entries = entry_points(group=GROUP)
    return tuple(Plugin(entry.module, f"installed: {entry.name}") for entry in entries)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def _full(name: str) -> str:
    return os.path.abspath(os.path.expanduser(name)) if _is_file(name) else name


def _import_file(path: str) -> None:
    """Import a file as a module of a name that nothing else has."""
    name = f"lreg_plugin_{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
