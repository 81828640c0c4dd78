"""From any `torch.nn.Module` to what probes and penalties want: its loss as a pure function of its flat parameters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_flatten, tree_unflatten

from engine.base.arguments import kind, named, refusal
from engine.base.errors import ArgumentError, printable, shortened
from engine.base.flat import Loss
from engine.base.loss_contract import DTYPES, check_value, own_loss


@named
def flat_loss(model: nn.Module, fn: Callable[[Any], Tensor], dtype: torch.dtype | None = None) -> tuple[Loss, Tensor]:
    """The loss of a model as a function of theta, shape [P], and the model's theta.

        loss, theta = engine.flat_loss(model, lambda model: F.cross_entropy(model(x), y), dtype=torch.float64)

    theta holds the parameters with requires_grad, each once, in the order of `model.named_parameters()`: a constant.
    `fn` gets a copy of the model, without wrappers such as DDP and torch.compile, and may call it and its parts at
    will; it is called once here, to see that it fits. Frozen parameters and buffers are held at what they are now,
    the copy is in evaluation mode, and the model itself is never touched. With `dtype`, float32 or float64, the copy
    computes in that precision, and floating-point inputs of its layers are converted to it; other tensors that `fn`
    captures are not. The result composes with `torch.func` and may be called from several threads, one at a time.

    Raises ArgumentError, a ValueError, for a model, loss or dtype that does not fit.
    """
    if not isinstance(model, nn.Module):
        raise refusal("model", "a torch.nn.Module", kind(model))
    if not callable(fn) or isinstance(fn, nn.Module):
        raise refusal("fn", "a function from the model to a scalar tensor", kind(fn), "lambda model: ...")
    if dtype is not None and dtype not in DTYPES:
        raise refusal("dtype", "torch.float32, torch.float64 or None", str(dtype))
    _check_model(model)
    trained = _trained(model, dtype)
    with torch.inference_mode(False):
        theta = torch.cat([parameter.detach().flatten().to(dtype) for parameter in trained])
        loss = _FlatLoss(_copy(model, trained, dtype), fn, trained, theta)
        _try(loss, theta, trained)
    return loss, theta


class _FlatLoss:
    """theta, shape [P], to a scalar: `fn` of a copy of the model whose parameters are the pieces of theta."""

    def __init__(self, copy: _Copy, fn: Callable[[Any], Tensor], trained: list[nn.Parameter], theta: Tensor) -> None:
        self._copy, self._fn = copy, fn
        self._shapes = [parameter.shape for parameter in trained]
        self._sizes = [parameter.numel() for parameter in trained]
        self._like = theta.new_empty(0)
        self._lock = threading.RLock()  # the copy holds one theta at a time
        self._recurrent = theta.is_cuda and any(isinstance(module, nn.RNNBase) for module in copy.modules())

    def __call__(self, theta: Tensor) -> Tensor:
        size, like = sum(self._sizes), self._like
        if not isinstance(theta, Tensor) or theta.shape != (size,):
            raise refusal("theta", f"a tensor of shape [{size}]", kind(theta), "torch.func.vmap(loss) takes [B, P]")
        if theta.dtype != like.dtype or theta.device != like.device:
            wrong = f"{theta.dtype} on {theta.device}"
            raise refusal("theta", f"{like.dtype} on {like.device}, as flat_loss made it", wrong)
        split = zip(theta.split(self._sizes), self._shapes, strict=True)
        pieces = [piece.reshape(shape) for piece, shape in split]
        with self._lock, self._differentiable():
            self._copy.eval()  # again each time: `fn` may have changed it
            return functional_call(self._copy, self._copy.filled(pieces), (self._fn,), tie_weights=False)

    def _differentiable(self) -> AbstractContextManager[None]:
        """cuDNN's recurrent layers have no backward pass in evaluation mode; torch's own have two."""
        return torch.backends.cudnn.flags(enabled=False) if self._recurrent else nullcontext()


class _Copy(nn.Module):
    """A copy of a model without its numbers: what its parameters are comes with each call."""

    def __init__(self, model: nn.Module, slots: list[nn.Parameter]) -> None:
        super().__init__()
        self.model = model
        order = {id(slot): index for index, slot in enumerate(slots)}
        parameters = self.named_parameters(remove_duplicate=False)  # all names of one that is shared
        self._slots = {name: order[id(slot)] for name, slot in parameters if id(slot) in order}
        self._held = list(self.named_buffers(remove_duplicate=False))

    def forward(self, fn: Callable[[Any], Tensor]) -> Tensor:
        return fn(self.model)

    def filled(self, pieces: list[Tensor]) -> dict[str, Tensor]:
        """Every name's tensor for one call; buffers are clones, so that nothing remains of what layers do to them."""
        clones = {id(buffer): buffer.clone() for _, buffer in self._held}
        buffers = {name: clones[id(buffer)] for name, buffer in self._held}
        return buffers | {name: pieces[index] for name, index in self._slots.items()}


