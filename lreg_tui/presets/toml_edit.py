"""Edits of a TOML document that leave everything else as its author wrote it: comments, order, spacing.

tomlkit does them; here is said where a new key goes, which tomlkit puts behind the comments of the next table.
Whatever came of an edit is parsed and compared with what was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import tomli
import tomli_w

from engine.base.errors import LregError
from engine.base.settings import Typed, show
from engine.presets.catalog import NAMED_TABLES

Key = str | int
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
    from tomlkit import dumps
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import AoT, Table

    try:
        document = _document(text)
        for number, path in enumerate(paths):
            keys = keys_of(path, document)
            items = (_item(document, keys[:depth]) for depth in range(len(keys), 0, -1))
            item = next((item for item in items if item is not None), None)
            while isinstance(item, AoT) or (isinstance(item, Table) and item.is_super_table()):
                item = item[0] if isinstance(item, AoT) else next(iter(item.value.values()))
            if item is not None:
                item.trivia.indent = f"\0{number}\0{item.trivia.indent}"  # a sign that no document has
        marked = dumps(document)
    except (TOMLKitError, AttributeError, LookupError, TypeError, StopIteration, RecursionError):
        return {}
    heads = {path: marked.partition(f"\0{number}\0")[0] for number, path in enumerate(paths)}
    return {path: head.count("\n") for path, head in heads.items() if head != marked}


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


def _item(document: Any, keys: Sequence[Key]) -> Any:
    """What stands at a key path as tomlkit has it, true and false too; or None."""
    from tomlkit.items import Table

    item, parent = at(document, keys), at(document, keys[:-1])
    if not isinstance(item, bool):
        return item
    table: Any = parent.value if isinstance(parent, Table) else parent
    return table.item(keys[-1])


def _spaced(text: str, added: str) -> str:
    """The text with a block at its end, one blank line apart."""
    kept = text.rstrip()
    return f"{kept}\n\n{added}\n" if kept else f"{added}\n"


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
    import tomlkit
    from tomlkit.items import Table, Whitespace

    name = ".".join(map(str, keys[:-1]))
    if at(parse(text), keys[:-1]) is None:  # its header may stand there as a comment
        text = re.sub(rf"(?m)^#\s*(\[{re.escape(name)}\])\s*$", r"\1", text, count=1)
    document = _document(text)
    table = at(document, keys[:-1])
    if isinstance(table, Table) and table.is_super_table():  # only tables below it are written: it goes above them
        lines = text.split("\n")
        first = lines_of(text, [name])[name]
        while first and lines[first - 1].startswith("#"):
            first -= 1
        return "\n".join([*lines[:first], f"[{name}]", f"{keys[-1]} = {raw}", "", *lines[first:]])
    if table is None:
        return _spaced(text, f"[{name}]\n{keys[-1]} = {raw}")
    body = (table.value if isinstance(table, Table) else table).body
    line = _document(f"{keys[-1]} = {raw}\n")
    place = next((place for place, (_, item) in enumerate(body) if _commented(item) == keys[-1]), None)
    if place is None:
        is_key = [key is not None and (key.is_dotted() or not isinstance(item, Table)) for key, item in body]
        place = len(is_key) - is_key[::-1].index(True) if True in is_key else _above(body)
        if table is document and place < len(body) and not isinstance(body[place][1], Whitespace):
            line.add(tomlkit.nl())
    else:
        line = _document(body.pop(place)[1].trivia.comment.lstrip("# "))
        line[keys[-1]] = _document(f"value = {raw}")["value"]
    body[place:place] = line.body
    return tomlkit.dumps(document)


def _commented(item: Any) -> str:
    """The key that a comment holds; "" for none."""
    from tomlkit.items import Comment

    match = COMMENTED_KEY.match(item.trivia.comment) if isinstance(item, Comment) else None
    return match.group(1) if match else ""


def _above(body: Sequence[Any]) -> int:
    """Where the first key of a document goes: behind comments that stand apart, which are about the whole."""
    from tomlkit.items import Comment, Whitespace

    comments = next((place for place, (_, item) in enumerate(body) if not isinstance(item, Comment)), 0)
    return comments if comments < len(body) and isinstance(body[comments][1], Whitespace) else 0


def _removed(text: str, keys: Sequence[Key]) -> str:
    """Comments behind the last key of a table that goes stay."""
    import tomlkit
    from tomlkit.items import Comment, Table, Whitespace

    document = _document(text)
    parent = at(document, keys[:-1])
    item = parent[keys[-1]]
    if isinstance(item, Table) and not item.is_super_table():
        body = (parent.value if isinstance(parent, Table) else parent).body
        place = next(place for place, (_, other) in enumerate(body) if other is item)
        kept = list(item.value.body)
        while kept and not isinstance(kept[0][1], Comment) or any(key for key, _ in kept):
            del kept[0]
        while kept and isinstance(kept[0][1], Whitespace):
            del kept[0]
        del parent[keys[-1]]
        body[place : place + 1] = kept
    else:
        del parent[keys[-1]]
    rest = tomlkit.dumps(document).rstrip("\n")
    return f"{rest}\n" if rest else ""
