"""Writes docs/preset-reference.md, docs/cli-reference.md and docs/keys.md from the code: python docs/reference.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
WRITTEN = "<!-- written by docs/reference.py: do not edit -->"


def main() -> None:
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    return {"preset-reference.md": preset_reference(), "cli-reference.md": cli_reference(), "keys.md": key_reference()}


# presets and studies


def preset_reference() -> str:
    from engine.meta_training.estimators import ESTIMATORS
    from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer
    from engine.penalties.base import PENALTIES, Penalty
    from engine.presets import catalog
    from engine.presets.preset import PresetSettings, shipped
    from engine.tasks.datasets.base import DATASETS
    from engine.tasks.optimizees.base import OPTIMIZEES
    from engine.terms import TERMS, Term

    sections = catalog.build().sections
    lines = [
        "# Preset reference",
        WRITTEN,
        "Every table and key of a preset, with what is allowed, the default, and what it does. "
        "How to write one: [presets.md](presets.md).",
        "## Top of the file",
        settings(PresetSettings),
        '`extends = "PRESET"`, before anything else, names a file beside this one or a shipped preset to start from.',
        "## [task]",
        "One table, or several `[[task]]` tables: a task distribution, from which every optimizee draws its own. "
        "A list where one value is wanted is drawn from, anew for each optimizee: `[low, high]` of numbers is a range, "
        "log-uniform, both ends included; of words and truth values one is drawn, each as likely as the others. More: "
        "[presets.md](presets.md#a-task-distribution).",
        table(sections["task"]),
        *members("dataset", DATASETS),
        *members("optimizee", OPTIMIZEES),
        "## [optimizer]",
        "The learned optimizer. `kind` picks the member (default `dm`); these keys all of them have:",
        settings(LearnedOptimizer),
        *members("kind", LEARNED_OPTIMIZERS, without=LearnedOptimizer),
        "## [meta]",
        f"`estimator` picks how the meta-gradient is estimated (default `{catalog.USUAL_ESTIMATOR}`); its own settings "
        "stand beside these:",
        table(sections["meta"]),
        *members("estimator", ESTIMATORS),
        "## [objective]",
        "What of an unroll is meta-trained for, beside the penalties.",
        table(sections["objective"]),
        "### [objective.terms.NAME]",
        "Any number of tables, one for each term by its name: a number of the trained optimizees that counts at an "
        "unroll's end, or at matched loss. Terms have no derivative, so they want an estimator that needs none (`es`, "
        "`pes`). These keys all of them have:",
        settings(Term),
        *members("objective.terms", TERMS, without=Term),
        "## [penalty.NAME]",
        "Any number of tables, one for each penalty by its name. These keys all of them have:",
        settings(Penalty),
        *members("penalty", PENALTIES, without=Penalty),
        "## [evaluation]",
        table(sections["evaluation"]),
        "## Shipped presets",
        rows(("preset", "what it is"), ((f"`{name}`", description(path)) for name, path in shipped().items())),
        *study_reference(),
    ]
    return page(lines)


def study_reference() -> Iterator[str]:
    from engine.base.settings import schema_of
    from engine.evaluation.transfer_plan import TransferSettings
    from engine.study.plan.document import ArmSettings, ReportSettings, StudySettings
    from engine.study.plan.plan import RANGE, Search, SelectionRule, TransferSpec
    from engine.study.plan.sources import shipped_studies
    from engine.study.plan.transfers import PASSED_ON

    passed_on = (item for item in schema_of(TransferSettings) if item.name in PASSED_ON)
    yield "## Studies"
    yield "The keys of a study file, which [studies.md](studies.md) explains."
    yield settings(StudySettings)
    yield (
        "`[set]`: keys of the preset by their paths (`meta.epochs = 50`), for every arm. `[axes]`: keys of the preset, "
        "each with a list of values or a range, for every arm. A range is a table of these keys:"
    )
    yield table(RANGE)
    yield "### [[arm]]"
    yield settings(ArmSettings)
    yield "An arm may also have `set` and `axes` of its own."
    for name, cls in (("pick", SelectionRule), ("search", Search), ("report", ReportSettings)):
        yield f"### [{name}]"
        yield settings(cls)
    yield "### [transfer]"
    yield table([*schema_of(TransferSpec), *passed_on])
    yield "`[transfer.evaluation]`: keys of the preset's `[evaluation]`, for the transfers alone."
    yield "### Shipped studies"
    yield rows(("study", "what it is"), ((f"`{name}`", description(path)) for name, path in shipped_studies().items()))


def members(key: str, registry: Any, without: type | None = None) -> Iterator[str]:
    """A section for each member of a family; without the settings that they all have as a base class gives them."""
    from engine.base.settings import schema_of
    from engine.presets.catalog import NAMED_TABLES

    common = schema_of(without) if without else ()
    for name in registry.names():
        if not registry[name].__module__.startswith("engine."):
            continue  # registered by whoever asks
        yield f"### [{key}.{name}]" if key in NAMED_TABLES else f'### {key} = "{name}"'
        yield inspect.getdoc(registry[name]) or ""
        own = [item for item in schema_of(registry[name]) if item not in common]
        if own:
            yield table(own)


def settings(cls: type) -> str:
    from engine.base.settings import schema_of

    return table(schema_of(cls))


def table(schema: Iterable[Any]) -> str:
    from engine.base.settings import show

    cells = (
        (
            f"`{item.name}`",
            item.describe().replace("one of: ,", 'one of: "",'),
            "" if item.default is None else f"`{show(item.default)}`",
            item.help,
        )
        for item in schema
    )
    return rows(("key", "allowed", "default", "what it does"), cells)


def description(path: Path) -> str:
    import tomli

    return str(tomli.loads(path.read_text(encoding="utf-8")).get("description", ""))


# the command line


def cli_reference() -> str:
    import typer

    from lreg_tui.cli.commands import app

    command: Any = typer.main.get_command(app)
    lines = [
        "# Command line reference",
        WRITTEN,
        "Every command with its arguments and options, as `lreg COMMAND --help` shows them. "
        "What they are for: [README](../README.md), [presets](presets.md), [studies](studies.md), "
        "[statistics](statistics.md).",
        "`RUN` is an id, a unique prefix of one, a path, or `last`. Exit codes: 0 done, 1 the run failed or its output "
        "is lost, 2 bad input, 130 interrupted.",
    ]
    for words, each in commands("lreg", command):
        lines += command_lines(words, each)
    return page([*lines, *console_lines()])


def commands(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command with its words: ("lreg preset check", ...); groups themselves are left out."""
    for name, each in command.commands.items():
        if hasattr(each, "commands"):
            yield from commands(f"{words} {name}", each)
        else:
            yield f"{words} {name}", each


