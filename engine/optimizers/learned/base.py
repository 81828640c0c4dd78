"""The contract of a learned optimizer: pure functions and explicit state.

    state = optimizer.init(theta, layout)
    update, state = optimizer.update(phi, theta, grad, state, layout, info)        theta_{t+1} = theta_t + update

theta and grad have shape [..., P]: any number of optimizees side by side. `update` is `observe` (what the network is
shown, no meta-parameters) followed by `step` (the network); penalties on the update function call `step` alone. The
layout (names and shapes of what lies in theta) and the info on the step (loss, number, horizon) are for members that
use them: any other leaves these arguments out.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from engine.base.arguments import plain
from engine.base.errors import LregError
from engine.base.registry import Registry
from engine.base.settings import setting
from engine.tasks.base import Layout

Phi = dict[str, Tensor]
"""Meta-parameters by name."""

Scope = Literal["coordinate", "mean_square", "all"]

State = dict[str, Tensor]
"""Optimizer state by name: each of shape [..., P, ·] or [..., P], and `time`, shape []."""


class StepInfo:
    """What a learned optimizer may know of an inner step beside the gradient."""

    def __init__(self, loss: Tensor | None, step: int, horizon: int | None = None) -> None:
        self._loss = loss
        self.step = step
        """The inner step's number, from 0."""
        self.horizon = horizon
        """How many inner steps the unroll has; None where nobody knows, as in training by `load_optimizer`."""

    @property
    def loss(self) -> Tensor:
        """The loss that the gradient is of, [...]. Raises LregError where there is none."""
        if self._loss is None:
            raise LregError("this learned optimizer uses the loss: step(closure), with a closure that returns it")
        return self._loss


