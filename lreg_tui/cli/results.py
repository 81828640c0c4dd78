"""What runs came to: compare, plot, export, diagnose."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from engine.base.device import pick_device
from engine.base.errors import LregError, Problem, SettingsError
from engine.comparison import group_arms
from engine.figures import FIGURES, LANDSCAPE, Block, blocks, evaluated
from engine.figures.landscapes import LandscapePanel, landscapes
from engine.jobs.diagnosis_worker import MOST_OPTIMIZEES, OPTIMIZEES, DiagnosisRequest, keep
from engine.jobs.diagnosis_worker import STEP as DIFFERENCE_STEP
from engine.jobs.diagnosis_worker import diagnose as diagnosis_of
from engine.presets import catalog
from engine.runs.reader import CHECKPOINTS, RunReader
from lreg_tui.cli import output
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    Device,
    Plugins,
    RunOrStudyReferences,
    RunReference,
    RunsDir,
    Sets,
    checked,
    choice,
    complete_preset,
    complete_run,
    complete_target,
    find_one_run,
    find_runs,
    flag,
    number,
    numeric,
    offering,
    option,
)
from lreg_tui.compare import comparison_sheets
from lreg_tui.figures import page
from lreg_tui.presets import toml_edit
from lreg_tui.runs.run_files import diagnosis_sheet
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


FIGURE = (
    f"One of: {', '.join(FIGURES)}; may be given again. Default: all that there are data for, but machine, and "
    f"{LANDSCAPE}, which takes a while."
)
TASK = "Only this task. Default: all that were evaluated."


def plot(
    references: RunOrStudyReferences,
    target: Annotated[Path, option("-o --output", "FILE", "Ends in .png, .svg or .pdf.")],
    figure: Annotated[list[str] | None, choice("--figure", "NAME", FIGURES, FIGURE)] = None,
    task: Annotated[str | None, option("--task", "DATASET/OPTIMIZEE", TASK, complete_target)] = None,
    step: Annotated[int | None, number("--step", "N", "Inner step. Default: the last one of all.", minimum=0)] = None,
    radius: Annotated[
        float | None, number("--radius", "R", "Radius of sharpness. Default: the middle one.", "float", above=0)
    ] = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    device: Device = None,
    plugin: Plugins = None,
) -> None:
    """Draw runs side by side: runs that differ in the meta-seed alone are drawn as one, with intervals.

    The sentence for the caption goes to stderr, and into the file's metadata.
    """
    page.check_path(target)
    figures = tuple(dict.fromkeys(figure or ()))
    arms = group_arms(find_runs(references, runs_dir)[0])
    drawn: list[Block] = []
    surfaces: list[LandscapePanel] = []
    if figures != (LANDSCAPE,):
        measured = evaluated(arms, task, step, radius)
        if measured.damaged:
            output.say_damaged(measured.damaged)
        drawn = blocks(measured, figures)
    sentences = [block.caption for block in drawn]
    if LANDSCAPE in figures:
        # at any task and step, whether it was evaluated or not
        at_radius = evaluated(arms, radius=radius)
        where = pick_device(device or "auto")
        surfaces, caption = landscapes(at_radius, where, task=task, steps=step, data_dir=data_dir, report=output.say)
        sentences.append(caption)
    with page.styled():
        page.save(page.draw_page(drawn, surfaces), target, " ".join(sentences))
    print(present.clean(target, 4000))
    for sentence in sentences:
        output.say(sentence)


ENDINGS = {
    "safetensors": ".safetensors",
    "html": ".html",
    "tensorboard": "-tensorboard",
    "csv": "-csv",
}  # of the default path
TARGET = "A new file (safetensors, html) or folder. Default: the run's id and an ending, in this folder."
CHECKPOINT = f"One of: {', '.join(CHECKPOINTS)}. Default: best."
SCALE = "Factor of every update, or `best`: chosen on validation. Default: 1."
FACTOR = numeric("--scale", "float", above=0.0, maximum=1e6)


def export(
    reference: RunReference,
    to: Annotated[str, choice("--to", "FORM", tuple(ENDINGS), f"One of: {', '.join(ENDINGS)}.")],
    target: Annotated[Path | None, option("-o --output", "PATH", TARGET)] = None,
    checkpoint: Annotated[str | None, choice("--checkpoint", "NAME", CHECKPOINTS, CHECKPOINT)] = None,
    scale: Annotated[str | None, option("--scale", "S", SCALE)] = None,
    force: Annotated[bool, flag("--force", "Replace an export that is there already.")] = False,
    runs_dir: RunsDir = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Write the learned optimizer (safetensors), the run as a page (html), or its metrics (tensorboard, csv).

    The safetensors file stands for itself: engine.load_optimizer takes it in place of a run. The page is one file with
    curves, results and settings, which any browser opens and which loads nothing from elsewhere.
    """
    for name, value in (("--checkpoint", checkpoint), ("--scale", scale)):
        if value is not None and to != "safetensors":
            raise LregError(f"{name}: goes with --to safetensors alone, found --to {to}")
    reader = find_one_run(reference, runs_dir)
    path = target or Path(f"{reader.id}{ENDINGS[to]}")
    facts, words = _export(reader, to, path, checkpoint or "best", scale or "1", force)
    if as_json:
        output.emit({"run": reader.id, "to": to, "path": str(path.absolute()), **facts})
    else:
        print(present.clean(path, 4000))
        output.say(words)


