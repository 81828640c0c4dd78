"""Run folder: the only channel between a training process and whoever looks at it.

`Run` writes and holds the folder's lock while it does; `RunReader` reads and has no writing method; `RunStore` finds
runs. Every file is replaced whole, except metrics.jsonl and log.txt, which grow. What a reader meets is data from
strangers: it may be torn, damaged, newer, or hostile; nothing here raises for that.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import re
import secrets
import socket
import string
import sys
import threading
import time
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from engine.errors import PresetError, RunError, TrainingError
from engine.settings import show

if TYPE_CHECKING:
    from engine.preset import Preset

STATES = ("queued", "running", "paused", "stopped", "finished", "failed")
LIVE = ("queued", "running", "paused")  # a process ought to be there
CHECKPOINTS = ("last", "best", "initial")
HEARTBEAT_S = 1.0
LOST_AFTER_S = 120.0  # without a heartbeat, a process on another host counts as gone
TAIL = 64  # bytes before the read position that must still be there, else the metrics file was rewritten
START_TOLERANCE_S = 2.0  # process start times are known to the clock tick


def write_atomic(path: Path, data: str | bytes, *, durable: bool = True) -> None:
    """Replace a file whole: readers see the old one or the new one, and a failure leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def strict(value: Any) -> Any:
    """The value as strict JSON can hold it: what is not finite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty when the file is missing, damaged or something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def slug(name: str) -> str:
    """A name that is safe as part of a folder's name, never empty."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain)[:48].strip("-._") or "run"


