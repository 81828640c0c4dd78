"""Measure one step of `engine.LoadedOptimizer` on a model's parameters, beside one of Adam on the same."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from engine import kernels
from engine.bench import check
from engine.bench.limits import ITEM, Limits, least_seconds, timed
from engine.bench.memory import peak_bytes
from engine.bench.needs import free_memory, gigabytes
from engine.bench.reference import EagerNetwork
from engine.bench.scene import SEED, RandomTask, learned_optimizer
from engine.bench.works import Piece
from engine.export.torch_optim import LoadedOptimizer
from engine.optimizers.learned.base import LearnedOptimizer as Rule
from engine.optimizers.learned.base import Phi

SECONDS, MOST_ROUNDS = 4.0, 15
CHECKED_STEPS = 5
BESIDE = 20  # numbers of a coordinate: two models with gradients, Adam's state, and what steps take
EAGER = "a step is compared with Adam's"


def state_numbers(rule: Rule) -> int:
    """Numbers of state that a coordinate has."""
    return sum(tensor[0].numel() for tensor in rule.init(torch.empty(1, device="meta")).values() if tensor.dim())


def measured(piece: Piece, task: RandomTask, limits: Limits, *, quick: bool) -> dict[str, Any]:
    """The figures of a piece of work: those of every piece, and what a step takes beside Adam's.

    memory_bytes is the most that a step takes, the first one, which makes the state; extra_bytes_per_parameter is what
    later ones take beyond it.
    """
    device, rule = task.device, learned_optimizer(piece)
    wanted, free = ITEM * task.parameters * (state_numbers(rule) + BESIDE), free_memory(device)
    if wanted > free:
        return {"skipped": f"needs about {gigabytes(wanted)} of memory, {gigabytes(free)} are free"}
    phi = rule.init_phi(Generator().manual_seed(SEED))
    parameters = _parameters(task)
    optimizer = LoadedOptimizer(parameters, rule, phi)
    adam = torch.optim.Adam(_parameters(task))
    compile_s = timed(lambda: kernels.describe(device), device)
    memory = peak_bytes(optimizer.step, device)
    extra = peak_bytes(optimizer.step, device)
    adam.step()
    ours, theirs = _times(optimizer.step, adam.step, device, quick)
    network = rule.network
    assert network is not None
    least = least_seconds("frozen", network, task.parameters, limits)
    return {
        "ms_per_inner_step": 1e3 * ours,
        "eager_ms_per_inner_step": None,
        "inner_steps_per_s": 1 / ours,
        "coordinate_steps_per_s": task.parameters / ours,
        "ratio_to_eager": None,
        "eager_skipped": EAGER,
        "adam_ms_per_inner_step": 1e3 * theirs,
        "ratio_to_adam": ours / theirs,
        "share_of_limit": least / ours,
        "memory_bytes": memory,
        "bytes_per_parameter": None if memory is None else memory / task.parameters,
        "extra_bytes_per_parameter": None if extra is None else extra / task.parameters,
        "state_bytes_per_parameter": ITEM * state_numbers(rule),
        "coordinates": task.parameters,
        "truncation": 1,
        "threads": torch.get_num_threads(),
        "compile_s": compile_s,
        "limit_flops_per_s": limits.flops_per_s,
        "limit_bytes_per_s": limits.bytes_per_s,
        "kernels": kernels.describe(device),
        **check.agreement_of(lambda dtype: largest_error(rule, phi, device, dtype), device),
    }


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


def _times(
    ours: Callable[[], object], theirs: Callable[[], object], device: torch.device, quick: bool
) -> tuple[float, float]:
    """Seconds of a step each, medians of steps in turn."""
    once = timed(ours, device)
    rounds = 1 if quick else max(2, min(MOST_ROUNDS, int(SECONDS / once)))
    pairs = [(timed(ours, device), timed(theirs, device)) for _ in range(rounds)]
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second)


@torch.no_grad()
def largest_error(rule: Rule, phi: Phi, device: torch.device, dtype: torch.dtype) -> float:
    """The largest relative difference from torch's own cells, of how far some steps go, on a small model."""
    phi = {name: tensor.to(device, dtype) for name, tensor in phi.items()}
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
