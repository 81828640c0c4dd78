"""Edits of a TOML document that leave everything else as its author wrote it: comments, order, spacing.

tomlkit replaces values. Keys and tables come and go line by line, as it takes the comments above a table for the end of
the one before. Whatever came of an edit is parsed and compared with what was asked for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import tomli
import tomli_w

from engine.base.errors import LregError
from engine.base.settings import Typed, show
from engine.presets.catalog import NAMED_TABLES

Key = str | int
HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
KEY = re.compile(r"\s*([\w.-]+)\s*=")
COMMENTED_KEY = re.compile(r"#\s*([\w-]+)\s*=[^#]+#")  # as `lreg preset new` writes them, with their help behind


class EditError(LregError):
    """An edit that this document does not allow."""


def parse(text: str) -> dict[str, Any]:
    """The tables of a document. Raises EditError where it is no TOML."""
    try:
        return tomli.loads(text)
    except (ValueError, RecursionError) as error:
        raise EditError(f"no valid TOML: {error}") from None


def toml_of(value: Any) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_of(item) for item in value) + "]"
    return tomli_w.dumps({"x": value}).partition("=")[2].strip()


def number(text: str) -> Any:
    """An int or a float, as it was typed; what is none stays text, for the check to complain about."""
    for kind in (int, Typed):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def at(tables: Any, path: Sequence[Key]) -> Any:
    """What stands at a key path, or None."""
    for key in path:
        try:
            tables = tables[key]
        except (LookupError, TypeError):
            return None
    return tables


def keys_of(path: str, tables: Any) -> tuple[Key, ...]:
    """ "task.1.dataset" as keys; the lone task of a document that writes [[task]] is its first one."""
    keys: list[Key] = [int(key) if key.isdecimal() else key for key in path.split(".")]
    is_list = isinstance(at(tables, ["task"]), list)
    if keys[0] == "task" and len(keys) == 2 and is_list:
        keys.insert(1, 0)
    elif keys[:2] == ["task", 0] and not is_list:
        del keys[1]
    return tuple(keys)


def set_value(text: str, path: str, raw: str) -> str:
    """The document with another value at a key path; `raw` is the value as TOML, and is written as it stands."""
    after = parse(text)
    keys = keys_of(path, after)
    is_new = at(after, keys) is None
    _assign(after, keys, parse(f"value = {raw}")["value"])
    ways = [lambda: _inserted(text, keys, raw)] if is_new else []
    return first_right(after, [*ways, lambda: _assigned(text, keys, raw)], path)


def remove(text: str, path: str) -> str:
    """The document without a key or table, and the comments around it kept."""
    after = parse(text)
    keys = keys_of(path, after)
    if at(after, keys) is None:
        return text
    del at(after, keys[:-1])[keys[-1]]
    return first_right(after, [lambda: _removed(text, keys)], path)


def add_table(text: str, path: str) -> str:
    """The document with a new, empty table at its end."""
    after = parse(text)
    _assign(after, path.split("."), {})
    return first_right(after, [lambda: _spaced(text, f"[{path}]")], path)


def lines_of(text: str, paths: Sequence[str]) -> dict[str, int]:
    """The line (from 0) of each key path, or of the nearest table above it; without those that have neither."""
    try:
        names, tables = _places(text), parse(text)
    except EditError:
        return {}
    lines = {}
    for path in paths:
        keys = list(map(str, keys_of(path, tables)))
        above = [".".join(keys[:depth]) for depth in range(len(keys), 0, -1)]
        below = [name for name in names if name.startswith(f"{above[-1]}.")]  # of a table that has no header itself
        if name := next((name for name in [*above, *below] if name in names), ""):
            lines[path] = names[name]
    return lines


def _places(text: str) -> dict[str, int]:
    """The lines on which keys and tables stand, by path."""
    places: dict[str, int] = {}
    counts: Counter[str] = Counter()
    table = ""
    for number, line in enumerate(text.split("\n")):
        if header := HEADER.match(line):
            table = header[2]
            if header[1] == "[[":
                counts[table] += 1
                table = f"{table}.{counts[table] - 1}"
            places.setdefault(table, number)
        elif key := KEY.match(line):
            places.setdefault(f"{table}.{key[1]}" if table else key[1], number)
    return places


def first_right(after: Any, ways: Sequence[Callable[[], str]], path: str) -> str:
    """The result of the first way that gives a document of these tables."""
    from tomlkit.exceptions import TOMLKitError

    for way in ways:
        try:
            result = way()
            if _comparable(parse(result)) == _comparable(after):
                return result
        except (LregError, ValueError, LookupError, TypeError, AttributeError, TOMLKitError):
            continue  # a form that this way does not know
    raise EditError(
        f"{show(path)[1:-1]} cannot be changed from here: its table is written in another form; edit the TOML"
    )


def _comparable(values: dict[str, Any]) -> str:
    """Equal for equal documents: 1 is not 1.0 there, nan is nan, and an empty table at the top, or one for members in
    a table there, is as good as none."""
    tables = {key: _without_empty(key, value) for key, value in values.items()}
    return json.dumps({key: value for key, value in tables.items() if value != {}}, sort_keys=True, default=str)


def _without_empty(name: str, table: Any) -> Any:
    """A table without the empty ones in it that are for members."""
    if not isinstance(table, dict):
        return table
    return {key: value for key, value in table.items() if value != {} or f"{name}.{key}" not in NAMED_TABLES}


def _assign(tables: Any, keys: Sequence[Key], value: Any) -> None:
    for key in keys[:-1]:
        if isinstance(tables, dict):
            tables.setdefault(key, {})
        tables = at(tables, [key])
        if not isinstance(tables, (dict, list)):
            raise EditError(f"{'.'.join(map(str, keys))} cannot be set here: this document has no table for it")
    tables[keys[-1]] = value


def _document(text: str) -> Any:
    import tomlkit

    return tomlkit.parse(text if text.endswith("\n") or not text else f"{text}\n")


def _spaced(text: str, added: str) -> str:
    """The text with a block at its end, one blank line apart."""
    body = text.rstrip()
    return f"{body}\n\n{added}\n" if body else f"{added}\n"


def _assigned(text: str, keys: Sequence[Key], raw: str) -> str:
    """Another value, or a new key in a table of a rarer form: inline, or spelt with dots."""
    import tomlkit

    document = _document(text)
    node = document
    for key in keys[:-1]:
        if isinstance(key, str) and key not in node:
            node[key] = tomlkit.table()
        node = node[key]
    node[keys[-1]] = _document(f"value = {raw}")["value"]
    return tomlkit.dumps(document)


def _inserted(text: str, keys: Sequence[Key], raw: str) -> str:
    """A new line behind the last key of its table, or where the key stands as a comment; or a new table at the end."""
    name, line = ".".join(map(str, keys[:-1])), f"{keys[-1]} = {raw}"
    if at(parse(text), keys[:-1]) is None:  # its header may stand there as a comment
        text = re.sub(rf"(?m)^#\s*(\[{re.escape(name)}\])\s*$", r"\1", text, count=1)
    lines, places = text.split("\n"), _places(text)
    if name and name not in places:
        first = min((number for path, number in places.items() if path.startswith(f"{name}.")), default=None)
        if first is None:
            return _spaced(text, f"[{name}]\n{line}")
        while first and lines[first - 1].startswith("#"):  # only tables below it are written: it goes above them
            first -= 1
        return "\n".join([*lines[:first], f"[{name}]", line, "", *lines[first:]])
    body = _body(lines, places[name] + 1 if name else 0)
    for number in body:
        if (comment := COMMENTED_KEY.match(lines[number])) and comment[1] == keys[-1]:
            lines[number] = f"{line} #{lines[number].partition('=')[2].partition('#')[2]}"
            return "\n".join(lines)
    last = _last(lines, body)
    if last is None and not name:  # behind comments that stand apart, which are about the whole
        start = next((number for number in body if not lines[number].startswith("#")), len(lines))
        last = start if 0 < start < len(lines) - 1 and not lines[start].strip() else -1
        line += "\n" if len(lines) > 1 else ""
    last = body.start - 1 if last is None else last
    return "\n".join([*lines[: last + 1], line, *lines[last + 1 :]])


def _body(lines: Sequence[str], first: int) -> range:
    """The lines from one on, up to the next header."""
    headers = (number for number in range(first, len(lines)) if HEADER.match(lines[number]))
    return range(first, next(headers, len(lines)))


def _last(lines: Sequence[str], body: range) -> int | None:
    """The last line of a table that says something."""
    return next((number for number in reversed(body) if lines[number].strip().partition("#")[0]), None)


def _removed(text: str, keys: Sequence[Key]) -> str:
    """Comments behind the last key of a table that goes stay."""
    import tomlkit

    lines, header = text.split("\n"), _places(text).get(".".join(map(str, keys)))
    if header is not None and HEADER.match(lines[header]):
        body = _body(lines, header + 1)
        last = _last(lines, body)
        remaining = lines[body.start if last is None else last + 1 :]
        while remaining and not remaining[0].strip():
            del remaining[0]
        return "\n".join([*lines[:header], *remaining]).rstrip("\n") + "\n"
    document = _document(text)
    del at(document, keys[:-1])[keys[-1]]
    text = tomlkit.dumps(document).rstrip("\n")
    return f"{text}\n" if text else ""
