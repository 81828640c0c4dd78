"""The lines of a TOML document: where tables and keys stand. Comments that hold a header or a key are known, too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Key = str | int
HEADER = re.compile(r"\s*\[{1,2}([^\[\]]+)\]{1,2}\s*(#.*)?$")
COMMENTED_HEADER = re.compile(r"#\s*\[{1,2}([\w.-]+)\]{1,2}\s*$")
COMMENTED_KEY = re.compile(r"#\s*([\w-]+)\s*=[^#]+#")  # as `lreg preset new` writes them, with their help behind


@dataclass(frozen=True)
class Section:
    """The lines of one table: from its header (the top has none) to the next header."""

    path: tuple[Key, ...]
    start: int
    stop: int
    is_commented: bool = False

    @property
    def body(self) -> int:
        return self.start + 1 if self.path else self.start


def sections_of(text: str) -> Iterator[Section]:
    """The tables as they are written, commented ones too. Long strings may fool it: results are checked."""
    lines = text.split("\n")
    counts: dict[tuple[str, bool], int] = {}
    found: list[tuple[tuple[Key, ...], int, bool]] = [((), 0, False)]
    for index, line in enumerate(lines):
        live, commented = HEADER.match(line), COMMENTED_HEADER.match(line)
        match = live or commented
        if match is None:
            continue
        name = match.group(1)
        path: tuple[Key, ...] = tuple(part.strip().strip("\"'") for part in name.split("."))
        if line.lstrip("# \t").startswith("[["):
            counts[name, live is None] = counts.get((name, live is None), -1) + 1
            path = (*path, counts[name, live is None])
        found.append((path, index, live is None))
    stops = [start for _, start, _ in found[1:]] + [len(lines)]
    for (path, start, is_commented), stop in zip(found, stops, strict=True):
        yield Section(path, start, stop, is_commented)


def of_path(sections: Sequence[Section], path: Sequence[Key], is_commented: bool = False) -> list[Section]:
    wanted = (tuple(path), ("task", 0)) if tuple(path) == ("task",) else (tuple(path),)
    return [section for section in sections if section.path in wanted and section.is_commented == is_commented]


def end_of_keys(lines: Sequence[str], section: Section) -> int:
    """The line behind the last key of a table; of a table without keys, behind its header, or the first comments."""
    stop = section.stop
    for index in reversed(range(section.body, stop)):
        if lines[index].strip() and not lines[index].lstrip().startswith("#"):
            return index + 1
    place = section.body
    while not section.path and place < stop and lines[place].lstrip().startswith("#"):
        place += 1
    return section.body if place == stop else place  # comments that touch a header are about its table


def line_of(text: str, path: str) -> int | None:
    """The line (from 0) where a key path stands, or the header of the nearest table above it; None if there is none."""
    keys: tuple[Key, ...] = tuple(int(key) if key.isdecimal() else key for key in path.split("."))
    lines, sections = text.split("\n"), list(sections_of(text))
    for depth in range(len(keys), -1, -1):
        for section in of_path(sections, keys[:depth]):
            rest = [re.escape(str(key)) for key in keys[depth:]]
            if not rest:
                return section.start
            for length in range(len(rest), 0, -1):
                pattern = re.compile(r"\s*" + r"\s*\.\s*".join(rest[:length]) + r"\s*[=.]")
                for index in range(section.body, section.stop):
                    if pattern.match(lines[index]):
                        return index
            if depth:
                return section.start
    return None
