"""Reading a run folder. What lies there is data from strangers: torn, damaged, newer or hostile.

Nothing here raises for that, but `preset`.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from engine.base.errors import RunError, StorageError, printable
from engine.base.files import file_system_age, is_locked, is_own_file, open_to_read, read_json, read_limited, strict
from engine.base.metrics import TASK_METRICS, Metric, from_json
from engine.base.status import Status, is_number
from engine.runs.columns import Columns, MetricColumn, Stamps
from engine.runs.kinds import JobKind, kind_of

if TYPE_CHECKING:
    from engine.presets.preset import Preset

CHECKPOINTS = ("best", "last", "initial")
LARGEST_TRANSFER = 2**26  # bytes
KEPT_TRANSFERS = "transfer.jsonl.gz"  # of a run in a kept study, instead of many files: a line each, with its `name`
GZIP = 31  # zlib's number for its format
PIECE = 2**17  # bytes of metrics read at a time
LONGEST = 2**22  # bytes; a longer line is no record
TAIL = 64  # bytes before the read position that must still be there, else the metrics file was rewritten


class GrowingFile:
    """How far a file of lines is read that somebody else appends to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._offset = 0
        self._tail = b""  # the last bytes before the offset

    def is_rewritten(self, file: IO[bytes]) -> bool:
        """Whether it no longer is what was read of it."""
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) != self._tail

    def next_lines(self, file: IO[bytes]) -> bytes:
        """The next lines that have ended; of one that is too long a part, as it must be passed over."""
        for size in (PIECE, LONGEST):
            file.seek(self._offset)
            data = file.read(size)
            if (end := data.rfind(b"\n") + 1) or len(data) < size:
                return data[:end]
        return data

    def pass_over(self, lines: bytes) -> None:
        self._offset += len(lines)
        self._tail = (self._tail + lines)[-TAIL:]


