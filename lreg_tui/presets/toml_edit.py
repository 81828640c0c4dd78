"""Edits of a TOML document that leave everything else as its author wrote it: comments, order, spacing.

A value is replaced by tomlkit. Lines are added and taken away by hand, because tomlkit puts a new key behind the
comments of the next table. Whatever way was taken, the result is parsed and compared with what was wanted.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import tomli
import tomli_w

from engine.base.errors import LregError
from engine.base.settings import show
from lreg_tui.presets.toml_lines import COMMENTED_KEY, Key, end_of_keys, of_path, sections_of


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
    before = parse(text)
    keys = keys_of(path, before)
    wanted = copy.deepcopy(before)
    _assign(wanted, keys, parse(f"value = {raw}")["value"])
    if at(before, keys) is not None:
        return _first_right(text, wanted, [lambda: _replaced(text, keys, raw)], path)
    ways = [lambda: _uncommented(text, keys, raw), lambda: _inserted(text, keys, raw), lambda: _added(text, keys, raw)]
    return _first_right(text, wanted, ways, path)


def remove(text: str, path: str) -> str:
    """The document without a key or table, and the comments around it kept."""
    before = parse(text)
    keys = keys_of(path, before)
    if at(before, keys) is None:
        return text
    wanted = copy.deepcopy(before)
    del at(wanted, keys[:-1])[keys[-1]]
    ways = [lambda: _without_section(text, keys), lambda: _without_line(text, keys), lambda: _deleted(text, keys)]
    return _first_right(text, wanted, ways, path)


def add_table(text: str, path: str) -> str:
    """The document with a new, empty table at its end."""
    wanted = parse(text)
    _assign(wanted, path.split("."), {})
    return _first_right(text, wanted, [lambda: _spaced(text, f"[{path}]")], path)


def _first_right(text: str, wanted: Any, ways: Sequence[Callable[[], str]], path: str) -> str:
    """The result of the first way that gives what was wanted."""
    from tomlkit.exceptions import TOMLKitError

    for way in ways:
        try:
            result = way()
            if _comparable(parse(result)) == _comparable(wanted):
                return result
        except (LregError, ValueError, LookupError, TypeError, AttributeError, TOMLKitError):
            continue  # a form that this way does not know
    raise EditError(
        f"{show(path)[1:-1]} cannot be changed from here: its table is written in another form; edit the TOML"
    )


def _comparable(values: dict[str, Any]) -> str:
    """Equal for equal documents: 1 is not 1.0 there, nan is nan, and an empty table at the top is as good as none."""
    return json.dumps({key: value for key, value in values.items() if value != {}}, sort_keys=True, default=str)


def _assign(tables: Any, keys: Sequence[Key], value: Any) -> None:
    for key in keys[:-1]:
        if isinstance(tables, dict):
            tables.setdefault(key, {})
        tables = at(tables, [key])
        if not isinstance(tables, (dict, list)):
            raise EditError(f"{'.'.join(map(str, keys))} cannot be set here: this document has no table for it")
    tables[keys[-1]] = value


def _replaced(text: str, keys: Sequence[Key], raw: str) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    at(document, keys[:-1])[keys[-1]] = tomlkit.parse(f"value = {raw}")["value"]
    return tomlkit.dumps(document)


def _inserted(text: str, keys: Sequence[Key], raw: str) -> str:
    """A new line behind the last key of its table, or a new table at the end."""
    table, line = keys[:-1], f"{keys[-1]} = {raw}"
    sections = list(sections_of(text))
    found = of_path(sections, table)
    if not found:
        return _spaced(text, f"[{'.'.join(map(str, table))}]\n{line}")
    lines = text.split("\n")
    place = end_of_keys(lines, found[0])
    gap = [""] if not table and place < len(lines) and lines[place].lstrip()[:1] in ("#", "[") else []
    return "\n".join([*lines[:place], line, *gap, *lines[place:]])


def _spaced(text: str, added: str) -> str:
    """The text with a block at its end, one blank line apart."""
    kept = text.rstrip()
    return f"{kept}\n\n{added}\n" if kept else f"{added}\n"


def _uncommented(text: str, keys: Sequence[Key], raw: str) -> str:
    """A key that stands there as a comment comes alive, and with it the header of its table."""
    lines, sections, table = text.split("\n"), list(sections_of(text)), keys[:-1]
    asleep = [] if of_path(sections, table) else of_path(sections, table, is_commented=True)
    found = asleep or of_path(sections, table)
    if not found:
        return text
    section = found[0]
    places = [
        index
        for index in range(section.body, section.stop)
        if (match := COMMENTED_KEY.match(lines[index])) and match.group(1) == keys[-1]
    ]
    if places:
        lines[places[0]] = _replaced(lines[places[0]].lstrip("# "), keys[-1:], raw)
    if asleep:
        lines[section.start] = lines[section.start].lstrip("# ")
        lines[section.body : section.body] = [] if places else [f"{keys[-1]} = {raw}"]
    return "\n".join(lines)


def _added(text: str, keys: Sequence[Key], raw: str) -> str:
    """A new key in a table of a rarer form: inline, or spelt with dots."""
    import tomlkit

    document = tomlkit.parse(text)
    node: Any = document
    for key in keys[:-1]:
        if isinstance(key, str) and key not in node:
            node[key] = tomlkit.table()
        node = node[key]
    node[keys[-1]] = tomlkit.parse(f"value = {raw}")["value"]
    return tomlkit.dumps(document)


def _without_line(text: str, keys: Sequence[Key]) -> str:
    lines = text.split("\n")
    pattern = re.compile(r"\s*" + re.escape(str(keys[-1])) + r"\s*=")
    for section in of_path(list(sections_of(text)), keys[:-1]):
        for index in range(section.body, section.stop):
            if pattern.match(lines[index]):
                return "\n".join([*lines[:index], *lines[index + 1 :]])
    return text


def _without_section(text: str, keys: Sequence[Key]) -> str:
    """The lines of a table go; comments that stand apart behind its last key stay."""
    lines, sections = text.split("\n"), list(sections_of(text))
    found = of_path(sections, keys)
    if not found:
        return text
    stop = end_of_keys(lines, found[0])
    before, after = lines[: found[0].start], lines[stop:]
    while after and not after[0].strip() and (not before or not before[-1].strip()):
        del after[0]
    return "\n".join([*before, *after])


def _deleted(text: str, keys: Sequence[Key]) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    del at(document, keys[:-1])[keys[-1]]
    return tomlkit.dumps(document)
