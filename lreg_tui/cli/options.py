"""Arguments and options that several commands share, and their shell completion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.base import plugins
from engine.base.errors import RunError, SettingsError
from engine.base.settings import Setting, show
from engine.runs.kinds import STUDY
from engine.runs.reader import CHECKPOINTS
from engine.runs.store import RunReader, RunStore

HARMLESS = re.compile(r"[\w.-]+", re.ASCII)  # what a shell may be given to complete


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    return _starting(incomplete, RunStore(ctx.params.get("runs_dir")).list())


def complete_run_or_job(ctx: typer.Context, incomplete: str) -> list[str]:
    """A run, or a transfer job or study, which is looked at and controlled like one."""
    store = RunStore(ctx.params.get("runs_dir"))
    return _starting(incomplete, [*store.studies(), *store.transfers(), *store.list()])


def complete_run_or_study(ctx: typer.Context, incomplete: str) -> list[str]:
    store = RunStore(ctx.params.get("runs_dir"))
    return _starting(incomplete, [*store.studies(), *store.list()])


def _starting(incomplete: str, readers: Sequence[RunReader]) -> list[str]:
    """`last` and the ids, the newest first."""
    names = ["last", *(reader.id for reader in reversed(readers))]
    return [name for name in names if name.startswith(incomplete) and HARMLESS.fullmatch(name)]


def complete_preset(incomplete: str) -> list[str]:
    from engine.presets.preset import shipped

    files = [str(path) for path in sorted(Path().glob("*.toml"))]
    return [name for name in (*shipped(), *files) if name.startswith(incomplete) and HARMLESS.fullmatch(name)]


def complete_study(incomplete: str) -> list[str]:
    from engine.study.plan.sources import shipped_studies

    files = [str(path) for path in sorted(Path().glob("*.toml"))]
    return [name for name in (*shipped_studies(), *files) if name.startswith(incomplete) and HARMLESS.fullmatch(name)]


def complete_checkpoint(incomplete: str) -> list[str]:
    return [name for name in CHECKPOINTS if name.startswith(incomplete)]


def complete_target(incomplete: str) -> list[str]:
    from engine.presets import catalog

    known = catalog.load()
    names = [f"{dataset}/{optimizee}" for dataset in known.datasets for optimizee in known.optimizees]
    return [name for name in ("all", *names) if name.startswith(incomplete)]


def find_run(reference: str, runs_dir: Path | None) -> RunReader:
    """The run that is meant. Raises RunError; of a folder without a run it says that this is what it is."""
    try:
        return RunStore(runs_dir).resolve(reference)
    except RunError:
        folder = Path(reference).expanduser() if reference.isprintable() and reference else None
        if folder is None or len(reference) > 4000 or not folder.is_dir():
            raise
        runs = len(RunStore(folder).list())
        hint = f"it holds {runs} run{'s' if runs > 1 else ''}: give it as --runs-dir" if runs else "no run.json there"
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
            from engine.study.plan.chosen import transferred_runs

            own = transferred_runs(reader)
            runs += own
            reference = reference or own[0]
        else:
            runs.append(_only_run(reader))
    return runs, reference


def find_one_run(reference: str, runs_dir: Path | None) -> RunReader:
    """The run that is meant, where nothing else will do. Raises RunError; of a study it names its winners' runs."""
    reader = find_run(reference, runs_dir)
    if reader.kind is STUDY:
        from engine.study.plan.chosen import winner_runs

        winners = winner_runs(reader)
        if ids := "; ".join(f"{arm}: {', '.join(run.id for run in runs)}" for arm, runs in winners.items()):
            raise RunError(f"{reader.id}: a study, should be one of its winners' runs: {ids}")
    return _only_run(reader)


def _only_run(reader: RunReader) -> RunReader:
    """Raise RunError where that is no run."""
    kind = reader.kind
    if "transfer" not in kind.actions:
        raise RunError(f"{reader.id}: {kind.words}, should be {kind.instead}")
    return reader


def check_choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Raise SettingsError where an option's value is none of those allowed."""
    if value is not None:
        _check(Setting(option, ("str",), "", "", choices=choices), value)


def whole_number(option: str, value: str, minimum: int, maximum: int | None = None) -> int:
    """An option's value as an integer. Raises SettingsError."""
    is_whole = re.fullmatch(r"[+-]?\d{1,40}", value, re.ASCII)
    return _check(Setting(option, ("int",), 0, "", minimum=minimum, maximum=maximum), int(value) if is_whole else value)


def _check(setting: Setting, value: Any) -> Any:
    fit, problem = setting.check(value)
    if problem is not None:
        raise SettingsError([problem])
    return fit


def _use_plugins(names: list[str] | None) -> list[str] | None:
    """Before anything is looked up: the command itself need not know of them."""
    plugins.use(names or ())
    return names


RunReference = Annotated[
    str,
    typer.Argument(metavar="RUN", help="An id, a unique prefix, a path, or `last`.", autocompletion=complete_run),
]
RunOrJobReference = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="An id (of a transfer evaluation or a study, too), a unique prefix, a path, or `last`.",
        autocompletion=complete_run_or_job,
    ),
]
RunReferences = Annotated[
    list[str],
    typer.Argument(metavar="RUN", help="Ids, unique prefixes, paths, or `last`.", autocompletion=complete_run),
]
RunOrStudyReferences = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="Ids, unique prefixes, paths, or `last`; a study (or its name) stands for its winners' runs.",
        autocompletion=complete_run_or_study,
    ),
]
PresetReference = Annotated[
    str,
    typer.Argument(metavar="PRESET", help="A path, or the name of a shipped preset.", autocompletion=complete_preset),
]
RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", help="Where runs live. Default: $LREG_RUNS_DIR, else ./runs."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where datasets lie. Default: $LREG_DATA_DIR, else a cache."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on stdout, and nothing else there.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the preset; may be given again."),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE_OR_MODULE",
        help="Python code of yours with more datasets, optimizees, learned optimizers or penalties, beside what is "
        "installed and named in $LREG_PLUGINS; may be given again.",
        callback=_use_plugins,
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps. Default: auto.")
]
Detach = Annotated[bool, typer.Option("--detach", help="Return at once; the run outlives this terminal.")]
