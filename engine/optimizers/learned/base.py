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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from engine.base.arguments import kind, refusal
from engine.base.errors import LregError
from engine.base.flat import Batch
from engine.base.registry import Registry
from engine.base.settings import setting
from engine.optimizers.learned import features as input_features
from engine.optimizers.learned import sparse_rows
from engine.optimizers.learned import step_scale as scales
from engine.tasks.base import Layout, Task

Phi = dict[str, Tensor]
"""Meta-parameters by name."""

START = "start"
"""Name of learned initial parameters, [P], among the meta-parameters: `meta.learn_start` puts them beside those of the
learned optimizer, which knows nothing of them."""

Start = Callable[[Tensor, Batch, Layout], Tensor]
"""Where optimizees begin: from the parameters that their task has drawn, [B, P], their first training batch and the
layout of their parameters."""

Scope = Literal["coordinate", "mean_square", "tensor", "all"]

State = dict[str, Tensor]
"""Optimizer state by name: each of shape [..., P, ·] or [..., P], and `time`, shape []."""


class StepInfo:
    """What a learned optimizer may know of an inner step beside the gradient."""

    def __init__(
        self,
        loss: Tensor | None,
        step: int | Tensor,
        horizon: int | Tensor | None = None,
        task: Task | None = None,
    ) -> None:
        self._loss, self._task = loss, task
        self.step = step
        """The inner step's number, from 0; a tensor, [...], where optimizees are at different ones."""
        self.horizon = horizon
        """How many inner steps the unroll has, T, likewise; None where nobody knows: `load_optimizer` may be told."""

    @property
    def loss(self) -> Tensor:
        """The loss that the gradient is of, [...]. Raises LregError where there is none."""
        if self._loss is None:
            raise LregError("this learned optimizer uses the loss: step(closure), with a closure that returns it")
        return self._loss

    @property
    def task(self) -> Task:
        """The task, whose rows are the optimizees' where they have data of their own. Raises LregError without one."""
        if self._task is None:
            raise LregError("this learned optimizer looks at the task that it trains on, and there is none here")
        return self._task

    def fraction(self, theta: Tensor) -> Tensor:
        """t / T, in [0, 1], in a shape that broadcasts with theta, [..., P]; 0 where nobody knows T."""
        if self.horizon is None:
            return theta.new_zeros(())
        return (for_each(self.step, theta) / for_each(self.horizon, theta)).clamp(0.0, 1.0)


