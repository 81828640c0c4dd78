"""lin on the CPU: moments, features and update of many rows of coordinates in two passes over memory."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from engine.kernels.build import library
from engine.optimizers.learned import features
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State, StepInfo, fraction_of
from engine.optimizers.learned.lin import STEEPNESS, Lin
from engine.tasks.base import Layout

FEATURES = 9
SLOPE = 6  # place of the bare gradient's feature, which the kernel takes without its steepness


def supports(optimizer: LearnedOptimizer, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel knows this learned optimizer, on this device, in this precision."""
    is_plain = isinstance(optimizer, Lin) and optimizer.is_plain
    return is_plain and device.type == "cpu" and dtype in (torch.float32, torch.float64)


class LinearSteps:
    """`lin` taking inner steps: with phi as one optimizer, or [M, ...] as M of them, each on its part of theta."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, state: State, layout: Layout | None = None) -> None:
        assert isinstance(optimizer, Lin)
        self._optimizer, self._phi, self._layout = optimizer, phi, layout
        self._state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
        theta = self._state["features.theta"]
        self._shape, self._rows = theta.shape, theta[..., 0].numel()
        decays = (*features.MOMENTA, features.SQUARE, features.FLOOR, features.LARGEST)
        self._constants = torch.tensor(decays, dtype=theta.dtype)
        number = "float" if theta.dtype == torch.float32 else "double"
        self._kernel = getattr(library(), f"lreg_linear_{number}")

    @torch.no_grad()
    def __call__(self, theta: Tensor, grad: Tensor, info: StepInfo | None = None) -> Tensor:
        fraction = fraction_of(info, theta)
        coefficients = self._coefficients(fraction)
        state, update = self._state, torch.empty(self._shape, dtype=theta.dtype)
        moved = [state[f"features.{name}"] for name in ("means", "square", "time", "theta")]
        arrays = (self._constants, theta.contiguous(), grad.contiguous(), *moved, coefficients, update)
        sizes = (ctypes.c_int64(self._rows), ctypes.c_int64(self._shape[-1]))
        threads = ctypes.c_int(torch.get_num_threads())
        self._kernel(*sizes, *(ctypes.c_void_p(array.data_ptr()) for array in arrays), threads)
        state["time"] = fraction.expand_as(state["time"])
        factor = self._optimizer.update_factor(theta, self._layout, grad)
        return update if factor is None else update.mul_(factor)

    def _coefficients(self, fraction: Tensor) -> Tensor:
        """For every row, [rows, 9]."""
        each = self._optimizer.coefficients(self._phi, fraction).view(-1, FEATURES)
        each = torch.cat([each[:, :SLOPE], STEEPNESS * each[:, SLOPE, None], each[:, SLOPE + 1 :]], 1)
        return each.repeat_interleave(self._rows // len(each), 0).contiguous()

    def state(self) -> State:
        return {name: tensor.clone() for name, tensor in self._state.items()}
