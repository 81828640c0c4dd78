"""Transfers of a study: which transfer jobs it wants, with ids that are the same whenever it asks for them.

One job for each run, so that they go side by side; the hand-designed optimizers once for the study, task by task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.evaluation.transfer_plan import Plan, TransferSettings, make
from engine.runs.kinds import TRANSFER
from engine.runs.reader import RunReader
from engine.study.plan.plan import StudyPlan, TransferRequest, as_tuples
from engine.study.plan.state import Candidate, CellState


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


def _targets(request: TransferRequest) -> list[tuple[str, ...]]:
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