def for_each(number: float | Tensor, theta: Tensor) -> Tensor:
    """A number of each optimizee, [...], or of all, in a shape that broadcasts with theta, [..., P]."""
    if not isinstance(number, Tensor):
        return theta.new_full((), number)  # no copy from the host, for which a device would wait
    return number.to(theta)[..., None] if number.dim() else number.to(theta)


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
    ("mean_square", see `observe_part`), those of the same tensor alone ("tensor", which goes for `step` too), or
    anything ("all"). Unless it is "all" steps can be taken by blocks, of tensors or, if `coordinatewise`, of
    coordinates, in little memory."""
    gradient_features: ClassVar[int]
    """How many of the features, the first ones, are made of the current gradient alone."""

    differentiates_theta: ClassVar[bool] = False
    """Whether back-propagation goes through the theta that `observe` is given, as where the update is part of it. For
    all others it is a constant, as the gradient is."""

    theta_in_state: ClassVar[tuple[str, ...]] = ()
    """Names under which `observe` hands theta, or what depends on it, to `step` in the state: constants to penalties on
    the update function, as the features are to them."""

    uses_task: ClassVar[bool] = False
    """Whether `observe` looks at the task (`StepInfo.task`): then `check_task` says which ones it can train on."""

    gives_start: ClassVar[bool] = False  # set where a member has a `start`
    uses_layout: ClassVar[bool] = False  # set where a member's `init` or `observe` takes the layout
    takes_info: ClassVar[bool] = False  # likewise; a member may say no where only `extra_features` needs the info

    hidden: int = setting(20, minimum=1, maximum=1024, help="hidden units for each coordinate, where there are any")
    theta_input: bool = setting(False, help="show the network the parameter itself as one more input")
    features: tuple[str, ...] = setting(
        (), choices=input_features.NAMES, allow_empty=True, help="more inputs; see docs/method.md#learned-optimizers"
    )
    step_scale: str = setting(
        "none",
        choices=scales.CHOICES,
        help="factor of a tensor's updates: mup base_width / fan-in of matrices, mup_capped the same and not above 1, "
        "rms the tensor's root mean square",
    )
    base_width: int = setting(32, minimum=1, help="fan-in whose updates step_scale = mup leaves as they are")
    sparse_rows: bool = setting(
        True,
        help="rows of an embedding that get no gradient in a step are not moved; false: they drift as all parameters",
    )

    def __init_subclass__(cls) -> None:
        """Let a member leave out the arguments that it does not use."""
        super().__init_subclass__()
        cls.name = cls.__name__.lower()  # unless it is registered by another
        cls.gives_start |= "start" in vars(cls)
        says_info = "takes_info" in vars(cls)
        for name, context in (("init", ("layout",)), ("observe", ("layout", "info"))):
            if name in vars(cls):
                method = vars(cls)[name]
                used = set(context) & inspect.signature(method).parameters.keys()
                cls.uses_layout |= "layout" in used
                if not says_info:
                    cls.takes_info |= "info" in used
                if used != set(context):
                    setattr(cls, name, _completed(method, context, used))

    @property
    def uses_info(self) -> bool:
        """Whether `observe` is to be given the info on the step."""
        return self.takes_info or "time" in self.features

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
        names = ("observe", "observe_part", "extra_features", "with_theta", "update", "step", "lstm_step")
        changed = min(map(self._giver, names))
        by_coordinates = self.coordinatewise and not self.uses_layout and not self.takes_info
        is_trusted = self.scope == "tensor" or by_coordinates
        if "previous_update" in self.features or (self.features and self.scope == "mean_square"):
            return "all"
        return self.scope if is_trusted and self._giver("scope") <= changed else "all"

    def _giver(self, name: str) -> int:
        """How far up in the classes' order an attribute is defined."""
        line = type(self).__mro__
        return next((index for index, cls in enumerate(line) if name in vars(cls)), len(line))

    def init_phi(self, generator: Generator) -> Phi:
        """Fresh meta-parameters in float32 on the CPU, so that every device starts from the same numbers."""
        raise NotImplementedError

    def check_task(self, task: Task) -> None:
        """Raise PresetError where optimizees of this task cannot be trained. Most members can train all of them."""

    def start(self, phi: Phi, theta: Tensor, batch: Batch, layout: Layout) -> Tensor:
        """Initial parameters, [B, P], with their graph to phi, in place of those that the task has drawn, theta.

        `batch`: the first training batch of each optimizee. Meta-training differentiates them (tbptt alone).
        """
        return theta

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

    def update_of(self, phi: Phi, features: Tensor, state: State, free: int | None) -> Callable[[Tensor], Tensor]:
        """The update of `step`, [..., P], as a function of the first `free` features, [..., P, free], or of all (None).

        The other features and the state are held. For whoever asks for many updates that differ in these features
        alone, as a search does: a member may compute once what does not depend on them.
        """
        if free is None:
            return lambda moved: self.step(phi, moved, state)[0]
        return lambda moved: self.step(phi, torch.cat([moved, features[..., free:]], -1), state)[0]

    def update(
        self,
        phi: Phi,
        theta: Tensor,
        grad: Tensor,
        state: State,
        layout: Layout | None = None,
        info: StepInfo | None = None,
    ) -> tuple[Tensor, State]:
        """Return the update, shape [..., P], to add to theta, and the next state.

        Raises ArgumentError where a member gives something else than it should.
        """
        observed = self.observe(theta, grad, state, layout, info)
        if not _is_pair(observed):
            raise refusal(f"what {self.name} observes", "features [..., P, F] and the state", _forms(observed))
        stepped = self.step(phi, *observed)
        if not _is_pair(stepped) or stepped[0].shape != theta.shape:
            allowed = f"an update {list(theta.shape)}, as theta, and the state"
            raise refusal(f"the step of {self.name}", allowed, _forms(stepped))
        update, state = stepped
        factor = self.update_factor(theta, layout, grad)
        return (update if factor is None else factor * update), state

    def update_factor(self, theta: Tensor, layout: Layout | None, grad: Tensor) -> Tensor | None:
        """What `step`'s updates are multiplied by, [P] or [..., P], a constant; None: nothing.

        As `step_scale` says, and by 0 where `sparse_rows` leaves a row of an embedding alone. Whoever calls `step`
        itself multiplies; `update` has done so. Raises LregError where the layout is needed.
        """
        moving = sparse_rows.moving(grad, layout) if self.sparse_rows and layout is not None else None
        if self.step_scale == "none":
            return moving
        if layout is None:
            raise LregError(f"step_scale = {self.step_scale} goes by tensors: it needs the layout of the parameters")
        factor = scales.factor(self.step_scale, self.base_width, theta, layout)
        return factor if moving is None else factor * moving

    @property
    def extra_inputs(self) -> int:
        """How many inputs `theta_input` and `features` add to a member's own."""
        return self.theta_input + input_features.width(self.features)

    def extra_state(self, theta: Tensor) -> State:
        """The state that `extra_features` needs."""
        return input_features.init(self.features, theta)

    def extra_features(
        self, theta: Tensor, grad: Tensor, state: State, info: StepInfo | None = None
    ) -> tuple[list[Tensor], State]:
        """What `features` adds to a member's own inputs, [..., P] each, and the state moved on: for its `observe`."""
        if not self.features:
            return [], state
        return input_features.observe(self.features, theta, grad, state, fraction_of(info, theta))

    def with_theta(self, features: list[Tensor], theta: Tensor) -> Tensor:
        """Stack features, [..., P] each, into [..., P, F], theta last where it is an input.

        A view that is not contiguous: stacking along the last dimension costs ten times as much. So `reshape` it.
        """
        return torch.stack([*features, theta] if self.theta_input else features).movedim(0, -1)


