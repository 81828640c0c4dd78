"""Run folder: the only channel between a training process and whoever looks at it.

`Run` writes, and holds the folder's lock while it does; `RunReader` reads and has no writing method; `RunStore` finds
runs.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.errors import PresetError, Problem, RunError
from engine.base.settings import show
from engine.runs.kinds import STUDY, TRANSFER, JobKind
from engine.runs.reader import RunReader
from engine.runs.writer import Run

if TYPE_CHECKING:
    from engine.presets.preset import Preset

__all__ = ["Run", "RunReader", "RunStore"]

STAMP, ENDING = len("20261120-211500-"), len("-k3f9")  # around the name in an id


class RunStore:
    """All run folders of one folder: the argument, else $LREG_RUNS_DIR, else ./runs."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(os.path.abspath(os.path.expanduser(root or os.environ.get("LREG_RUNS_DIR") or "runs")))

    def list(self) -> list[RunReader]:
        """Every run, oldest first. What is no run folder is left out."""
        return [RunReader(self.root / name) for name in sorted(self._names())]

    def transfers(self) -> Sequence[RunReader]:
        """Every transfer job, oldest first."""
        return [RunReader(path) for path in self._jobs(TRANSFER)]

    def studies(self) -> Sequence[RunReader]:
        """Every study, oldest first."""
        return [RunReader(path) for path in self._jobs(STUDY)]

    def _jobs(self, kind: JobKind) -> Sequence[Path]:
        """The folders of a kind with a home of its own; a link in place of the home leads to those of another store."""
        home = self.root / kind.home
        return [] if home.is_symlink() else [home / name for name in sorted(_runs_in(home))]

    def _names(self) -> Iterator[str]:
        return _runs_in(self.root)

    def create(self, preset: Preset, **facts: Any) -> Run:
        """A new run of this preset. A run that it starts from is looked up first, and pinned in its preset."""
        reference = preset["meta"]["init_from"]
        if not reference:
            return Run.create(self.root, preset, **facts)
        parent = self.parent_of(preset)
        assert parent is not None
        pinned = parent.id if parent.path.parent == self.root else str(parent.path)
        meta = {**preset["meta"], "init_from": pinned}
        return Run.create(self.root, replace(preset, values={**preset.values, "meta": meta}), parent=parent.id, **facts)

    def parent_of(self, preset: Preset) -> RunReader | None:
        """The run whose learned optimizer a preset starts from. Raises PresetError when it is not there."""
        reference = preset["meta"]["init_from"]
        if not reference:
            return None
        try:
            return self.resolve(reference)
        except RunError as error:
            problem = Problem("meta.init_from", show(reference), f"a run with a checkpoint; {error}")
            raise PresetError([problem], preset.source) from None

    def resolve(self, reference: str) -> RunReader:
        """The run that is meant by an id, a unique prefix, a path, its last four letters, or `last`; a transfer job or
        study likewise, a study by its name, too.

        Raises RunError that lists the candidates or near misses.
        """
        names = sorted(self._names())
        if reference == "last":
            return RunReader(self.root / self._newest(names))
        if reference in names:
            return RunReader(self.root / reference)
        path = Path(os.path.expanduser(reference))  # which leaves ~nobody as it stands
        if reference and is_run(path):
            return RunReader(path)
        if not reference or os.sep in reference:
            raise RunError(f"{show(reference)}: no run folder there")
        studies = self._jobs(STUDY)
        paths = (
            _matching(reference, [self.root / name for name in names])
            or [*_matching(reference, self._jobs(TRANSFER)), *_matching(reference, studies)]
            # a study's runs begin as it does, so no prefix of its id is its own: its name will do
            or [path for path in studies if path.name[STAMP:-ENDING] == reference]
        )
        if len(paths) == 1:
            return RunReader(paths[0])
        raise RunError(self._not_one(reference, [*(path.name for path in studies), *names], paths))

    def _newest(self, names: Sequence[str]) -> str:
        if not names:
            raise RunError(f"no runs in {self.root}")
        dated = [name for name in names if re.match(r"\d{8}-\d{6}-", name)] or names
        same_second = [name for name in dated if name[:15] == dated[-1][:15]]
        return max(same_second, key=lambda name: (str(RunReader(self.root / name).facts.get("created")), name))

    def _not_one(self, reference: str, names: Sequence[str], paths: Sequence[Path]) -> str:
        """Why a reference means no run, or several."""
        if paths:
            return f"{show(reference)} could be any of {len(paths)}: {_few([path.name for path in paths])}"
        near = difflib.get_close_matches(reference, names, n=3, cutoff=0.5)
        near = near or [name for name in names if len(reference) > 2 and reference in name]
        hint = f"did you mean {_few(near)}?" if near else "`lreg runs` lists them"
        return f"no run {show(reference)} in {self.root} ({hint})"


def _matching(reference: str, paths: Sequence[Path]) -> list[Path]:
    """The folders whose names start with a reference; else those whose last four letters it is."""
    starting = [path for path in paths if path.name.startswith(reference)]
    return starting or [path for path in paths if len(reference) == 4 and path.name.endswith(f"-{reference}")]


def _runs_in(folder: Path) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    yield from (name for name in names if is_run(folder / name))


def _few(names: Sequence[str]) -> str:
    first = ", ".join(show(name).strip('"') for name in names[:5])
    return f"{first}, ..." if len(names) > 5 else first


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run, transfer job or study."""
    try:
        return (path / "run.json").is_file() or ((path / "status.json").is_file() and (path / "preset.toml").is_file())
    except (OSError, ValueError):
        return False
