"""A meta-trained learned optimizer as a `torch.optim.Optimizer`, for any model of yours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from engine import checkpoint as checkpoints
from engine import kernels
from engine.errors import RunError
from engine.export.optimizer import load_exported
from engine.kernels import Steps
from engine.learned_optimizers.base import LEARNED_OPTIMIZERS, Phi, State
from engine.learned_optimizers.base import LearnedOptimizer as Rule
from engine.runs import RunReader, RunStore
from engine.scale import best_scale


class LearnedOptimizer(torch.optim.Optimizer):
    """Trains parameters with a frozen learned optimizer: no learning rate, no regularizer.

    All parameters of all groups are one flat vector for it, as in meta-training, so a learned optimizer that looks at
    all coordinates at once (`simple` normalises by their mean square) sees the whole model. A parameter without a
    gradient counts as having gradient zero and is left alone. Each group may have its own `scale`, a factor of its
    updates. The optimizer state is kept under the first parameter, so `state_dict` and `load_state_dict` work as for
    every other optimizer.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], rule: Rule, phi: Phi, *, scale: float = 1.0
    ) -> None:
        """`phi` are the meta-parameters to use. Raises ValueError for a scale that is not positive and finite."""
        _check_scale(scale)
        self._built = False
        self._rule = rule
        self._phi = phi
        self._steps: Steps | None = None  # holds the state between steps, in an order of its own
        self._goes_on: tuple[torch.device, torch.dtype] | None = None  # on what
        super().__init__(params, {"scale": scale})
        self._built = True
        devices = {str(parameter.device) for parameter in self._parameters()}
        if len(devices) > 1:
            raise ValueError(f"all parameters must be on one device, found {', '.join(sorted(devices))}")

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return {**super().__getstate__(), "_rule": self._rule, "_phi": self._phi, "_built": True, "_steps": None}

    @property
    def state(self) -> Any:
        """As in torch. Between steps the kernels hold it in an order of their own; it is up to date when asked for."""
        self._settle()
        return self.__dict__["state"]

    @state.setter
    def state(self, value: Any) -> None:
        self._steps = None
        self.__dict__["state"] = value

    def _settle(self) -> None:
        """Bring the state up to date; the next step starts from there."""
        if self._steps is not None:
            self.__dict__["state"][self._parameters()[0]] = self._steps.state()
        self._steps = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, but only before training: the flat vector cannot grow afterwards."""
        _check_scale(param_group.get("scale", 1.0))
        if self._built and self.state:
            raise RuntimeError("a learned optimizer takes no new parameters once it has taken a step")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one inner step from the gradients in place; returns what `closure`, if any, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = self._parameters()
        first = parameters[0]
        dtype = _precision(first)
        grad = torch.cat([_flat_grad(parameter, dtype) for parameter in parameters])  # [P]
        theta = torch.cat([parameter.detach().reshape(-1).to(dtype) for parameter in parameters])
        if self._steps is None or self._goes_on != (theta.device, dtype):  # the model may have been moved meanwhile
            held: State = self.state[first] or self._rule.init(theta)
            held = self.state[first] = {name: tensor.to(theta) for name, tensor in held.items()}
            self._phi = {name: tensor.to(theta) for name, tensor in self._phi.items()}
            self._steps = kernels.steps(self._rule, self._phi, held, theta)
            self._goes_on = (theta.device, dtype)
        update = self._steps(theta, grad)
        scales = [group["scale"] for group in self.param_groups for _ in group["params"]]
        pieces = update.split([parameter.numel() for parameter in parameters])
        for parameter, piece, scale in zip(parameters, pieces, scales, strict=True):
            if parameter.grad is not None:
                parameter.add_((scale * piece).view_as(parameter).to(parameter.dtype))
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch. Raises ValueError where the state belongs to another number of parameters."""
        held: State = state_dict["state"].get(0, {})
        size = sum(parameter.numel() for parameter in self._parameters())
        wanted = self._rule.init(torch.empty(size, device="meta"))  # shapes only
        if held and {name: t.shape for name, t in held.items()} != {name: t.shape for name, t in wanted.items()}:
            raise ValueError("the optimizer state does not fit: it belongs to another model or learned optimizer")
        self._steps = None
        super().load_state_dict(state_dict)
        if held:  # torch casts it to the parameter's type, and half precision would be too little
            first = self._parameters()[0]
            dtype = _precision(first)
            self.state[first] = {name: tensor.to(first.device, dtype, copy=True) for name, tensor in held.items()}

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


def load_optimizer(
    run: str | os.PathLike[str] | RunReader,
    params: Iterable[Tensor] | Iterable[dict[str, Any]],
    *,
    scale: float | Literal["best"] = 1.0,
    checkpoint: str = "best",
) -> LearnedOptimizer:
    """The learned optimizer of a run (path, id, or "last" in the run store) for the parameters of a model of yours.

    `scale` multiplies every update; "best" is the one that `lreg transfer --scales` chose on validation. `checkpoint`
    is best (on validation), last, or initial. Raises RunError where there is no such run, checkpoint or scale.

    `run` may also be a file that `lreg export --to safetensors` wrote: it holds one checkpoint, and a scale that is
    multiplied by `scale`, or taken as it is for "best".
    """
    if not isinstance(run, RunReader) and os.fspath(run).endswith(".safetensors"):
        rule, phi, facts = load_exported(run)
        return LearnedOptimizer(params, rule, phi, scale=facts["scale"] * (1.0 if scale == "best" else scale))
    reader = run if isinstance(run, RunReader) else RunStore().resolve(os.fspath(run))
    rule, phi = load_rule(reader, checkpoint)
    return LearnedOptimizer(params, rule, phi, scale=best_scale(reader) if scale == "best" else scale)


def load_rule(run: RunReader, which: str = "best") -> tuple[Rule, Phi]:
    """A run's learned optimizer as update rule and meta-parameters on the CPU."""
    phi = checkpoints.load_frozen(run.path, which)
    own = dict(run.preset()["optimizer"])
    rule = LEARNED_OPTIMIZERS.create(own.pop("kind"), **own)
    wanted = rule.init_phi(torch.Generator())
    if {name: tensor.shape for name, tensor in phi.items()} != {name: tensor.shape for name, tensor in wanted.items()}:
        raise RunError(f"{run.path}: checkpoint {which} does not fit the [optimizer] table of its preset")
    return rule, phi


def _flat_grad(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    if parameter.grad is None:
        return torch.zeros(parameter.numel(), dtype=dtype, device=parameter.device)
    if parameter.grad.is_sparse:
        raise RuntimeError("a learned optimizer does not take sparse gradients")
    return parameter.grad.reshape(-1).to(dtype)


def _precision(parameter: Tensor) -> torch.dtype:
    """The learned optimizer computes in float32 at least: its state is not for half precision."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _check_scale(scale: float) -> None:
    if not (isinstance(scale, (int, float)) and 0 < scale < float("inf")):
        raise ValueError(f"scale must be a positive number, found {scale!r}")