@dataclass(frozen=True)
class Network:
    """What `step` computes, for kernels that know recurrent networks; `step` itself is the reference.

    An entrance (linear, then ELU), `layers` cells of `hidden` units, a linear head h -> u, and the update scale * u, or
    scale * tanh(u) where it is squashed. Weights and state are those of `CoordinatewiseLSTM` and `Simple` by name.
    """

    cell: Literal["lstm", "rnn"]  # rnn: one tanh layer without biases
    features: int
    hidden: int
    layers: int
    scale: float
    entrance: bool = False
    squashed: bool = False

    @property
    def weights(self) -> tuple[str, ...]:
        """Names in phi in the order of the kernels; "" where there is none."""
        if self.cell == "rnn":
            return ("rnn.input", "rnn.hidden", "", "head.weight", "")
        before = ("pre.weight", "pre.bias") if self.entrance else ()
        cells = (f"lstm{layer}.{part}" for layer in range(self.layers) for part in ("input", "hidden", "bias"))
        return (*before, *cells, "head.weight", "head.bias")

    @property
    def units(self) -> tuple[str, ...]:
        """Names in the optimizer state, [..., P, H] each, in the order of the kernels."""
        if self.cell == "rnn":
            return ("rnn.h",)
        return tuple(f"lstm{layer}.{part}" for layer in range(self.layers) for part in ("h", "c"))


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedOptimizer:
    """A network that turns gradients into updates. A member gives `init_phi`, `init`, `observe` and `step`."""

    name: ClassVar[str]
    coordinatewise: ClassVar[bool] = False
    """Whether `step` treats every coordinate by itself, `observe` reads no state that `step` writes, and the state is
    numbers of shapes [..., P, ·] and [..., P], and `time`: so that a truncation can be computed anew by blocks."""
    scope: ClassVar[Scope] = "all"
    """What `observe` takes from other coordinates: nothing ("coordinate"), the mean of their squared gradients
    ("mean_square", see `observe_part`), or anything ("all"). Unless it is "all", and if `coordinatewise`, steps can be
    taken by blocks of coordinates, in little memory."""
    gradient_features: ClassVar[int]
    """How many of the features, the first ones, are made of the current gradient alone."""

    uses_layout: ClassVar[bool] = False  # set where a member's `init` or `observe` takes the layout
    uses_info: ClassVar[bool] = False

    hidden: int = setting(20, minimum=1, maximum=1024, help="hidden units for each coordinate")
    theta_input: bool = setting(False, help="show the network the parameter itself as one more input")

    def __init_subclass__(cls) -> None:
        """Let a member leave out the arguments that it does not use."""
        super().__init_subclass__()
        cls.name = cls.__name__.lower()  # unless it is registered by another
        for name, context in (("init", ("layout",)), ("observe", ("layout", "info"))):
            if name in vars(cls):
                method = vars(cls)[name]
                used = set(context) & inspect.signature(method).parameters.keys()
                cls.uses_layout |= "layout" in used
                cls.uses_info |= "info" in used
                if used != set(context):
                    setattr(cls, name, _completed(method, context, used))

    @property
    def network(self) -> Network | None:
        """What `step` computes, where a fused kernel may compute it; None: `step` alone knows."""
        return None

    @functools.cached_property
    def trusted_network(self) -> Network | None:
        """`network`, unless a subclass has changed the mathematics that it describes and not said so."""
        changed = min(map(self._giver, ("step", "lstm_step", "lstm_state", "init")))
        return self.network if self._giver("network") <= changed else None

    @property
    def trusted_scope(self) -> Scope:
        """`scope`, unless a subclass has changed `observe` or `step` and not said so; "all" where `step` may mix."""
        changed = min(map(self._giver, ("observe", "observe_part", "with_theta", "update", "step", "lstm_step")))
        is_trusted = self.coordinatewise and not self.uses_layout and not self.uses_info
        return self.scope if is_trusted and self._giver("scope") <= changed else "all"

    def _giver(self, name: str) -> int:
        """How far up in the classes' order an attribute is defined."""
        line = type(self).__mro__
        return next((place for place, cls in enumerate(line) if name in vars(cls)), len(line))

    def init_phi(self, generator: Generator) -> Phi:
        """Fresh meta-parameters in float32 on the CPU, so that every device starts from the same numbers."""
        raise NotImplementedError

    init: ClassVar[Callable[..., State]]
    """`init(theta, layout)`: the state before the first step for parameters of shape [..., P]."""

    observe: ClassVar[Callable[..., tuple[Tensor, State]]]
    """`observe(theta, grad, state, layout, info)`: the input features, shape [..., P, F], and the state with its
    moments moved on. Both may leave out the layout and the info."""

    def observe_part(self, theta: Tensor, grad: Tensor, state: State, mean_square: Tensor) -> tuple[Tensor, State]:
        """`observe` for some of the coordinates, where `mean_square`, shape [1], is that of all gradients."""
        return self.observe(theta, grad, state)

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the update, shape [..., P], and the state with its hidden units moved on."""
        raise NotImplementedError

    def update(
        self,
        phi: Phi,
        theta: Tensor,
        grad: Tensor,
        state: State,
        layout: Layout | None = None,
        info: StepInfo | None = None,
    ) -> tuple[Tensor, State]:
        """Return the update, shape [..., P], to add to theta, and the next state."""
        features, state = self.observe(theta, grad, state, layout, info)
        return self.step(phi, features, state)

    def with_theta(self, features: list[Tensor], theta: Tensor) -> Tensor:
        """Stack features, [..., P] each, into [..., P, F], theta last where it is an input.

        A view that is not contiguous: stacking along the last dimension costs ten times as much. So `reshape` it.
        """
        return torch.stack([*features, theta] if self.theta_input else features).movedim(0, -1)


def _completed(method: Callable[..., Any], context: tuple[str, ...], used: set[str]) -> Callable[..., Any]:
    """A method that takes all of the context, of which a member's own uses some."""
    without = len(inspect.signature(method).parameters) - 1 - len(used)  # self is not counted

    @functools.wraps(method)
    def completed(self: LearnedOptimizer, *given: Any, **named: Any) -> Any:
        named |= zip(context, given[without:], strict=False)
        return method(
            self, *given[:without], **{name: named[name] for name in named if name not in context or name in used}
        )

    return completed


