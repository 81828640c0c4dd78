"""Writing a run folder: one process at a time. Files are replaced whole; only metrics.jsonl and log.txt grow."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import string
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from engine.base.control import Control
from engine.base.errors import RunError, TrainingError, printable
from engine.base.files import (
    NO_ROOM,
    is_own_file,
    lock,
    make_folder,
    open_to_append,
    open_to_read,
    refuse_links,
    refused,
    remove_leftovers,
    strict,
    write_atomic,
    write_in_place,
)
from engine.base.status import HEARTBEAT_S, LIVE, Status
from engine.runs import provenance
from engine.runs.kinds import RUN, JobKind
from engine.runs.reader import RunReader

if TYPE_CHECKING:
    from engine.presets.preset import Preset


FOLDERS = ("checkpoint", "transfer", "partial")  # of a run or job, which its process writes into
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def slug(name: str) -> str:
    """A name that is safe as part of a folder's name, never empty."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain)[:48].strip("-._") or "run"


class Run:
    """The folder of a run, or of a job of another kind, for its one writer.

    `with run:` holds the lock and keeps status.json fresh.
    """

    def __init__(self, path: str | os.PathLike[str], kind: JobKind | None = None) -> None:
        """`kind`: of a folder that is being made, which cannot say so yet."""
        self.path = Path(os.path.abspath(path))
        self.id = self.path.name
        self.kind = kind or RunReader(self.path).kind
        self.checkpoints = self.path / "checkpoint"
        self._status = RunReader(self.path).recorded_status()
        self._guard = threading.Lock()  # between the heartbeat and everybody else
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self._metrics: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._folder: tuple[int, int] | None = None  # the one that is held, whatever lies at its path by now
        self.listeners: list[Callable[[Sequence[Mapping[str, Any]]], None]] = []  # told of appended records
        self.control: Control | None = None  # what was asked of its process, which the heartbeat passes on
        self.is_gone = False  # noticed by the heartbeat: the folder that is held was deleted or moved

    @classmethod
    def create(
        cls,
        store_dir: str | os.PathLike[str],
        preset: Preset,
        *,
        device: str = "auto",
        parent: str | None = None,
        **options: Any,
    ) -> Run:
        """Make the folder of a new run of a preset; `options` as of `make`."""
        facts: dict[str, Any] = {"seed": preset.seed, "device": device, "parent": parent}
        return cls.make(RUN, store_dir, preset.name, preset.dumps(), **facts, **options)

    @classmethod
    def make(
        cls,
        kind: JobKind,
        store_dir: str | os.PathLike[str],
        name: str,
        document: str,
        *,
        run_id: str = "",
        stamp: str = "",
        argv: Sequence[str] = (),
        data_dir: str | os.PathLike[str] | None = None,
        **facts: Any,
    ) -> Run:
        """Make a new folder of a kind, with its document. It is `queued` until a process holds it.

        With a `run_id`, the one of that id if it is there; one that was never completed is made anew. `stamp`: what the
        id begins with, if not the time. run.json is written last, so that readers see a whole run; a failure leaves
        nothing, but what was there before stays: a run may have lost nothing but its run.json. Raises RunError where
        it cannot be made.
        """
        created, store = utc_now(), Path(store_dir)
        try:
            store.mkdir(parents=True, exist_ok=True)
            home = store / kind.home
            if kind.home:
                make_folder(home)
            stamp = stamp or re.sub(r"[-:]", "", created[:19]).replace("T", "-")  # UTC: 20261120-211500
            path = _folder(home.absolute(), stamp, name, run_id)
            if is_complete(path):
                return cls(path)
            new = cls(path, kind)
            record = {"id": new.id, "name": name, "kind": kind.name, "created": created, "argv": list(argv), **facts}
            record["data_dir"] = str(Path(data_dir).absolute()) if data_dir is not None else None
            is_new = not any(file.is_file() for file in path.rglob("*"))
            try:
                if kind is RUN:
                    make_folder(new.checkpoints)
                new._status = Status(message="waiting for its process").of_this_process()
                new.set_status()
                write_atomic(path / kind.document, document)
                write_atomic(path / "run.json", json.dumps(record | provenance.describe(), indent=2) + "\n")
            except BaseException:
                if is_new:
                    shutil.rmtree(path, ignore_errors=True)
                raise
            return new
        except OSError as error:
            where = printable(str(error.filename or store_dir))
            raise refused(error, f"{where}: cannot create a run folder there") from None

    def __enter__(self) -> Run:
        """Take the run. Raises RunError where another process holds it, or where nothing can be written."""
        document = self.kind.document
        if not document:
            raise RunError(f"{self.path}: {self.kind.words}")
        if not is_own_file(self.path / document, self.path):  # before anything is written there
            raise RunError(f"{self.path}: no {document} there, so this is no run that can be used")
        self._acquire()
        try:
            for name in FOLDERS:
                refuse_links(self.path / name, self.path)
            self.is_gone, self._folder = False, self._folder_there()
            remove_leftovers(self.path, *(self.path / name for name in FOLDERS))
            before = RunReader(self.path).recorded_status()  # whoever held it last may have gone on until now
            if before.state == "finished":  # perhaps while this process was starting
                raise RunError(f"run {self.id} is finished: nothing to resume")
            self._status = replace(before.of_this_process(), state="running", eta_s=None, message="")
            self.set_status()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise refused(error, f"{error.filename or self.path}: cannot write there") from None
            raise
        self._ended.clear()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        self._close_metrics()
        self._release()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder without being at work there. Raises RunError where another process holds it."""
        self._acquire()
        try:
            yield
        finally:
            self._release()

    def _acquire(self) -> None:
        before = RunReader(self.path).status()
        patience = 0.0 if before.state in LIVE else 5.0  # one that says it has ended may still be closing
        try:
            self._lock = lock(self.path / ".lock", patience)
        except BlockingIOError:
            writer = RunReader(self.path).status()
            who = f"process {writer.pid} on host {writer.host}"
            raise RunError(f"run {self.id} is being written by {who}") from None
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise RunError(f"{self.path}: its file system knows no locks; take another --runs-dir") from None
            raise refused(error, f"{error.filename or self.path}: cannot write there") from None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def is_held(self) -> bool:
        """Whether this process is the one that writes here."""
        return self._lock is not None

    def _folder_there(self) -> tuple[int, int] | None:
        """What lies at the run's path: another folder there has another identity."""
        # its document goes first where a folder is being deleted: nothing is put there again
        return _identity(self.path) if os.path.exists(self.path / self.kind.document) else None

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            self.look_there()
            with contextlib.suppress(OSError):  # a full disk is reported by the writing that matters
                if not self.is_gone:
                    self.set_status(durable=False, stopping=self.control is not None and self.control.stop)

    def look_there(self) -> bool:
        """Notice where the folder that is held is no longer at its place; return whether it is gone."""
        self.is_gone = self.is_gone or (self._folder is not None and self._folder_there() != self._folder)
        return self.is_gone

    def check_there(self) -> None:
        """Raise TrainingError once the run's folder was deleted or moved: what is done from then on is lost."""
        if self.is_gone:
            raise self.lost()

    def lost(self, error: OSError | None = None) -> TrainingError:
        """Why a held run cannot go on where `error` came of writing: one line, which says what is kept all the same."""
        if self.look_there():
            gone = self.path / self.kind.document if self._folder == _identity(self.path) else self.path
            return TrainingError(f"{gone}: deleted or moved while its process was at work, which is over")
        if error is None:
            return TrainingError(f"{self.path}: cannot be written")
        return TrainingError(f"{error.filename or self.path}: {error.strerror or error}; {self.kept_words}")

    @property
    def kept_words(self) -> str:
        """What an end before time has not taken away."""
        if self.kind is RUN and not RunReader(self.path).checkpoints().keys() & {"last"}:
            return "no checkpoint was written yet"
        return f"{self.kind.preserved} is untouched"

    def set_status(self, durable: bool = True, **changes: Any) -> None:
        """Change fields of status.json, now: state, message, controllable, ..."""
        with self._guard:
            self._status = replace(self._status, heartbeat=time.time(), **changes)
            text = json.dumps(strict(asdict(self._status)), indent=2) + "\n"
            path = self.path / "status.json"
            try:
                write_atomic(path, text, durable=durable)
            except OSError as error:
                if error.errno not in NO_ROOM or not write_in_place(path, text):
                    raise

    @property
    def status(self) -> Status:
        return self._status

    def progress(self, step: int, total: int, eta_s: float | None) -> None:
        """Note how far the run is; the heartbeat writes it."""
        with self._guard:
            self._status = replace(self._status, step=step, total=total, eta_s=eta_s)

    def note(self, message: str) -> None:
        """Say what is under way; the heartbeat writes it."""
        with self._guard:
            self._status = replace(self._status, message=message)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records to metrics.jsonl, one whole line each, stamped with the time."""
        stamped = [{"t": round(time.time(), 6), **strict(record)} for record in records]
        if not stamped:
            return
        if self._metrics is None:
            self._metrics = open_to_append(self.path / "metrics.jsonl")  # stays open while the run is held
        self._metrics.write("".join(json.dumps(record, allow_nan=False) + "\n" for record in stamped).encode())
        self._metrics.flush()
        figures = {key: value for record in stamped for key, value in record.items() if key not in ("t", "step")}
        with self._guard:
            self._status = replace(self._status, latest={**self._status.latest, **figures})
        for listener in self.listeners:
            listener(stamped)

    def sync_metrics(self) -> int:
        """Bring metrics.jsonl safely to the disk; return its size, for the checkpoint that is written next.

        Raises TrainingError where the run's folder is no longer at its place: nothing is put into another.
        """
        self.look_there()
        self.check_there()
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())
        try:
            status = (self.path / "metrics.jsonl").stat()
        except FileNotFoundError:
            self._close_metrics()  # what comes next is not lost with it
            return 0
        if self._metrics is not None and not os.path.samestat(status, os.fstat(self._metrics.fileno())):
            self._close_metrics()
        return status.st_size

    def truncate_metrics(self, size: int) -> None:
        """Drop the records written after the checkpoint that noted this size, and a torn last line.

        The file is replaced, not cut, so that a reader in the middle of it notices.
        """
        self._close_metrics()
        path = self.path / "metrics.jsonl"
        try:
            with open_to_read(path, self.path) as file:
                data = file.read()
        except FileNotFoundError:
            return
        remaining = data[: data.rfind(b"\n", 0, size) + 1] if size else b""
        if len(remaining) != len(data):
            write_atomic(path, remaining)

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            with contextlib.suppress(OSError):  # what could not be written has been reported already
                self._metrics.close()
            self._metrics = None

    def log(self, text: str) -> None:
        """Add to log.txt, each line with the time. A log that cannot be written stops nothing."""
        stamp = utc_now()[:19] + "Z"
        lines = "".join(f"{stamp} {line}\n" for line in text.splitlines())
        with contextlib.suppress(OSError), open_to_append(self.path / "log.txt") as file:
            file.write(lines.encode(errors="replace"))

    def write_transfer(self, name: str, evaluation: Mapping[str, Any]) -> Path:
        """Save one finished transfer evaluation."""
        path = self.path / "transfer" / f"{slug(name)}.json"
        make_folder(path.parent)
        write_atomic(path, json.dumps(strict(evaluation), indent=1) + "\n")
        return path


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one at its place; None if nothing is there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _folder(store: Path, stamp: str, name: str, run_id: str) -> Path:
    """The folder of an id, which may be there already; else one that nobody else has: of the same second and name
    there may be many.
    """
    store.mkdir(parents=True, exist_ok=True)
    if run_id:
        (store / run_id).mkdir(parents=True, exist_ok=True)
        return store / run_id
    while True:
        letters = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(4))
        path = store / f"{stamp}-{slug(name)}-{letters}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path


def is_complete(path: Path) -> bool:
    """Whether a run's folder was made to its end: run.json is the last that is written."""
    return (path / "run.json").is_file()
