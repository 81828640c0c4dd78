"""SIB: synthetic gradients from the unlabelled query set train a classifier of features."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from engine.base.errors import PresetError, Problem
from engine.base.flat import Batch
from engine.base.settings import setting, show
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer, Phi, State, StepInfo, uniform
from engine.tasks.base import Layout, Task
from engine.tasks.optimizees.cosine import SCALE, of_length_one
from engine.tasks.supervised import ExampleBatch

WIDTH = 8  # units of the hidden layers for each class
EPS = 1e-5  # of batch norm, as in PyTorch


@LEARNED_OPTIMIZERS.register("sib")
class SIB(LearnedOptimizer):
    """θ_{t+1} = θ_t − η Jᵀ f(s): a network f of the queries' scores s stands for the loss's gradient by them.

    Hu et al. 2020, "Empirical Bayes Transductive Meta-Learning with Synthetic Gradients" (arXiv:2004.12696), sec. 3 and
    4, with the settings of its code. The optimizee is `cosine` on an episode's features: s = scale (cos(q, weight) +
    bias) [Q, N] for its Q queries, whose labels nobody sees, J = ∂s/∂weight. It begins at the mean of each class's
    support features times a learned diagonal, a learned scale and a learned bias, so that support labels count there
    alone; scale and bias stay. f is linear N → 8N, ReLU, batch norm, 8N → 8N, ReLU, batch norm, 8N → N, batch norm
    always by the episode's own queries. θ is differentiated from step to step.

    What penalties on the update function are shown as its input are the scores s, with J and θ held fixed: so `smooth`
    moves the scores within an l-infinity box. That is our choice: the appendix in which Xiong & Hsieh (ECCV 2022) say
    theirs is not public.
    """

    differentiates_theta: ClassVar[bool] = True
    theta_in_state: ClassVar[tuple[str, ...]] = ("direction", "cosines", "slope")
    uses_task: ClassVar[bool] = True
    gradient_features: ClassVar[int] = 0  # nothing is made of a gradient: there are no labels to make one of

    ways: int = setting(5, minimum=2, maximum=1000, help="N, as task.ways")
    inputs: int = setting(256, minimum=1, maximum=10**5, help="F: features of an example; conv4-64: 256 at 32 pixels")
    step_size: float = setting(1e-3, above=0.0, help="eta, the size of the synthetic gradient steps")

    @property
    def layout(self) -> Layout:
        """Of the optimizees: that of `cosine`."""
        return Layout({"weight": (self.ways, self.inputs), "scale": (), "bias": ()})

    def check_task(self, task: Task) -> None:
        if not task.is_episodic or list(task.layout.shapes) != list(self.layout.shapes):
            allowed = "cosine, with a dataset of episodes, as optimizer.kind = sib trains no other"
            raise PresetError([Problem("task.optimizee", task.name, allowed)])
        task_shape, ours = task.layout.shapes["weight"], self.layout.shapes["weight"]
        problems = [
            Problem(f"optimizer.{name}", str(mine), f"{theirs}, as {task.name} has")
            for name, mine, theirs in zip(("ways", "inputs"), ours, task_shape, strict=True)
            if mine != theirs
        ]
        usual = (("theta_input", False), ("features", ()), ("step_scale", "none"))
        problems += [
            Problem(f"optimizer.{name}", show(getattr(self, name)), f"{show(value)}, as sib sees the scores alone")
            for name, value in usual
            if getattr(self, name) != value
        ]
        if problems:
            raise PresetError(problems)

    def init_phi(self, generator: Generator) -> Phi:
        """The diagonal at 1, scale and bias where `cosine` has them, f as PyTorch draws layers."""
        hidden = WIDTH * self.ways
        phi: Phi = {"diagonal": torch.ones(self.inputs), "scale": torch.tensor(SCALE), "bias": torch.tensor(0.0)}
        sizes = (self.ways, hidden, hidden, self.ways)
        for layer, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
            bound = 1 / math.sqrt(fan_in)
            phi[f"linear{layer}.weight"] = uniform((fan_in, fan_out), bound, generator)
            phi[f"linear{layer}.bias"] = uniform((fan_out,), bound, generator)
        for layer in (0, 1):
            phi[f"norm{layer}.weight"], phi[f"norm{layer}.bias"] = torch.ones(hidden), torch.zeros(hidden)
        return phi

    def start(self, phi: Phi, theta: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """Of the first batch, the support sets: x [B, D, F] and y [B, D]."""
        assert isinstance(batch, ExampleBatch)
        members = F.one_hot(batch.y, self.ways).to(theta)  # [B, D, N]
        means = members.transpose(1, 2) @ batch.x.flatten(2).to(theta) / members.sum(1)[..., None]
        ones = theta.new_ones(len(theta), 1)
        parts = (means * phi["diagonal"]).flatten(1), phi["scale"] * ones, phi["bias"] * ones
        return torch.cat(parts, -1)

    def init(self, theta: Tensor) -> State:
        return {}

    def observe(self, theta: Tensor, grad: Tensor, state: State, info: StepInfo) -> tuple[Tensor, State]:
        """The scores s of the queries, [B, Q, N]; what J is made of is in the state until the step is taken."""
        parts = self.layout.split(theta)
        weight, scale, bias = parts["weight"], parts["scale"][:, None], parts["bias"][:, None]
        queries = of_length_one(info.task.query_inputs(theta.dtype).flatten(2))  # [B, Q, F]
        direction = of_length_one(weight)  # [B, N, F]
        cosines = queries @ direction.transpose(1, 2)  # [B, Q, N]
        jacobian = {"direction": direction, "cosines": cosines, "slope": scale / weight.norm(dim=-1)}
        return scale[..., None] * (cosines + bias[..., None]), {**state, "queries": queries, **jacobian}

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        """−η Jᵀ f(s), by the derivative of a cosine: ∂cos(q, w)/∂w = (q/|q| − cos(q, w) w/|w|) / |w|."""
        synthetic = self._synthetic(phi, features)  # [B, Q, N]
        radial = (synthetic * state["cosines"]).sum(1)[..., None] * state["direction"]
        gradient = state["slope"][..., None] * (synthetic.transpose(1, 2) @ state["queries"] - radial)
        still = gradient.new_zeros(len(gradient), 2)  # scale and bias
        update = torch.cat([-self.step_size * gradient.flatten(1), still], -1)
        return update, {name: tensor for name, tensor in state.items() if name not in ("queries", *self.theta_in_state)}

    def _synthetic(self, phi: Phi, scores: Tensor) -> Tensor:
        """f: scores, [B, Q, N], to what stands for the gradient by them, likewise."""
        x = scores
        for layer in (0, 1):
            x = (x @ phi[f"linear{layer}.weight"] + phi[f"linear{layer}.bias"]).relu()
            x = F.layer_norm(x.transpose(1, 2), x.shape[1:2], eps=EPS).transpose(1, 2)  # over an episode's queries
            x = x * phi[f"norm{layer}.weight"] + phi[f"norm{layer}.bias"]
        return x @ phi["linear2.weight"] + phi["linear2.bias"]