class RunReader:
    """A run folder, for whoever looks: writes nothing there, never raises for what it finds.

    One reader belongs to one thread at a time; others may look at its `columns` meanwhile.
    """

    def __init__(self, path: str | os.PathLike[str], *, wanted: Callable[[str], bool] | None = None) -> None:
        """`wanted`: which metrics `columns` keeps, for whoever needs few of a long run; without it all."""
        self.path = Path(os.path.abspath(path))
        self.id = self.path.name
        self.restarts = 0
        self.bad_lines = 0
        self.columns = Columns(wanted)
        self._machine, self._metrics = GrowingFile("machine.jsonl"), GrowingFile("metrics.jsonl")

    def __repr__(self) -> str:
        return f"RunReader({str(self.path)!r})"

    @property
    def facts(self) -> dict[str, Any]:
        """run.json: id, name, kind, created, argv, seed, device, versions, host, git, parent."""
        return read_json(self.path / "run.json", below=self.path)

    @property
    def kind(self) -> JobKind:
        """Whether it is a run, a transfer job or a study, and what can be done with it."""
        return kind_of(self.path, self.facts)

    @property
    def device(self) -> str:
        """The device that it was made for, as it was asked for."""
        return str(self.facts.get("device") or "auto")

    @property
    def measured(self) -> Mapping[str, Metric]:
        """metrics.json: what the task of the run measures by metrics of its own; else those that lreg knows."""
        return from_json(read_json(self.path / "metrics.json", below=self.path)) or TASK_METRICS

    @property
    def preset_text(self) -> str:
        """preset.toml as text; empty if it cannot be read."""
        try:
            return read_limited(self.path / "preset.toml", below=self.path).decode(errors="replace")
        except OSError:
            return ""

    def preset(self) -> Preset:
        """The run's preset, checked; it extends none. Raises PresetError when it is damaged or from another version."""
        from engine.presets.document import parse
        from engine.presets.preset import from_mapping

        path = self.path / "preset.toml"
        try:
            read_limited(path, below=self.path)
        except FileNotFoundError:
            raise RunError(f"{path}: missing, so this is no run that can be used") from None
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}") from None
        return from_mapping(parse(path, str(path)), str(path))

    def recorded_status(self) -> Status:
        """status.json as it stands there."""
        return Status.from_json(read_json(self.path / "status.json", below=self.path, as_it_is=True))

    def status(self) -> Status:
        """status.json, with the state `crashed` derived where it speaks of a process that is gone."""
        status = self.recorded_status()
        if status.is_of_this_host:
            gone = status.process_is_gone or (status.is_silent and not self.is_held)
        else:
            gone = status.is_lost(file_system_age(self.path / "status.json"))
        return replace(status, state="crashed") if gone else status

    @property
    def is_held(self) -> bool:
        """True if a process holds this very folder; a copy of a running run tells of a process, but nobody holds it."""
        return is_locked(self.path / ".lock")

    @property
    def is_there(self) -> bool:
        """False once there is nothing of a run any more: its folder was deleted or moved."""
        return any((self.path / name).is_file() for name in ("run.json", "status.json", "preset.toml"))

    def check_there(self) -> None:
        """Raise StorageError where there is nothing of the run any more."""
        if not self.is_there:
            raise StorageError(f"run {self.id}: no longer in {self.path.parent}: deleted, moved, or its disk is gone")

    @property
    def state(self) -> str:
        return self.status().state

    def other_data(self, data_dir: Path | None) -> str:
        """What to say where the run was made with data in another folder than is looked into now: `data_dir`, else the
        user's own. Empty where it was not. A run may be a stranger's, so that its note is told and not obeyed."""
        from engine.tasks.datasets.folder import data_folder

        noted = self.facts.get("data_dir")
        if not isinstance(noted, str) or not noted or os.path.abspath(data_folder(data_dir)) == noted:
            return ""
        return f"the run was made with data in {printable(noted)}: --data-dir or LREG_DATA_DIR says where it is now"

    @property
    def created(self) -> float | None:
        """When the run was created, unix s."""
        return created_of(self.facts)

    @property
    def log_path(self) -> Path:
        return self.path / "log.txt"

    def figures(self) -> dict[str, float]:
        """The newest value of every metric: as the status tells, else from the metrics themselves.

        NaN or infinite where that is what it was.
        """
        if not (latest := self.recorded_status().latest):
            self.poll()
            latest = {metric: column.values[-1] for metric, column in self.columns.items() if len(column)}
        return latest

    def plan(self) -> dict[str, Any]:
        """plan.json of a transfer job; empty if it cannot be read."""
        return read_json(self.path / "plan.json", below=self.path)

    def best_scale(self) -> dict[str, Any]:
        """scale.json: the factor of its updates that did best on validation, and how it was found; empty if none."""
        facts = read_json(self.path / "scale.json", below=self.path)
        return facts if is_number(facts.get("scale")) and facts["scale"] > 0 else {}

    def transfers(self) -> dict[str, dict[str, Any]]:
        """Finished transfer evaluations by name."""
        folder = self.path / "transfer"
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            names = []
        paths = [folder / name for name in names if name.endswith(".json") and name[0] != "."]
        files = {path.stem: facts for path in paths if (facts := read_json(path, LARGEST_TRANSFER, self.path))}
        return self._kept_transfers() | files

    def _kept_transfers(self) -> dict[str, dict[str, Any]]:
        try:
            packed = read_limited(self.path / KEPT_TRANSFERS, LARGEST_TRANSFER, self.path)
            lines = zlib.decompressobj(wbits=GZIP).decompress(packed, LARGEST_TRANSFER).splitlines()
        except (OSError, zlib.error):
            return {}
        records = [strict(facts) for facts in map(_parse, lines) if isinstance(facts, dict)]
        return {str(facts.pop("name", number)): facts for number, facts in enumerate(records)}

    def checkpoints(self) -> dict[str, Path]:
        """Checkpoints that are there, by name."""
        paths = {name: self.path / "checkpoint" / f"{name}.safetensors" for name in CHECKPOINTS}
        return {name: path for name, path in paths.items() if is_own_file(path, self.path)}

    def poll(self) -> int:
        """Read what metrics.jsonl and machine.jsonl have gained into `columns`; return how many records that were."""
        return sum(map(len, self.pieces()))

    def records(self) -> Iterator[dict[str, Any]]:
        """Read what metrics.jsonl has gained, and yield the new records one by one: they are not kept."""
        return itertools.chain.from_iterable(self._pieces(self._metrics))

    def machine_records(self) -> Iterator[dict[str, Any]]:
        """The same of machine.jsonl."""
        return itertools.chain.from_iterable(self._pieces(self._machine))

    def pieces(self) -> Iterator[list[dict[str, Any]]]:
        """Poll in steps of a few milliseconds, between which a caller may rest, or leave the rest for the next time.

        A torn last line waits for its rest, bad lines are counted in `bad_lines`. If a resume has rewritten a file,
        reading starts over from its beginning: `restarts` goes up, and all its records are new.
        """
        yield from self._pieces(self._machine)  # first, because it is short, and its restart is the other's
        yield from self._pieces(self._metrics)

    def _pieces(self, growing: GrowingFile) -> Iterator[list[dict[str, Any]]]:
        try:
            with open_to_read(self.path / growing.name, self.path) as file:
                if growing.is_rewritten(file):
                    self._start_over()
                    growing = self._machine if growing.name == self._machine.name else self._metrics
                while whole := growing.next_lines(file):
                    records = self._records(whole)
                    self.columns.add(records)
                    growing.pass_over(whole)
                    yield records
        except OSError:
            pass

    def _start_over(self) -> None:
        self.restarts += 1
        self.bad_lines = 0
        self.columns = Columns(self.columns.wanted)
        self._machine, self._metrics = GrowingFile("machine.jsonl"), GrowingFile("metrics.jsonl")

    def _records(self, lines: bytes) -> list[dict[str, Any]]:
        records = [_parse(line) for line in lines.decode(errors="replace").split("\n") if line]
        good = [record for record in records if isinstance(record, dict) and is_number(record.get("step"))]
        self.bad_lines += len(records) - len(good)
        return good

    def series(self, metric: str) -> tuple[Sequence[float], Sequence[float]]:
        """Steps and values of a metric as far as they were polled. They stay as they are; numpy takes them uncopied."""
        column = self.columns.get(metric, MetricColumn(Stamps(1)))
        return column.steps, column.values

    def latest(self, metric: str) -> float | None:
        """The newest value of a metric as far as it was polled; None if there is none, or it was not finite."""
        values = self.columns[metric].values if metric in self.columns else ()
        return values[-1] if len(values) and math.isfinite(values[-1]) else None


def created_of(facts: Mapping[str, Any]) -> float | None:
    """When the run of these facts was created, unix s."""
    created: Any = facts.get("created")
    try:
        return datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()
    except (AttributeError, ValueError, OverflowError, OSError):
        return None


def _parse(line: str | bytes) -> Any:
    """A line as JSON; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
