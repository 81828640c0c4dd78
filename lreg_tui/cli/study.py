"""Studies: `lreg study`."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import worker
from engine.base.control import Control
from engine.base.errors import LregError, RunError
from engine.base.settings import show
from engine.base.status import LIVE
from engine.jobs import spawn
from engine.presets.document import is_file
from engine.runs.kinds import STUDY
from engine.runs.store import Run, RunReader, RunStore
from engine.study.plan.kept import check_kept, is_kept, report_file, study_in
from engine.study.plan.snapshot import Watcher
from engine.study.plan.sources import shipped_studies
from engine.study.plan.state import plan_of
from engine.study.schedule import slurm as slurm_options
from engine.study.schedule.job import Schedule, finished, new_stamp, unfinished
from engine.study.schedule.loop import StudyJob, go_on, take_up
from lreg_tui.cli import output
from lreg_tui.cli.follow import FollowOptions, do_here, note_deaf, print_quietly, when_stopping
from lreg_tui.cli.options import (
    AsJson,
    DataDir,
    Detach,
    LogTo,
    Plugins,
    RunsDir,
    choice,
    find_run,
    flag,
    number,
    offering_files,
    option,
)
from lreg_tui.cli.study_display import StudyDisplay, print_plan, summarize
from lreg_tui.studies import study_worker
from lreg_tui.text import present

THREADS = "CPU threads of each run. Default: as before, else a fair share."
EXECUTORS = ("local", "slurm")
SLURM_PARTITION = "With --executor slurm: the partition. Default: that of the cluster."
SLURM_TIME = "Time limit of a job, as 30, 4:00:00, 1-12. Longer runs take several jobs."
SLURM_ARRAY = "How many jobs of an array run at once. Default: as many as fit."
SLURM_SETUP = "Shell that jobs begin with; may be given again, and is to be, when the study is resumed."


def study(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="A path, or the name of a shipped study.",
            autocompletion=offering_files(shipped_studies),
        ),
    ],
    sets: Annotated[
        list[str] | None, option("--set", "KEY=VALUE", "Override a key of the study; may be given again.")
    ] = None,
    jobs: Annotated[
        int, number("--jobs", "N", "How many runs at once. Default: as many as fit.", minimum=0, maximum=10_000)
    ] = 0,
    devices: Annotated[
        list[str] | None, option("--devices", "D,D,...", "cpu, cuda:0,cuda:1, or auto: every GPU, else the CPU.")
    ] = None,
    threads: Annotated[int, number("--threads", "N", THREADS, minimum=0, maximum=4096)] = 0,
    executor: Annotated[
        str, choice("--executor", "NAME", EXECUTORS, f"Where the runs compute: {', '.join(EXECUTORS)}.")
    ] = "local",
    slurm_partition: Annotated[str, option("--slurm-partition", "NAME", SLURM_PARTITION)] = "",
    slurm_time: Annotated[str, option("--slurm-time", "TIME", SLURM_TIME)] = "",
    slurm_gpus: Annotated[str, option("--slurm-gpus", "N", "GPUs of each run, as 1 or a100:1.")] = "",
    slurm_cpus: Annotated[str, option("--slurm-cpus", "N", "CPUs of each run. Default: its threads, else 2.")] = "",
    slurm_mem: Annotated[str, option("--slurm-mem", "SIZE", "Memory of each run, as 8G.")] = "",
    slurm_array: Annotated[str, option("--slurm-array", "N", SLURM_ARRAY)] = "",
    slurm_setup: Annotated[list[str] | None, option("--slurm-setup", "LINE", SLURM_SETUP)] = None,
    new: Annotated[bool, flag("--new", "Begin anew, even if this study is there unfinished.")] = False,
    retry_failed: Annotated[bool, flag("--retry-failed", "Try runs again that have failed.")] = False,
    dry_run: Annotated[bool, flag("--dry-run", "Print what there is to do, and do nothing.")] = False,
    report: Annotated[
        bool,
        flag("--report", "Write the report of a study's id, or of a kept one's folder, of what is there; run nothing."),
    ] = False,
    keep: Annotated[
        Path | None, option("--keep", "DIR", "Keep what a study's report is made of in a small run store; run nothing.")
    ] = None,
    runs_dir: RunsDir = None,
    data_dir: DataDir = None,
    detach: Detach = False,
    log_to: LogTo = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Run a study: many runs, their transfer evaluations, and a report.

    Given again, it goes on with what is unfinished; finished runs are never repeated. Ctrl-C stops all its runs, each
    with a checkpoint.
    """
    from engine.study.plan.document import load_study

    if report or keep:
        _write_report(reference, runs_dir, keep, as_json)
        return
    slurm_values = {"partition": slurm_partition, "time": slurm_time, "gpus": slurm_gpus, "cpus": slurm_cpus}
    slurm = _slurm({**slurm_values, "mem": slurm_mem, "array": slurm_array}, slurm_setup, executor)
    schedule = Schedule(executor, jobs, ",".join(devices or ["auto"]), threads, retry_failed, slurm)
    store, how = RunStore(runs_dir), FollowOptions(None, data_dir, detach, as_json)
    plan = load_study(reference, sets or (), new_stamp(store))
    begun, has_changed = (None, False) if new else unfinished(store, plan)
    done = finished(store, plan) if not new and begun is None else None
    if dry_run:
        print_plan(plan, begun or done, store, as_json=as_json)
        return
    if done is not None:
        output.say(f"{done.id} has finished, none of its runs failed: nothing to do (--new begins anew)")
        _tell_id(done, how)
        if not detach:
            summarize(done, "finished", Watcher(plan_of(done.path), done.path).look(), as_json)
        return
    if begun is not None and (status := begun.status()).state in LIVE:
        who = f"process {status.pid} on host {status.host}"
        raise RunError(f"study {begun.id} is {status.state} ({who}); see it with: lreg watch {begun.id}")
    job = take_up(store, plan, begun, schedule, data_dir)
    if begun is not None:
        output.say(f"going on with {begun.id} (--new begins anew)")
    elif has_changed:
        output.say(f"there is an unfinished study {plan.name} with another plan; this is a new one")
    _do(job, how)


