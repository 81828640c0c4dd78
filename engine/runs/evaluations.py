"""One transfer evaluation, read with care: the file may hold anything, and what does not fit is left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from engine.base.metrics import AT_RADIUS, Metric, from_json, metric
from engine.base.settings import show
from engine.base.status import is_number

LOSSES = ("train_loss", "validation_loss", "test_loss")
BESIDE = ("parameter_norm", "grad_norm", "top_eigenvalue", "trace")
ADAPTIVE = "adaptive_sharpness"
SHARPNESS, NORMALISED = "sharpness", "normalised_sharpness"  # normalised: 2 * sharpness / radius^2
CHECKPOINT_ORDER = ("best", "last", "initial")
USUAL_BATCH = 128
LARGEST = 1e300  # beyond it sums overflow; nobody means such a value
WHOLE = 2**53  # counts and seeds below it are exact
PROTOCOL = ("examples", "restarts", "ascent_steps")
UPDATE_RULE = ("std", "max", "lipschitz")


class MetricAt(NamedTuple):
    """A metric by name, and the radius it is measured at, as typed: ("sharpness", "0.05")."""

    name: str
    radius: str | None = None


TRAIN_LOSS = MetricAt("train_loss")


@dataclass(frozen=True)
class OptimizeeOutcome:
    """Where one optimizee is at one inner step: its finite metrics, and whether it diverged in the end."""

    diverged: bool
    metrics: Mapping[MetricAt, float]


Marks = dict[int, dict[int, OptimizeeOutcome]]  # by inner step and optimizee seed


@dataclass(frozen=True)
class Facts:
    """What an evaluation says of itself beside its outcomes. `task`: its name; empty where it does not say."""

    optimizer: str
    label: str
    checkpoint: str
    scale: float
    task: str
    is_baseline: bool
    is_untrained: bool
    created: str
    passes_per_step: int
    learning_rate: float | None = None
    rho: float | None = None
    alpha: float | None = None
    tuned_at: int | None = None  # the inner step for which a baseline's settings were chosen, where it is said
    protocol: tuple[Any, ...] = ()  # examples, restarts, ascent steps of the probes
    digest: str = ""  # of the meta-parameters; empty where it is not said
    weight_decay: float = 0.0  # of the evaluation, constant and decoupled
    sam: float = 0.0  # radius of SAM around the frozen optimizer; 0: none
    update_rule: tuple[float | None, ...] = ()  # standard deviation, maximum and Lipschitz ratio around the zero state
    measured: Mapping[str, Metric] = field(default_factory=dict, hash=False)  # the task's own metrics, by name

    def is_comparable(self, other: Facts) -> bool:
        """Whether two evaluations are of one optimizer with one setting, and were probed alike."""
        is_known = self.is_baseline or bool(self.digest)
        mine, its = (
            (facts.digest, facts.learning_rate, facts.rho, facts.alpha, facts.protocol) for facts in (self, other)
        )
        return is_known and mine == its


def read_facts(evaluation: Mapping[str, Any]) -> Facts | None:
    """What an evaluation says of itself; None where its scale is no number."""
    scale = number(evaluation.get("scale", 1.0))
    if scale is None:
        return None
    optimizer = text(evaluation.get("optimizer")) or text(evaluation.get("label")) or "?"
    label, checkpoint = text(evaluation.get("label")) or optimizer, text(evaluation.get("checkpoint"))
    is_baseline = evaluation.get("run") is None
    # a run that starts from another begins with an optimizer that is trained: of "initial" the label tells
    is_untrained = "(untrained)" in label if checkpoint == "initial" else checkpoint not in CHECKPOINT_ORDER
    protocol, rule = evaluation.get("protocol"), evaluation.get("update_rule")
    return Facts(
        optimizer=optimizer,
        label=label,
        checkpoint=checkpoint,
        scale=_rounded(scale),
        task=task_name(evaluation.get("task")),
        is_baseline=is_baseline,
        is_untrained=is_untrained and not is_baseline,
        created=text(evaluation.get("created")),
        passes_per_step=whole(evaluation.get("passes_per_step")) or 1,
        learning_rate=number(evaluation.get("learning_rate")),
        rho=number(evaluation.get("rho")),
        alpha=number(evaluation.get("alpha")),
        tuned_at=whole(evaluation.get("tuned_at")),
        protocol=tuple(number(protocol.get(key)) for key in PROTOCOL) if isinstance(protocol, Mapping) else (),
        digest=text(evaluation.get("digest")),
        weight_decay=_rounded(number(evaluation.get("weight_decay"))),
        sam=_rounded(number(evaluation.get("sam"))),
        update_rule=tuple(number(rule.get(name)) for name in UPDATE_RULE) if isinstance(rule, Mapping) else (),
        measured=from_json(evaluation.get("metrics")),
    )


def task_name(task: Any) -> str:
    """ "fmnist/cnn", and what is unusual about it: "mnist/mlp batch_size=64"; empty where it is no task."""
    if not isinstance(task, Mapping):
        return ""
    dataset, optimizee = text(task.get("dataset")), text(task.get("optimizee"))
    if not dataset or not optimizee:
        return ""
    usual = {"dataset": dataset, "optimizee": optimizee, "batch_size": USUAL_BATCH}
    unusual = [f"{key}={show(value)}" for key, value in sorted(task.items()) if usual.get(key) != value]
    return " ".join([f"{dataset}/{optimizee}", *unusual])


def read_marks(evaluation: Mapping[str, Any], *, curves: bool = False) -> Marks:
    """Outcomes by inner step and optimizee seed; of an evaluation without seeds nothing.

    A seed without a mark that others have counts, without metrics. `curves`: of the points of the learning curves.
    """
    marks: dict[int, dict[int, Mapping[str, Any]]] = {}
    diverged: dict[int, bool] = {}
    for seed in tables(evaluation.get("seeds")):
        if (index := whole(seed.get("seed"))) is not None:
            diverged[index] = seed.get("diverged") is True
            for mark in _points(seed.get("curve")) if curves else tables(seed.get("marks")):
                if (step := whole(mark.get("inner_step"))) is not None:
                    marks.setdefault(step, {})[index] = mark
    measured, names = from_json(evaluation.get("metrics")), mark_names(evaluation)
    others = [name for name in names if name not in LOSSES and metric(name, measured).kind == "task"]
    plain = (*LOSSES, *others, *BESIDE)
    return {
        step: {seed: OptimizeeOutcome(diverged[seed], _metrics(of_seed.get(seed, {}), plain)) for seed in diverged}
        for step, of_seed in sorted(marks.items())
    }


def mark_names(evaluation: Mapping[str, Any]) -> dict[str, None]:
    """The names of everything that some mark has, in their order, whatever the values."""
    marks = (mark for seed in tables(evaluation.get("seeds")) for mark in tables(seed.get("marks")))
    return dict.fromkeys(name for mark in marks for name in mark)


def tables(value: Any) -> list[Mapping[str, Any]]:
    """Those of a list that are tables; none where it is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _points(curve: Any) -> Iterator[Mapping[str, Any]]:
    steps, losses = (curve.get(key) if isinstance(curve, Mapping) else None for key in ("inner_step", "train_loss"))
    for step, loss in zip(steps, losses, strict=False) if isinstance(steps, list) and isinstance(losses, list) else ():
        yield {"inner_step": step, "train_loss": loss}


