"""What `mlp` and `adafac` share: features normalised over a tensor, time features, a small network for a coordinate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from engine.base.settings import setting
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State, StepInfo, for_each
from engine.tasks.base import Layout

TIMES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)  # inner steps
FLOOR = 1e-5  # under the root that a feature is divided by
LAYERS = ("layer0", "layer1", "head")
EXPONENT = 1e-3  # of the output that sets the size of the step


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorMLP(LearnedOptimizer):
    """Two hidden layers of ReLU; of the outputs d and a the update u = -scale · d · exp(0.001 a)."""

    gradient_features: ClassVar[int] = 1

    theta_input: bool = setting(True, help="show the network the parameter itself, normalised over its tensor")
    output_scale: float = setting(0.001, above=0.0, help="factor of the update")

    def mlp_phi(self, tensor_features: int, generator: Generator) -> Phi:
        """Weights from a normal distribution of deviation 1/sqrt(fan-in) cut at two deviations, biases zero.

        `tensor_features`: how many features there are without theta, the time, and those that any member can have.
        """
        sizes = (tensor_features + self.extra_inputs + len(TIMES), self.hidden, self.hidden, 2)
        phi: Phi = {}
        for layer, inputs, outputs in zip(LAYERS, sizes, sizes[1:], strict=False):
            phi[f"{layer}.weight"] = truncated_normal((inputs, outputs), 1 / math.sqrt(inputs), generator)
            phi[f"{layer}.bias"] = torch.zeros(outputs)
        return phi

    def shown(
        self,
        parts: Sequence[Tensor],
        theta: Tensor,
        grad: Tensor,
        state: State,
        layout: Layout | None,
        info: StepInfo | None,
    ) -> tuple[Tensor, State]:
        """The network's inputs, [..., P, F], and the state a step older.

        `parts`, [..., P, ·] each, are normalised over every tensor; then come the time features, and `features`. Step 0
        is the first, by the info, or by the state where there is none.
        """
        normalised = over_tensors(torch.cat(list(parts), -1), layout)
        step = for_each(state["time"] if info is None else info.step, theta)
        extra, state = self.extra_features(theta, grad, state, info)
        inputs = [
            normalised,
            time_features(step).expand(*theta.shape, len(TIMES)),
            *(part[..., None] for part in extra),
        ]
        return torch.cat(inputs, -1), state | {"time": state["time"] + 1}

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        x = features.reshape(-1, features.shape[-1])  # [N, F]
        for layer in LAYERS:
            x = torch.addmm(phi[f"{layer}.bias"], x, phi[f"{layer}.weight"])
            x = x if layer == "head" else x.relu()
        direction, size = x.reshape(*features.shape[:-1], 2).unbind(-1)
        return -self.output_scale * direction * (EXPONENT * size).exp(), state


def over_tensors(features: Tensor, layout: Layout | None) -> Tensor:
    """Each feature, [..., P, F], over √(1e-5 + its mean square over the tensor); without a layout all are one."""
    sizes = (features.shape[-2],) if layout is None else layout.sizes
    parts = features.split(sizes, -2)
    return torch.cat([part * (FLOOR + (part**2).mean(-2, keepdim=True)).rsqrt() for part in parts], -2)


def time_features(step: Tensor) -> Tensor:
    """tanh(t / τ - 1) for each τ of `TIMES`: [...] to [..., 11]."""
    return (step[..., None] / torch.tensor(TIMES, dtype=step.dtype, device=step.device) - 1).tanh()


def truncated_normal(shape: tuple[int, ...], deviation: float, generator: Generator) -> Tensor:
    """N(0, deviation²) cut at two deviations, in float32 on the CPU."""
    weights = torch.empty(shape)
    return torch.nn.init.trunc_normal_(weights, 0.0, deviation, -2 * deviation, 2 * deviation, generator=generator)
