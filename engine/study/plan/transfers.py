"""Transfers of a study: which transfer jobs it wants, with ids that are the same whenever it asks for them.

One job for each run, so that they go side by side; the hand-designed optimizers once for the study, task by task.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.base.errors import PresetError, Problem
from engine.base.settings import check_table, schema_of, show, unknown_key
from engine.evaluation.transfer_plan import GRID, Plan, TransferSettings, make, marks_within
from engine.presets.catalog import Catalog
from engine.presets.preset import from_mapping
from engine.presets.tables import stages
from engine.runs.kinds import TRANSFER
from engine.runs.reader import RunReader
from engine.study.plan.plan import ArmPlan, StudyPlan, TransferSpec, as_tuples
from engine.study.plan.state import Candidate, CellState

MOST_TARGETS = 1000
PASSED_ON = ("steps", "seeds", "checkpoint", "marks")  # to TransferSettings as they are


@dataclass(frozen=True)
class StudyTransfer:
    """A transfer job that a study wants: of one run; or of baselines, which the reference arm's runs are told of."""

    arm: str
    runs: tuple[RunReader, ...] = field(hash=False)
    targets: tuple[str, ...]
    settings: dict[str, Any] = field(hash=False)
    evaluation: dict[str, Any] = field(hash=False)
    is_baselines: bool = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"baselines on {', '.join(self.targets)}" if self.is_baselines else f"transfer of {self.runs[0].id}"

    def job_id(self, stamp: str) -> str:
        """The name of the job's folder."""
        decisive = [[run.id for run in self.runs], self.targets, self.settings, self.evaluation, self.is_baselines]
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=list).encode()).hexdigest()
        return f"{stamp}-transfer-{digest[:8]}"

    def plan(self) -> Plan:
        """What the job is to do. Raises PresetError or RunError."""
        settings = TransferSettings(**as_tuples(self.settings))
        plan = make(self.runs, self.targets, settings, {"evaluation": self.evaluation})
        return replace(plan, baselines_alone=self.is_baselines)


@dataclass(frozen=True)
class TransferState:
    """A transfer and where its job is."""

    transfer: StudyTransfer
    run: RunReader
    state: str  # a run's state, or missing


def wanted_transfers(
    plan: StudyPlan, cells: Iterable[CellState], winners: Mapping[str, Candidate], store: Path
) -> Iterator[tuple[StudyTransfer, RunReader]]:
    """The transfers that can be done now, and their jobs' folders: of winners, or of every run that has finished."""
    request = plan.transfer
    if request is None:
        return
    chosen = cells if request.of == "all" else [cell for winner in winners.values() for cell in winner.cells]
    controls: dict[str, Any] = {"scales": (1.0, *request.scales), "untrained": request.untrained}
    later = {"weight_decays": request.weight_decays, "sam": request.sam}  # jobs of before go by the others
    controls |= {key: values for key, values in later.items() if values}
    transfers = [
        StudyTransfer(
            cell.cell.arm,
            (cell.run,),
            request.to,
            {**request.settings, **(controls if cell.cell.arm == plan.reference else {})},
            request.evaluation,
        )
        for cell in chosen
        if cell.state == "finished"
    ]
    if request.baselines and plan.reference in winners:
        runs = tuple(cell.run for cell in winners[plan.reference].cells)
        settings = {**request.settings, "baselines": request.baselines}
        transfers += [
            StudyTransfer(plan.reference, runs, targets, settings, request.evaluation, is_baselines=True)
            for targets in _targets(request)
        ]
    for transfer in transfers:
        yield transfer, RunReader(store / TRANSFER.home / transfer.job_id(plan.stamp))


def expected(plan: StudyPlan, cells: int) -> int:
    """How many transfers there will be in the end, if every arm has a winner; `cells`: how many runs."""
    request = plan.transfer
    if request is None:
        return 0
    runs = cells if request.of == "all" else len(plan.arms) * len(plan.seeds)
    return runs + (len(_targets(request)) if request.baselines else 0)


