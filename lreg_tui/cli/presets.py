"""Presets: presets, preset check, preset show, preset new."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.base.errors import LregError, PresetError, Problem
from engine.base.files import read_limited, write_atomic
from engine.base.settings import Setting, schema_of, show
from engine.presets import catalog as catalogs
from engine.presets import preset as engine_preset
from engine.presets.preset import Preset, load_preset
from lreg_tui.cli import output
from lreg_tui.cli.once import SingleValueCommand
from lreg_tui.cli.options import AsJson, Plugins, PresetReference, Sets, complete_preset
from lreg_tui.text import present

app = typer.Typer(help="Check, show and make presets.", no_args_is_help=True, rich_markup_mode=None)


def presets(plugin: Plugins = None, as_json: AsJson = False) -> None:
    """List the shipped presets, and what plug-ins bring."""
    import tomli

    found = {}
    for name, path in engine_preset.shipped().items():
        try:
            found[name] = str(tomli.loads(read_limited(path).decode()).get("description", ""))
        except (OSError, ValueError):
            found[name] = "cannot be read"
    if as_json:
        for name, description in found.items():
            output.emit({"name": name, "description": description})
        for family, names in catalogs.added().items():
            for name in names:
                output.emit({"plugin_member": name, "family": family})
        return
    table = output.grid()
    for name, description in found.items():
        table.add_row(present.text(name, "bold"), present.text(description))
    for family, names in catalogs.added().items():
        table.add_row(present.text(f"{family.replace('_', ' ')} of plug-ins", "bold"), present.text(", ".join(names)))
    output.console().print(table)


@app.command(cls=SingleValueCommand)
def check(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Paths or names of presets.", autocompletion=complete_preset),
    ],
    sets: Sets = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Say "ok", or everything that is wrong (exit code 2)."""
    good = True
    for file in files:
        problems: list[dict[str, str]] = []
        more = 0
        try:
            load_preset(file, sets or ())
        except PresetError as error:
            problems, more = [{"source": error.source, **vars(problem)} for problem in error.problems], error.more
            if not as_json:
                output.complain(error)
        good = good and not problems
        if as_json:
            output.emit({"preset": file, "ok": not problems, "problems": problems, **({"more": more} if more else {})})
        elif not problems:
            print(f"{present.clean(file)}: ok")
    if not good:
        raise typer.Exit(2)


@app.command("show", cls=SingleValueCommand)
def show_preset(preset: PresetReference, sets: Sets = None, plugin: Plugins = None) -> None:
    """Print a preset with every key, as a run would use it."""
    print(present.clean_toml(load_preset(preset, sets or ()).dumps()), end="")


@app.command(cls=SingleValueCommand)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new preset; NAME.toml is written here.")],
    source: Annotated[
        str, typer.Option("--from", metavar="PRESET", help="What it extends.", autocompletion=complete_preset)
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
    plugin: Plugins = None,
) -> None:
    """Write NAME.toml, which extends another preset, with every key to change as a comment."""
    bare = name.removesuffix(".toml")
    file = Path(f"{bare}.toml")
    if file.name != f"{bare}.toml" or not bare.strip(". ") or not bare.isprintable():
        raise PresetError([Problem("", show(name), "a plain file name, without folders")], "preset new")
    parent = load_preset(source)
    extended = engine_preset.find(source)
    is_shipped = extended in engine_preset.shipped().values()
    if extended.resolve() == file.resolve():
        raise PresetError([Problem("--from", show(source), "another preset than the new one")], "preset new")
    text = _child(parent, extended.stem if is_shipped else os.path.relpath(extended))
    if os.path.lexists(file) and not force:
        raise LregError(f"{file}: exists already (--force overwrites it)")
    if os.path.lexists(file) and not file.is_file():
        raise LregError(f"{file}: no ordinary file, so it is not overwritten")
    try:
        write_atomic(file.resolve(), text)
    except OSError as error:
        raise LregError(f"{file}: cannot be written: {error.strerror}") from None
    print(f"{file}: extends {present.clean(source)}; run it with: lreg run {file}")


def _child(parent: Preset, extends: str) -> str:
    """A preset that changes nothing yet: every key of its parent as a comment, with its help."""
    helps = _helps(parent)
    lines = [
        _line("extends", extends),
        "",
        "# Every key below has its value from there. To change one, take away its # and that of its [table].",
        "",
    ]
    values = dict(parent.values)
    tables = {key: values.pop(key) for key in engine_preset.TABLES}
    values.pop("name")
    lines += [_comment(key, value, helps.get(key, "")) for key, value in values.items()]
    for table in ("task", "optimizer", "meta", "evaluation"):
        several = isinstance(tables[table], list) and len(tables[table]) > 1
        for index, entry in enumerate(tables[table] if isinstance(tables[table], list) else [tables[table]]):
            lines += ["", f"# [[{table}]]" if several else f"# [{table}]"]
            prefix = f"task.{index}" if several else table
            lines += [_comment(key, value, helps.get(f"{prefix}.{key}", "")) for key, value in entry.items()]
    for penalty, entry in tables["penalty"].items():
        lines += ["", f"# [penalty.{penalty}]"]
        lines += [_comment(key, value, helps.get(f"penalty.{penalty}.{key}", "")) for key, value in entry.items()]
    return "\n".join(lines) + "\n"


def _helps(preset: Preset) -> dict[str, str]:
    """One line of help for every key of a preset, by its path."""
    from engine.presets.preset import PresetSettings

    catalog = catalogs.load()
    schemas: dict[str, tuple[Setting, ...]] = {"": schema_of(PresetSettings)}
    schemas |= {table: catalog.sections[table] for table in ("meta", "evaluation")}
    schemas["optimizer"] = catalog.learned_optimizers[preset["optimizer"]["kind"]]
    schemas |= {f"penalty.{name}": catalog.penalties[name] for name in preset["penalty"]}
    several = len(preset.tasks) > 1
    for index, task in enumerate(preset.tasks):
        members = catalog.datasets[task["dataset"]] + catalog.optimizees[task["optimizee"]]
        schemas[f"task.{index}" if several else "task"] = catalog.sections["task"] + members
    helps = {f"{path}.{item.name}".lstrip("."): item.help for path, schema in schemas.items() for item in schema}
    return {**helps, "optimizer.kind": "the learned optimizer: " + ", ".join(catalog.learned_optimizers)}


def _comment(key: str, value: Any, help_text: str) -> str:
    return f"# {_line(key, value):<34} # {help_text}".rstrip(" #")


def _line(key: str, value: Any) -> str:
    """key = value as TOML on one line."""
    import tomli_w

    value = list(value) if isinstance(value, tuple) else value
    if isinstance(value, list):
        return f"{key} = [{', '.join(_line('x', item).removeprefix('x = ') for item in value)}]"
    return tomli_w.dumps({key: value}).strip()
