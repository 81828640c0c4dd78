"""What a task measures of the points that unrolls end at: the validation loss, the generalisation gap, any metric;
and the norm of the parameters."""

from __future__ import annotations

from torch import Tensor

from engine.base.errors import Problem, SettingsError
from engine.base.settings import setting, show
from engine.tasks.base import Task
from engine.terms.base import TERMS, Term, for_each, training_loss


@TERMS.register("validation_loss")
class ValidationLoss(Term):
    """The loss on the whole validation split (never on the test split)."""

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        return task.metrics_of_each(theta, "validation")["loss"].to(theta)


@TERMS.register("generalisation_gap")
class GeneralisationGap(Term):
    """The loss on the validation split minus the loss on training examples. Negative where there is luck: no log."""

    examples: int = setting(10_000, minimum=1, help="training examples that the training loss is measured on")

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        training = for_each(training_loss(task, self.examples, theta.dtype), task)(theta)
        return task.metrics_of_each(theta, "validation")["loss"].to(theta) - training


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


@TERMS.register("parameter_norm")
class ParameterNorm(Term):
    """‖θ‖₂: a control for what flatness may be bought with."""

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        return theta.norm(dim=-1)
