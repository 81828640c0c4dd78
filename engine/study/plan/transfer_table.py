"""The [transfer] table of a study file: what `lreg transfer` would be asked for, once its runs are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
    weight_decays: tuple[float, ...] = setting(
        (), minimum=0.0, maximum=1.0, allow_empty=True, help="of the reference arm, each with every scale: a grid"
    )
    sam: tuple[float, ...] = setting(
        (), above=0.0, maximum=1e6, allow_empty=True, help="radii of SAM around the reference arm's: headroom"
    )
    untrained: bool = setting(True, help="evaluate the meta-parameters that the reference arm began with, too")
    baselines: tuple[str, ...] = setting(
        (), choices=BASELINE_NAMES, allow_empty=True, help="hand-designed optimizers, once for the study"
    )


def read_transfer(
    table: Mapping[str, Any], arms: Sequence[ArmPlan], catalog: Catalog
) -> tuple[TransferRequest, list[Problem]]:
    """The request, and what is wrong with it."""
    schema = [*schema_of(TransferTable), *(item for item in schema_of(TransferSettings) if item.name in PASSED_ON)]
    allowed = [*(item.name for item in schema), "evaluation"]
    values, problems = check_table({key: table[key] for key in table if key in allowed[:-1]}, schema, "transfer")
    problems += [unknown_key(f"transfer.{key}", allowed) for key in table if key not in allowed]
    problems += _targets(values["to"] or (), catalog)
    evaluation = table.get("evaluation", {})
    if isinstance(evaluation, Mapping):  # the keys that go over every arm's
        usual = arms[0].preset.get("evaluation", {}) if arms else {}
        wrong = _problems(from_mapping, {"evaluation": {**usual, **evaluation}}, catalog=catalog)
        problems += [dataclasses.replace(item, path=f"transfer.{item.path}", source="") for item in wrong]
    else:
        problems.append(Problem("transfer.evaluation", show(evaluation), "a table: [transfer.evaluation]"))
    if not problems:  # by default a transfer is as long as the last stage of meta-training
        horizons = [arm.preset["meta"]["inner_steps"] for arm in arms] or [10**7]
        steps = values["steps"] or min(max(stages) if isinstance(stages, list) else stages for stages in horizons)
        wrong = _problems(marks_within, steps, values["marks"])
        problems += [dataclasses.replace(item, path="transfer.marks", source="") for item in wrong]
    settings = {key: values[key] for key in PASSED_ON if values[key] is not None}
    request = TransferRequest(
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


def _targets(names: Sequence[str], catalog: Catalog) -> list[Problem]:
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
