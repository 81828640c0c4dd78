"""Metric: a recorded number, with its unit, which way is better, and how the values of several optimizees add up.

Names in files are text; here, and nowhere else, a name is taken apart: `metric("test_accuracy")` is the accuracy that
a task measures, on the test split. Without torch: readers of runs use it as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

SPLITS = ("train", "validation", "test")
UNITS = ("", "share", "bytes", "count")  # share: 0 to 1, read as percent
DIRECTIONS = ("lower", "higher", "")


@dataclass(frozen=True)
class Metric:
    """A number by name. `better`: "lower", "higher", or "" where neither is."""

    name: str
    label: str = ""  # what people read
    unit: str = ""  # one of UNITS
    better: str = ""
    split: str = ""  # of a task's own metric: where it was measured
    # "task", "penalty" (its value), "share" (its gradient over the loss's), "term", "landscape", "machine", ""
    kind: str = ""
    adds_up: str = "mean"  # over optimizees: "mean", "sum", or "root_mean_square"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"metric {self.name}: unit {self.unit!r}; allowed: {', '.join(map(repr, UNITS))}")
        if self.better not in DIRECTIONS:
            allowed = ", ".join(map(repr, DIRECTIONS))
            raise ValueError(f"metric {self.name}: better {self.better!r}; allowed: {allowed}")

    @property
    def words(self) -> str:
        """What people read."""
        return self.label or self.name.replace("_", " ")

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is, 0 where neither."""
        return (self.better == "higher") - (self.better == "lower")

    def best(self, values: Iterable[float]) -> float:
        """The best of some values; the least where no direction is better. Raises ValueError where there is none."""
        return max(values) if self.better == "higher" else min(values)

    def worst(self, values: Iterable[float]) -> float:
        """The worst of some values; the largest where no direction is better."""
        return min(values) if self.better == "higher" else max(values)

    @property
    def penalty(self) -> str:
        """The name of the penalty that this is the value or the share of; else empty."""
        return self.name.removesuffix(_SHARE).removesuffix(_PENALTY) if self.kind in ("penalty", "share") else ""

    @property
    def is_of_objective(self) -> bool:
        """Whether it says what of a meta-objective beside the loss: the whole, penalties with their shares, terms."""
        return self.kind in ("penalty", "share", "term") or self.name == "meta_objective"

    def on(self, split: str) -> Metric:
        """A task's metric as it is recorded for a split: accuracy on "test" is "test_accuracy"."""
        return replace(self, name=f"{split}_{self.name}", label=f"{split} {self.words}", split=split)

    def to_json(self) -> dict[str, str]:
        return {key: value for key, value in asdict(self).items() if value and key != "name"}