def _export(
    reader: RunReader, to: str, path: Path, checkpoint: str, scale: str, force: bool
) -> tuple[dict[str, Any], str]:
    """Do it; what is worth telling about it, for programs and for people."""
    from engine.export import optimizer, tables, target

    if to == "csv":
        rows = tables.export_csv(reader, path, force=force)
        return {"rows": rows}, ", ".join(f"{name}: {count} rows" for name, count in rows.items())
    if to == "html":
        from lreg_tui.runs.run_page import page_of

        target.write_file(path, page_of(reader).encode(), force=force)
        return {}, "one file that loads nothing from elsewhere: send it, or open it in a browser"
    if to == "tensorboard":
        values = tables.export_tensorboard(reader, path, force=force)
        look = f"look at them with: tensorboard --logdir {shlex.quote(str(path))}"
        return {"values": values}, f"{len(values)} metrics; {look}"
    if scale == "best":
        from engine.evaluation.scale import best_scale

        factor = best_scale(reader)
    else:
        factor = checked(FACTOR, toml_edit.number(scale))
    written = optimizer.export_optimizer(reader, path, checkpoint=checkpoint, scale=factor, force=force)
    facts = {key: written[key] for key in ("optimizer", "checkpoint", "scale", "lreg_version")}
    return facts, f"{facts['optimizer']['kind']}, checkpoint {checkpoint}, scale {present.setting(facts['scale'])}"


PRESET = "Look at this preset's objective, on its tasks, with its estimator. Default: the run's own."
PENALTY = "Look at this penalty, too: NAME or NAME:KEY=VALUE,KEY=VALUE; may be given again."
ESTIMATOR = "Judge this estimator. Default: the preset's."
DIFFERENCE = f"Of the log scale, to either side, for the true derivatives. Default: {DIFFERENCE_STEP:g}."


def diagnose(
    reference: RunReference,
    checkpoint: Annotated[str, choice("--checkpoint", "NAME", CHECKPOINTS, CHECKPOINT)] = "best",
    preset: Annotated[str, option("--preset", "PRESET", PRESET, complete_preset)] = "",
    penalty: Annotated[
        list[str] | None, option("--penalty", "NAME", PENALTY, offering(lambda: catalog.load().penalties))
    ] = None,
    estimator: Annotated[
        str, option("--estimator", "NAME", ESTIMATOR, offering(lambda: catalog.load().estimators))
    ] = "",
    optimizees: Annotated[
        int, number("--optimizees", "N", "Fresh optimizees of every task.", minimum=2, maximum=MOST_OPTIMIZEES)
    ] = OPTIMIZEES,
    difference: Annotated[float | None, number("--difference", "H", DIFFERENCE, "float", above=0, maximum=1.0)] = None,
    windows: Annotated[bool, flag("--windows", "Also for every 100 inner steps of the unroll.")] = False,
    sets: Sets = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    device: Device = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Find out whether the estimated meta-gradient of every term of the objective points the right way.

    One meta-parameter is put before the learned optimizer: the log of the size of its updates. By it the loss, every
    penalty and every term have a derivative that the estimator gives, and a true one, by differences of whole unrolls
    with the same random numbers. Where the signs differ, training on the term makes it worse. Kept in the run's folder.
    """
    reader = find_one_run(reference, runs_dir)
    penalties = tuple(dict.fromkeys(penalty or ()))
    request = DiagnosisRequest(
        checkpoint, preset, tuple(sets or ()), penalties, estimator, optimizees, difference or DIFFERENCE_STEP, windows
    )
    with output.console(stderr=True).status("diagnosing") as status:
        tell = lambda done, total: status.update(f"diagnosing: {present.percent(done / total, 0)}")  # noqa: E731
        report = diagnosis_of(reader, request, pick_device(device or "auto"), data_dir, tell)
    try:
        saved_in = str(keep(reader, request, report))
    except OSError as error:
        saved_in = ""
        output.say(f"{reader.path}: not kept: {error.strerror}")
    if as_json:
        output.emit({"run": reader.id, "path": saved_in or None, **report.to_json()})
        return
    console = output.console()
    output.print_sheet(diagnosis_sheet(report), console)
    output.print_lines(console, *report.sentences(), f"kept in {saved_in}" if saved_in else "")
