"""What can be done to a run: stop, pause, continue, resume, rename, tag, pin, delete; and what can be undone of it.

These wait for disks and processes, so the console calls them off its loop (acting.py does, with keys and
questions). Each takes a run's folder and returns a line to tell; what is the user's to mend is raised as LregError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from engine.base.errors import LregError, RunError
from engine.base.files import is_locked
from engine.base.status import LIVE
from engine.runs import notes
from engine.runs.kinds import KINDS
from engine.runs.notes import LONGEST_NAME, MOST_TAGS, Notes
from engine.runs.store import RunReader
from lreg_tui.system.keys import key_of

BETWEEN_TAGS = re.compile(r"[\s,;]+")
RESUMABLE = ("stopped", "failed", "crashed")


SIGNALS = {
    "stop": (signal.SIGTERM, "stopping {}: it writes a checkpoint first"),
    "pause": (signal.SIGUSR1, f"pausing {{}}; {key_of('pause')} continues"),
    "continue": (signal.SIGUSR2, "{} goes on"),
}


def ask(path: Path, purpose: str) -> str:
    """Ask the process of a run to stop (with a checkpoint), pause or continue. Does not wait for that."""
    from engine.jobs import spawn

    reader, (number, words) = RunReader(path), SIGNALS[purpose]
    try:
        spawn.request(reader, number, purpose)
    except RunError as error:  # it speaks of the run by its id, as the command line does
        raise RunError(str(error).replace(f"run {reader.id}", called(reader), 1)) from None
    return words.format(called(reader))


def resume(path: Path, data_dir: Path | None = None) -> str:
    """Start a process that goes on from the last checkpoint of a run, or with a transfer job; wait until it has it.

    `data_dir`: where datasets lie, if not in the user's own folder.
    """
    reader = RunReader(path)
    status = reader.status()
    if status.state not in RESUMABLE:
        raise RunError(f"{called(reader)} is {status.state}: nothing to resume")
    from engine.jobs import spawn  # not for the console's start
    from engine.study.schedule import inputs
    from engine.worker import runner_of

    tasks, remark = runner_of(reader).tasks(reader), reader.other_data(data_dir)
    try:
        inputs.check_run(tasks, reader.device, data_dir)
    except LregError as error:
        raise RunError(*str(error).splitlines(), *([remark] if remark else [])) from None
    spawn.start_detached(reader, data_dir=data_dir)
    return f"{called(reader)} goes on" + (f"; {remark}" if remark else "")


def check_name(name: str) -> None:
    if len(name) > LONGEST_NAME:
        raise RunError(f"name: found {len(name)} characters; allowed: at most {LONGEST_NAME}")


def rename(path: Path, name: str) -> str:
    """Give a run another name; an empty one brings back its own. The folder and the id stay."""
    name, before = name.strip(), called(RunReader(path))
    check_name(name)
    note(path, replace(notes.read(path), name=name))
    return f"{before} is now called {called(RunReader(path))}"


def tags_after(existing: Iterable[str], words: str) -> tuple[str, ...]:
    """Tags with those of `words` added, and taken away where a word has a minus: "paper -draft", "paper, baseline".

    Raises RunError where that makes too many, or one is too long.
    """
    tags = dict.fromkeys(existing)
    for word in filter(None, BETWEEN_TAGS.split(words)):
        if len(word) > LONGEST_NAME:
            raise RunError(f"tags: found one of {len(word)} characters; allowed: at most {LONGEST_NAME}")
        if word.startswith("-"):
            tags.pop(word[1:], None)
        else:
            tags[word] = None
    if len(tags) > MOST_TAGS:
        raise RunError(f"tags: found {len(tags)}; allowed: at most {MOST_TAGS}")
    return tuple(tags)


def tag(path: Path, words: str) -> str:
    """Add and take away tags: "paper -draft". Those of its preset stay."""
    remarks = notes.read(path)
    tags = tags_after(remarks.tags, words)
    note(path, replace(remarks, tags=tags))
    return f"tags of {called(RunReader(path))}: {', '.join(tags) or 'none'}"


def pin(path: Path, pinned: bool) -> str:
    """Keep a run at the top of lists, or no longer."""
    note(path, replace(notes.read(path), pinned=pinned))
    return f"{called(RunReader(path))} is {'pinned' if pinned else 'no longer pinned'}"


def called(reader: RunReader) -> str:
    """What people call a run. From strangers: clean it before it is shown."""
    return notes.read(reader.path).name or str(reader.facts.get("name") or reader.id)


def note(path: Path, remarks: Notes) -> None:
    try:
        notes.write(path, remarks)
    except OSError as error:
        raise RunError(f"{path / notes.FILE}: cannot be written: {error.strerror}") from None


FOLDER = ".trash"
LOCK = ".lock"
GONE = "gone-"  # begins the name of a folder that is being deleted for good


class Trash:
    """Of one console; for one thread at a time. All but `is_empty` waits for the disk."""

    def __init__(self, root: Path) -> None:
        """`root`: the run store."""
        self.root = root
        self._folder = root / FOLDER / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._steps: list[int] = []  # what can be undone, the last one last: deletions, and changes of notes
        self._notes: dict[int, dict[Path, Notes]] = {}  # as they were before
        self._count = 0
        self._lock: int | None = None

    @property
    def is_empty(self) -> bool:
        return not self._steps

    def begin(self) -> int:
        """The number of a new step, of as many runs as are put or changed under it."""
        self._count += 1
        return self._count

    def put(self, path: Path, deletion: int) -> str:
        """Take a run's folder out of the store, whole. Refuses one that a process is at. Returns a line to tell."""
        reader = RunReader(path)
        name = called(reader)
        if not path.is_dir():
            raise RunError(f"{name} is gone already")
        if path.is_symlink():
            raise RunError(f"{name} is a link to {path.readlink()}: delete that, or the link, yourself")
        if (state := reader.state) in LIVE:
            raise RunError(f"{name} is {state}: stop it first")
        if reader.is_held:
            raise RunError(f"{name} is {state}, but a process still holds it: wait for its end")
        target = self._folder / f"{deletion:06d}" / path.relative_to(self.root)
        try:
            self._open()
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, target)
            if is_locked(target / LOCK):  # somebody has resumed it in this very moment
                os.rename(target, path)
                raise RunError(f"{name} has just been resumed: stop it first")
        except OSError as error:
            raise RunError(f"{error.filename or path}: cannot be deleted: {error.strerror}") from None
        self._note(deletion)
        return f"deleted {name}; {key_of('undo')} brings it back"

    def change(self, path: Path, step: int, change: Callable[[], str]) -> str:
        """Change the notes of a run so that it can be undone. Returns the line that the change tells."""
        before = notes.read(path)
        line = change()
        self._notes.setdefault(step, {})[path] = before
        self._note(step)
        return line

    def _note(self, step: int) -> None:
        if step not in self._steps:
            self._steps.append(step)

    def undo(self) -> list[Path]:
        """Take the last step back: its runs are where they were, or called and tagged so. Raises RunError if not."""
        if not self._steps:
            return []
        if (before := self._notes.get(self._steps[-1])) is not None:
            for path, remarks in before.items():
                note(path, replace(notes.read(path), name=remarks.name, tags=remarks.tags))
            self._steps.pop()
            return list(before)
        folder, back = self._folder / f"{self._steps[-1]:06d}", []
        for path in list(_runs_in(folder)):
            target = self.root / path.relative_to(folder)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(path, target)  # fails where there is a folder with anything in it
            except OSError as error:
                raise RunError(f"{target}: cannot be brought back: {error.strerror}") from None
            back.append(target)
        self._steps.pop()
        return back

    def take_over(self) -> int:
        """Make the deletions of consoles that were killed one's own, to be undone; return how many runs that is."""
        count = 0
        with contextlib.suppress(OSError):  # a store that cannot be written, or another console that was faster
            for folder in sorted((self.root / FOLDER).iterdir()):
                if folder.name.startswith(GONE):
                    shutil.rmtree(folder, ignore_errors=True)
                elif folder.is_dir() and not folder.is_symlink() and not is_locked(folder / LOCK):
                    count += self._take_over(folder)
        return count

    def _take_over(self, folder: Path) -> int:
        self._open()
        count, numbers = 0, []
        for deletion in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
            if runs := sum(1 for _ in _runs_in(deletion)):  # none where that has been undone
                count += runs
                numbers.append(self.begin())
                os.rename(deletion, self._folder / f"{numbers[-1]:06d}")
        self._steps[:0] = numbers  # before what has been deleted since
        shutil.rmtree(folder, ignore_errors=True)
        return count

    def empty(self) -> None:
        """Delete for good what is there, as far as that can be done."""
        self._steps.clear()
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            gone = self._folder.with_name(f"{GONE}{self._folder.name}")
            os.rename(self._folder, gone)  # in one step: nobody takes half of a run for a whole
            shutil.rmtree(gone, ignore_errors=True)
            os.rmdir(self.root / FOLDER)  # the last one
        os.close(self._lock)
        self._lock = None

    def _open(self) -> None:
        """Make the folder, and hold it. Raises OSError."""
        if self._lock is None:
            if (self.root / FOLDER).is_symlink():
                raise RunError(f"{self.root / FOLDER}: a link; nothing is moved there")
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _runs_in(deletion: Path) -> Iterator[Path]:
    """The folders of one deletion, of whatever kind."""
    homes = [kind.home for kind in KINDS.values()]
    for folder in (deletion / home for home in homes):
        if folder.is_dir() and not folder.is_symlink():
            yield from sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in homes)
