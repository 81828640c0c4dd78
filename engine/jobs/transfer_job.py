"""Transfer job: a transfer evaluation as a process of its own, which can be watched, stopped and resumed like a run.

Its folder, in `.transfers` of the run store, is a run's with plan.json in place of a preset. What it measures goes into
the folders of the runs that it evaluates; what there is of an evaluation that is not complete stays in `partial`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.control import Control, Stopped
from engine.base.errors import RunError, printable
from engine.base.files import make_folder, read_json, refuse_links, strict, write_atomic
from engine.evaluation import scale
from engine.evaluation.transfer_plan import Plan, Planned
from engine.jobs.job_runner import JobRunner
from engine.runs.kinds import TRANSFER
from engine.runs.reader import LARGEST_TRANSFER, RunReader
from engine.runs.store import is_run
from engine.runs.writer import Run, is_complete

if TYPE_CHECKING:
    from engine.evaluation.optimizer_source import Source
    from engine.tasks.base import Task

BASELINES_FOLDER = ".baselines"
"""Of a run store: what hand-designed optimizers reached, for every run to be compared with."""

Listener = Callable[[dict[str, Any]], None]
"""Is told of every evaluation when it is complete."""


@dataclass
class InProgress:
    """An evaluation as far as it has come: `evaluation` holds its facts and the optimizees in their order."""

    item: Planned
    numbers: Sequence[int]
    paths: Sequence[Path]
    unfinished: Path
    evaluation: dict[str, Any]

    @property
    def seeds(self) -> dict[int, dict[str, Any]]:
        """What was measured, by the optimizee's number."""
        return {seed["seed"]: seed for seed in self.evaluation.get("seeds", [])}

    @property
    def missing(self) -> list[int]:
        return [number for number in self.numbers if number not in self.seeds]

    def take(self, evaluation: Mapping[str, Any]) -> None:
        """Add optimizees; the facts of the evaluation are the same for all."""
        seeds = self.seeds | {seed["seed"]: seed for seed in evaluation["seeds"]}
        self.evaluation = {**self.evaluation, **evaluation, "seeds": [seeds[number] for number in sorted(seeds)]}

    def keep(self) -> None:
        """Write the evaluation to where it belongs, unless it is there."""
        for path in self.paths:
            if not path.is_file() or len(_read(path).get("seeds", [])) < len(self.seeds):
                _write(path, self.evaluation)
        self.unfinished.unlink(missing_ok=True)


