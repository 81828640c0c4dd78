"""Side by side: what differs, how it ended, where it transfers to, and what is better at which radius."""

from __future__ import annotations

from typing import Annotated

from engine.base.errors import Problem, SettingsError
from lreg_tui.cli import output
from lreg_tui.cli.options import (
    AsJson,
    Plugins,
    RunOrStudyReferences,
    RunsDir,
    complete_run,
    complete_target,
    find_one_run,
    find_runs,
    flag,
    number,
    option,
)
from lreg_tui.compare import comparison_sheets
from lreg_tui.text import present

REFERENCE = "A run of the arm to compare with. Default: a study's own, else the first one without penalties and terms."
STEP = "At this inner step. Default: the last that the arms share."
RADIUS = "Radius of the probes to show. Default: the middle one."


def compare(
    references: RunOrStudyReferences,
    reference: Annotated[str | None, option("--reference", "RUN", REFERENCE, complete_run)] = None,
    task: Annotated[
        str | None,
        option("--task", "DATASET/OPTIMIZEE", "Only this task. Default: every task.", complete_target),
    ] = None,
    step: Annotated[int | None, number("--step", "N", STEP, minimum=0)] = None,
    radius: Annotated[float | None, number("--radius", "R", RADIUS, "float", above=0)] = None,
    runs_dir: RunsDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, flag("--csv", "One tidy table of numbers.")] = False,
    as_markdown: Annotated[bool, flag("--markdown", "Tables to paste into Markdown.")] = False,
    as_latex: Annotated[bool, flag("--latex", "Tables to paste into LaTeX (needs booktabs).")] = False,
) -> None:
    """Compare runs by their transfer evaluations.

    Runs whose presets differ in their seed only are one arm. Arms are compared pair by pair with the reference arm: at
    equal steps, at matched training loss, and against the frontier that the reference arm traces under its scales: up
    to the best one, beyond it, and with weight decay.
    """
    from engine import comparison as comparisons

    forms = {"json": as_json, "csv": as_csv, "markdown": as_markdown, "latex": as_latex}
    picked = [form for form, is_asked in forms.items() if is_asked]
    if len(picked) > 1:
        problem = Problem(f"--{picked[1]}", f"given together with --{picked[0]}", "one form of output at a time")
        raise SettingsError([problem])
    readers, of_study = find_runs(references, runs_dir)
    chosen = of_study if reference is None else find_one_run(reference, runs_dir)
    compared = comparisons.compare(readers, reference=chosen, task=task, step=step, radius=radius)
    if picked:
        print(comparison_sheets.text(compared, picked[0]), end="")
    else:
        console = output.console()
        for index, sheet in enumerate(comparison_sheets.sheets_of(compared)):
            if index:
                console.print()
            output.print_sheet(sheet, console)
        for note in compared.notes:
            console.print(present.text(f"note: {note}", "yellow"))
    if compared.damaged_files:
        output.say_damaged(compared.damaged_files)
    if not compared.tables:
        runs = " ".join(run.run for run in compared.runs)
        output.say(f"no transfer evaluations yet: `lreg transfer {runs} --to DATASET/OPTIMIZEE` makes them")