def _slurm(options: dict[str, str], setup: list[str] | None, executor: str) -> dict[str, Any]:
    """The options as a study's schedule keeps them. Raises LregError; so nothing is made where Slurm is missing.

    The lines of `setup` are not kept there: they go into the environment, for this scheduler and no other.
    """
    if setup:
        os.environ[slurm_options.SETUP] = "\n".join(setup)
    values = {name: value for name, value in options.items() if value}
    if executor == "slurm":
        slurm_options.SlurmOptions.of(values)
        slurm_options.setup_lines()
        slurm_options.check_there()
        return values
    if values:
        raise LregError(f"--slurm-{next(iter(values))}: of no use without --executor slurm")
    return {}


def _write_report(reference: str, runs_dir: Path | None, target: Path | None, as_json: bool) -> None:
    """Of the study as it lies there, or of what is kept of it. Raises RunError where no study is meant."""
    from engine.study.report.keep import keep
    from engine.study.report.report import write_report

    reader = _begun(reference, runs_dir, "--keep" if target else "--report")
    before = {} if target else _contents(report_file(reader.path).parent)
    if target:
        path = keep(reader.path, target, study_worker.draw)
    else:
        path = write_report(plan_of(reader.path), reader.path, study_worker.draw)
    after = _contents(path.parent)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    if as_json:
        output.emit({"study": reader.id, "report": str(path), "changed": changed})
        return
    print(present.clean(str(path)))
    if target:
        files = [file for file in target.rglob("*") if file.is_file()]
        output.say(f"kept: {present.count(len(files), 'file')}, {present.size(sum(f.stat().st_size for f in files))}")
    elif before:
        output.say(f"changed: {', '.join(changed)}" if changed else "equal to the report that was there")


def _begun(reference: str, runs_dir: Path | None, option: str) -> RunReader:
    """A study that was started, or one that was kept, by its folder. Raises RunError."""
    expected = f"{option} wants the id, name or folder of a study that was started"
    if is_file(Path(reference)):
        raise RunError(f"{show(reference)}: a file; {expected}")
    reader = study_in(Path(reference)) if is_kept(Path(reference)) else find_run(reference, runs_dir)
    if reader.kind is not STUDY:
        raise RunError(f"{reader.path}: no study; {expected}")
    if is_kept(store := reader.path.parent.parent):
        check_kept(store)
    return reader


def _contents(folder: Path) -> dict[str, bytes]:
    """Digests of what a report's folder holds, by name."""
    paths = [path for path in folder.glob("*") if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).digest() for path in paths}


def resume(reader: RunReader, how: FollowOptions) -> None:
    """Go on with a study as it was scheduled last; what failed is tried again."""
    _do(go_on(reader.path, how.device or "", how.data_dir), how)


def _do(job: Run, how: FollowOptions) -> None:
    """Do a study, or what is left of it, here or in the background."""
    reader = RunReader(job.path)
    if how.detach:
        spawn.start_detached(reader, data_dir=how.data_dir, module=study_worker.MODULE)
        output.tell_started("study", reader, how.as_json)
        return
    _tell_id(reader, how)
    output.say(f"study {reader.id}")
    control = Control()
    note_deaf(control)
    words = "stopping: every run writes a checkpoint; Ctrl-C again leaves them alone with it"
    with control.listening():
        display = StudyDisplay(reader, as_json=how.as_json, notice=when_stopping(control, words))
        scheduler = partial(
            StudyJob, draw=study_worker.draw, on_look=lambda look: print_quietly(lambda: display.show(look))
        )
        try:
            state = do_here(job, data_dir=how.data_dir, control=control, make_runner=scheduler)
        except KeyboardInterrupt:
            state = "stopped"
        finally:
            display.close()
    seen = display.last.snapshot if display.last else None
    print_quietly(lambda: summarize(reader, state, seen, how.as_json))
    raise typer.Exit(worker.EXIT_CODES[state])


def _tell_id(reader: RunReader, how: FollowOptions) -> None:
    """What is first on stdout: for programs, and of a study in the background for people, too."""
    if how.as_json:
        kind = {"study": reader.id} if how.detach else {"event": "study", "id": reader.id}
        output.emit({**kind, "path": str(reader.path)})
    elif how.detach:
        print(present.clean(reader.id))