class TransferJob(JobRunner):
    """A transfer job that is being done: what is left of its plan."""

    kind = TRANSFER

    def __init__(
        self,
        job: Run,
        control: Control,
        device: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        on_finished: Listener = lambda evaluation: None,
    ) -> None:
        super().__init__(job, control, device, data_dir)
        self.on_finished = on_finished
        home = job.path.parent  # a job that lies elsewhere belongs to no run store
        self.store = home.parent if home.name == TRANSFER.home else None

    @staticmethod
    def start(store_dir: Path, plan: Plan, *, device: str = "auto", **facts: Any) -> Run:
        """Make the folder of a new job, as `Run.make` does."""
        return Run.make(TRANSFER, store_dir, TRANSFER.name, plan.dumps(), device=device, **facts)

    @staticmethod
    def choices(reader: RunReader) -> dict[str, Any]:
        return Plan.from_json(reader.plan()).summary()

    @staticmethod
    def tasks(reader: RunReader) -> Sequence[Mapping[str, Any]]:
        return Plan.from_json(reader.plan()).tasks

    def do(self) -> str:
        """Do what is left of the plan. Returns finished or stopped."""
        self.plan = self._at_home(Plan.from_json(RunReader(self.run.path).plan()))
        self._check_folders()
        where = self._pick_device()
        self.run.set_status(message="")
        groups = self.plan.groups()
        total = sum(map(len, groups))
        self.finished: list[scale.Finished] = []
        self.total, self.began = total, time.monotonic()
        self.left = float(sum(self._work(item) for group in groups for item in group))
        self.measured = 0.0  # of that work; what was there already tells nothing of how long it takes
        try:
            for group in groups:
                self._progress()
                self._tick()
                for item, evaluation in zip(group, self._evaluate(group, where), strict=True):
                    self._finish(len(self.finished) + 1, item, evaluation)
            self.run.progress(total, total, None)
            for run in self.plan.runs:  # which scale did best on validation, on the tasks that it was meta-trained on
                if (best := scale.keep_best(RunReader(run), self.finished)) is not None:
                    self.run.log(f"{Path(run).name}: best scale {best:g}")
        except Stopped:
            return "stopped"
        return "finished"

    def _at_home(self, plan: Plan) -> Plan:
        """The plan, with its runs in the run store that the job lies in, which may be a copy, where they are there."""
        if self.store is None:
            return plan
        copies = [self.store / Path(run).name for run in plan.runs]
        moved = (str(copy) if is_complete(copy) else run for run, copy in zip(plan.runs, copies, strict=True))
        return replace(plan, runs=tuple(moved))

    def _evaluate(self, items: Sequence[Planned], where: Any) -> list[dict[str, Any]]:
        """The evaluations of a group of the plan: what is there already, and what was still to be measured."""
        from engine.evaluation.optimizer_source import source_of, work_of
        from engine.tasks.table import build_task

        first = items[0]
        if first.run and not Path(first.run).is_dir():
            raise RunError(f"{first.run}: no such run any more")
        task = build_task(first.task, data_dir=self.data_dir, device=where)
        source = source_of(first)
        begun = [self._begin(item, item.file_name(item.identity(source.digest))) for item in items]
        if any(entry.missing for entry in begun):
            _check_writable([path.parent for path in begun[0].paths])  # now, not when hours have been spent
        for entry in begun:
            tuning, each = work_of(entry.item)
            self.left -= each * (len(entry.numbers) - len(entry.missing)) + tuning * bool(entry.evaluation)
            report = self._reporter(entry.item, tuning)
            if entry.missing and (prepared := source.prepare(task, entry.evaluation, tick=self._tick, report=report)):
                entry.take({**prepared, "seeds": []})
                _write(entry.unfinished, entry.evaluation)
                self._count(tuning)
        while unfinished := [entry for entry in begun if entry.missing]:
            self._measure(unfinished, task, source)
        for entry in begun:
            entry.keep()
        numbers = range(self.plan.settings.seeds)
        return [{**entry.evaluation, "seeds": [entry.seeds[number] for number in numbers]} for entry in begun]

    def _begin(self, item: Planned, name: str) -> InProgress:
        # that of a baseline in the store, and with every run
        folders = [Path(item.run) / "transfer"] if item.run else self._folders()
        paths = [folder / f"{name}.json" for folder in folders]
        unfinished = self.run.path / "partial" / f"{name}.json"
        return InProgress(item, range(self.plan.settings.seeds), paths, unfinished, self._saved([*paths, unfinished]))

    def _measure(self, unfinished: Sequence[InProgress], task: Task, source: Source) -> None:
        """Evaluate some optimizees of the first item, and beside them the same of others that lack the same."""
        from engine.evaluation.optimizer_source import work_of

        first = unfinished[0]
        item, numbers = first.item, first.missing[: source.at_once(task)]
        alike = [entry for entry in unfinished if entry.missing == first.missing]
        together = alike[: max(1, source.together(task) // len(numbers))]
        more = f" and {len(together) - 1} more" if len(together) > 1 else ""
        self.run.log(f"{_words(item)}{more}: optimizees {numbers[0]} to {numbers[-1]}")
        work = work_of(item)[1] * len(numbers) * len(together)
        report = self._reporter(item, work)
        report("starting", 0.0)
        items = [entry.item for entry in together]
        measured = source.evaluate(items, task, numbers, first.evaluation, tick=self._tick, report=report)
        self._count(work)
        run = Path(item.run).name if item.run else None
        protocol = {
            key: list(value) if isinstance(value, tuple) else value for key, value in vars(item.protocol).items()
        }
        for entry, evaluation in zip(together, measured, strict=True):
            entry.take({"run": run, **evaluation, "protocol": protocol})
            if entry.missing:
                _write(entry.unfinished, entry.evaluation)
            else:
                entry.keep()

    def _work(self, item: Planned) -> int:
        from engine.evaluation.optimizer_source import work_of

        tuning, each = work_of(item)
        return tuning + each * self.plan.settings.seeds

    def _count(self, work: float) -> None:
        """So much work is done."""
        self.measured, self.left = self.measured + work, self.left - work

    def _progress(self, begun: float = 0.0) -> None:
        """Tell how far the job is; `begun`: work of what is under way that is done already."""
        self.run.progress(len(self.finished), self.total, self._eta(self.measured + begun, self.left - begun))

    def _reporter(self, item: Planned, work: float) -> Callable[[str, float], None]:
        """What is told of a piece of so much work."""

        def report(text: str, share: float) -> None:
            self.run.note(f"{_words(item)}, {text}")
            self._progress(share * work)

        return report

    def _folders(self) -> list[Path]:
        """Where results are kept: the store's folder for baselines, if the job lies in a store, and each run's."""
        shared = [self.store / BASELINES_FOLDER] if self.store else []
        return [*shared, *(Path(run) / "transfer" for run in self.plan.runs)]

    def _check_folders(self) -> None:
        """Raise RunError where results would be kept in no run, or through a link: the plan may be a stranger's."""
        for run in self.plan.runs:
            if Path(run).is_dir() and not is_run(Path(run)):
                raise RunError(f"{run}: a folder, but no run, and results are kept in runs only")
        try:
            for folder in self._folders():
                refuse_links(folder, folder.parent)
        except OSError as error:
            raise RunError(f"{error.filename}: {error.strerror}") from None

    def _saved(self, paths: Sequence[Path]) -> dict[str, Any]:
        """The evaluation as it was saved, from the file that is whole and has the most of it."""
        best: dict[str, Any] = {}
        for path in paths:
            evaluation = _read(path)
            if path.is_file() and not _is_whole(evaluation):
                self.run.log(f"{path}: damaged; measured again")
                print(f"{printable(str(path))}: damaged; measured again", file=sys.stderr)
                path.unlink()
            elif not best or len(evaluation.get("seeds", [])) > len(best["seeds"]):
                best = evaluation  # of a baseline in `partial` perhaps its settings alone
        return best

    def _finish(self, done: int, item: Planned, evaluation: dict[str, Any]) -> None:
        from engine.runs.results import columns, rows

        last = rows([evaluation], item.protocol.middle_radius)[-1]
        means = {metric.name: last[metric.name]["mean"] for metric in columns([last])}
        self.run.append([{"step": done, **means, "diverged": last["diverged"]}])
        self.run.log(f"{item.task_name}: {Path(item.run).name} {item.label}: done")
        self.finished.append((item, evaluation))
        self.on_finished(evaluation)


def _words(item: Planned) -> str:
    """What is being evaluated on what, for people."""
    return f"{item.task_name}: {Path(item.run).name + ' ' if item.run else ''}{item.label}"


def check_writable(plan: Plan) -> None:
    """Raise RunError where what a plan measures could not be kept in its runs' folders."""
    _check_writable([Path(run) / "transfer" for run in plan.runs])


def _check_writable(folders: Sequence[Path]) -> None:
    """Raise RunError where results could not be kept in these folders, or these not be made."""
    for folder in (folder if folder.is_dir() else folder.parent for folder in folders):
        if not os.access(folder, os.W_OK):
            raise RunError(f"{folder}: cannot be written, and results are kept there")


def _is_whole(evaluation: Mapping[str, Any]) -> bool:
    """Whether a transfer file can be gone on from: it says what it is, and its seeds are numbered and measured."""
    seeds, task = evaluation.get("seeds"), evaluation.get("task")
    if seeds == []:  # of a baseline whose settings alone are known
        return True
    if not isinstance(task, dict) or not {"dataset", "optimizee"} <= task.keys():
        return False
    return isinstance(seeds, list) and all(
        isinstance(seed, dict)
        and isinstance(seed.get("seed"), int)
        and isinstance(seed.get("diverged"), bool)
        and isinstance(seed.get("marks"), list)
        and seed["marks"]
        and all(isinstance(mark, dict) and isinstance(mark.get("inner_step"), int) for mark in seed["marks"])
        for seed in seeds
    )


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, LARGEST_TRANSFER, path.parent.parent)


def _write(path: Path, evaluation: Mapping[str, Any]) -> None:
    make_folder(path.parent)  # a run that was deleted meanwhile is not made anew
    write_atomic(path, json.dumps(strict(evaluation), indent=1) + "\n")