def _metrics(mark: Mapping[str, Any], plain: Sequence[str]) -> dict[MetricAt, float]:
    """The finite numbers of a mark: of the names that are `plain`, and by radius."""
    metrics = {MetricAt(name): value for name in plain if (value := number(mark.get(name))) is not None}
    for name in AT_RADIUS:
        by_radius = mark.get(name)
        for key, item in by_radius.items() if isinstance(by_radius, Mapping) else ():
            radius, value = radius_of(key), number(item)
            if radius is not None and value is not None:
                metrics[MetricAt(name, radius)] = value
                normalised = 2 * value / float(radius) ** 2
                if name == SHARPNESS and math.isfinite(normalised):
                    metrics[MetricAt(NORMALISED, radius)] = normalised
    return metrics


@lru_cache(maxsize=1000)
def radius_of(key: str) -> str | None:
    """A radius in one spelling, as transfer files have it: "0.10" is "0.1"."""
    try:
        radius = float(key)
    except ValueError:
        return None
    return f"{radius:.12g}" if math.isfinite(radius) and 1e-12 < radius < 1e12 else None


def radii(names: Iterable[MetricAt], name: str = SHARPNESS) -> list[str]:
    """The radii that a metric was measured at, ascending."""
    return sorted({at.radius for at in names if at.name == name and at.radius}, key=float)


def middle(at_radii: Sequence[str]) -> str | None:
    """The radius to show where only one is shown."""
    return at_radii[len(at_radii) // 2] if at_radii else None


def primary(names: Iterable[MetricAt], radius: str | None) -> MetricAt:
    """The sharpness that is shown where there is place for one: adaptive where it was measured, at its own radius, else
    that of the L2 ball at `radius`."""
    at_radii = radii(names, ADAPTIVE)
    return MetricAt(ADAPTIVE, middle(at_radii)) if at_radii else MetricAt(SHARPNESS, radius)


def number(value: Any) -> float | None:
    """What a file of strangers has as a number; None where it is none, or too large to be meant."""
    return float(value) if value is not None and is_number(value) and abs(value) < LARGEST else None


def _rounded(value: float | None) -> float:
    return float(f"{value or 0.0:.12g}")


def whole(value: Any) -> int | None:
    """The same of a count or a seed."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < WHOLE else None


def text(value: Any) -> str:
    """The same of a text; empty where it is none."""
    return value if isinstance(value, str) else ""
