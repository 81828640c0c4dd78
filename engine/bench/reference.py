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
from engine.bench.scene import SEED, Scene, smoothness
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
        found: dict[str, Tensor] = {"head.weight": self.head.weight}
        if self.network.cell == "rnn":
            (cell,) = self.cells
            return {**found, "rnn.input": cell.weight_ih, "rnn.hidden": cell.weight_hh}
        found["head.bias"] = self.head.bias
        if self.entrance is not None:
            found |= {"pre.weight": self.entrance.weight, "pre.bias": self.entrance.bias}
        for layer, cell in enumerate(self.cells):
            parts = {"input": cell.weight_ih, "hidden": cell.weight_hh, "bias": cell.bias_ih}
            found |= {f"lstm{layer}.{part}": parameter for part, parameter in parts.items()}
        return found

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
        for cell, kept in zip(self.cells, units, strict=True):
            if self.network.cell == "lstm":
                after.append(cell(x, kept))
            else:
                after.append((cell(x, kept[0]),))
            x = after[-1][0]
        output = self.head(x)[:, 0]
        return self.network.scale * (output.tanh() if self.network.squashed else output), after


def meta_gradient(scene: Scene, optimizee: int, starts: Sequence[Tensor] | None = None) -> tuple[Phi, list[Tensor]]:
    """The meta-gradient of an `optimizee` of a scene's meta-training work, and the losses along the truncation.

    `starts`: of the smoothness penalty's ascent, [P, F] for each inner step; drawn afresh where they are not given.
    """
    net, walk = EagerNetwork(scene.optimizer, scene.phi), _Walk(scene, optimizee)
    units = net.start(scene.task.parameters)
    generator = scene.generator()
    theta, total = walk.theta, torch.zeros((), dtype=scene.task.dtype, device=scene.task.device)
    losses = []
    for index in range(scene.steps):
        features = walk.observe(theta, second_order=scene.objective.second_order)
        update, after = net(features, units)
        for penalty in smoothness(scene.piece).values():
            offset = penalty.start_of_ascent(scene.optimizer, features, generator) if starts is None else starts[index]
            total = total + penalty.weight * change_at_worst(net, penalty, features, units, offset, update)
        units = after
        theta = theta + update
        loss = walk.loss(theta, index)
        total = total + loss
        second_order = scene.objective.second_order
        (walk.grad,) = torch.autograd.grad(loss, theta, retain_graph=True, create_graph=second_order)
        for sam in scene.objective.geometric.values():
            assert isinstance(sam, SAM)
            total = total + sam.weight * walk.loss(theta + perturbation(walk.grad, sam.rho), index)
        losses.append(loss.detach())
    total.backward()
    return net.gradient(), losses


def run(scene: Scene) -> object:
    """A scene's work, the reference's way, for the first optimizee."""
    if scene.piece.work in PARTICLES:
        return mean_losses(scene, 0)
    return frozen(scene, 0) if scene.piece.work == "frozen" else meta_gradient(scene, 0)


@torch.no_grad()
def mean_losses(scene: Scene, optimizee: int) -> Tensor:
    """The mean losses of an `optimizee` under every particle's optimizer, [2 N], one unroll after another."""
    noise = scene.estimator.noise(scene.phi, SEED)
    values = []
    for sign in (1, -1):
        for pair in range(scene.estimator.pairs):
            phi = {name: tensor.detach() + sign * noise[name][pair] for name, tensor in scene.phi.items()}
            walk, losses = _Walk(scene, optimizee), []
            theta, state = walk.theta, scene.optimizer.init(walk.theta, scene.task.layout)
            for index in range(scene.steps):
                info = StepInfo(None, index, scene.steps)
                update, state = scene.optimizer.update(phi, theta, walk.grad, state, scene.task.layout, info)
                theta = theta + update
                with torch.enable_grad():
                    point = theta.detach().requires_grad_()
                    loss = walk.loss(point, index)
                    (walk.grad,) = torch.autograd.grad(loss, point)
                losses.append(loss.detach())
            values.append(torch.stack(losses).mean())
    return torch.stack(values)


def evolved(scene: Scene) -> Phi:
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
def frozen(scene: Scene, optimizee: int) -> Tensor:
    """Where a scene's frozen learned optimizer takes an `optimizee`: theta after the truncation, [P]."""
    net, walk = EagerNetwork(scene.optimizer, scene.phi), _Walk(scene, optimizee)
    units = net.start(scene.task.parameters)
    theta = walk.theta
    for index in range(scene.steps):
        with torch.enable_grad():
            theta = theta.requires_grad_()
            (walk.grad,) = torch.autograd.grad(walk.loss(theta, index), theta)
        update, units = net(walk.observe(theta), units)
        theta = theta.detach() + update
    return theta


class _Walk:
    """One optimizee under way: its batches, its gradient, and what the learned optimizer is shown of it."""

    def __init__(self, scene: Scene, optimizee: int) -> None:
        self.task, self.optimizer = scene.task, scene.optimizer
        self.batch_at: Callable[[int], ExampleBatch] = lambda index: scene.window[index].of(optimizee)
        self.theta = scene.carry.theta[optimizee]
        self.grad = scene.carry.grad[optimizee]
        self.state: State = self.optimizer.init(self.theta)  # only its moments are used

    def observe(self, theta: Tensor, second_order: bool = False) -> Tensor:
        """The features, [P, F]: constants, unless for the second order."""
        with torch.set_grad_enabled(second_order):
            seen = theta if second_order else theta.detach()
            features, self.state = self.optimizer.observe(seen, self.grad, self.state)
        return features

    def loss(self, theta: Tensor, index: int) -> Tensor:
        return self.task.loss(theta, self.batch_at(index))
