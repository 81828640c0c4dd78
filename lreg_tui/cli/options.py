"""How options are declared, checked and completed, and those that several commands share; the RUN of a command."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from engine.base import plugins
from engine.base.errors import Problem, RunError, SettingsError
from engine.base.settings import Setting, show
from engine.export import loggers, shipped
from engine.presets import catalog
from engine.presets.preset import shipped as shipped_presets
from engine.runs.kinds import STUDY
from engine.runs.provenance import plugin_remark
from engine.runs.store import RunReader, RunStore
from lreg_tui.cli import output
from lreg_tui.presets import toml_edit
from lreg_tui.text.present import count

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


complete_preset = offering_files(shipped_presets)
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


def offering_runs(*kinds: str) -> Callable[[typer.Context, str], list[str]]:
    """Shell completion with `last` and ids, the newest first, and, of runs alone, with what comes with lreg.

    `kinds`: what the run store lists.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        store = RunStore(ctx.params.get("runs_dir"))
        readers = [reader for kind in kinds for reader in getattr(store, kind)()]
        with_lreg = [] if "transfers" in kinds else shipped.shipped_optimizers()
        return offering(lambda: ["last", *(reader.id for reader in reversed(readers)), *with_lreg])(incomplete)

    return complete


complete_run = offering_runs("list")


def _references(text: str, *kinds: str) -> Any:
    return typer.Argument(metavar="RUN", help=text, autocompletion=offering_runs(*kinds))


RunReference = Annotated[str, _references("An id, a unique prefix, a path, `last`, or `lreg:NAME`.", "list")]
RunOrJobReference = Annotated[
    str,
    _references(
        "An id (of a transfer evaluation or a study, too), a unique prefix, a path, or `last`.",
        *("studies", "transfers", "list"),
    ),
]
RunReferences = Annotated[list[str], _references("Ids, unique prefixes, paths, `last`, or `lreg:NAME`.", "list")]
RunOrStudyReferences = Annotated[
    list[str],
    _references(
        "Ids, unique prefixes, paths, `last`, or `lreg:NAME`; a study (or its name) stands for its winners' runs.",
        *("studies", "list"),
    ),
]


def find_run(reference: str, runs_dir: Path | None) -> RunReader:
    """The run that is meant; for lreg:NAME the one that stands for it, which is made where it is not there yet.

    Raises RunError; of a folder without a run it says that this is what it is.
    """
    if reference.startswith(shipped.PREFIX):
        return shipped.run_of(reference, RunStore(runs_dir))
    try:
        return RunStore(runs_dir).resolve(reference)
    except RunError:
        folder = Path(reference).expanduser() if reference.isprintable() and reference else None
        if folder is None or len(reference) > 4000 or not folder.is_dir():
            raise
        runs = len(RunStore(folder).list())
        hint = f"it holds {count(runs, 'run')}: give it as --runs-dir" if runs else "no run.json there"
        raise RunError(f"{show(reference)}: a folder, but no run ({hint})") from None


def find_runs(references: Sequence[str], runs_dir: Path | None) -> tuple[list[RunReader], RunReader | None]:
    """The runs that are meant; a study stands for those runs of its winners that were transferred.

    With them a run of the arm that the others are compared with, where there is a study to say so. Raises RunError.
    """
    runs: list[RunReader] = []
    reference = None
    for text in references:
        reader = find_run(text, runs_dir)
        if reader.kind is STUDY:
            from engine.study.plan.snapshot import transferred_runs

            transferred = transferred_runs(reader)
            runs += transferred
            reference = reference or transferred[0]
        else:
            runs.append(_only_run(reader))
    return runs, reference


def find_one_run(reference: str, runs_dir: Path | None) -> RunReader:
    """The run that is meant, where nothing else will do. Raises RunError; of a study it names its winners' runs."""
    reader = find_run(reference, runs_dir)
    if reader.kind is STUDY:
        from engine.study.plan.snapshot import winner_runs

        winners = winner_runs(reader)
        if runs_of := "; ".join(f"{arm}: {', '.join(run.id for run in runs)}" for arm, runs in winners.items()):
            raise RunError(f"{reader.id}: a study, should be one of its winners' runs: {runs_of}")
    return _only_run(reader)


def _only_run(reader: RunReader) -> RunReader:
    """Raise RunError where that is no run. A plug-in that it used and that is not in use now is told on stderr."""
    kind = reader.kind
    if "transfer" not in kind.actions:
        raise RunError(f"{reader.id}: {kind.words}, should be {kind.instead}")
    if remark := plugin_remark(reader.facts):
        output.say(f"run {reader.id}: {remark}")
    return reader
