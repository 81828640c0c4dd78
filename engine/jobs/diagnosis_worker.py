"""Diagnosis worker: diagnoses a run's meta-gradient in a process of its own, for a console that must not import torch.

`python -m engine.jobs.diagnosis_worker RUN_PATH` prints a JSON line now and then on how far it is, and at last one with
the diagnosis, which is kept in the run's folder. `lreg diagnose` calls `diagnose` in its own process.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base import seeds
from engine.base.device import pick_device, prepare_process
from engine.base.errors import LregError, SettingsError
from engine.base.files import strict, write_atomic
from engine.base.settings import show
from engine.presets.preset import Preset, load_preset
from engine.runs.diagnoses import PREFIX, DiagnosedPart, DiagnosisReport, Slope
from engine.runs.provenance import describe
from engine.runs.reader import RunReader

if TYPE_CHECKING:
    import torch

    from engine.meta_training.diagnosis import Derivatives
    from engine.meta_training.estimators.base import GradientEstimator
    from engine.meta_training.meta_train import MetaTrainer
    from engine.penalties.base import Penalty

OPTIMIZEES = 8
STEP = 0.1  # of the differences of the log scale
MOST_OPTIMIZEES = 10_000
TELL_EVERY = 10  # truncations


@dataclass(frozen=True)
class DiagnosisRequest:
    """What is to be diagnosed. `preset`: whose objective, tasks and estimator; "": the run's own.

    `penalties`: what else is looked at, "NAME" or "NAME:KEY=VALUE,KEY=VALUE"; they count nothing. `estimator`: by name,
    in place of the preset's.
    """

    checkpoint: str = "best"
    preset: str = ""
    sets: tuple[str, ...] = ()
    penalties: tuple[str, ...] = ()
    estimator: str = ""
    optimizees: int = OPTIMIZEES
    difference: float = STEP
    windows: bool = False


def diagnose(
    reader: RunReader,
    request: DiagnosisRequest,
    device: torch.device,
    data_dir: Path | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> DiagnosisReport:
    """Estimated against true derivatives of every part of the meta-objective, by the log of the update scale.

    `tell` is told how many truncations of how many are done. In float64 where the device has it. Raises LregError.
    """
    import torch

    from engine.evaluation.frozen import load_learned_optimizer
    from engine.jobs.from_preset import meta_trainer
    from engine.meta_training.diagnosis import Diagnosis, with_penalties

    optimizer, phi = load_learned_optimizer(reader, request.checkpoint)
    preset = _preset(reader, request.preset, request.sets)
    more = _penalties(reader, request, preset)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    trainer = meta_trainer(preset, device=device, data_dir=data_dir, dtype=dtype)
    judged, is_unbiased = _estimator(trainer, request.estimator)
    horizon = trainer.curriculum.stages[-1]
    truncation = horizon if judged.whole_unrolls else min(trainer.settings.truncation, horizon)
    diagnosis = Diagnosis(
        optimizer=optimizer,
        phi=phi,
        objective_on=lambda task: with_penalties(trainer.objective_on(task), more),
        settings=replace(trainer.settings, truncation=truncation),
        estimator=None if is_unbiased else judged,
        horizon=horizon,
        seed=seeds.derive(preset.seed, "diagnosis"),
        difference=request.difference,
        windows=request.windows,
    )
    seen = diagnosis.objective_on(trainer.tasks.held_out(1)[0][0])
    total = diagnosis.truncations(trainer.tasks, request.optimizees, len(seen.geometric) + len(seen.update))
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        tell(done, total)

    derivatives = diagnosis.derivatives(trainer.tasks, request.optimizees, tick)
    weights = {("penalty", name): penalty.weight for name, penalty in trainer.penalties.items()}
    weights |= {("term", name): term.weight for name, term in trainer.terms.items()}
    versions = describe()["versions"]
    return DiagnosisReport(
        checkpoint=request.checkpoint,
        source=preset.name if request.preset else "",
        estimator=judged.name,
        is_unbiased=is_unbiased,
        truncation=truncation,
        inner_steps=horizon,
        optimizees=request.optimizees,
        difference=request.difference,
        diverged=sum({one.task: one.diverged for one in derivatives}.values()),  # each part of a task says the same
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=str(versions.get("lreg") or ""),
        parts=tuple(_parts(derivatives, {("loss", ""): 1.0} | weights, horizon)),
    )


def keep(reader: RunReader, request: DiagnosisRequest, report: DiagnosisReport) -> Path:
    """Write a diagnosis into the run's folder, in place of an older one of the same request. Raises OSError."""
    identity = hashlib.sha256(json.dumps(asdict(request), sort_keys=True).encode()).hexdigest()[:8]
    path = reader.path / f"{PREFIX}{request.checkpoint}-{identity}.json"
    write_atomic(path, json.dumps(strict(report.to_json()), indent=1) + "\n")
    return path


def _preset(reader: RunReader, name: str, sets: Sequence[str]) -> Preset:
    own_preset = reader.preset()  # the run's is checked, whichever is used
    if not name and not sets:
        return own_preset
    return load_preset(name or reader.path / "preset.toml", sets)


