"""The reference: the same work as people write it in plain eager PyTorch, one optimizee at a time.

torch's own cells (nn.LSTMCell, nn.RNNCell), autograd through everything: theta keeps its graph to the
learned optimizer, the losses along the truncation are added up, and `.backward()` goes once through all of it. The
gradient that feeds the learned optimizer is detached, but for the second order. Of evolution strategies one particle
after another is unrolled. Kept for the bench, and to check the kernels.

Shape letters: P parameters, F input features, H hidden units, T inner steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from engine.base.flat import perturbation
from engine.bench.scene import SEED, Setup, smoothness
from engine.bench.works import PARTICLES
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State, StepInfo
from engine.penalties.sam import SAM
from engine.penalties.smooth import Smooth
from engine.tasks.supervised import ExampleBatch

Units = list[tuple[Tensor, ...]]
"""(h, c) of each LSTM layer, or (h,) of the tanh layer: [P, H]."""


class EagerNetwork(nn.Module):
    """A learned optimizer's network of torch's own cells, with the meta-parameters `phi`."""

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi) -> None:
        super().__init__()
        network = optimizer.network
        assert network is not None
        self.network = network
        device, dtype = phi["head.weight"].device, phi["head.weight"].dtype
        lstm, hidden = network.cell == "lstm", network.hidden
        self.entrance = nn.Linear(network.features, hidden, device=device, dtype=dtype) if network.entrance else None
        sizes = [hidden if network.entrance else network.features] + [hidden] * (network.layers - 1)
        self.cells: list[nn.LSTMCell | nn.RNNCell] = [
            nn.LSTMCell(size, hidden, device=device, dtype=dtype)
            if lstm
            else nn.RNNCell(size, hidden, bias=False, device=device, dtype=dtype)
            for size in sizes
        ]
        self._registered = nn.ModuleList(self.cells)
        self.head = nn.Linear(hidden, 1, bias=lstm, device=device, dtype=dtype)
        with torch.no_grad():
            for name, parameter in self.mapped().items():
                parameter.copy_(phi[name].T if phi[name].ndim == 2 else phi[name])
            for cell in self.cells:
                if isinstance(cell, nn.LSTMCell):
                    cell.bias_hh.zero_()  # ours has one bias for each gate

    def mapped(self) -> dict[str, Tensor]:
        """Our meta-parameters' names, and the parameters that are theirs (matrices transposed)."""
        mapping: dict[str, Tensor] = {"head.weight": self.head.weight}
        if self.network.cell == "rnn":
            (cell,) = self.cells
            return {**mapping, "rnn.input": cell.weight_ih, "rnn.hidden": cell.weight_hh}
        mapping["head.bias"] = self.head.bias
        if self.entrance is not None:
            mapping |= {"pre.weight": self.entrance.weight, "pre.bias": self.entrance.bias}
        for layer, cell in enumerate(self.cells):
            parts = {"input": cell.weight_ih, "hidden": cell.weight_hh, "bias": cell.bias_ih}
            mapping |= {f"lstm{layer}.{part}": parameter for part, parameter in parts.items()}
        return mapping

    def gradient(self) -> Phi:
        """What `.backward()` left, under our names and in our shapes."""
        gradients = {name: parameter.grad for name, parameter in self.mapped().items()}
        return {name: grad.T if grad.ndim == 2 else grad for name, grad in gradients.items() if grad is not None}

    def start(self, coordinates: int) -> Units:
        zeros = self.head.weight.new_zeros(coordinates, self.network.hidden)
        return [(zeros, zeros) if self.network.cell == "lstm" else (zeros,) for _ in self.cells]

    def forward(self, features: Tensor, units: Units) -> tuple[Tensor, Units]:
        """The update, [P], for features [P, F], and the next units."""
        x = features if self.entrance is None else nn.functional.elu(self.entrance(features))
        after: Units = []
        for cell, unit in zip(self.cells, units, strict=True):
            if self.network.cell == "lstm":
                after.append(cell(x, unit))
            else:
                after.append((cell(x, unit[0]),))
            x = after[-1][0]
        output = self.head(x)[:, 0]
        return self.network.scale * (output.tanh() if self.network.squashed else output), after


def meta_gradient(scene: Setup, optimizee: int, starts: Sequence[Tensor] | None = None) -> tuple[Phi, list[Tensor]]:
    """The meta-gradient of an `optimizee` of a scene's meta-training work, and the losses along the truncation.

    `starts`: of the smoothness penalty's ascent, [P, F] for each inner step; drawn afresh where they are not given.
    """
    walk, generator = _OptimizeeRun(scene, optimizee, scene.phi), scene.generator()
    theta, total = walk.theta, torch.zeros((), dtype=scene.task.dtype, device=scene.task.device)
    second_order, losses = scene.objective.second_order, []
    for index in range(scene.steps):
        before = walk.units
        update = walk.step(theta, index, second_order)
        for penalty in smoothness(scene.piece).values():
            assert walk.network is not None
            offset = starts[index] if starts else penalty.start_of_ascent(scene.optimizer, walk.features, generator)
            change = change_at_worst(walk.network, penalty, walk.features, before, offset, update)
            total = total + penalty.weight * change
        theta = theta + update
        loss = walk.loss(theta, index)
        total = total + loss
        (walk.grad,) = torch.autograd.grad(loss, theta, retain_graph=True, create_graph=second_order)
        for sam in scene.objective.geometric.values():
            assert isinstance(sam, SAM)
            total = total + sam.weight * walk.loss(theta + perturbation(walk.grad, sam.rho), index)
        losses.append(loss.detach())
    return walk.gradient(total), losses


