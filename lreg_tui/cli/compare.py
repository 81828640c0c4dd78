"""Side by side: what differs, how it ended, where it transfers to, and what is better at which radius."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.base.errors import Problem, SettingsError
from lreg_tui.cli import output
from lreg_tui.cli.options import (
    AsJson,
    RunOrStudyReferences,
    RunsDir,
    complete_run,
    complete_target,
    find_one_run,
    find_runs,
)
from lreg_tui.compare import comparison_files
from lreg_tui.text import present, sheets

if TYPE_CHECKING:
    from engine.comparison import Comparison


def compare(
    references: RunOrStudyReferences,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="RUN",
            help="A run of the arm to compare with. Default: a study's own, else the first one without penalties.",
            autocompletion=complete_run,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="DATASET/OPTIMIZEE",
            help="Only this task. Default: every task.",
            autocompletion=complete_target,
        ),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--step", metavar="N", help="At this inner step. Default: the last that the arms share."),
    ] = None,
    radius: Annotated[
        str | None,
        typer.Option("--radius", metavar="R", help="Radius of the probes to show. Default: the middle one."),
    ] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One tidy table of numbers.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Tables to paste into Markdown.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Tables to paste into LaTeX (needs booktabs).")] = False,
) -> None:
    """Compare runs by their transfer evaluations.

    Runs whose presets differ in their seed only are one arm. Arms are compared pair by pair with the reference arm: at
    equal steps, at matched training loss, and against the frontier that the reference arm traces under its scales.
    """
    from engine import comparison as comparisons

    forms = {"--json": as_json, "--csv": as_csv, "--markdown": as_markdown, "--latex": as_latex}
    form = _one_of([option for option, is_wanted in forms.items() if is_wanted])
    readers, of_study = find_runs(references, runs_dir)
    found = comparisons.compare(
        readers,
        reference=of_study if reference is None else find_one_run(reference, runs_dir),
        task=task,
        step=None if step is None else int(_number("--step", step, "int")),
        radius=None if radius is None else _number("--radius", radius, "float"),
    )
    _print(found, form)
    if found.damaged_files:
        output.say_damaged(found.damaged_files)
    if not found.tables:
        runs = " ".join(run.run for run in found.runs)
        output.say(f"no transfer evaluations yet: `lreg transfer {runs} --to DATASET/OPTIMIZEE` makes them")


def _one_of(wanted: list[str]) -> str:
    """The form of the output, empty for a terminal. Raises SettingsError where several are wanted."""
    if len(wanted) > 1:
        raise SettingsError([Problem(wanted[1], f"given together with {wanted[0]}", "one form of output at a time")])
    return wanted[0] if wanted else ""


def _number(option: str, text: str, kind: str) -> float:
    """An option's value as a number. Raises SettingsError."""
    from engine.base.settings import Setting

    try:
        value: Any = int(text) if kind == "int" else float(text)
    except ValueError:
        value = text
    minimum, above = (0, None) if kind == "int" else (None, 0)
    fit, problem = Setting(option, (kind,), 0, "", minimum=minimum, above=above).check(value)
    if problem is not None:
        raise SettingsError([problem])
    return fit


def _print(found: Comparison, form: str) -> None:
    if form:
        print(comparison_files.text(found, form.removeprefix("--")), end="")
    else:
        _print_tables(found)


def _print_tables(found: Comparison) -> None:
    from lreg_tui.compare import comparison_sheets

    console = output.console()
    lacking = {
        character: plain
        for character, plain in output.PLAIN.items()
        if not output.can_show(character, console.encoding)
    }
    for index, sheet in enumerate(comparison_sheets.sheets(found)):
        if index:
            console.print()
        for part in sheets.tables(sheets.translated(sheet, lacking), console):
            console.print(part)
    for note in found.notes:
        console.print(present.text(f"note: {note}", "yellow"))
