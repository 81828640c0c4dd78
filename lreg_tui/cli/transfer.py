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
from engine.jobs.transfer_job import TransferJob, check_writable
from engine.runs.reader import CHECKPOINTS
from engine.runs.results import rows
from engine.runs.store import Run, RunReader, RunStore
from lreg_tui.cli import output, results
from lreg_tui.cli.follow import Follower, print_quietly
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    Detach,
    Device,
    Plugins,
    RunReferences,
    RunsDir,
    complete_checkpoint,
    complete_target,
    find_one_run,
)
from lreg_tui.cli.summary import note_deaf
from lreg_tui.runs.actions import called
from lreg_tui.system import launch
from lreg_tui.text import present
from lreg_tui.transfers import transfer_request
from lreg_tui.transfers.transfer_request import TransferRequest


def complete_baseline(incomplete: str) -> list[str]:
    return [name for name in BASELINE_NAMES if name.startswith(incomplete)]


def transfer(
    references: RunReferences,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="DATASET/OPTIMIZEE",
            help="What to train; may be given again. `all`: mnist, fmnist and cifar10, each with mlp, mlp-relu and "
            "cnn. Default: what the first run was meta-trained on.",
            autocompletion=complete_target,
        ),
    ] = None,
    steps: Annotated[
        list[str] | None,
        typer.Option(
            "--steps",
            metavar="N",
            help="Inner steps. Default: as meta-trained. Several: as many as the most, measured at the others, too.",
        ),
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(
            "--seeds", metavar="N", help="Optimizees of every evaluation; of several numbers the largest. Default: 5."
        ),
    ] = None,
    marks: Annotated[
        list[str] | None,
        typer.Option(
            "--marks",
            metavar="N,N,...",
            help="Inner steps to measure at, beside the last. Default: of 1, 2, 5, 10, ... those in the last part.",
        ),
    ] = None,
    radii: Annotated[
        list[str] | None,
        typer.Option("--radii", metavar="R,R,...", help="Sharpness radii. Default: the preset's evaluation.radii."),
    ] = None,
    scales: Annotated[
        list[str] | None,
        typer.Option("--scales", metavar="S,S,...", help="Factors of the frozen updates; 1 is always there."),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint",
            metavar="NAME",
            help=f"Of the runs: {', '.join(CHECKPOINTS)}.",
            autocompletion=complete_checkpoint,
        ),
    ] = "best",
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Also the meta-parameters that the runs began with.")
    ] = False,
    baselines: Annotated[
        bool,
        typer.Option("--baselines", help="Also every hand-designed optimizer, tuned for each task."),
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="NAME",
            help=f"One of: {', '.join(BASELINE_NAMES)}; may be given again.",
            autocompletion=complete_baseline,
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A key of [task] or [evaluation], as in a preset; may be given again."
        ),
    ] = None,
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
    request = TransferRequest(
        to=tuple(to or ()),
        steps=",".join(steps or ["0"]),
        seeds=",".join(seeds or ["5"]),
        marks=",".join(marks or ()),
        radii=",".join(radii or ()),
        scales=",".join(scales or ["1"]),
        checkpoint=checkpoint,
        untrained=untrained or baselines,
        baselines=BASELINE_NAMES if baselines else tuple(baseline or ()),
        sets=tuple(sets or ()),
    )
    plan = transfer_request.plan(readers, request)
    check_writable(plan)
    worker.check_inputs(plan.tasks, device or "auto", data_dir)
    control = Control()
    with nullcontext() if detach else control.listening():  # from here on there is something to stop
        job = TransferJob.start(
            RunStore(runs_dir).root, plan, argv=sys.argv, device=device or "auto", data_dir=data_dir or None
        )
        do(job, detach=detach, as_json=as_json, data_dir=data_dir, control=control)


def do(
    job: Run,
    *,
    detach: bool,
    as_json: bool,
    device: str | None = None,
    data_dir: Path | None = None,
    control: Control | None = None,
) -> None:
    """Do a job, or what is left of it, here or in the background."""
    reader = RunReader(job.path)
    if detach:
        launch.start_detached(reader, device=device, data_dir=data_dir)
        output.tell_started("transfer", reader, as_json)
        return
    finished: list[dict[str, Any]] = []

    def on_finished(evaluation: dict[str, Any]) -> None:
        finished.append(evaluation)
        if as_json:
            print_quietly(lambda: output.emit(evaluation))

    control = control or Control()
    note_deaf(control)
    with control.listening():
        follower = Follower(reader, quiet=as_json, notice=lambda: _note_stopping(control), is_ours=True)
        follower.start()
        try:
            runner = partial(TransferJob, on_finished=on_finished)
            state = worker.work(job, device=device, data_dir=data_dir, control=control, make_runner=runner)
        except KeyboardInterrupt:
            state = "stopped"
        finally:
            follower.finish()
    print_quietly(lambda: _summarize(reader, state, finished, as_json))
    raise typer.Exit(0 if state == "finished" else worker.INTERRUPTED)


def _note_stopping(control: Control) -> str:
    return "stopping; what was measured is kept; Ctrl-C again aborts at once" if control.stop else ""


def _summarize(reader: RunReader, state: str, finished: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        if state != "finished":
            output.say(f"{state}: go on with: lreg resume {reader.id}")
        return
    console = output.console()
    for heading, table in tables(finished, reader, console):
        console.print(present.text(heading, "bold"))
        console.print(table)
    console.print(present.text(f"{state}: {reader.id}"), soft_wrap=True)
    if state == "finished":
        console.print(present.text(f"more, and with intervals: {results.comparison_of(reader)}"), soft_wrap=True)
    else:
        console.print(present.text(f"go on with: lreg resume {reader.id}"), soft_wrap=True)


def tables(finished: list[dict[str, Any]], reader: RunReader, console: Any) -> list[tuple[str, Any]]:
    """A heading and a result table for every task of a job, at the last inner step."""
    plan = Plan.from_json(reader.plan())
    names = {Path(run).name: called(RunReader(run)) for run in plan.runs}
    radius = plan.protocol.middle_radius
    by_task: dict[str, list[dict[str, Any]]] = {}
    for evaluation in finished:
        task = evaluation["task"]
        rest = [
            f"{key} {show(value)}" for key, value in task.items() if key not in ("dataset", "optimizee", "batch_size")
        ]
        heading = ", ".join([f"{task['dataset']}/{task['optimizee']}", *rest])
        last = [row for row in rows([evaluation], radius) if row["inner_step"] == plan.protocol.inner_steps]
        for row in last if len(names) > 1 and evaluation["run"] else ():
            row["label"] = f"{names.get(evaluation['run'], evaluation['run'])}: {row['label']}"
        by_task.setdefault(heading, []).extend(last)
    return [(heading, results.result_table(found, console)) for heading, found in by_task.items()]
