"""Rooms: which files import which, what is wrong with that, and a picture of it.

The order of the rooms stands in pyproject.toml from the ground up, the console above the engine: a file imports only
from rooms below its own, or from its own room, and nowhere in a circle. Every import counts, also one in a function or
for the type checker.
`python tests/rooms.py` draws docs/rooms.svg.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import tomli

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
PACKAGES = ("engine", "lreg_tui")

Imports = dict[str, set[str]]
"""The modules that each module imports."""

COLOURS = {"engine": 'fill="#eef3f8" stroke="#7a94b0"', "lreg_tui": 'fill="#fbf3e4" stroke="#b8935a"'}


def order() -> list[str]:
    """Every room from the ground up by its dotted name: those of the engine, then those of the console."""
    stated = tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["lreg"]
    return [f"engine.{room}" for room in stated["rooms"]] + [f"lreg_tui.{room}" for room in stated["console_rooms"]]


def sources(root: Path = ROOT) -> dict[str, str]:
    """The source of every module, by its dotted name."""
    names = {}
    for path in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return names


def imports(modules: Mapping[str, str]) -> Imports:
    """Every import of one of the modules by another, wherever it stands in the file.

    A package's `__init__` counts only where a name of its own is taken from it.
    """
    return {name: set(_imported(name, source, modules)) - {name} for name, source in modules.items()}


def _imported(name: str, source: str, modules: Mapping[str, str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(name, node, modules)
            for alias in node.names:
                if f"{base}.{alias.name}" in modules:
                    yield f"{base}.{alias.name}"
                elif base in modules:
                    yield base


def _absolute(name: str, node: ast.ImportFrom, modules: Mapping[str, str]) -> str:
    """The module that a `from` names; a relative one counts from the package of the file."""
    if not node.level:
        return node.module or ""
    is_package = any(other.startswith(f"{name}.") for other in modules)
    parts = name.split(".")
    package = parts[: len(parts) - node.level + is_package]
    return ".".join([*package, *([node.module] if node.module else [])])


def room_of(module: str, rooms: list[str]) -> str | None:
    """The innermost room that a module lies in; None for what lies in none."""
    inside = [room for room in rooms if f"{module}.".startswith(f"{room}.")]
    return max(inside, key=len, default=None)


def upward(graph: Imports, rooms: list[str]) -> list[str]:
    """Imports of a room by one below it, and of the console by the engine.

    A package's files in no room stand on its roof: none of its rooms may import them. The console's `__init__` holds
    the version alone and stands on the ground.
    """
    wrong = []
    for module, imported in sorted(graph.items()):
        floor = _floor(module, rooms)
        for other in sorted(imported - {"lreg_tui"}):
            if _floor(other, rooms) > floor:
                both = [f"{name} ({room_of(name, rooms) or 'no room'})" for name in (module, other)]
                wrong.append(" imports ".join(both))
    return wrong


def _floor(module: str, rooms: list[str]) -> tuple[int, float]:
    """How high a module stands: the package, then the room."""
    room = room_of(module, rooms)
    return PACKAGES.index(module.partition(".")[0]), math.inf if room is None else rooms.index(room)


def between_folders(graph: Imports) -> Imports:
    """Which folder imports which: a package's sub-folders by name, what lies flat in it by the file's own."""
    folders = {module: _folder(module) for module in graph}
    merged: Imports = {folder: set() for folder in folders.values()}
    for module, imported in graph.items():
        merged[folders[module]] |= {_folder(other) for other in imported} - {folders[module]}
    return merged


def _folder(module: str) -> str:
    return ".".join(module.split(".")[:2])


def circles(graph: Imports) -> list[list[str]]:
    """Modules that import each other, directly or through others: one sorted list for each knot of them."""
    reach = {module: _reachable(module, graph) for module in graph}
    knots = {frozenset(other for other in reach[m] if m in reach[other]) for m in graph if m in reach[m]}
    return sorted(sorted(knot) for knot in knots)


def _reachable(module: str, graph: Imports) -> set[str]:
    reached: set[str] = set()
    front = [module]
    while front:
        new = graph.get(front.pop(), set()) - reached
        reached |= new
        front += new
    return reached


def draw() -> str:
    """The rooms as floors of a house, with what they are for, and how many files and lines they hold."""
    rooms, modules = order(), sources()
    height, width = 34, 860
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height * len(rooms) + 16}" '
        'font-family="sans-serif" font-size="13">'
    ]
    for floor, room in enumerate(reversed(rooms)):
        inside = [source for name, source in modules.items() if room_of(name, rooms) == room]
        summary = (ast.get_docstring(ast.parse(modules[room])) or "").partition("\n")[0]
        package, _, name = room.partition(".")
        y = 8 + floor * height
        size = f"{len(inside)} files, {sum(source.count(chr(10)) for source in inside)} lines"
        lines += [
            f'<rect x="8" y="{y}" width="{width - 16}" height="{height - 4}" rx="3" {COLOURS[package]}/>',
            f'<text x="18" y="{y + 20}" font-weight="bold">{escape(name)}</text>',
            f'<text x="150" y="{y + 20}">{escape(summary)}</text>',
            f'<text x="{width - 20}" y="{y + 20}" text-anchor="end" fill="#556">{size}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw())