def _is_pair(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor)


def _forms(result: Any) -> str:
    return " and ".join(map(kind, result)) if isinstance(result, tuple) else kind(result)


def fraction_of(info: StepInfo | None, theta: Tensor) -> Tensor:
    """t / T as `StepInfo.fraction`; 0 where there is no info."""
    return theta.new_zeros(()) if info is None else info.fraction(theta)


def _completed(method: Callable[..., Any], context: tuple[str, ...], used: set[str]) -> Callable[..., Any]:
    """A method that takes all of the context, of which a member's own uses some."""
    without = len(inspect.signature(method).parameters) - 1 - len(used)  # self is not counted

    @functools.wraps(method)
    def completed(self: LearnedOptimizer, *args: Any, **named: Any) -> Any:
        named |= zip(context, args[without:], strict=False)
        return method(
            self, *args[:without], **{name: named[name] for name in named if name not in context or name in used}
        )

    return completed


def without_start(phi: Phi) -> Phi:
    """The learned optimizer's own meta-parameters."""
    return {name: tensor for name, tensor in phi.items() if name != START}


def learned_start(optimizer: LearnedOptimizer, phi: Phi) -> Start | None:
    """Where optimizees begin that this learned optimizer trains; None: where their task says.

    Learned initial parameters among phi are for tasks with as many; optimizees of other tasks begin as ever.
    """
    step_phi = without_start(phi)
    if optimizer.gives_start:
        return functools.partial(optimizer.start, step_phi)
    if START not in phi:
        return None

    def start(theta: Tensor, batch: Batch, layout: Layout) -> Tensor:
        learned = phi[START].to(theta)
        return learned.expand_as(theta).contiguous() if len(learned) == theta.shape[-1] else theta

    return start


def fits(optimizer: LearnedOptimizer, phi: Phi) -> bool:
    """Whether meta-parameters, with a learned start or without, are this learned optimizer's by names and shapes."""
    fresh = optimizer.init_phi(Generator())
    shapes = {name: tensor.shape for name, tensor in without_start(phi).items()}
    is_flat = START not in phi or phi[START].dim() == 1
    return is_flat and shapes == {name: tensor.shape for name, tensor in fresh.items()}


LEARNED_OPTIMIZERS = Registry[LearnedOptimizer]("learned optimizer", "engine.optimizers.learned", LearnedOptimizer)

get = LEARNED_OPTIMIZERS.create
"""A learned optimizer by name, its settings checked: `get("dm", hidden=20)`. Raises SettingsError."""


def from_table(table: Mapping[str, Any]) -> LearnedOptimizer:
    """The learned optimizer of a preset's [optimizer] table. Raises SettingsError where it does not fit."""
    settings = dict(table)
    return LEARNED_OPTIMIZERS.create(settings.pop("kind"), **settings)


def uniform(shape: tuple[int, ...], bound: float, generator: Generator) -> Tensor:
    """U(-bound, bound) in float32 on the CPU."""
    return (2 * torch.rand(shape, generator=generator) - 1) * bound
