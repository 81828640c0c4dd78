"""One step of `engine.LoadedOptimizer` on a model's parameters, beside one of Adam on the same."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from engine.bench import check, needs
from engine.bench.limits import ITEM
from engine.bench.reference import EagerNetwork
from engine.bench.scene import SEED, RandomTask, learned_optimizer, state_bytes
from engine.bench.works import Workload
from engine.export.torch_optim import LoadedOptimizer

CHECKED_STEPS = 5
BESIDE = 20  # numbers of a coordinate: two models with gradients, Adam's state, and what steps take


def problem(piece: Workload, task: RandomTask) -> str:
    """Why the work is left out; empty where it is not."""
    return needs.lacking(task.parameters * (state_bytes(piece) + ITEM * BESIDE), needs.free_memory(task.device))


def optimizers(piece: Workload, task: RandomTask) -> tuple[LoadedOptimizer, torch.optim.Adam]:
    """The piece's, fresh, and Adam, each of parameters of its own."""
    rule = learned_optimizer(piece)
    phi = rule.init_phi(Generator().manual_seed(SEED))
    return LoadedOptimizer(_parameters(task), rule, phi), torch.optim.Adam(_parameters(task))


def _parameters(task: RandomTask) -> list[nn.Parameter]:
    """A model's parameters, with gradients."""
    made = []
    shapes = [parameter.shape for parameter in task.module.parameters()]
    starts = task.init_theta(SEED).split([shape.numel() for shape in shapes])
    for start, shape in zip(starts, shapes, strict=True):
        parameter = nn.Parameter(start.view(shape).clone())
        parameter.grad = torch.randn_like(parameter)
        made.append(parameter)
    return made


@torch.no_grad()
def largest_error(piece: Workload, device: torch.device, dtype: torch.dtype) -> float:
    """The largest relative difference from torch's own cells, of how far some steps go, on a small model."""
    rule = learned_optimizer(piece)
    fresh = rule.init_phi(Generator().manual_seed(SEED))
    phi = {name: tensor.to(device, dtype) for name, tensor in fresh.items()}
    generator = Generator().manual_seed(SEED)
    shapes = [(40, 64), (40,), (3, 5, 3, 3), (1,)]
    starts = [torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape in shapes]
    parameters = [nn.Parameter(start.clone()) for start in starts]
    optimizer = LoadedOptimizer(parameters, rule, phi)
    theta = begin = _flat(starts)
    network, state = EagerNetwork(rule, phi), rule.init(theta)
    units = network.start(len(theta))
    for _ in range(CHECKED_STEPS):
        for parameter in parameters:
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.grad = drawn.to(device, dtype)
        features, state = rule.observe(theta, _flat([p.grad for p in parameters if p.grad is not None]), state)
        update, units = network(features, units)
        theta = theta + update
        optimizer.step()
    return check.relative(_flat([parameter.detach() for parameter in parameters]) - begin, theta - begin)


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