def command_lines(words: str, command: Any) -> Iterator[str]:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option"]
    usage = " ".join([words, *map(placeholder, arguments), "[OPTIONS]"])
    yield f"## {words}"
    yield f"```\n{usage}\n```"
    yield paragraphs(command.help or "")
    named = [(f"`{placeholder(item)}`", item.help or "") for item in arguments]
    named += [(f"`{spelling(item)}`", item.help or "") for item in options]
    yield rows(("argument or option", "what it is"), named)


def placeholder(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()).removesuffix("...")
    return f"{name}..." if argument.nargs == -1 else name


def spelling(option: Any) -> str:
    """-o, --output FILE"""
    words = ", ".join([*option.opts, *option.secondary_opts])
    return words if option.is_flag else f"{words} {option.metavar or 'TEXT'}"


def console_lines() -> Iterator[str]:
    import argparse
    from unittest.mock import patch

    from lreg_tui.app import parse

    with patch.object(argparse.ArgumentParser, "parse_args", lambda parser, *_: parser):
        parser: Any = parse()
    yield "## lreg-tui"
    yield "```\nlreg-tui [OPTIONS]\n```"
    yield "Opens the console: [console.md](console.md)."
    actions = [action for action in parser._actions if action.option_strings]
    named = ((" ".join([", ".join(action.option_strings), action.metavar or ""]).strip(), action) for action in actions)
    yield rows(("option", "what it is"), ((f"`{words}`", action.help or "") for words, action in named))


# keys


def key_reference() -> str:
    from lreg_tui.system.config import ALLOWED, SETTINGS
    from lreg_tui.system.keys import KEYS

    cells = (
        (" ".join(map(key_name, key.names.split(","))), f"`{name}`" if key.is_changeable else "", key.meaning)
        for name, key in KEYS.items()
    )
    lines = [
        "# Keys and settings of the console",
        WRITTEN,
        "A key means the same on every screen. `?` lists those of the moment. In a question `y` is yes and `n` is no.",
        rows(("key", "name", "what it does"), cells),
        "## Settings",
        "They stand in `~/.config/lreg/config.toml` (or below `$XDG_CONFIG_HOME`), each where it is wanted:",
        table(SETTINGS),
        f'`[keys]` after them: names of the table above, each with another key, such as `stop = "X"`: {ALLOWED}. '
        "What is wrong in the file is told when the console starts, which ends then with exit code 2.",
    ]
    return page(lines)


def key_name(name: str) -> str:
    """As people write it: `ctrl+a`, `F5`, `esc`, `/`."""
    from textual.keys import format_key

    *modifiers, key = name.split("+")
    shown = {"enter": "enter", "backspace": "backspace"}.get(key, format_key(key))
    return f"`{'+'.join([*modifiers, shown.upper() if re.fullmatch('f[0-9]+', shown) else shown])}`"


# Markdown


def page(blocks: Iterable[str]) -> str:
    return "\n\n".join(block.strip() for block in blocks if block.strip()) + "\n"


def rows(heads: tuple[str, ...], cells: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *cells]
    return "\n".join("| " + " | ".join(one_line(cell) for cell in line) + " |" for line in lines)


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def paragraphs(text: str) -> str:
    return "\n\n".join(one_line(part) for part in re.split(r"\n\s*\n", text.replace("\f", "\n\n").strip()))


if __name__ == "__main__":
    main()
