"""Transfer evaluation: `lreg transfer`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import worker
from engine.base.control import Control
from engine.base.settings import show
from engine.evaluation.transfer_plan import BASELINE_NAMES, Plan
from engine.jobs import spawn
from engine.jobs.transfer_job import TransferJob, check_writable
from engine.runs.reader import CHECKPOINTS
from engine.runs.results import rows
from engine.runs.store import Run, RunReader, RunStore
from lreg_tui.cli import output
from lreg_tui.cli.follow import (
    Follower,
    FollowOptions,
    comparison_of,
    do_here,
    note_deaf,
    print_quietly,
    print_results,
    when_stopping,
)
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    Detach,
    Device,
    Plugins,
    RunReferences,
    RunsDir,
    complete_target,
    find_one_run,
    flag,
    offering,
    option,
)
from lreg_tui.runs.actions import called
from lreg_tui.transfers import transfer_request
from lreg_tui.transfers.transfer_request import TransferRequest

TO = (
    "What to train; may be given again. `all`: mnist, fmnist and cifar10, each with mlp, mlp-relu and cnn. Default: "
    "what the first run was meta-trained on."
)
STEPS = "Inner steps. Default: as meta-trained. Several: as many as the most, measured at the others, too."
SEEDS = "Optimizees of every evaluation; of several numbers the largest. Default: 5."
MARKS = "Inner steps to measure at, beside the last. Default: of 1, 2, 5, 10, ... those in the last part."
RADII = "Sharpness radii. Default: the preset's evaluation.radii."
SCALES = "Factors of the frozen updates; 1 is always there."
WEIGHT_DECAYS = (
    "Constant weight decays: theta loses that part of itself at every step. Each with every scale: the grid that a "
    "penalty has to beat; its points are measured at the last step only, at the middle radius."
)
SAM = "Radii of SAM around the frozen optimizer, two passes a step: what there was to gain."
CHECKPOINT = f"Of the runs: {', '.join(CHECKPOINTS)}."
BASELINE = f"One of: {', '.join(BASELINE_NAMES)}; may be given again."
SETS = "A key of [task], of the targets where --to names some, or of [evaluation]; may be given again."


def transfer(
    references: RunReferences,
    to: Annotated[list[str] | None, option("--to", "DATASET/OPTIMIZEE", TO, complete_target)] = None,
    steps: Annotated[list[str] | None, option("--steps", "N", STEPS)] = None,
    seeds: Annotated[list[str] | None, option("--seeds", "N", SEEDS)] = None,
    marks: Annotated[list[str] | None, option("--marks", "N,N,...", MARKS)] = None,
    radii: Annotated[list[str] | None, option("--radii", "R,R,...", RADII)] = None,
    scales: Annotated[list[str] | None, option("--scales", "S,S,...", SCALES)] = None,
    weight_decays: Annotated[list[str] | None, option("--weight-decays", "D,D,...", WEIGHT_DECAYS)] = None,
    sam: Annotated[list[str] | None, option("--sam", "RHO,RHO,...", SAM)] = None,
    checkpoint: Annotated[str, option("--checkpoint", "NAME", CHECKPOINT, offering(lambda: CHECKPOINTS))] = "best",
    untrained: Annotated[bool, flag("--untrained", "Also the meta-parameters that the runs began with.")] = False,
    baselines: Annotated[bool, flag("--baselines", "Also every hand-designed optimizer, tuned for each task.")] = False,
    baseline: Annotated[
        list[str] | None, option("--baseline", "NAME", BASELINE, offering(lambda: BASELINE_NAMES))
    ] = None,
    sets: Annotated[list[str] | None, option("--set", "KEY=VALUE", SETS)] = None,
    device: Device = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    detach: Detach = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Train fresh optimizees with frozen learned optimizers, and measure what they reach.

    Results are kept in the runs' folders; what is there already is not measured again, and `lreg resume` goes on after
    Ctrl-C or `lreg stop`.
    """
    readers = transfer_request.unique(find_one_run(text, runs_dir) for text in references)
    numbers = {"steps": steps, "seeds": seeds, "marks": marks, "radii": radii, "scales": scales, "sam": sam}
    numbers |= {"weight_decays": weight_decays}
    request = TransferRequest(
        to=tuple(to or ()),
        **{name: ",".join(values) for name, values in numbers.items() if values},
        checkpoint=checkpoint,
        untrained=untrained or baselines,
        baselines=BASELINE_NAMES if baselines else tuple(baseline or ()),
        sets=tuple(sets or ()),
    )
    plan, device = transfer_request.plan(readers, request), device or "auto"
    check_writable(plan)
    worker.check_inputs(plan.tasks, device, data_dir)
    control = Control()
    with nullcontext() if detach else control.listening():  # from here on there is something to stop
        job = TransferJob.start(RunStore(runs_dir).root, plan, argv=sys.argv, device=device, data_dir=data_dir)
        do(job, FollowOptions(None, data_dir, detach, as_json), control)


def do(job: Run, how: FollowOptions, control: Control | None = None) -> None:
    """Do a job, or what is left of it, here or in the background."""
    reader, control = RunReader(job.path), control or Control()
    if how.detach:
        spawn.start_detached(reader, device=how.device, data_dir=how.data_dir)
        output.tell_started("transfer", reader, how.as_json)
        return
    finished: list[dict[str, Any]] = []

    def on_finished(evaluation: dict[str, Any]) -> None:
        finished.append(evaluation)
        if how.as_json:
            print_quietly(lambda: output.emit(evaluation))

    notice = when_stopping(control, "stopping; what was measured is kept; Ctrl-C again aborts at once")
    note_deaf(control)
    with control.listening(), Follower(reader, quiet=how.as_json, notice=notice, is_ours=True):
        try:
            runner = partial(TransferJob, on_finished=on_finished)
            state = do_here(job, device=how.device, data_dir=how.data_dir, control=control, make_runner=runner)
        except KeyboardInterrupt:
            state = "stopped"
    print_quietly(lambda: _summarize(reader, state, finished, how.as_json))
    raise typer.Exit(0 if state == "finished" else worker.INTERRUPTED)


def _summarize(reader: RunReader, state: str, finished: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        if state != "finished":
            output.say(f"{state}: go on with: lreg resume {reader.id}")
        return
    console = output.console()
    for task, results in results_by_task(finished, Plan.from_json(reader.plan())).items():
        print_results(results, console, task)
    is_over = state == "finished"
    more = f"more, and with intervals: {comparison_of(reader)}" if is_over else f"go on with: lreg resume {reader.id}"
    output.print_lines(console, f"{state}: {reader.id}", more)


def results_by_task(finished: list[dict[str, Any]], plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """The rows of a result table for every task of a job, at the last inner step."""
    names = {Path(run).name: called(RunReader(run)) for run in plan.runs}
    by_task: dict[str, list[dict[str, Any]]] = {}
    for evaluation in finished:
        task = dict(evaluation["task"])
        name = f"{task.pop('dataset')}/{task.pop('optimizee')}"
        task.pop("batch_size")
        last = rows([evaluation], plan.protocol.middle_radius)[-1:]
        for row in last if len(names) > 1 and evaluation["run"] else ():
            row["label"] = f"{names.get(evaluation['run'], evaluation['run'])}: {row['label']}"
        by_task.setdefault(", ".join([name, *(f"{key} {show(value)}" for key, value in task.items())]), []).extend(last)
    return by_task
