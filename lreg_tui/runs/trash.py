"""Trash: where deleted runs wait until the console ends, and former names and tags, so that the last change is undone.

A folder of every console's own below the run store, .trash/CONSOLE/DELETION/ID (of a transfer job: .../.transfers/ID):
on the same file system, so that a run goes and comes back in one step, and in no place where runs are looked for. A
lock in it tells whether its console lives. What a console has left that was killed is taken over by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from engine.base.errors import RunError
from engine.base.files import is_locked
from engine.base.status import LIVE
from engine.runs import notes
from engine.runs.kinds import KINDS
from engine.runs.notes import Notes
from engine.runs.reader import RunReader
from lreg_tui.runs import actions
from lreg_tui.runs.actions import called
from lreg_tui.system.keys import key_of

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
                actions.note(path, replace(notes.read(path), name=remarks.name, tags=remarks.tags))
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