def process_started(pid: int) -> float | None:
    """When the process started, unix seconds; None if there is no such process (or only its corpse)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, ValueError, OverflowError, TypeError):
        return None


@dataclass(frozen=True)
class Status:
    """status.json. `latest` holds the newest value of every metric, so that lists of runs need not read metrics."""

    state: str = "queued"
    pid: int = 0
    process_started: float = 0.0
    host: str = ""
    controllable: bool = False  # the process listens to the signals of stop, pause and continue
    heartbeat: float = 0.0
    step: int = 0
    total: int = 0
    eta_s: float | None = None
    message: str = ""
    latest: dict[str, float | None] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Status:
        """Take what fits; leave unknown keys and wrong types."""
        default = cls()
        fitting = {key: value for key, value in values.items() if _fits(key, value, default)}
        latest = fitting.get("latest", {})
        fitting["latest"] = {str(key): _number(value) for key, value in latest.items() if _is_number(value, True)}
        return cls(**fitting)

    @property
    def process_is_gone(self) -> bool:
        """True if the status speaks of a process that no longer exists."""
        if self.state not in LIVE or (not self.pid and not self.heartbeat):
            return False
        if self.host not in ("", socket.gethostname()):
            return time.time() - self.heartbeat > LOST_AFTER_S
        started = process_started(self.pid)
        return started is None or abs(started - self.process_started) > START_TOLERANCE_S


def _fits(key: str, value: Any, default: Status) -> bool:
    if key == "eta_s":
        return _is_number(value, True)
    if key in ("pid", "step", "total"):
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    if key in ("process_started", "heartbeat"):
        return _is_number(value)
    return hasattr(default, key) and isinstance(value, type(getattr(default, key)))


def _is_number(value: Any, allow_none: bool = False) -> bool:
    if value is None:
        return allow_none
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e308


def _number(value: float | None) -> float | None:
    return None if value is None else value if isinstance(value, int) else float(value)


class Run:
    """A run folder, for its one writer: `with run:` holds the lock and keeps status.json fresh."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.id = self.path.name
        self.checkpoints = self.path / "checkpoint"
        self._status = RunReader(self.path).recorded_status()
        self._guard = threading.Lock()  # between the heartbeat and everybody else
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self._metrics: IO[bytes] | None = None
        self._lock: Any = None

    @classmethod
    def create(
        cls,
        store_dir: str | os.PathLike[str],
        preset: Preset,
        *,
        argv: Sequence[str] = (),
        device: str = "auto",
        data_dir: str | os.PathLike[str] | None = None,
        parent: str = "",
    ) -> Run:
        """Make the folder of a new run. It is `queued` until a process holds it."""
        created = utc_now()
        try:
            path = _new_folder(Path(store_dir), created, preset.name)
            facts = {
                "id": path.name,
                "name": preset.name,
                "created": created,
                "argv": list(argv),
                "seed": preset.seed,
                "device": device,
                "data_dir": str(Path(data_dir).absolute()) if data_dir is not None else None,
                "versions": _versions(),
                "host": socket.gethostname(),
                "platform": _platform(),
                "git": _git_revision(),
                "parent": parent or None,
            }
            write_atomic(path / "preset.toml", preset.dumps())
            write_atomic(path / "run.json", json.dumps(facts, indent=2) + "\n")
            run = cls(path)
            run._status = replace(_own_process(Status()), message="waiting for its process")
            run._write_status()
        except OSError as error:
            where = show(str(error.filename or store_dir)).strip('"')
            raise RunError(f"{where}: cannot create a run folder there: {error.strerror}") from None
        return run

    def __enter__(self) -> Run:
        self._acquire()
        _remove_leftovers(self.path, self.checkpoints, self.path / "transfer")
        self._status = replace(_own_process(self._status), state="running", eta_s=None, message="")
        self._write_status()
        self._ended.clear()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        self._close_metrics()
        self._lock.release()

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout

        before = RunReader(self.path).status()
        patience = 0.0 if before.state in LIVE else 5.0  # one that says it has ended may still be closing
        self._lock = FileLock(self.path / ".lock")
        try:
            self._lock.acquire(timeout=patience)
        except Timeout:
            writer = RunReader(self.path).status()
            who = f"process {writer.pid} on host {writer.host}"
            raise RunError(f"run {self.id} is being written by {who}") from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot write there: {error.strerror}") from None

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # a full disk is reported by the writing that matters
                self._write_status(durable=False)

    def _write_status(self, durable: bool = True, **changes: Any) -> None:
        with self._guard:
            self._status = replace(self._status, heartbeat=time.time(), **changes)
            text = json.dumps(strict(asdict(self._status)), indent=2)
            write_atomic(self.path / "status.json", text + "\n", durable=durable)

    @property
    def status(self) -> Status:
        return self._status

    def set_status(self, **changes: Any) -> None:
        """Change fields of status.json, now: state, message, controllable, ..."""
        self._write_status(**changes)

    def progress(self, step: int, total: int, eta_s: float | None) -> None:
        """Note how far the run is; the heartbeat writes it."""
        with self._guard:
            self._status = replace(self._status, step=step, total=total, eta_s=eta_s)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records to metrics.jsonl, one whole line each, stamped with the time."""
        stamped = [{"t": round(time.time(), 6), **strict(record)} for record in records]
        if not stamped:
            return
        if self._metrics is None:
            self._metrics = open(self.path / "metrics.jsonl", "ab")  # stays open while the run is held
        self._metrics.write("".join(json.dumps(record, allow_nan=False) + "\n" for record in stamped).encode())
        self._metrics.flush()
        figures = {key: value for record in stamped for key, value in record.items() if key not in ("t", "step")}
        with self._guard:
            self._status = replace(self._status, latest={**self._status.latest, **figures})

    def sync_metrics(self) -> int:
        """Bring metrics.jsonl safely to the disk; return its size, for the checkpoint that is written next."""
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())
        try:
            return (self.path / "metrics.jsonl").stat().st_size
        except FileNotFoundError:
            return 0

    def truncate_metrics(self, size: int) -> None:
        """Drop the records written after the checkpoint that noted this size, and a torn last line.

        The file is replaced, not cut, so that a reader in the middle of it notices.
        """
        self._close_metrics()
        path = self.path / "metrics.jsonl"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        kept = data[: data.rfind(b"\n", 0, size) + 1] if size else b""
        if len(kept) != len(data):
            write_atomic(path, kept)

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            with contextlib.suppress(OSError):  # what could not be written has been reported already
                self._metrics.close()
            self._metrics = None

    def log(self, text: str) -> None:
        """Add to log.txt, each line with the time. A log that cannot be written stops nothing."""
        stamp = utc_now()[:19] + "Z"
        with contextlib.suppress(OSError), open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write("".join(f"{stamp} {line}\n" for line in text.splitlines()))

    def write_transfer(self, name: str, evaluation: Mapping[str, Any]) -> Path:
        """Save one finished transfer evaluation."""
        path = self.path / "transfer" / f"{slug(name)}.json"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, json.dumps(strict(evaluation), indent=1) + "\n")
        return path


def _new_folder(store_dir: Path, created: str, name: str) -> Path:
    stamp = re.sub(r"[-:]", "", created[:19]).replace("T", "-")
    store_dir.mkdir(parents=True, exist_ok=True)
    while True:
        letters = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(4))
        path = store_dir.absolute() / f"{stamp}-{slug(name)}-{letters}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        (path / "checkpoint").mkdir()
        return path


def _own_process(status: Status) -> Status:
    started = process_started(os.getpid()) or time.time()
    return replace(status, pid=os.getpid(), process_started=started, host=socket.gethostname(), controllable=False)


def _remove_leftovers(*folders: Path) -> None:
    """Temporary files of a writer that was killed; the lock says that nobody is writing them."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()


