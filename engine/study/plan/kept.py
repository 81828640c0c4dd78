"""Kept study: a run store in little space, with one study in it and what its report is made of, and nothing else.

`kept.json` lists its files with their digests; the report lies beside the runs, in `report`. Of logs it has those lines
that tell of the cost of runs: how long their processes worked, on how many threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.base.errors import RunError, printable
from engine.base.files import read_json, read_limited
from engine.runs.store import RunReader, RunStore

MANIFEST = "kept.json"
ELSEWHERE = ("--runs-dir", "--data-dir")  # options that say where something lies on a machine
LARGEST = 2**26  # bytes of a file that is kept, or of a log
PLACE = re.compile(r"(?<![\w/])/(?:[^\s/'\"]+/)+")  # the folders of an absolute path, as this machine has them
LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z (.*)")
PROCESS = re.compile(r"process \d{1,10}")  # what follows is its command, with the folders of its machine
DEVICE = re.compile(r"device (\S{1,20}), torch (\S+), (\d{1,5}) CPU threads")
LONGEST = 366 * 86400.0  # seconds of one process; what is longer is a clock that was set


def is_kept(store: Path) -> bool:
    """Whether a run store is that of a kept study."""
    return (store / MANIFEST).is_file()


def study_in(store: Path) -> RunReader:
    """The study that is kept in a run store. Raises RunError where there is none, or several."""
    studies = RunStore(store).studies()
    if len(studies) != 1:
        raise RunError(f"{store}: found {len(studies)} studies; allowed: one, as a {MANIFEST} is there")
    return studies[0]


def check_kept(store: Path) -> None:
    """Raise RunError, in one line, where a file of a kept study is missing or another one than was kept."""
    files = _digests(store)
    if not files:
        raise RunError(f"{store / MANIFEST}: damaged: it names no files")
    for name, digest in files.items():
        path = store / name
        try:
            if ".." in path.parts or not path.is_relative_to(store):
                raise OSError("outside of it")
            is_same = digest_of(read_limited(path, LARGEST, store)) == digest
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or error
            raise RunError(f"{store}: {printable(name)} of this kept study: {problem}") from None
        if not is_same:
            raise RunError(f"{path}: not as it was kept: damaged or changed since")


def added_files(store: Path) -> list[str]:
    """What lies in a kept study beside its own files and its report."""
    own = {MANIFEST, *_digests(store)}
    names = (str(path.relative_to(store)) for path in sorted(store.rglob("*")) if not path.is_dir())
    return [
        name for name in names if name not in own and Path(name).parts[0] != "report" and Path(name).name != ".lock"
    ]


def _digests(store: Path) -> dict[str, str]:
    """What the manifest tells of every file; nothing of a damaged one."""
    files = read_json(store / MANIFEST, LARGEST, store).get("files")
    return files if isinstance(files, dict) else {}


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def report_file(study: str | os.PathLike[str]) -> Path:
    """Where the report of the study in a folder is, or will be: of a kept one beside its runs."""
    folder = Path(study)
    store = folder.parent.parent
    return (store if is_kept(store) else folder) / "report" / "report.md"


def command(study: str, facts: Mapping[str, Any]) -> list[str]:
    """The command that a study was started with by its run.json, without where things lie on a machine."""
    argv = facts.get("argv")
    words = [str(word) for word in argv[1:]] if isinstance(argv, list) else []
    if "study" not in words:  # it was started from the console
        return ["lreg", "study", study]
    arguments = [word for before, word in zip(["", *words], words, strict=False) if before not in ELSEWHERE]
    arguments = [word for word in arguments if word.partition("=")[0] not in (*ELSEWHERE, "--detach", "--json")]
    return ["lreg", *(os.path.basename(word) if os.path.isabs(word) else word for word in arguments)]


def without_places(text: str) -> str:
    """A message without the folders of the machine that it is from."""
    return PLACE.sub("", text)


@dataclass
class Cost:
    """Seconds that processes worked, times their CPU threads; and of those on an accelerator, times one."""

    seconds: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    devices: set[str] = field(default_factory=set)
    threads: set[int] = field(default_factory=set)  # that a process was given


def cost_of(*folders: Path) -> Cost:
    """What runs or transfer jobs have cost, pauses left out. A process that was killed counts up to its last line."""
    cost = Cost()
    for process in (process for folder in folders for process in _processes(folder)):
        seconds = min(process.seconds, LONGEST)
        cost.seconds += seconds
        cost.core_seconds += seconds * process.threads
        cost.gpu_seconds += seconds * (process.device != "cpu")
        cost.devices.add(process.device)
        cost.threads.add(process.threads)
    return cost


def log_in_short(folder: Path) -> str:
    """Those lines of a log that tell of its cost, without what they say beside."""
    lines: list[str] = []
    last = ""
    for at, text in _lines(folder):
        begins = PROCESS.match(text)
        if last and begins:  # where the process before it ended
            lines.append(last)
        if is_telling := begins or text in ("paused", "continued") or DEVICE.fullmatch(text):
            lines.append(f"{at:%Y-%m-%dT%H:%M:%S}Z {begins[0] if begins else text}\n")
        last = "" if is_telling else f"{at:%Y-%m-%dT%H:%M:%S}Z ...\n"
    return "".join([*lines, last])


@dataclass
class _Process:
    """One process by its log."""

    last: datetime
    seconds: float = 0.0
    device: str = "cpu"
    threads: int = 1
    is_paused: bool = False


def _lines(folder: Path) -> Iterator[tuple[datetime, str]]:
    """The lines of a log that have a time."""
    try:
        lines = read_limited(folder / "log.txt", LARGEST, folder).decode(errors="replace").splitlines()
    except OSError:
        return
    for match in filter(None, map(LINE.fullmatch, lines)):
        with contextlib.suppress(ValueError):
            yield datetime.fromisoformat(match[1]), match[2]


def _processes(folder: Path) -> list[_Process]:
    processes: list[_Process] = []
    for at, text in _lines(folder):
        if not processes or text.startswith("process "):
            processes.append(_Process(at))
        process = processes[-1]
        process.seconds += 0.0 if process.is_paused else max(0.0, (at - process.last).total_seconds())
        process.last = at
        process.is_paused = (process.is_paused or text == "paused") and text != "continued"
        if facts := DEVICE.fullmatch(text):
            process.device, process.threads = facts[1], min(int(facts[3]), 4096)
    return processes
