"""What can be done to a run: stop, pause, continue, resume, rename, tag, pin. For deleting it there is a trash.

These wait for disks and processes, so the console calls them off its loop (acting.py does, with keys and
questions). Each takes a run's folder and returns a line to tell; what is the user's to mend is raised as LregError.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from engine.base.errors import RunError
from engine.runs import notes
from engine.runs.notes import LONGEST_NAME, MOST_TAGS, Notes
from engine.runs.store import RunReader
from lreg_tui.system.keys import key_of

BETWEEN_TAGS = re.compile(r"[\s,;]+")
RESUMABLE = ("stopped", "failed", "crashed")


def stop(path: Path) -> str:
    """Ask a run to finish its truncation, write a checkpoint and end. Does not wait for that."""
    reader = RunReader(path)
    _signal(reader, signal.SIGTERM, "stop")
    return f"stopping {called(reader)}: it writes a checkpoint first"


def pause(path: Path) -> str:
    """Ask a running run to rest. Does not wait for that."""
    reader = RunReader(path)
    _signal(reader, signal.SIGUSR1, "pause")
    return f"pausing {called(reader)}; {key_of('pause')} continues"


def go_on(path: Path) -> str:
    """Ask a run that rests to continue. Does not wait for that."""
    reader = RunReader(path)
    _signal(reader, signal.SIGUSR2, "continue")
    return f"{called(reader)} goes on"


def resume(path: Path, data_dir: Path | None = None) -> str:
    """Start a process that goes on from the last checkpoint of a run, or with a transfer job; wait until it has it.

    `data_dir`: where datasets lie, if not in the user's own folder.
    """
    reader = RunReader(path)
    status = reader.status()
    if status.state not in RESUMABLE:
        raise RunError(f"{called(reader)} is {status.state}: nothing to resume")
    from lreg_tui.system import launch  # the engine's jobs: not for the console's start

    launch.check_resumed(reader, data_dir)
    launch.start_detached(reader, data_dir=data_dir)
    remark = reader.other_data(data_dir)
    return f"{called(reader)} goes on" + (f"; {remark}" if remark else "")


def rename(path: Path, name: str) -> str:
    """Give a run another name; an empty one brings back its own. The folder and the id stay."""
    name, before = name.strip(), called(RunReader(path))
    if len(name) > LONGEST_NAME:
        raise RunError(f"name: found {len(name)} characters; allowed: at most {LONGEST_NAME}")
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


def _signal(reader: RunReader, number: signal.Signals, purpose: str) -> None:
    from lreg_tui.system import launch

    try:
        launch.request(reader, number, purpose)
    except RunError as error:  # it speaks of the run by its id, as the command line does
        raise RunError(str(error).replace(f"run {reader.id}", called(reader), 1)) from None


def note(path: Path, remarks: Notes) -> None:
    try:
        notes.write(path, remarks)
    except OSError as error:
        raise RunError(f"{path / notes.FILE}: cannot be written: {error.strerror}") from None
