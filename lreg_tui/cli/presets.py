"""Presets: presets, preset check, preset show, preset new."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from engine.base.errors import LregError, PresetError, Problem
from engine.base.files import read_limited
from engine.base.settings import schema_of, show
from engine.presets import catalog as catalogs
from engine.presets import preset as engine_preset
from engine.presets.catalog import NAMED_TABLES, member_name, named_members, named_table
from engine.presets.preset import Preset, load_preset
from lreg_tui.cli import output
from lreg_tui.cli.options import (
    AsJson,
    Plugins,
    PresetReference,
    Sets,
    SingleValueCommand,
    complete_preset,
    flag,
    option,
)
from lreg_tui.presets import preset_edit
from lreg_tui.presets.toml_edit import toml_of
from lreg_tui.text import present

app = typer.Typer(help="Check, show and make presets.", no_args_is_help=True, rich_markup_mode=None)


def presets(plugin: Plugins = None, as_json: AsJson = False) -> None:
    """List the shipped presets, and what plug-ins bring."""
    import tomli

    table, lines = output.grid(), []
    for name, path in engine_preset.shipped().items():
        try:
            description = str(tomli.loads(read_limited(path).decode()).get("description", ""))
        except (OSError, ValueError):
            description = "cannot be read"
        lines.append({"name": name, "description": description})
        table.add_row(present.text(name, "bold"), present.text(description))
    for family, names in catalogs.added().items():
        lines += [{"plugin_member": name, "family": family} for name in names]
        table.add_row(present.text(f"{family.replace('_', ' ')} of plug-ins", "bold"), present.text(", ".join(names)))
    if not as_json:
        output.console().print(table)
        return
    for line in lines:
        output.emit(line)


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
    source: Annotated[str, option("--from", "PRESET", "What it extends.", complete_preset)],
    force: Annotated[bool, flag("--force", "Overwrite the file if it is there.")] = False,
    plugin: Plugins = None,
) -> None:
    """Write NAME.toml, which extends another preset, with every key to change as a comment."""
    bare = name.removesuffix(".toml")
    file = Path(f"{bare}.toml")
    if file.name != f"{bare}.toml" or not bare.strip(". ") or not bare.isprintable():
        raise PresetError([Problem("", show(name), "a plain file name, without folders")], "preset new")
    parent = load_preset(source)
    extended = engine_preset.find(source)
    if extended.resolve() == file.resolve():
        raise PresetError([Problem("--from", show(source), "another preset than the new one")], "preset new")
    text = _child(parent, extended.stem if preset_edit.is_shipped(extended) else os.path.relpath(extended))
    if os.path.lexists(file) and not force:
        raise LregError(f"{file}: exists already (--force overwrites it)")
    if os.path.lexists(file) and not file.is_file():
        raise LregError(f"{file}: no ordinary file, so it is not overwritten")
    preset_edit.save(text, file.resolve())
    print(f"{file}: extends {present.clean(source)}; run it with: lreg run {file}")


def _child(parent: Preset, extends: str) -> str:
    """A preset that changes nothing yet: every key of its parent as a comment, with its help."""
    catalog = catalogs.load()
    top = {key: value for key, value in parent.values.items() if key not in (*engine_preset.TABLES, "name")}
    tables = [("", schema_of(engine_preset.PresetSettings), top)]
    for task in parent.tasks:
        schema = catalog.schema_of("task", task)
        tables.append(("[[task]]" if len(parent.tasks) > 1 else "[task]", schema, task))
    members = named_members(parent.values)
    for section in ("optimizer", "meta", "objective", "evaluation"):
        values = {key: value for key, value in parent[section].items() if f"{section}.{key}" not in NAMED_TABLES}
        settings = {item.name: item for item in catalog.schema_of(section, values)}
        for key, _, choices in catalog.selectors(section):
            settings[key] = replace(settings[key], help=f"{settings[key].help}: {', '.join(choices)}")
        tables.append((f"[{section}]", tuple(settings.values()), values))
    for path, member in members.items():
        schemas = catalog.named_tables()[named_table(path)]
        tables.append((f"[{path}]", schemas[member_name(path)], dict(member)))
    lines = [f"extends = {toml_of(extends)}", ""]
    lines += ["# Every key below has its value from there. To change one, take away its # and that of its [table]."]
    for heading, schema, table in tables:
        helps = {item.name: item.help for item in schema}
        lines += ["", *([f"# {heading}"] if heading else [])]
        for key, value in table.items():
            lines.append(f"# {f'{key} = {toml_of(value)}':<34} # {helps.get(key, '')}".rstrip(" #"))
    return "\n".join(lines) + "\n"