def run(scene: Setup) -> object:
    """A scene's work, the reference's way, for the first optimizee."""
    if scene.piece.work in PARTICLES:
        return mean_losses(scene, 0)
    return frozen(scene, 0) if scene.piece.work == "frozen" else meta_gradient(scene, 0)


@torch.no_grad()
def mean_losses(scene: Setup, optimizee: int) -> Tensor:
    """The mean losses of an `optimizee` under every particle's optimizer, [2 N], one unroll after another."""
    noise = scene.estimator.noise(scene.phi, SEED)
    values = []
    for sign in (1, -1):
        for pair in range(scene.estimator.pairs):
            phi = {name: tensor.detach() + sign * noise[name][pair] for name, tensor in scene.phi.items()}
            walk, losses = _OptimizeeRun(scene, optimizee, phi), []
            theta = walk.theta
            for index in range(scene.steps):
                theta = theta + walk.step(theta, index)
                losses.append(walk.look(theta, index))
            values.append(torch.stack(losses).mean())
    return torch.stack(values)


def evolved(scene: Setup) -> Phi:
    """The meta-gradient by evolution strategies of all optimizees of a scene."""
    values = torch.stack([mean_losses(scene, b) for b in range(scene.piece.meta_batch)]).mean(0)
    plus, minus = values.chunk(2)
    scale = 2 * scene.estimator.pairs * scene.estimator.sigma**2
    noise = scene.estimator.noise(scene.phi, SEED)
    return {name: torch.einsum("n,n...->...", (plus - minus) / scale, e) for name, e in noise.items()}


def change_at_worst(
    net: EagerNetwork, penalty: Smooth, features: Tensor, units: Units, offset: Tensor, update: Tensor
) -> Tensor:
    """The smoothness penalty, [], as the released code computes it: the clean update anew in every ascent step."""
    epsilon, length = penalty.epsilon, penalty.step_size * penalty.epsilon
    fixed = [tuple(part.detach() for part in layer) for layer in units]
    for _ in range(penalty.ascent_steps):
        point = (features + offset).requires_grad_()
        change = ((net(features, fixed)[0] - net(point, fixed)[0]) ** 2).sum()
        (slope,) = torch.autograd.grad(change, point)
        offset = (offset + length * slope.sign()).clamp(-epsilon, epsilon)
    return ((update - net(features + offset, units)[0]) ** 2).mean()


@torch.no_grad()
def frozen(scene: Setup, optimizee: int) -> Tensor:
    """Where a scene's frozen learned optimizer takes an `optimizee`: theta after the truncation, [P]."""
    walk = _OptimizeeRun(scene, optimizee, scene.phi)
    theta = walk.theta
    for index in range(scene.steps):
        walk.look(theta, index)
        theta = theta + walk.step(theta, index)
    return theta


class _OptimizeeRun:
    """One optimizee under way: its batches, its gradient, and the learned optimizer with its state."""

    def __init__(self, scene: Setup, optimizee: int, phi: Phi) -> None:
        self.task, self.optimizer, self.phi, self.horizon = scene.task, scene.optimizer, phi, scene.steps
        self.batch_at: Callable[[int], ExampleBatch] = lambda index: scene.window[index].of(optimizee)
        self.theta = scene.carry.theta[optimizee]
        self.grad = scene.carry.grad[optimizee]
        self.network = EagerNetwork(self.optimizer, phi) if self.optimizer.network else None
        self.state: State = self.optimizer.init(
            self.theta, self.task.layout
        )  # of a network's only the moments are used
        self.units: Units = self.network.start(len(self.theta)) if self.network else []
        self.features = self.theta

    def step(self, theta: Tensor, index: int, second_order: bool = False) -> Tensor:
        """The update at theta, both [P]. Features are constants, but for the second order and learned decays."""
        info = StepInfo(None, index, self.horizon)
        with torch.set_grad_enabled(torch.is_grad_enabled() and (second_order or self.network is None)):
            seen = theta if second_order else theta.detach()
            self.features, self.state = self.optimizer.observe(seen, self.grad, self.state, self.task.layout, info)
        if self.network is None:
            update, self.state = self.optimizer.step(self.phi, self.features, self.state)
        else:
            update, self.units = self.network(self.features, self.units)
        return update

    @torch.enable_grad()
    def look(self, theta: Tensor, index: int) -> Tensor:
        """The loss at theta, whose gradient the next step takes."""
        point = theta.detach().requires_grad_()
        loss = self.loss(point, index)
        (self.grad,) = torch.autograd.grad(loss, point)
        return loss.detach()

    def loss(self, theta: Tensor, index: int) -> Tensor:
        return self.task.loss(theta, self.batch_at(index))

    def gradient(self, total: Tensor) -> Phi:
        """The gradient of a sum by phi."""
        if self.network is None:
            slopes = torch.autograd.grad(total, tuple(self.phi.values()), allow_unused=True, materialize_grads=True)
            return dict(zip(self.phi, slopes, strict=True))
        total.backward()
        return self.network.gradient()
