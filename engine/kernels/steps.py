"""A frozen learned optimizer taking inner steps: nothing is kept but its state."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from engine.kernels.native import NativeNetwork, rows_of
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State, StepInfo
from engine.tasks.base import Layout


class Steps(Protocol):
    """One optimizee, or several side by side, under way."""

    def __call__(self, theta: Tensor, grad: Tensor, info: StepInfo | None = None) -> Tensor:
        """The update, [..., P], to add to theta."""
        ...

    def state(self) -> State:
        """The optimizer state, shapes of `LearnedOptimizer.init`."""
        ...


class PlainSteps:
    """`update` and its state, in plain PyTorch, on any device."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, state: State, layout: Layout | None = None) -> None:
        self._optimizer = optimizer
        self._phi = phi
        self._state = state
        self._layout = layout

    @torch.no_grad()
    def __call__(self, theta: Tensor, grad: Tensor, info: StepInfo | None = None) -> Tensor:
        update, self._state = self._optimizer.update(self._phi, theta, grad, self._state, self._layout, info)
        return update

    def state(self) -> State:
        return self._state


class NativeSteps:
    """The CPU kernels. The network's units stay in the kernels' order from step to step."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, state: State, layout: Layout | None = None) -> None:
        assert optimizer.network is not None
        units = optimizer.network.units
        self._optimizer = optimizer
        self._layout = layout
        self._shape = state[units[0]].shape[:-1]
        self._net = NativeNetwork(optimizer, phi, self._shape.numel())
        self._now = self._net.pack(state)
        self._moments = {name: tensor for name, tensor in state.items() if name not in units}

    @torch.no_grad()
    def __call__(self, theta: Tensor, grad: Tensor, info: StepInfo | None = None) -> Tensor:
        features, self._moments = self._optimizer.observe(theta, grad, self._moments, self._layout, info)
        update = torch.empty(self._shape, dtype=self._now.dtype)
        self._net.forward(rows_of(features).contiguous(), self._now, self._now, update)
        factor = self._optimizer.update_factor(theta, self._layout, grad)
        return update if factor is None else factor * update

    def state(self) -> State:
        return self._moments | self._net.unpack(self._now, self._shape)
