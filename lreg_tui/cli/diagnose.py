"""Diagnosis of the meta-gradient: `lreg diagnose`."""

from __future__ import annotations

from typing import Annotated

from engine.base.device import pick_device
from engine.jobs.diagnosis_worker import MOST_OPTIMIZEES, OPTIMIZEES, STEP, DiagnosisRequest, keep
from engine.jobs.diagnosis_worker import diagnose as diagnosis_of
from engine.presets import catalog
from engine.runs.reader import CHECKPOINTS
from lreg_tui.cli import output
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    Device,
    Plugins,
    RunReference,
    RunsDir,
    Sets,
    choice,
    complete_preset,
    find_one_run,
    flag,
    number,
    offering,
    option,
)
from lreg_tui.runs.run_files import diagnosis_sheet
from lreg_tui.text import present

CHECKPOINT = f"Of the run: {', '.join(CHECKPOINTS)}."
PRESET = "Look at this preset's objective, on its tasks, with its estimator. Default: the run's own."
PENALTY = "Look at this penalty, too: NAME or NAME:KEY=VALUE,KEY=VALUE; may be given again."
ESTIMATOR = "Judge this estimator. Default: the preset's."
DIFFERENCE = f"Of the log scale, to either side, for the true derivatives. Default: {STEP:g}."


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
        checkpoint, preset, tuple(sets or ()), penalties, estimator, optimizees, difference or STEP, windows
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