def _penalties(reader: RunReader, request: DiagnosisRequest, preset: Preset) -> dict[str, Penalty]:
    """The penalties that are looked at beside the preset's, checked. Raises LregError."""
    from engine.penalties.base import PENALTIES, GeometricPenalty, UpdatePenalty

    penalties: dict[str, Penalty] = {}
    for text in request.penalties:
        name, _, settings = text.partition(":")
        if not settings and name in preset["penalty"]:
            continue
        sets = [f"penalty.{name}.{setting.strip()}" for setting in settings.split(",")] if settings else []
        sets.append(f"penalty.{name}.weight=0")
        with _said_by("--penalty"):
            table = _preset(reader, request.preset, [*request.sets, *sets])["penalty"][name]
        penalty = PENALTIES.create(name, **table)
        if not isinstance(penalty, (GeometricPenalty, UpdatePenalty)):
            raise LregError(
                f"--penalty {show(text)}: of the meta-parameters alone, so the size of steps is nothing to it; "
                "allowed: penalties of the landscape or of the updates"
            )
        penalties[text] = penalty
    return penalties


def _estimator(trainer: MetaTrainer, name: str) -> tuple[GradientEstimator, bool]:
    """The estimator that is judged, as no graph is recorded, and whether it is unbiased. Raises LregError."""
    from engine.meta_training.estimators.base import ESTIMATORS

    with _said_by("--estimator"):
        estimator = ESTIMATORS.create(name) if name else replace(trainer.estimator)
    return estimator, estimator.takes_terms


@contextlib.contextmanager
def _said_by(option: str) -> Iterator[None]:
    """What does not fit is told of the option that said it."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError([replace(problem, source=option) for problem in error.problems]) from None


def _parts(
    derivatives: Sequence[Derivatives], weights: dict[tuple[str, str], float], horizon: int
) -> Iterable[DiagnosedPart]:
    """Rows for all tasks together, then for each where there are several: whole unrolls first, then windows."""
    tasks = list(dict.fromkeys(item.task for item in derivatives))
    for task in ["", *(tasks if len(tasks) > 1 else [])]:
        of_task = _together([item for item in derivatives if task in ("", item.task)])
        for window in sorted({item.window for item in of_task}, key=lambda ends: (ends != (0, horizon), ends)):
            same = [item for item in of_task if item.window == window]
            counted = {item.part: weights.get(item.part, 0.0) for item in same}
            rows = [("", item, counted[item.part]) for item in same]
            is_whole = all(part in counted for part, weight in weights.items() if weight and part[0] != "penalty")
            if is_whole and sum(map(bool, counted.values())) > 1:
                rows.insert(0, ("objective", _weighted_sum(same, counted), 1.0))
            for kind, item, weight in rows:
                yield _part(kind or item.part[0], item, weight, task, window != (0, horizon))


def _together(derivatives: Sequence[Derivatives]) -> list[Derivatives]:
    """Those of all tasks as one."""
    from engine.meta_training.diagnosis import joined

    by_part: dict[Any, list[Derivatives]] = {}
    for item in derivatives:
        by_part.setdefault((item.part, item.window), []).append(item)
    return [joined(same) for same in by_part.values()]


def _weighted_sum(parts: Sequence[Derivatives], weights: dict[tuple[str, str], float]) -> Derivatives:
    """The derivatives of the whole objective, of each optimizee."""
    counted = [(weights[item.part], item) for item in parts if weights[item.part]]

    def total(lists: Iterable[tuple[float, list[float]]]) -> list[float]:
        weighted = [[weight * number for number in numbers] for weight, numbers in lists]
        return [math.fsum(numbers) for numbers in zip(*weighted, strict=True)]

    estimated = [(weight, item.estimated) for weight, item in counted if item.estimated is not None]
    return replace(
        counted[0][1],
        part=("objective", ""),
        value=total((weight, item.value) for weight, item in counted),
        true=total((weight, item.true) for weight, item in counted),
        estimated=total(estimated) if len(estimated) == len(counted) else None,
    )


def _part(kind: str, derivatives: Derivatives, weight: float, task: str, is_window: bool) -> DiagnosedPart:
    return DiagnosedPart(
        kind=kind,
        name=derivatives.part[1],
        weight=weight,
        steps=derivatives.window,
        is_window=is_window,
        task=task,
        value=statistics.fmean(derivatives.value),
        true=_slope(derivatives.true),
        estimated=None if derivatives.estimated is None else _slope(derivatives.estimated),
        cosine=None if derivatives.estimated is None else _cosine(derivatives.estimated, derivatives.true),
    )


def _slope(values: Sequence[float]) -> Slope:
    from engine.comparison.statistics import t_interval

    interval = t_interval({0: dict(enumerate(values))})
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Slope(statistics.fmean(values), error, interval.low, interval.high)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    norms = math.hypot(*one) * math.hypot(*other)
    return math.fsum(a * b for a, b in zip(one, other, strict=True)) / norms if norms else None


def main(arguments: list[str] | None = None) -> int:
    name = "python -m engine.jobs.diagnosis_worker"
    parser = argparse.ArgumentParser(prog=name, description="Diagnose the meta-gradient of a run.")
    parser.add_argument("run_path", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args(arguments)
    prepare_process()
    reader, request = RunReader(options.run_path), DiagnosisRequest(windows=True)

    def tell(done: int, total: int) -> None:
        if done % TELL_EVERY == 0:
            print(json.dumps({"event": "progress", "done": done, "total": total}), flush=True)

    try:
        report = diagnose(reader, request, pick_device(options.device), options.data_dir, tell)
        path = keep(reader, request, report)
        print(json.dumps({"event": "diagnosis", "path": str(path)}), flush=True)
    except LregError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename}: not kept: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