def _versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {"python": sys.version.split()[0]}
    for package in ("lreg", "torch", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def _platform() -> str:
    import platform

    return platform.platform()


def _git_revision() -> str | None:
    """The commit checked out in the current folder, if it is in a git repository."""
    import subprocess

    command = ["git", "rev-parse", "--verify", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=2.0)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


@dataclass
class Column:
    """One metric: step, wall time (unix s) and value of each of its records; null values are NaN."""

    steps: array[float] = field(default_factory=lambda: array("d"))
    times: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))


class RunReader:
    """A run folder, for whoever looks: never writes, never raises for what it finds.

    One reader belongs to one thread at a time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.id = self.path.name
        self.restarts = 0
        self.bad_lines = 0
        self.columns: dict[str, Column] = {}
        self._offset = 0
        self._tail = b""  # the last bytes before the offset

    def __repr__(self) -> str:
        return f"RunReader({str(self.path)!r})"

    @property
    def facts(self) -> dict[str, Any]:
        """run.json: id, name, created, argv, seed, device, versions, host, git, parent."""
        return read_json(self.path / "run.json")

    @property
    def preset_text(self) -> str:
        """preset.toml as text; empty if it cannot be read."""
        try:
            return (self.path / "preset.toml").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def preset(self) -> Preset:
        """The run's preset, checked. Raises PresetError when it is damaged or from another version."""
        from engine.preset import load_preset

        path = self.path / "preset.toml"
        if not path.is_file():
            raise RunError(f"{path}: missing, so this is no run that can be used")
        return load_preset(path)

    def recorded_status(self) -> Status:
        """status.json as it stands there."""
        return Status.from_json(read_json(self.path / "status.json"))

    def status(self) -> Status:
        """status.json, with the state `crashed` derived where it speaks of a process that is gone."""
        status = self.recorded_status()
        return replace(status, state="crashed") if status.process_is_gone else status

    @property
    def state(self) -> str:
        return self.status().state

    @property
    def created(self) -> float | None:
        """When the run was created, unix s."""
        return _unix(self.facts.get("created"))

    @property
    def log_path(self) -> Path:
        return self.path / "log.txt"

    def figures(self) -> dict[str, float | None]:
        """The newest value of every metric: as the status tells, else from the metrics themselves."""
        if not (latest := self.recorded_status().latest):
            self.poll()
            latest = {metric: self.latest(metric) for metric in self.columns}
        return latest

    def transfers(self) -> dict[str, dict[str, Any]]:
        """Finished transfer evaluations by name."""
        files = sorted(self.path.glob("transfer/*.json"))
        return {path.stem: evaluation for path in files if (evaluation := read_json(path))}

    def checkpoints(self) -> dict[str, Path]:
        """Checkpoints that are there, by name."""
        paths = {name: self.path / "checkpoint" / f"{name}.safetensors" for name in CHECKPOINTS}
        return {name: path for name, path in paths.items() if path.is_file()}

    def poll(self) -> list[dict[str, Any]]:
        """Read what metrics.jsonl has gained, return the new records.

        A torn last line waits for its rest, bad lines are counted in `bad_lines`. If a resume has rewritten the file,
        reading starts over from its beginning: `restarts` goes up, and all its records are returned.
        """
        try:
            with open(self.path / "metrics.jsonl", "rb") as file:
                if not self._is_the_same(file):
                    self._start_over()
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        self._tail = (self._tail + data)[-TAIL:]
        return [record for line in data.split(b"\n") if line and (record := self._record(line)) is not None]

    def _is_the_same(self, file: IO[bytes]) -> bool:
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _start_over(self) -> None:
        self.restarts += 1
        self.bad_lines = 0
        self.columns = {}
        self._offset = 0
        self._tail = b""

    def _record(self, line: bytes) -> dict[str, Any] | None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not _is_number(record.get("step")):
            self.bad_lines += 1
            return None
        step, when = record["step"], record.get("t")
        for metric, value in record.items():
            if metric in ("step", "t") or not _is_number(value, True):
                continue
            column = self.columns.setdefault(metric, Column())
            column.steps.append(step)
            column.times.append(when if when is not None and _is_number(when) else math.nan)
            column.values.append(math.nan if value is None else value)
        return record

    def series(self, metric: str) -> tuple[array[float], array[float]]:
        """Steps and values of a metric as far as they were polled: copies, which numpy takes as they are."""
        column = self.columns.get(metric, Column())
        return column.steps[:], column.values[:]

    def latest(self, metric: str) -> float | None:
        """The newest value of a metric as far as it was polled; None if there is none, or it was not finite."""
        values = self.columns[metric].values if metric in self.columns else ()
        return values[-1] if values and math.isfinite(values[-1]) else None


