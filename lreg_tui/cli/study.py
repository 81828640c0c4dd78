"""Studies: `lreg study`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from engine import worker
from engine.control import Control
from engine.errors import RunError
from engine.runs import RunReader, RunStore
from engine.status import LIVE
from engine.study.executors import names
from engine.study.job import Schedule, StudyJob, new_stamp, unfinished
from engine.study.plan import StudyPlan
from engine.study.snapshot import Snapshot, Watcher
from lreg_tui import launch, present, study_worker
from lreg_tui.cli import output, slurm_options
from lreg_tui.cli.control import Detach
from lreg_tui.cli.follow import print_quietly
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    RunsDir,
    check_choice,
    complete_study,
    find_run,
    whole_number,
)
from lreg_tui.cli.study_display import Display, cells_list, event, winners_rows, winners_table

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
        str, typer.Option("--devices", metavar="D,D,...", help="cpu, cuda:0,cuda:1, or auto: every GPU, else the CPU.")
    ] = "auto",
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
    as_json: AsJson = False,
) -> None:
    """Run a study: many runs, their transfer evaluations, and a report.

    Given again, it goes on with what is unfinished; finished runs are never repeated. Ctrl-C stops all its runs, each
    with a checkpoint.
    """
    from engine.study.document import load_study

    if report:
        _write_report(find_run(reference, runs_dir), as_json)
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
    schedule = Schedule(executor, at_once, devices, each, retry_failed, slurm)
    store = RunStore(runs_dir)
    plan = load_study(reference, sets or (), new_stamp(store))
    found, has_changed = (None, False) if new else unfinished(store, plan)
    if dry_run:
        _print_dry_run(plan, found, store, as_json)
        return
    if found is None:
        from engine.study import inputs, transfers

        if has_changed:
            output.say(f"there is an unfinished study {plan.name} with another plan; this is a new one")
        inputs.check(transfers.tasks(plan), data_dir, names(devices) if executor == "local" else ())
        job = StudyJob.start(store.root, plan, argv=sys.argv, data_dir=data_dir)
    else:
        _check_free(found)
        output.say(f"going on with {found.id} (--new begins anew)")
        job = StudyJob(found.path)
    job.set_schedule(schedule)
    _do(job, detach=detach, as_json=as_json, data_dir=data_dir)


def _write_report(reader: RunReader, as_json: bool) -> None:
    from engine.study.report import write_report
    from engine.study.state import plan_of

    if not reader.is_study:
        raise RunError(f"{reader.path}: no study; --report wants a study's id or folder (`lreg runs` lists them)")
    path = write_report(plan_of(reader.path), reader.path, study_worker.draw)
    if as_json:
        output.emit({"study": reader.id, "report": str(path)})
    else:
        print(present.clean(str(path)))


def resume(reader: RunReader, *, device: str | None, detach: bool, as_json: bool, data_dir: Path | None) -> None:
    """Go on with a study as it was scheduled last; what failed is tried again."""
    schedule = replace(Schedule.of(reader.path), retry_failed=True)
    schedule = replace(schedule, devices=device) if device else schedule
    job = StudyJob(reader.path)
    job.set_schedule(schedule)
    _do(job, detach=detach, as_json=as_json, data_dir=data_dir)


def _check_free(reader: RunReader) -> None:
    status = reader.status()
    if status.state in LIVE:
        who = f"process {status.pid} on host {status.host}"
        raise RunError(f"study {reader.id} is {status.state} ({who}); see it with: lreg watch {reader.id}")


def _do(job: StudyJob, *, detach: bool, as_json: bool, data_dir: Path | None) -> None:
    """Do a study, or what is left of it, here or in the background."""
    reader = RunReader(job.path)
    if detach:
        launch.start_detached(reader, data_dir=data_dir, module=study_worker.MODULE)
        if as_json:
            output.emit({"study": reader.id, "path": str(reader.path)})
        else:
            print(present.clean(reader.id))
            output.say(f"started; watch it with: lreg watch {reader.id}")
        return
    if as_json:
        output.emit({"event": "study", "id": reader.id, "path": str(reader.path)})
    output.say(f"study {reader.id}")
    with Control().listening() as control:
        display = Display(reader, as_json=as_json, notice=lambda: _note_stopping(control))

        loop = partial(study_worker.make_loop, on_look=lambda look: print_quietly(lambda: display.show(look)))
        try:
            state = worker.work(job, data_dir=data_dir, control=control, make_loop=loop)
        except KeyboardInterrupt:
            state = "stopped"
        finally:
            display.close()
    seen = display.last.snapshot if display.last else None
    print_quietly(lambda: _summarize(reader, state, seen, as_json))
    raise typer.Exit(worker.EXIT_CODES[state])


def _note_stopping(control: Control) -> str:
    return "stopping: every run writes a checkpoint; Ctrl-C again leaves them alone with it" if control.stop else ""


def _summarize(reader: RunReader, state: str, seen: Snapshot | None, as_json: bool) -> None:
    """The last words on a study: the winners, where the report is, and what can be done next."""
    status = reader.status()
    report = reader.path / "report" / "report.md"
    shown = str(report) if report.is_file() else None
    if as_json:
        rows = winners_rows(seen) if seen else []
        end = {"event": "end", "id": reader.id, "state": state, "message": status.message}
        output.emit({**end, "winners": rows, "report": shown})
        return
    console = output.console()
    if seen is not None and seen.winners:
        console.print(winners_table(seen))
    console.print(present.text(f"{state}: {reader.id}"), soft_wrap=True)
    if status.message:
        console.print(present.text(status.message), soft_wrap=True)
    elif shown:
        console.print(present.text(f"report: {shown}"), soft_wrap=True)
    if state != "finished":
        console.print(present.text(f"go on with: lreg resume {reader.id}"), soft_wrap=True)


def _print_dry_run(plan: StudyPlan, found: RunReader | None, store: RunStore, as_json: bool) -> None:
    """The runs there will be, and what is there of them."""
    from engine.runs import STUDIES
    from engine.study.state import plan_of

    folder = found.path if found else store.root / STUDIES / plan.name  # of a new one nothing is there
    seen = Watcher(plan_of(found.path) if found else plan, folder).look()
    if as_json:
        for cell in seen.cells:
            output.emit(event(cell))
        return
    output.console().print(cells_list(seen))
    where = f"of {found.id}" if found else "of a new study"
    there = sum(cell.state != "missing" for cell in seen.cells)
    search = "; a search asks for its points as it goes" if plan.search else ""
    output.say(f"{len(seen.cells)} runs {where}, {there} of them there already; {seen.total} runs and transfers in all")
    if search:
        output.say(search.removeprefix("; "))
