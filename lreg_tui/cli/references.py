"""The RUN of a command: what it means, and its shell completion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.base.errors import RunError
from engine.base.settings import show
from engine.export import shipped
from engine.runs.kinds import STUDY
from engine.runs.provenance import plugin_remark
from engine.runs.store import RunReader, RunStore
from lreg_tui.cli import output
from lreg_tui.cli.options import offering
from lreg_tui.text.present import count


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
