"""How sharp the point reached is: the rise of the loss in a ball, in one that goes by the parameters; the curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.base.flat import grad_and_value, perturbation
from engine.base.settings import setting
from engine.probes.landscape import landscapes
from engine.tasks.base import Task
from engine.terms.base import TERMS, Term, for_each, training_loss


@TERMS.register("sharpness")
class Sharpness(Term):
    """The largest L(θ + ε) − L(θ), ‖ε‖₂ ≤ ρ, that an ascent finds: each of its steps goes to the boundary point along
    the gradient where it stands, and the best point counts. From below, always from θ: quick, and free of chance."""

    radius: float = setting(0.5, above=0.0, help="radius of the ball, L2 norm in parameter space")
    examples: int = setting(1000, minimum=1, help="training examples that it is measured on")
    ascent_steps: int = setting(5, minimum=1, maximum=1000, help="ascent steps that look for the worst point")

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        slope_and_loss = for_each(grad_and_value(training_loss(task, self.examples, theta.dtype)), task)
        scale = self.scale(theta)
        gradient, loss = slope_and_loss(theta)
        highest = torch.full_like(loss, -torch.inf)
        for _ in range(self.ascent_steps):
            gradient, value = slope_and_loss(theta + scale * perturbation(scale * gradient, self.radius))
            highest = torch.maximum(highest, value)
        return highest - loss

    def scale(self, theta: Tensor) -> Tensor:
        """The half-axes of the ball over its radius, for theta of shape [N, P]."""
        return torch.ones((), dtype=theta.dtype, device=theta.device)


@TERMS.register("adaptive_sharpness")
class AdaptiveSharpness(Sharpness):
    """The largest L(θ + ε) − L(θ), ‖ε / |θ|‖₂ ≤ ρ (Kwon et al. 2021, arXiv:2102.11600, eq. 5): a rescaling of weights
    that leaves the network the same function leaves it the same."""

    def scale(self, theta: Tensor) -> Tensor:
        return theta.abs()


@TERMS.register("top_eigenvalue")
class TopEigenvalueTerm(Term):
    """The largest eigenvalue of the Hessian, by Lanczos."""

    examples: int = setting(1000, minimum=1, help="training examples that it is measured on")
    iterations: int = setting(20, minimum=2, maximum=1000, help="most Hessian-vector products of the search")

    def measure(self, task: Task, theta: Tensor) -> Tensor:
        loss = training_loss(task, self.examples, theta.dtype)
        lands = landscapes(loss, theta, iterations=self.iterations)
        return theta.new_tensor([value for land in lands for value in land.eigenpair[0].tolist()])