def _copy(model: nn.Module, trained: list[nn.Parameter], dtype: torch.dtype | None) -> _Copy:
    memo: dict[int, Any] = {}
    for _, tensor in _tensors(model):
        held = _converted(tensor.detach().clone(), dtype)
        memo[id(tensor)] = nn.Parameter(held, requires_grad=False) if isinstance(tensor, nn.Parameter) else held
    slots = [nn.Parameter(memo[id(parameter)].to("meta")) for parameter in trained]
    memo.update((id(parameter), slot) for parameter, slot in zip(trained, slots, strict=True))
    for module in reversed(list(model.modules())):  # what is within another comes first
        memo.update((id(value), value.detach().clone()) for value in vars(module).values() if _is_computed(value))
        if (inner := _unwrapped(module)) is not module:
            memo[id(module)] = _copied(inner, memo)
    copy = _copied(model, memo)
    for module in copy.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False  # the gradient by theta is dense
        if dtype is not None:
            module.register_forward_pre_hook(partial(_convert_inputs, dtype), with_kwargs=True)
    return _Copy(copy, slots)


def _convert_inputs(dtype: torch.dtype, _: nn.Module, inputs: Any, named_inputs: Any) -> Any:
    """A forward pre-hook. Where there is nothing to convert, lists and dicts stay themselves: layers may share them."""
    leaves, structure = tree_flatten((inputs, named_inputs))
    results = [_converted(leaf, dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    if all(result is leaf for result, leaf in zip(results, leaves, strict=True)):
        return None
    return tree_unflatten(results, structure)


def _converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    return tensor.to(dtype.to_complex() if tensor.is_complex() else dtype)


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return deepcopy(module, memo)
    except Exception as error:  # anything that a model holds may refuse in its own way
        reason = printable(shortened(f"{type(error).__name__}: {error}".splitlines()[0], 160))
        raise ArgumentError(f"model must be one that copy.deepcopy copies, found {reason}") from error


def _is_computed(value: Any) -> bool:
    """Whether this is a layer's note of an earlier pass, as of weight_norm and pruning: deepcopy refuses these."""
    return isinstance(value, Tensor) and value.grad_fn is not None


def _unwrapped(module: nn.Module) -> nn.Module:
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return module.module
    return module._modules.get("_orig_mod") or module  # torch.compile's


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _trained(model: nn.Module, dtype: torch.dtype | None) -> list[nn.Parameter]:
    """The parameters that make up theta, of one device and dtype."""
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        found = "only frozen ones (requires_grad=False)" if parameters else "none"
        raise refusal("model", "a module with parameters that are trained", found)
    devices = sorted({str(parameter.device) for parameter in trained})
    if len(devices) > 1:
        raise refusal("model", "on one device", f"parameters on {', '.join(devices)}")
    dtypes = {parameter.dtype for parameter in trained}
    if dtype is None and (len(dtypes) > 1 or not dtypes <= set(DTYPES)):
        names = ", ".join(sorted(str(item).removeprefix("torch.") for item in dtypes))
        raise refusal("model", "float32 or float64 throughout", names, "pass dtype=torch.float32 or torch.float64")
    return trained


def _check_model(model: nn.Module) -> None:
    for name, module in model.named_modules():
        where = f"model.{name}" if name else "model"
        if isinstance(module, torch.jit.ScriptModule):
            raise refusal(where, "a plain module", "TorchScript", "give the module that was scripted or traced")
        if "quantized" in type(module).__module__.split("."):
            raise refusal(where, "differentiable", f"quantized {type(module).__name__}", "give the float model")
        if getattr(module, "max_norm", None) is not None and isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            raise refusal(where, "without max_norm", "max_norm, which changes the parameters in the forward pass")
    for name, tensor in _tensors(model):
        where = f"model.{name}"
        if is_lazy(tensor):
            raise refusal(where, "of a known shape", "a lazy one", "call the model once on an input first")
        if tensor.is_meta:
            raise refusal(where, "a tensor with numbers in it", "one on the meta device")
        if tensor.is_quantized or tensor.is_nested or tensor.layout != torch.strided or hasattr(tensor, "full_tensor"):
            raise refusal(where, "a plain dense tensor", f"{_form(tensor)}")
        if tensor.requires_grad and not tensor.is_floating_point():
            raise refusal(where, "real", str(tensor.dtype).removeprefix("torch."))


def _form(tensor: Tensor) -> str:
    if hasattr(tensor, "full_tensor"):
        return "a sharded one (DTensor)"
    return f"a quantized one ({tensor.dtype})" if tensor.is_quantized else f"a nested or sparse one ({tensor.layout})"


def _try(loss: Loss, theta: Tensor, trained: list[nn.Parameter]) -> None:
    """One call, looked at: a scalar that depends on theta, and on the parameters of the model itself in no way."""
    inputs = [theta.clone().requires_grad_(), *trained]
    with own_loss(), torch.enable_grad():
        try:
            value = loss(inputs[0])
            check_value(value)
            gradients = torch.autograd.grad(value, inputs, allow_unused=True) if value.requires_grad else [None]
        except RuntimeError as error:
            if "nference tensor" in str(error):
                return  # its data was made in inference mode: torch.func alone can differentiate it
            raise
    gradient, *others = gradients
    if any(other is not None for other in others):
        raise ArgumentError("fn must use the model that it is given, found one that uses the original's parameters")
    if gradient is None:
        raise ArgumentError(
            "fn must depend on the parameters of the model that it is given, found a loss without a graph to them: "
            "write lambda model: ..., no .item(), .detach() or no_grad on the way"
        )
