"""A metric of the task, on a whole split."""

from __future__ import annotations

from torch import Tensor

from engine.base.errors import Problem, SettingsError
from engine.base.settings import setting, show
from engine.tasks.base import Task
from engine.terms.base import TERMS, Term


@TERMS.register("metric")
class MetricTerm(Term):
    """Any metric that the task measures; of one where higher is better, minus that."""

    metric: str = setting("loss", help="which of the task's metrics: loss, accuracy, perplexity, ...")
    split: str = setting("validation", choices=("train", "validation"), help="what it is measured on")

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        for measured in task.measured:
            if measured.name == self.metric:
                values = task.metrics_of_each(theta, self.split)[self.metric].to(theta)
                return -values if measured.better == "higher" else values
        names = ", ".join(measured.name for measured in task.measured)
        problem = Problem("objective.terms.metric.metric", show(self.metric), f"a metric of {task.name}: {names}")
        raise SettingsError([problem])
