"""The reference: the same work as people write it in plain eager PyTorch, one optimizee at a time.

torch's own cells (what nn.LSTMCell and nn.RNNCell call), autograd through everything: theta keeps its graph to the
learned optimizer, the losses along the truncation are added up, and `.backward()` goes once through all of it. The
gradient that feeds the learned optimizer is detached. Kept for the bench, and to check the kernels.

Shape letters: P parameters, F input features, H hidden units, T inner steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.base.flat import perturbation
from engine.bench.scene import Scene, smoothness
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State
from engine.penalties.sam import SAM
from engine.penalties.smooth import Smooth
from engine.tasks.supervised import ExampleBatch

Units = list[tuple[Tensor, ...]]
"""(h, c) of each LSTM layer, or (h,) of the tanh layer: [P, H]."""


class EagerNetwork:
    """A learned optimizer's network of the functions that torch's own cells call, with the meta-parameters `phi`.

    Its weights, by our names, have the layout of nn.Linear and of the cells: matrices are transposed.
    """

    def __init__(self, optimizer: LearnedOptimizer, phi: Phi) -> None:
        assert optimizer.network is not None
        self.network = optimizer.network
        self.weights = {name: _turned(part.detach()).clone().requires_grad_() for name, part in phi.items()}

    def gradient(self) -> Phi:
        """What `.backward()` left, under our names and in our shapes."""
        gradients = {name: weight.grad for name, weight in self.weights.items()}
        return {name: _turned(grad) for name, grad in gradients.items() if grad is not None}

    def start(self, coordinates: int) -> Units:
        zeros = self.weights["head.weight"].new_zeros(coordinates, self.network.hidden)
        units = (zeros, zeros) if self.network.cell == "lstm" else (zeros,)
        return [units] * self.network.layers

    def __call__(self, features: Tensor, units: Units) -> tuple[Tensor, Units]:
        """The update, [P], for features [P, F], and the next units."""
        weights, x = self.weights, features
        if self.network.entrance:
            x = F.elu(F.linear(x, weights["pre.weight"], weights["pre.bias"]))
        after: Units = []
        for layer, kept in enumerate(units):
            if self.network.cell == "lstm":
                matrices = (weights[f"lstm{layer}.{part}"] for part in ("input", "hidden", "bias"))
                after.append(torch.lstm_cell(x, kept, *matrices))
            else:
                after.append((torch.rnn_tanh_cell(x, kept[0], weights["rnn.input"], weights["rnn.hidden"]),))
            x = after[-1][0]
        output = F.linear(x, weights["head.weight"], weights.get("head.bias"))[:, 0]
        return self.network.scale * (output.tanh() if self.network.squashed else output), after


def _turned(tensor: Tensor) -> Tensor:
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor


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
        features = walk.observe(theta)
        update, after = net(features, units)
        for penalty in smoothness(scene.piece).values():
            offset = penalty.start_of_ascent(scene.optimizer, features, generator) if starts is None else starts[index]
            total = total + penalty.weight * change_at_worst(net, penalty, features, units, offset, update)
        units = after
        theta = theta + update
        loss = walk.loss(theta, index)
        total = total + loss
        (walk.grad,) = torch.autograd.grad(loss, theta, retain_graph=True)
        for sam in scene.objective.geometric.values():
            assert isinstance(sam, SAM)
            total = total + sam.weight * walk.loss(theta + perturbation(walk.grad, sam.rho), index)
        losses.append(loss.detach())
    total.backward()
    return net.gradient(), losses


def run(scene: Scene) -> object:
    """A scene's work, the reference's way, for the first optimizee."""
    return frozen(scene, 0) if scene.piece.work == "frozen" else meta_gradient(scene, 0)


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

    def observe(self, theta: Tensor) -> Tensor:
        """The features, [P, F], constants."""
        with torch.no_grad():
            features, self.state = self.optimizer.observe(theta.detach(), self.grad, self.state)
        return features

    def loss(self, theta: Tensor, index: int) -> Tensor:
        return self.task.loss(theta, self.batch_at(index))
