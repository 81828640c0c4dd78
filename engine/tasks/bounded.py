"""A task's loss on many examples in bounded memory: for probes, which take gradients of gradients of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engine.base.flat import (
    GRAPHS_AT_ONCE,
    MOST_GRAPHS,
    Batch,
    Loss,
    MicroBatches,
    PartedLoss,
    grad_and_hvp,
    loss_on,
    tensors_in,
    tree_map,
)
from engine.base.live_memory import peak_of
from engine.tasks.base import Task
from engine.tasks.supervised import SupervisedTask

FEW = 2  # examples that a graph is measured with


def bounded_loss(task: Task, batch: Batch) -> Loss:
    """The task's loss on one optimizee's batch, theta [P] to a scalar.

    Where it is a mean over examples and a Hessian-vector product on all of them would take more than `GRAPHS_AT_ONCE`,
    it is in parts that do not: the same to rounding. So it is where the task has micro-batches. On a CPU convolutions
    are taken at one point after another: under vmap they are grouped, which takes half as long again.
    """
    if not isinstance(task, SupervisedTask):
        return loss_on(task.loss, batch)
    examples, bytes_of_one = next(tensors_in(batch)).shape[0], _bytes_of_example(task, batch)
    kind = task.device.type
    most = GRAPHS_AT_ONCE.get(kind, MOST_GRAPHS)
    parts: Sequence[tuple[float, Loss]] = [(1.0, loss_on(task.loss, batch))]
    size = min(examples, max(1, most // max(1, bytes_of_one)))
    if isinstance(task.loss, MicroBatches):
        size, parts = min(task.loss.size, examples), task.loss.on(batch).parts
    elif size < examples and _is_mean(task):
        parts = MicroBatches(task.loss, size).on(batch).parts
    else:
        size = examples
    if kind == "cpu" and task.convolves:
        return PartedLoss(parts, 1)
    return PartedLoss(parts, max(1, most // (size * bytes_of_one)) if bytes_of_one else None)


_measured: WeakKeyDictionary[Task, dict[torch.dtype, int]] = WeakKeyDictionary()


def _bytes_of_example(task: SupervisedTask, batch: Batch) -> int:
    """What one more example adds to a Hessian-vector product's peak; 0 where the network cannot do without numbers."""
    of_task = _measured.setdefault(task, {})
    dtype = _dtype(batch)
    if dtype not in of_task:
        of_task[dtype] = _difference(task, batch)
    return of_task[dtype]


def _difference(task: SupervisedTask, batch: Batch) -> int:
    loss = task.loss.loss if isinstance(task.loss, MicroBatches) else task.loss
    try:
        few, more = (_peak(loss, task.parameters, batch, count) for count in (FEW, 2 * FEW))
    except RuntimeError:  # of a module with constants on another device, or that decides by values
        return 0
    return max(0, more - few) // FEW


def _peak(loss: Callable[..., Tensor], parameters: int, batch: Batch, examples: int) -> int:
    on_meta = tree_map(lambda tensor: tensor[:examples].to("meta"), batch)
    theta = torch.empty(parameters, dtype=_dtype(batch), device="meta")
    return peak_of(grad_and_hvp, loss_on(loss, on_meta), theta, theta)


def _dtype(batch: Batch) -> torch.dtype:
    return next(tensor.dtype for tensor in tensors_in(batch) if tensor.is_floating_point())


def _is_mean(task: SupervisedTask) -> bool:
    """Whether the loss on examples is the mean of their own losses: not with batch norm. Tried with a few of them."""
    theta, examples = task.init_theta(0).to(torch.float64), task.fixed_batch(2 * FEW)
    with torch.no_grad():
        together, apart = task.loss(theta, examples), MicroBatches(task.loss, FEW)(theta, examples)
    return bool((together - apart).abs() <= 1e-9 * together.abs())
