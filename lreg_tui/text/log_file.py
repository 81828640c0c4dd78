"""The end of a log that somebody else writes: whole lines of plain text, capped, read as it grows."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from engine.base.files import open_to_read
from lreg_tui.text import present
from lreg_tui.text.present import clean

LARGEST_READ = 2**18  # bytes: what a log has gained beyond that is passed over
LONGEST_LINE = 2000
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|.)?")


STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z ")  # as it is written: in UTC
LOCAL_STAMP = re.compile(r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d \S+ ")  # as it is shown


def plain(line: str) -> str:
    """A line as text: no escape codes, tabs as spaces, and of a line that was written over only what was left of it."""
    without = ESCAPES.sub("", line.rstrip("\r\n"))
    return clean(without.rpartition("\r")[2].expandtabs(), LONGEST_LINE)


def with_local_time(line: str) -> str:
    """A line whose time stamp is by the reader's clock, with its zone."""
    if (stamp := STAMP.match(line)) is None:
        return line
    local = _local(stamp[1])
    return f"{local} {line[stamp.end() :]}" if local else line


@lru_cache(maxsize=2**14)  # logs of so many lines are looked at again and again
def _local(written: str) -> str:
    try:
        return present.local_time(datetime.fromisoformat(f"{written}+00:00").timestamp())
    except (ValueError, OverflowError, OSError):  # a stranger's: no such time
        return ""


def with_short_time(line: str) -> str:
    """As `with_local_time`, without the date."""
    local = with_local_time(line)
    return local if local == line else local.partition(" ")[2]


LEVELS = ("everything", "warnings and errors", "errors")
WARNING = re.compile(r"\w*warning\b|broken off|crashed|diverged|skipped|\S+ gets no more|waiting for", re.IGNORECASE)
ERROR = re.compile(r"(traceback|failed|fatal|\w*error|\w*exception)\b", re.IGNORECASE)
OF_TRACEBACK = re.compile(r"Traceback|\s|$")


def levels(lines: Iterable[str]) -> list[int]:
    """What each line of a log is: 0 plain, 1 a warning, 2 an error, with all of its traceback."""
    told, is_within = [], False
    for line in lines:
        stamp = STAMP.match(line)
        words = line[stamp.end() :] if stamp else line
        told.append(2 if is_within or ERROR.match(words) else int(WARNING.search(words) is not None))
        is_within = OF_TRACEBACK.match(words) is not None and (is_within or words.startswith("Traceback"))
    return told


@dataclass(frozen=True)
class LogContents:
    """What a log holds: its last lines, oldest first, and how many went at the top since the look before."""

    lines: tuple[str, ...]
    gone: int


class LogFile:
    """Reads a log's end, then what it gains. One reader belongs to one thread at a time."""

    def __init__(self, path: Path, most_lines: int = 1000) -> None:
        self.path = path
        self._lines: deque[str] = deque(maxlen=most_lines)
        self._torn = b""  # the last line, without its end yet
        self._offset = 0
        self._inode = 0
        self._gone = 0

    def look(self) -> LogContents | None:
        """What is there now; None if that is what was there before. A log that cannot be read is an empty one."""
        before, self._gone = (self._inode, self._offset), 0
        try:
            with open_to_read(self.path, self.path.parent) as log:
                self._read(log.fileno())
        except OSError:
            self._start_over(0, 0)
        if (self._inode, self._offset) == before:
            return None
        torn = (plain(self._torn.decode(errors="replace")),) if self._torn else ()
        return LogContents((*self._lines, *torn), self._gone)

    def _read(self, handle: int) -> None:
        file_stat = os.fstat(handle)
        if file_stat.st_ino != self._inode or file_stat.st_size < self._offset:
            self._start_over(file_stat.st_ino, 0)
        if file_stat.st_size - self._offset > LARGEST_READ:
            self._start_over(file_stat.st_ino, file_stat.st_size - LARGEST_READ)
        starts_within = self._offset > 0 and not self._lines and not self._torn
        data = self._torn + os.pread(handle, file_stat.st_size - self._offset, self._offset)
        self._offset = file_stat.st_size
        *whole, self._torn = data.split(b"\n")
        for line in whole[1:] if starts_within else whole:
            self._gone += len(self._lines) == self._lines.maxlen
            self._lines.append(plain(line.decode(errors="replace")))

    def _start_over(self, inode: int, offset: int) -> None:
        self._inode, self._offset, self._torn = inode, offset, b""
        self._gone += len(self._lines)
        self._lines.clear()


def last_lines(path: Path, count: int) -> tuple[str, ...]:
    """The last lines of a log that say something."""
    contents = LogFile(path, most_lines=10 * count).look()
    return tuple(line for line in contents.lines if line.strip())[-count:] if contents is not None else ()