def _unix(created: Any) -> float | None:
    try:
        return datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()
    except (AttributeError, ValueError, OverflowError, OSError):
        return None


class RunStore:
    """All run folders of one folder: the argument, else $LREG_RUNS_DIR, else ./runs."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root or os.environ.get("LREG_RUNS_DIR") or "runs").expanduser().absolute()

    def list(self) -> list[RunReader]:
        """Every run, oldest first. What is no run folder is left out."""
        return [RunReader(self.root / name) for name in sorted(self._names())]

    def _names(self) -> Iterator[str]:
        try:
            names = os.listdir(self.root)
        except OSError:
            return
        yield from (name for name in names if _is_run(self.root / name))

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
        from engine.errors import Problem

        reference = preset["meta"]["init_from"]
        if not reference:
            return None
        try:
            return self.resolve(reference)
        except RunError as error:
            problem = Problem("meta.init_from", show(reference), f"a run with a checkpoint; {error}")
            raise PresetError([problem], preset.source) from None

    def resolve(self, reference: str) -> RunReader:
        """The run that is meant by an id, a unique prefix, a path, its last four letters, or `last`.

        Raises RunError that lists the candidates or near misses.
        """
        names = sorted(self._names())
        if reference == "last":
            return RunReader(self.root / self._newest(names))
        if reference in names:
            return RunReader(self.root / reference)
        path = Path(reference).expanduser()
        if reference and _is_run(path):
            return RunReader(path)
        if not reference or os.sep in reference:
            raise RunError(f"{show(reference)}: no run folder there")
        found = [name for name in names if name.startswith(reference)]
        found = found or [name for name in names if len(reference) == 4 and name.endswith(f"-{reference}")]
        if len(found) == 1:
            return RunReader(self.root / found[0])
        raise RunError(self._not_one(reference, names, found))

    def _newest(self, names: Sequence[str]) -> str:
        if not names:
            raise RunError(f"no runs in {self.root}")
        dated = [name for name in names if re.match(r"\d{8}-\d{6}-", name)] or names
        same_second = [name for name in dated if name[:15] == dated[-1][:15]]
        return max(same_second, key=lambda name: (str(RunReader(self.root / name).facts.get("created")), name))

    def _not_one(self, reference: str, names: Sequence[str], found: Sequence[str]) -> str:
        shown = show(reference)
        if found:
            return f"{shown} could be any of {len(found)} runs: {_few(found)}"
        near = difflib.get_close_matches(reference, names, n=3, cutoff=0.5)
        near = near or [name for name in names if len(reference) > 2 and reference in name]
        hint = f"did you mean {_few(near)}?" if near else "`lreg runs` lists them"
        return f"no run {shown} in {self.root} ({hint})"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(show(name).strip('"') for name in names[:5])
    return f"{shown}, ..." if len(names) > 5 else shown


def _is_run(path: Path) -> bool:
    try:
        return (path / "run.json").is_file() or ((path / "status.json").is_file() and (path / "preset.toml").is_file())
    except (OSError, ValueError):
        return False


def disk_error(error: OSError) -> TrainingError:
    """What is said when a running run cannot write: one line, and the last checkpoint stays."""
    where = f"{error.filename}: " if error.filename else ""
    return TrainingError(f"{where}{error.strerror or error}; the last checkpoint is untouched")
