"""How options are declared, checked and completed, and those that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from engine.base import plugins
from engine.base.errors import Problem, SettingsError
from engine.base.settings import Setting
from engine.export import loggers
from engine.presets import catalog
from engine.presets.preset import shipped
from lreg_tui.presets import toml_edit

HARMLESS = re.compile(r"[\w./:-]+", re.ASCII)  # what a shell may be given to complete


def offering(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Shell completion with names that are looked up then."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete) and HARMLESS.fullmatch(name)]

    return complete


def offering_files(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Shell completion with shipped names and the TOML files of this folder."""
    return offering(lambda: [*names(), *map(str, sorted(Path().glob("*.toml")))])


def _targets() -> list[str]:
    members = catalog.load()
    return ["all", *(f"{dataset}/{optimizee}" for dataset in members.datasets for optimizee in members.optimizees)]


complete_preset = offering_files(shipped)
complete_target = offering(_targets)


class SingleValueCommand(TyperCommand):
    """A command that refuses an option that has one value where it is given more than once.

    Lists add up; of a single value nobody knows which one is meant.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises SettingsError."""
        remaining = super().parse_args(ctx, list(args))
        order = [] if ctx.resilient_parsing else self.make_parser(ctx).parse_args(list(args))[2]
        repeated = [param for param in dict.fromkeys(order) if order.count(param) > 1 and _is_single(param)]
        if repeated:
            problems = [Problem(max(p.opts, key=len), f"it {order.count(p)} times", "once") for p in repeated]
            raise SettingsError(problems)
        return remaining


def _is_single(param: Any) -> bool:
    """True for an option with one value, or for a choice of two flags; one flag may be given again."""
    if param.param_type_name != "option" or param.multiple:
        return False
    return bool(param.secondary_opts) or not param.is_flag


def option(names: str, metavar: str, text: str, complete: Any = None, parser: Any = None) -> Any:
    """An option with a value, in the house's form. `names`: "-o --output"."""
    return typer.Option(*names.split(), metavar=metavar, help=text, autocompletion=complete, parser=parser)


def flag(names: str, text: str) -> Any:
    return typer.Option(*names.split(), help=text)


def choice(name: str, metavar: str, values: Sequence[str], text: str) -> Any:
    """An option whose value is one of some words."""
    setting = Setting(name, ("str",), "", "", choices=tuple(values))
    return option(name, metavar, text, offering(lambda: values), lambda value: checked(setting, value))


def numeric(name: str, kind: str, **bounds: Any) -> Setting:
    return Setting(name, (kind,), 0, "", **bounds)


def number(names: str, metavar: str, text: str, kind: str = "int", **bounds: float | None) -> Any:
    """An option whose value is a number: "int" or "float", within the bounds of a Setting."""
    setting = numeric(names.split()[-1], kind, **bounds)
    return option(names, metavar, text, None, lambda value: checked(setting, toml_edit.number(value)))


def checked(setting: Setting, value: Any) -> Any:
    """An option's value in its canonical form. Raises SettingsError."""
    fit, problem = setting.check(value)
    if problem is not None:
        raise SettingsError([problem])
    return fit


def _use_plugins(names: list[str] | None) -> list[str] | None:
    """Before anything is looked up: the command itself need not know of them."""
    plugins.use(names or ())
    return names


def _log_to(names: list[str] | None) -> list[str] | None:
    """Also where it is not given: the variable may name what is not there."""
    loggers.use(names or ())
    return names


PresetReference = Annotated[
    str,
    typer.Argument(metavar="PRESET", help="A path, or the name of a shipped preset.", autocompletion=complete_preset),
]
RunsDir = Annotated[Path | None, option("--runs-dir", "DIR", "Where runs live. Default: $LREG_RUNS_DIR, else ./runs.")]
DataDir = Annotated[
    Path | None, option("--data-dir", "DIR", "Where datasets lie. Default: $LREG_DATA_DIR, else a cache.")
]
AsJson = Annotated[bool, flag("--json", "JSON lines on stdout, and nothing else there.")]
Sets = Annotated[list[str] | None, option("--set", "KEY=VALUE", "Override a key of the preset; may be given again.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE_OR_MODULE",
        help="Python code of yours with more tasks, learned optimizers, penalties, terms or estimators, beside what is "
        "installed and named in $LREG_PLUGINS; may be given again.",
        callback=_use_plugins,
    ),
]
LogTo = Annotated[
    list[str] | None,
    typer.Option(
        "--log-to",
        metavar="TRACKER",
        help=f"Send the metrics there as well: {', '.join(loggers.LOGGERS)}, beside $LREG_LOG_TO; may be given again.",
        callback=_log_to,
        autocompletion=offering(lambda: loggers.LOGGERS),
    ),
]
Device = Annotated[str | None, option("--device", "DEVICE", "auto, cpu, cuda, cuda:N or mps. Default: auto.")]
Detach = Annotated[bool, flag("--detach", "Return at once; the run outlives this terminal.")]
