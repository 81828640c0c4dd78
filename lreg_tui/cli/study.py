"""Studies: `lreg study`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from engine import worker
from engine.base.control import Control
from engine.base.errors import RunError
from engine.base.settings import show
from engine.base.status import LIVE
from engine.presets.document import is_file
from engine.runs.kinds import STUDY
from engine.runs.store import Run, RunReader, RunStore
from engine.study.plan.snapshot import Watcher
from engine.study.plan.state import plan_of
from engine.study.schedule.job import Schedule, finished, new_stamp, unfinished
from engine.study.schedule.loop import StudyJob
from engine.study.schedule.start import go_on, take_up
from lreg_tui.cli import output, slurm_options
from lreg_tui.cli.follow import print_quietly
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    Detach,
    Plugins,
    RunsDir,
    check_choice,
    complete_study,
    find_run,
    whole_number,
)
from lreg_tui.cli.study_display import Display, print_plan, summarize
from lreg_tui.cli.summary import note_deaf
from lreg_tui.studies import study_worker
from lreg_tui.system import launch
from lreg_tui.text import present

EXECUTORS = ("local", "slurm")


def study(
    reference: Annotated[
        str,
        typer.Argument(metavar="STUDY", help="A path, or the name of a shipped study.", autocompletion=complete_study),
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the study; may be given again."),
    ] = None,
    jobs: Annotated[
        str, typer.Option("--jobs", metavar="N", help="How many runs at once. Default: as many as fit.")
    ] = "0",
    devices: Annotated[
        list[str] | None,
        typer.Option("--devices", metavar="D,D,...", help="cpu, cuda:0,cuda:1, or auto: every GPU, else the CPU."),
    ] = None,
    threads: Annotated[
        str,
        typer.Option("--threads", metavar="N", help="CPU threads of each run. Default: as before, else a fair share."),
    ] = "0",
    executor: Annotated[
        str, typer.Option("--executor", metavar="NAME", help=f"Where the runs compute: {', '.join(EXECUTORS)}.")
    ] = "local",
    slurm_partition: slurm_options.Partition = "",
    slurm_time: slurm_options.Time = "",
    slurm_gpus: slurm_options.Gpus = "",
    slurm_cpus: slurm_options.Cpus = "",
    slurm_mem: slurm_options.Memory = "",
    slurm_array: slurm_options.Array = "",
    slurm_setup: slurm_options.Setup = None,
    new: Annotated[bool, typer.Option("--new", help="Begin anew, even if this study is there unfinished.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try runs again that have failed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what there is to do, and do nothing.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write the report of a study's id, of what is there by now; run nothing.")
    ] = False,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    detach: Detach = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Run a study: many runs, their transfer evaluations, and a report.

    Given again, it goes on with what is unfinished; finished runs are never repeated. Ctrl-C stops all its runs, each
    with a checkpoint.
    """
    from engine.study.plan.document import load_study

    if report:
        _write_report(_started(reference, runs_dir), as_json)
        return
    check_choice("--executor", executor, EXECUTORS)
    at_once, each = whole_number("--jobs", jobs, 0, 10_000), whole_number("--threads", threads, 0, 4096)
    slurm = slurm_options.checked(
        executor,
        partition=slurm_partition,
        time=slurm_time,
        gpus=slurm_gpus,
        cpus=slurm_cpus,
        mem=slurm_mem,
        array=slurm_array,
        setup=slurm_setup,
    )
    schedule = Schedule(executor, at_once, ",".join(devices or ["auto"]), each, retry_failed, slurm)
    store = RunStore(runs_dir)
    plan = load_study(reference, sets or (), new_stamp(store))
    found, has_changed = (None, False) if new else unfinished(store, plan)
    done = finished(store, plan) if not new and found is None else None
    if dry_run:
        print_plan(plan, found or done, store, as_json=as_json)
        return
    if done is not None:
        output.say(f"{done.id} has finished, none of its runs failed: nothing to do (--new begins anew)")
        _tell_id(done, detach=detach, as_json=as_json)
        if not detach:
            summarize(done, "finished", Watcher(plan_of(done.path), done.path).look(), as_json)
        return
    if found is not None:
        _check_free(found)
    job = take_up(store, plan, found, schedule, data_dir)
    if found is not None:
        output.say(f"going on with {found.id} (--new begins anew)")
    elif has_changed:
        output.say(f"there is an unfinished study {plan.name} with another plan; this is a new one")
    _do(job, detach=detach, as_json=as_json, data_dir=data_dir)


def _started(reference: str, runs_dir: Path | None) -> RunReader:
    """The study that is meant. Raises RunError."""
    wanted = "--report wants the id, name or folder of a study that was started"
    if is_file(Path(reference)):
        raise RunError(f"{show(reference)}: a file; {wanted}")
    try:
        reader = find_run(reference, runs_dir)
    except RunError as error:
        newest = [known.id for known in RunStore(runs_dir).studies()][-3:]
        raise RunError(f"{error}; the newest studies: {', '.join(newest)}" if newest else str(error)) from None
    if reader.kind is not STUDY:
        raise RunError(f"{reader.path}: no study; {wanted}")
    return reader


def _write_report(reader: RunReader, as_json: bool) -> None:
    from engine.study.report.report import write_report

    path = write_report(plan_of(reader.path), reader.path, study_worker.draw)
    if as_json:
        output.emit({"study": reader.id, "report": str(path)})
    else:
        print(present.clean(str(path)))


def resume(reader: RunReader, *, device: str | None, detach: bool, as_json: bool, data_dir: Path | None) -> None:
    """Go on with a study as it was scheduled last; what failed is tried again."""
    _do(go_on(reader.path, device or "", data_dir), detach=detach, as_json=as_json, data_dir=data_dir)


def _check_free(reader: RunReader) -> None:
    status = reader.status()
    if status.state in LIVE:
        who = f"process {status.pid} on host {status.host}"
        raise RunError(f"study {reader.id} is {status.state} ({who}); see it with: lreg watch {reader.id}")


def _do(job: Run, *, detach: bool, as_json: bool, data_dir: Path | None) -> None:
    """Do a study, or what is left of it, here or in the background."""
    reader = RunReader(job.path)
    if detach:
        launch.start_detached(reader, data_dir=data_dir, module=study_worker.MODULE)
        output.tell_started("study", reader, as_json)
        return
    _tell_id(reader, detach=False, as_json=as_json)
    output.say(f"study {reader.id}")
    control = Control()
    note_deaf(control)
    with control.listening():
        display = Display(reader, as_json=as_json, notice=lambda: _note_stopping(control))

        tell = lambda look: print_quietly(lambda: display.show(look))  # noqa: E731
        scheduler = partial(StudyJob, draw=study_worker.draw, on_look=tell)
        try:
            state = worker.work(job, data_dir=data_dir, control=control, make_runner=scheduler)
        except KeyboardInterrupt:
            state = "stopped"
        finally:
            display.close()
    seen = display.last.snapshot if display.last else None
    print_quietly(lambda: summarize(reader, state, seen, as_json))
    raise typer.Exit(worker.EXIT_CODES[state])


def _tell_id(reader: RunReader, *, detach: bool, as_json: bool) -> None:
    """What is first on stdout: for programs, and of a study in the background for people, too."""
    if as_json:
        output.emit(
            {"study": reader.id, "path": str(reader.path)}
            if detach
            else {"event": "study", "id": reader.id, "path": str(reader.path)}
        )
    elif detach:
        print(present.clean(reader.id))


def _note_stopping(control: Control) -> str:
    return "stopping: every run writes a checkpoint; Ctrl-C again leaves them alone with it" if control.stop else ""