LEARNED_OPTIMIZERS: Registry[LearnedOptimizer] = Registry("learned optimizer", "engine.optimizers.learned")


def get(name: str, **settings: Any) -> LearnedOptimizer:
    """A learned optimizer by name, its settings checked: `get("dm", hidden=20)`. Raises SettingsError."""
    return LEARNED_OPTIMIZERS.create(name, **{key: plain(value) for key, value in settings.items()})


def from_table(table: Mapping[str, Any]) -> LearnedOptimizer:
    """The learned optimizer of a preset's [optimizer] table. Raises SettingsError where it does not fit."""
    settings = dict(table)
    return LEARNED_OPTIMIZERS.create(settings.pop("kind"), **settings)


def uniform(shape: tuple[int, ...], bound: float, generator: Generator) -> Tensor:
    """U(-bound, bound) in float32 on the CPU."""
    return (2 * torch.rand(shape, generator=generator) - 1) * bound


@dataclass(frozen=True, kw_only=True, eq=False)
class CoordinatewiseLSTM(LearnedOptimizer):
    """What the LSTM members share: a stack of cells and a linear head. A member gives features and the output map."""

    coordinatewise: ClassVar[bool] = True

    layers: int = setting(2, minimum=1, maximum=8, help="LSTM layers")

    def lstm_phi(self, inputs: int, generator: Generator) -> Phi:
        """Weights U(±1/√H), as PyTorch; one bias for each gate: 1 for the forget gate, 0 for the others."""
        bound = 1 / math.sqrt(self.hidden)
        phi: Phi = {}
        for layer in range(self.layers):
            fan_in = inputs if layer == 0 else self.hidden
            phi[f"lstm{layer}.input"] = uniform((fan_in, 4 * self.hidden), bound, generator)
            phi[f"lstm{layer}.hidden"] = uniform((self.hidden, 4 * self.hidden), bound, generator)
            bias = torch.zeros(4, self.hidden)
            bias[1] = 1.0  # gates in the order input, forget, cell, output
            phi[f"lstm{layer}.bias"] = bias.flatten()
        phi["head.weight"] = uniform((self.hidden, 1), bound, generator)
        phi["head.bias"] = torch.zeros(1)
        return phi

    def lstm_state(self, theta: Tensor) -> State:
        zeros = theta.new_zeros(*theta.shape, self.hidden)
        return {f"lstm{layer}.{part}": zeros for layer in range(self.layers) for part in ("h", "c")}

    def lstm_step(self, phi: Phi, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the stack and the head on inputs, shape [..., F]: outputs, shape [...], and the next state."""
        shape = inputs.shape[:-1]
        x = inputs.reshape(-1, inputs.shape[-1])  # [N, F]
        new = dict(state)
        for layer in range(self.layers):
            h = state[f"lstm{layer}.h"].reshape(-1, self.hidden)
            c = state[f"lstm{layer}.c"].reshape(-1, self.hidden)
            gates = torch.addmm(phi[f"lstm{layer}.bias"], x, phi[f"lstm{layer}.input"])
            gates = torch.addmm(gates, h, phi[f"lstm{layer}.hidden"])  # [N, 4H]
            enter, forget, cell, leave = gates.chunk(4, dim=-1)
            c = forget.sigmoid() * c + enter.sigmoid() * cell.tanh()
            x = leave.sigmoid() * c.tanh()
            new[f"lstm{layer}.h"] = x.reshape(*shape, self.hidden)
            new[f"lstm{layer}.c"] = c.reshape(*shape, self.hidden)
        return torch.addmm(phi["head.bias"], x, phi["head.weight"]).reshape(shape), new