def _by_name(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


TASK_METRICS: Mapping[str, Metric] = _by_name(
    Metric("loss", better="lower", kind="task"),
    Metric("accuracy", unit="share", better="higher", kind="task"),
    Metric("error", unit="share", better="lower", kind="task"),
    Metric("perplexity", better="lower", kind="task"),
    Metric("bits_per_character", "bits per character", better="lower", kind="task"),
)
"""What is known of metrics that tasks measure; a task says the same of others (`Task.measured`)."""

_OTHERS: Mapping[str, Metric] = _by_name(
    Metric("meta_loss", "meta-loss", better="lower"),
    Metric("meta_objective", "meta-objective", better="lower"),
    Metric("validation_mean_loss", "mean validation loss", better="lower"),
    Metric("validation_diverged", "diverged in validation", "count", "lower"),
    Metric("adaptive_sharpness", "adaptive sharpness", better="lower", kind="landscape"),
    Metric("sharpness", better="lower", kind="landscape"),
    Metric("normalised_sharpness", "normalised sharpness", better="lower", kind="landscape"),
    Metric("sharpness_linf", "l-infinity sharpness", better="lower", kind="landscape"),
    Metric("r1", "R1", better="lower", kind="landscape"),
    Metric("max_grad_norm", "max gradient norm", better="lower", kind="landscape"),
    Metric("max_grad_norm_linf", "max gradient norm, l-infinity", better="lower", kind="landscape"),
    Metric("surrogate_gap", "surrogate gap", better="lower", kind="landscape"),
    Metric("top_eigenvalue", "top eigenvalue", better="lower", kind="landscape"),
    Metric("trace", better="lower", kind="landscape"),
    Metric("grad_norm", "gradient norm"),
    Metric("parameter_norm", "parameter norm"),
    Metric("meta_grad_norm", "meta-gradient norm"),
    Metric("update_norm", "update norm"),
    Metric("skipped", unit="count", better="lower", adds_up="sum"),
    Metric("diverged", unit="count", better="lower", adds_up="sum"),
    Metric("dropped_terms", "dropped terms", "count", "lower", adds_up="sum"),
    Metric("counted_terms", "counted terms", "count", adds_up="sum"),
    Metric("meta_epoch", "meta-epoch", "count"),
    Metric("step", unit="count"),
    Metric("stage", unit="count"),
    Metric("evaluated_steps", "evaluated steps", "count"),
    Metric("inner_step", "inner step", "count"),
    Metric("learning_rate", "learning rate"),
    Metric("inner_steps_per_s", "inner steps per s", better="higher"),
    Metric("coordinate_steps_per_s", "coordinate-steps per s", better="higher"),
    Metric("memory_bytes", "memory", "bytes", "lower"),
)
_OF_MACHINE: Mapping[str, Metric] = _by_name(
    Metric("process_cpu_percent", "process CPU, %", kind="machine"),
    Metric("process_memory_bytes", "process memory", "bytes", kind="machine"),
    Metric("read_bytes_per_s", "read per s", "bytes", kind="machine"),
    Metric("write_bytes_per_s", "written per s", "bytes", kind="machine"),
    Metric("gpu_percent", "GPU, %", kind="machine"),
    Metric("gpu_memory_bytes", "GPU memory", "bytes", kind="machine"),
    Metric("gpu_temperature_c", "GPU temperature, °C", kind="machine"),
)
MACHINE: tuple[str, ...] = tuple(_OF_MACHINE)
"""The names of what machine.jsonl holds: what a run's process takes of its machine."""
_OF_TASKS = [measured.on(split).name for measured in TASK_METRICS.values() for split in SPLITS]
RECORDED: tuple[str, ...] = tuple(dict.fromkeys(["meta_loss", *_OF_TASKS, *_OTHERS]))
"""The names of what lreg itself records, beside those of penalties."""
AT_RADIUS = (
    "adaptive_sharpness",
    "sharpness",
    "max_grad_norm",
    "surrogate_gap",
    "r1",
    "sharpness_linf",
    "max_grad_norm_linf",
)
"""What is measured at a radius; a transfer file has a table by radius of each."""

_PENALTY, _SHARE, _TERM = "_penalty", "_penalty_share", "objective_"


def penalty_value(penalty: str) -> Metric:
    """The value of a penalty, unweighted."""
    return Metric(f"{penalty}{_PENALTY}", f"{penalty} penalty", better="lower", kind="penalty")


def penalty_share(penalty: str) -> Metric:
    """The norm of what a penalty adds to the meta-gradient, over that of the loss."""
    metric = Metric(f"{penalty}{_SHARE}", f"{penalty} penalty share", kind="share")
    return replace(metric, adds_up="root_mean_square")


def objective_term(term: str) -> Metric:
    """What counts of a term in the meta-objective, unweighted."""
    return Metric(f"{_TERM}{term}", f"objective: {term.replace('_', ' ')}", better="lower", kind="term")


def metric(name: str, measured: Mapping[str, Metric] = TASK_METRICS) -> Metric:
    """The metric that a file calls `name`; of one that is not known just the name. `measured`: a task's own metrics."""
    if known_here := _OTHERS.get(name) or _OF_MACHINE.get(name):
        return known_here
    split, _, base_name = name.partition("_")
    if split in SPLITS and base_name:
        base = measured.get(base_name) or TASK_METRICS.get(base_name)
        if base:
            return base.on(split)
        if split != "train":
            return Metric(name, kind="task", split=split)
    if name.startswith(_TERM):
        return objective_term(name[len(_TERM) :])
    if name.endswith(_SHARE):
        return penalty_share(name[: -len(_SHARE)])
    return penalty_value(name[: -len(_PENALTY)]) if name.endswith(_PENALTY) else Metric(name)


def is_known(name: str) -> bool:
    """Whether lreg itself records a metric of this name."""
    return bool(metric(name).label or metric(name).kind or name in _OTHERS)


def result_metrics(names: Iterable[str], measured: Mapping[str, Metric] = TASK_METRICS) -> tuple[Metric, ...]:
    """The columns of a result table, of the names that its evaluations have: test loss and adaptive sharpness, what
    else the task measures on the test split, train loss, and sharpness with the norm of theta that goes with it.

    Where nobody measured adaptive sharpness: train loss, test loss, what else the task measures, sharpness.
    """
    names = tuple(dict.fromkeys(names))
    others = _judging(names, measured)
    columns = ("train_loss", "test_loss", *others, "sharpness")
    if "adaptive_sharpness" in names:
        columns = ("test_loss", "adaptive_sharpness", *others, "train_loss", "sharpness", "parameter_norm")
    return tuple(metric(name, measured) for name in columns)


def headline(names: Iterable[str], measured: Mapping[str, Metric] = TASK_METRICS) -> Metric:
    """What a task is judged by: its first metric on the test split that is not the loss, else the test loss."""
    return metric(next(iter(_judging(tuple(names), measured)), "test_loss"), measured)


def _judging(names: Iterable[str], measured: Mapping[str, Metric]) -> list[str]:
    """What a task measures on the test split beside its loss."""
    tested = (name for name in dict.fromkeys(names) if metric(name, measured).split == "test")
    return [name for name in tested if name != "test_loss"]


def primary_sharpness(names: Iterable[str]) -> Metric:
    """The sharpness that is shown where there is place for one: the adaptive one, where it was measured."""
    return metric("adaptive_sharpness" if "adaptive_sharpness" in names else "sharpness")


def own_metrics(measured: Iterable[Metric]) -> dict[str, Any]:
    """{"metrics": ...} for a file, of those that are known to nobody but their task; {} where there are none."""
    declared = {metric.name: metric.to_json() for metric in measured if metric != TASK_METRICS.get(metric.name)}
    return {"metrics": declared} if declared else {}


USUAL_HEADLINE = TASK_METRICS["accuracy"].on("test")
"""What tasks are judged by where nobody knows yet what they measure."""


def from_json(values: Any) -> dict[str, Metric]:
    """A task's own metrics from a file of strangers; what does not fit is left out."""
    metrics = {}
    for name, facts in values.items() if isinstance(values, Mapping) else ():
        if isinstance(name, str) and isinstance(facts, Mapping):
            texts = {key: str(facts.get(key, ""))[:60] for key in ("label", "unit", "better")}
            unit = texts["unit"] if texts["unit"] in UNITS else ""
            better = texts["better"] if texts["better"] in DIRECTIONS else ""
            metrics[name[:60]] = Metric(name[:60], texts["label"], unit, better, kind="task")
    return metrics