def _targets(request: TransferSpec) -> list[tuple[str, ...]]:
    """One by one, so that they can be done side by side; one of none: what the reference arm was meta-trained on."""
    return [(name,) for name in request.names] or [()]


def tasks(plan: StudyPlan) -> list[dict[str, Any]]:
    """Every task that a study needs the data of, each once: those of its arms, and what it transfers to."""
    from engine.presets.preset import from_mapping

    every = [task for arm in plan.arms for task in from_mapping(arm.preset).tasks]
    for name in plan.transfer.names if plan.transfer is not None else ():
        dataset, _, optimizee = name.partition("/")
        every += from_mapping({"task": {"dataset": dataset, "optimizee": optimizee}}).tasks
    return list({json.dumps(task, sort_keys=True, default=list): task for task in every}.values())


def read_transfer(
    table: Mapping[str, Any], arms: Sequence[ArmPlan], catalog: Catalog
) -> tuple[TransferSpec, list[Problem]]:
    """The request, and what is wrong with it."""
    schema = [*schema_of(TransferSpec), *(item for item in schema_of(TransferSettings) if item.name in PASSED_ON)]
    allowed = [*(item.name for item in schema), "evaluation"]
    values, problems = check_table({key: table[key] for key in table if key in allowed[:-1]}, schema, "transfer")
    problems += [unknown_key(f"transfer.{key}", allowed) for key in table if key not in allowed]
    problems += _target_problems(values["to"] or (), catalog)
    evaluation = table.get("evaluation", {})
    if isinstance(evaluation, Mapping):  # the keys that go over every arm's
        usual = arms[0].preset.get("evaluation", {}) if arms else {}
        wrong = _problems(from_mapping, {"evaluation": {**usual, **evaluation}}, catalog=catalog)
        problems += [dataclasses.replace(item, path=f"transfer.{item.path}", source="") for item in wrong]
    else:
        problems.append(Problem("transfer.evaluation", show(evaluation), "a table: [transfer.evaluation]"))
    if not problems:  # by default a transfer is as long as the last stage of meta-training
        steps = values["steps"] or min((max(stages(arm.preset["meta"])) for arm in arms), default=10**7)
        wrong = _problems(marks_within, steps, values["marks"])
        problems += [dataclasses.replace(item, path="transfer.marks", source="") for item in wrong]
    settings = {key: values[key] for key in PASSED_ON if values[key] is not None}
    request = TransferSpec(
        of=values["of"],
        to=tuple(dict.fromkeys(values["to"] or ())),
        settings=settings | ({"marks": list(settings["marks"])} if "marks" in settings else {}),
        evaluation=dict(evaluation) if isinstance(evaluation, Mapping) else {},
        scales=tuple(sorted({scale for scale in values["scales"] or () if scale != 1})),
        weight_decays=tuple(sorted({decay for decay in values["weight_decays"] or () if decay})),
        sam=tuple(sorted(set(values["sam"] or ()))),
        untrained=bool(values["untrained"]),
        baselines=tuple(dict.fromkeys(values["baselines"] or ())),
    )
    return request, problems


def _target_problems(names: Sequence[str], catalog: Catalog) -> list[Problem]:
    if len(names) > MOST_TARGETS:
        return [Problem("transfer.to", f"{len(names)} targets", f"at most {MOST_TARGETS}")]
    problems = []
    for name in (name for name in dict.fromkeys(names) if name != "all"):
        dataset, _, optimizee = name.partition("/")
        if dataset and optimizee:
            wrong = _problems(from_mapping, {"task": {"dataset": dataset, "optimizee": optimizee}}, catalog=catalog)
            problems += [Problem("transfer.to", show(name), item.allowed, item.hint) for item in wrong]
        else:
            hint = f'"{GRID[0]}", or "all" for the {len(GRID)} of the papers\' grid'
            problems.append(Problem("transfer.to", show(name), "DATASET/OPTIMIZEE", hint))
    return problems


def _problems(check: Callable[..., Any], *arguments: Any, **options: Any) -> Sequence[Problem]:
    """What a check complains of."""
    try:
        check(*arguments, **options)
    except PresetError as error:
        return error.problems
    return ()
