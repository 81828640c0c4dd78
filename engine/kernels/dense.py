"""mlp on the CPU: the network of all coordinates, and its slopes over a whole truncation at once, in cache."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from engine.kernels.arrays import array, give_back
from engine.kernels.build import library
from engine.kernels.native import GROUPS
from engine.kernels.tape import SideInput
from engine.optimizers.box_ascent import BoxAscent
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State, StepInfo
from engine.optimizers.learned.mlp import MLP
from engine.optimizers.learned.tensor_mlp import EXPONENT, LAYERS
from engine.tasks.base import Layout


def supports(optimizer: LearnedOptimizer, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels know this learned optimizer, on this device, in this precision."""
    return type(optimizer) is MLP and device.type == "cpu" and dtype in (torch.float32, torch.float64)


class DenseNetwork:
    """The network of `mlp` with its meta-parameters, as the kernels take it."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi) -> None:
        assert isinstance(optimizer, MLP)
        self.names = [f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")]
        self.phi = {name: phi[name].detach().contiguous() for name in self.names}
        self.features, self.hidden = self.phi["layer0.weight"].shape
        self.dtype = self.phi["layer0.weight"].dtype
        self._double = self.dtype == torch.float64
        number = ctypes.c_double if self._double else ctypes.c_float
        pointers = (ctypes.c_void_p * len(self.names))(*(self.phi[name].data_ptr() for name in self.names))
        sizes = (ctypes.c_int64(self.features), ctypes.c_int64(self.hidden))
        self._start = (*sizes, number(optimizer.output_scale), number(EXPONENT), pointers)

    def _run(self, function: str, coordinates: int, *arguments: object) -> None:
        kernel = getattr(library(), f"lreg_dense_{function}_{'double' if self._double else 'float'}")
        taken = (ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else value for value in arguments)
        kernel(*self._start, ctypes.c_int64(coordinates), *taken, ctypes.c_int(torch.get_num_threads()))

    def forward(self, features: Tensor, update: Tensor) -> None:
        """`update`, [N], for contiguous features [N, F]."""
        self._run("forward", update.numel(), features, update)

    def pull_back(self, features: Tensor, slopes: Tensor) -> Phi:
        """The gradient by phi of the inner product of slopes, N numbers, with the updates at features, N times F."""
        sizes = [self.phi[name].numel() for name in self.names]
        sums = array(self.dtype, GROUPS, sum(sizes))
        self._run("backward", slopes.numel(), features, slopes, ctypes.c_int(GROUPS), sums, ctypes.c_int64(sum(sizes)))
        parts = sums.sum(0, dtype=torch.float64).to(self.dtype).split(sizes)
        give_back([sums])
        return {name: part.view_as(self.phi[name]) for name, part in zip(self.names, parts, strict=True)}


class DenseTape:
    """One truncation of `mlp`, without update penalties. Only the features are kept."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, theta: Tensor, steps: int) -> None:
        self._net = DenseNetwork(optimizer, phi)
        self._shape = theta.shape
        self._features = array(theta.dtype, steps, theta.numel(), self._net.features)
        self._updates = array(theta.dtype, steps, theta.numel())
        self._taken = 0

    def step(self, features: Tensor, observed: State) -> Tensor:
        kept, update = self._features[self._taken], self._updates[self._taken]
        kept.copy_(features.reshape(kept.shape))
        self._net.forward(kept, update)
        self._taken += 1
        return update.view(self._shape)

    def ascend(self, offset: Tensor, ascent: BoxAscent) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("truncations with update penalties go another way")

    def state(self) -> State:
        return {}

    def pull_back(self, slopes: list[Tensor], side: SideInput | None = None) -> Phi:
        assert side is None
        stacked = array(self._updates.dtype, *self._updates.shape)
        torch.stack([slope.reshape(-1) for slope in slopes], out=stacked)
        gradient = self._net.pull_back(self._features, stacked)
        give_back([stacked])
        return gradient

    def close(self) -> None:
        give_back([self._features, self._updates])
        self._features = self._updates = torch.empty(0, dtype=self._net.dtype)


class DenseSteps:
    """A frozen `mlp` taking inner steps."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi, state: State, layout: Layout | None = None) -> None:
        self._optimizer, self._layout, self._state = optimizer, layout, state
        self._net = DenseNetwork(optimizer, phi)

    @torch.no_grad()
    def __call__(self, theta: Tensor, grad: Tensor, info: StepInfo | None = None) -> Tensor:
        features, self._state = self._optimizer.observe(theta, grad, self._state, self._layout, info)
        update = torch.empty_like(theta, memory_format=torch.contiguous_format)
        self._net.forward(features.contiguous(), update)
        factor = self._optimizer.update_factor(theta, self._layout, grad)
        return update if factor is None else factor * update

    def state(self) -> State:
        return self._state
