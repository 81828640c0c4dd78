"""Replay: a pure function of tensors is recorded as a graph of operations and then run without Python or autograd.

On the CPU a small network costs several times more in these than in arithmetic. A recording does the same operations in
the same order, so its numbers are the same bit for bit: it is compared on inputs that it was not recorded with before
it is believed, and what cannot be recorded, as a function that decides by values, stays as it is.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

SMALL = 2**17  # numbers in the first argument; beyond, arithmetic is what takes time
WORTH_WHILE = 40  # calls with equal shapes before a recording, which takes as long as some hundred of them
COMPARED = 3  # replays that are compared before a recording is believed
MOST = 16  # recordings of one owner

Function = Callable[..., tuple[Tensor, ...]]


class _RecordedFunction:
    """One function at inputs of one form."""

    def __init__(self) -> None:
        self.calls = 0
        self.replay: Any = None
        self.refused = False

    def __call__(self, function: Function, arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.refused or self.calls < WORTH_WHILE:
            return function(*arguments)
        leaves, form = tree_flatten(arguments)
        with torch.no_grad():
            if self.replay is None:
                self._record(lambda *tensors: function(*tree_unflatten(tensors, form)), leaves)
                return function(*arguments)
            if self.calls > WORTH_WHILE + COMPARED:
                return self.replay(*leaves)
            replayed, results = self.replay(*leaves), function(*arguments)
        self.refused = not all(map(_same_bits, replayed, results))
        return results

    def _record(self, function: Function, leaves: list[Tensor]) -> None:
        try:
            recorder = _Recorder(leaves)
            with recorder:
                results = function(*leaves)
            graph = recorder.module(results)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what torch.jit will once be replaced by
                self.replay = torch.jit.trace(graph, tuple(leaves), check_trace=False)
        except (RuntimeError, TypeError, ValueError):  # the function's own ones come again without a recording
            self.refused = True


class _Recorder(TorchDispatchMode):
    """Notes the operations that run within it, below autograd and vmap: make_fx costs two seconds of imports."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph = Graph()
        self._alive: list[Tensor] = []  # so that no place in memory is used twice
        self._nodes: dict[Hashable, Node] = {}
        for number, tensor in enumerate(inputs):
            if tensor.numel() and _place(tensor) in self._nodes:
                raise RuntimeError("an input given twice may be two the next time")
            self._note(tensor, self.graph.placeholder(f"input_{number}"))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        noted = _addmm if func is torch.ops.aten.addmm.default and not named else func
        node = self.graph.call_function(noted, *tree_map_only(Tensor, self._node, (tuple(args), named)))
        result = func(*args, **named)
        if isinstance(result, Tensor):
            self._note(result, node)
        elif isinstance(result, (tuple, list)) and all(isinstance(part, Tensor) for part in result):
            for number, part in enumerate(result):
                self._note(part, self.graph.call_function(operator.getitem, (node, number)))
        else:
            raise RuntimeError(f"{func} takes numbers out of a graph of tensors")
        return result

    def module(self, results: Sequence[Tensor]) -> GraphModule:
        """What was noted, as a module of the inputs that gives a tuple."""
        self.graph.output(tuple(map(self._node, results)))
        return GraphModule(torch.nn.Module(), self.graph)

    def _note(self, tensor: Tensor, node: Node) -> None:
        self._alive.append(tensor)
        self._nodes[_place(tensor)] = node

    def _node(self, tensor: Tensor) -> Node:
        if (node := self._nodes.get(_place(tensor))) is None:
            raise RuntimeError("a tensor that is neither an input nor made of them")
        return node


def _addmm(bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """bias + left right: of aten's own torch.jit makes a product and a sum, which are rounded otherwise."""
    start = bias.expand(left.shape[0], right.shape[1]).clone(memory_format=torch.contiguous_format)
    return start.addmm_(left, right)


def _place(tensor: Tensor) -> Hashable:
    """What tells a tensor from all others that are alive: autograd keeps copies of its own, of the same memory."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


_recordings: WeakKeyDictionary[Any, dict[Hashable, _RecordedFunction]] = WeakKeyDictionary()


def replayed(owner: Any, which: Hashable, function: Function, *arguments: Any) -> Any:
    """function(*arguments), from a recording where there is one that fits.

    `arguments`: tensors and batches; `which`: what else the function depends on. `owner` says by `recordable` whether
    it is a pure function, and recordings go with it. Results carry no graph where they are replayed.
    """
    first = arguments[0]
    if not getattr(owner, "recordable", False) or first.device.type != "cpu" or first.numel() > SMALL:
        return function(*arguments)
    key = (which, *((tensor.shape, tensor.stride(), tensor.dtype) for tensor in tree_leaves(arguments)))
    of_owner = _recordings.setdefault(owner, {})
    if key not in of_owner:
        if len(of_owner) == MOST:
            return function(*arguments)
        of_owner[key] = _RecordedFunction()
    return of_owner[key](function, arguments)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and bool(torch.isclose(one, other, rtol=0.0, atol=0.0, equal_nan=True).all())
