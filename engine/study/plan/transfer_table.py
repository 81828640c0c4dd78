"""The [transfer] table of a study file: what `lreg transfer` would be asked for, once its runs are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.errors import PresetError, Problem
from engine.base.settings import check_table, schema_of, setting, show, unknown_key
from engine.evaluation.transfer_plan import BASELINE_NAMES, GRID, TransferSettings, marks_within
from engine.presets.catalog import Catalog
from engine.presets.preset import from_mapping
from engine.study.plan.plan import ArmPlan, TransferRequest

OF = ("winners", "all")
MOST_TARGETS = 1000
PASSED_ON = ("steps", "seeds", "checkpoint", "marks")  # to TransferSettings as they are


@dataclass(frozen=True)
class TransferTable:
    """The keys that a study has beside those it passes on."""

    of: str = setting("winners", choices=OF, help="which runs: those of each arm's winner, or all")
    to: tuple[str, ...] = setting((), allow_empty=True, help="DATASET/OPTIMIZEE, or all; []: as meta-trained")
    scales: tuple[float, ...] = setting(
        (), above=0.0, maximum=1e6, allow_empty=True, help="factors of the reference arm's updates: its scale frontier"
    )
    untrained: bool = setting(True, help="evaluate the meta-parameters that the reference arm began with, too")
    baselines: tuple[str, ...] = setting(
        (), choices=BASELINE_NAMES, allow_empty=True, help="hand-designed optimizers, once for the study"
    )


def read_transfer(
    found: Mapping[str, Any], arms: Sequence[ArmPlan], catalog: Catalog
) -> tuple[TransferRequest, list[Problem]]:
    """The request, and what is wrong with it."""
    passed_on = [item for item in schema_of(TransferSettings) if item.name in PASSED_ON]
    schema = [*schema_of(TransferTable), *passed_on]
    known = [*(item.name for item in schema), "evaluation"]
    values, problems = check_table({key: found[key] for key in found if key in known[:-1]}, schema, "transfer")
    problems += [unknown_key(f"transfer.{key}", known) for key in found if key not in known]
    evaluation = found.get("evaluation", {})
    problems += _targets(values["to"] or (), catalog)
    problems += _evaluation(evaluation, arms, catalog)
    problems += [] if problems else _marks(values, arms)
    request = TransferRequest(
        of=values["of"],
        to=tuple(dict.fromkeys(values["to"] or ())),
        settings={
            key: list(values[key]) if key == "marks" else values[key] for key in PASSED_ON if values[key] is not None
        },
        evaluation=dict(evaluation) if isinstance(evaluation, Mapping) else {},
        scales=tuple(sorted({scale for scale in values["scales"] or () if scale != 1})),
        untrained=bool(values["untrained"]),
        baselines=tuple(dict.fromkeys(values["baselines"] or ())),
    )
    return request, problems


def _targets(names: Sequence[str], catalog: Catalog) -> list[Problem]:
    if len(names) > MOST_TARGETS:
        return [Problem("transfer.to", f"{len(names)} targets", f"at most {MOST_TARGETS}")]
    problems = []
    for name in dict.fromkeys(names):
        dataset, slash, optimizee = name.partition("/")
        if name == "all":
            continue
        if not slash or not dataset or not optimizee:
            hint = f'"{GRID[0]}", or "all" for the {len(GRID)} of the papers\' grid'
            problems.append(Problem("transfer.to", show(name), "DATASET/OPTIMIZEE", hint))
            continue
        try:
            from_mapping({"task": {"dataset": dataset, "optimizee": optimizee}}, catalog=catalog)
        except PresetError as error:
            problems += [Problem("transfer.to", show(name), item.allowed, item.hint) for item in error.problems]
    return problems


def _evaluation(found: Any, arms: Sequence[ArmPlan], catalog: Catalog) -> list[Problem]:
    """The keys of [evaluation] that go over every arm's."""
    if not isinstance(found, Mapping):
        return [Problem("transfer.evaluation", show(found), "a table: [transfer.evaluation]")]
    usual = arms[0].preset.get("evaluation", {}) if arms else {}
    try:
        from_mapping({"evaluation": {**usual, **found}}, catalog=catalog)
    except PresetError as error:
        return [dataclasses.replace(item, path=f"transfer.{item.path}", source="") for item in error.problems]
    return []


def _marks(values: Mapping[str, Any], arms: Sequence[ArmPlan]) -> list[Problem]:
    """Marks beyond the last inner step; by default that is as long as the last stage of meta-training."""
    horizons = [arm.preset["meta"]["inner_steps"] for arm in arms] or [10**7]
    steps = values["steps"] or min(max(stages) if isinstance(stages, list) else stages for stages in horizons)
    try:
        marks_within(steps, values["marks"])
    except PresetError as error:
        return [dataclasses.replace(item, path="transfer.marks", source="") for item in error.problems]
    return []
