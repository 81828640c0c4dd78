"""Optimizee: a network that is trained by the optimizer under study, and the registry of the members."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from engine.base.errors import PresetError, Problem, shortened
from engine.base.norms import channel_norm, layer_norm
from engine.base.registry import Registry
from engine.base.settings import setting
from engine.tasks.criteria import Criterion

INITS = ("normal", "uniform", "kaiming", "xavier")
INIT_HELP = (
    "start of the parameters; normal: N(0, 0.01^2); uniform: U(-1, 1)/sqrt(fan-in), as PyTorch does; kaiming: "
    "N(0, 2/fan-in), xavier: U(-1, 1) sqrt(6/(fan-in + fan-out)), both with biases of 0"
)
NORMAL_STD = 0.01
ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
}
ACTIVATION_HELP = "what is applied between layers"
Form = Literal["numbers", "tokens", "text"]
FORMS: Mapping[Form, str] = {
    "numbers": "numbers, as images and features",
    "tokens": "tokens, with a target for each example",
    "text": "tokens, each with the next one as its target",
}
"""What the examples of a dataset are, and what an optimizee is for."""
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
SHIFTS = ("bias", "beta", "shift")  # what is added in a normalisation layer; all else is a scale
AS_GIVEN = "given_parameters"  # attribute of a layer that draws nothing: its parameters, as the user's module had them
LEADING = "leading_examples"  # attribute of a batch norm, while its statistics are those of the first examples alone
DROPPING = (nn.modules.dropout._DropoutNd, nn.MultiheadAttention)


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimizee:
    """Builds a network for a dataset and draws where its training starts.

    The network's forward is `forward(x [D, ...]) -> outputs [D, outputs]`, a pure function of its inputs and
    parameters: no buffers, no global random numbers; layers may share parameters. One with dropout takes `noise` as
    well, [D, K], uniform in [0, 1), and makes masks of it, so that a clean and a perturbed pass share one mask; None or
    K = 0 is evaluation mode.
    """

    name: ClassVar[str]
    form: ClassVar[Form | Literal[""]] = ""
    """What examples it is for; "": whatever its network takes."""

    init: str = setting("uniform", choices=INITS, help=INIT_HELP)

    @property
    def noise_size(self) -> int:
        """K, the uniform random numbers that one example needs in training mode."""
        return 0

    @property
    def criterion(self) -> Criterion | None:
        """What it is trained by in place of the dataset's criterion: then its inputs are its targets."""
        return None

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        """Return the network for inputs of a shape, of images (C, H, W), and as many outputs as there are classes.

        The values of its parameters do not matter. One for tokens may take a third argument, `vocabulary`: how many
        different ones there are; of a text its inputs are [D, L], int64, and its outputs [D, L, vocabulary].
        """
        raise NotImplementedError

    def init_theta(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Draw initial parameters, shape [P], in the order of `module.named_parameters()`.

        One that layers share is drawn once, by the first. With a generator of the CPU every device starts from equal
        numbers. Scales and shifts of normalisation layers start at 1 and 0.
        """
        pieces: dict[int, Tensor] = {}
        for layer in module.modules():
            for key, parameter in layer.named_parameters(recurse=False):
                if id(parameter) in pieces:
                    continue
                if is_norm(layer):
                    values = torch.full(parameter.shape, float(key not in SHIFTS))
                elif self.init == "normal":
                    values = NORMAL_STD * torch.randn(parameter.shape, generator=generator)
                else:
                    values = self.draw(layer, key, generator)
                pieces[id(parameter)] = values.flatten()
        return torch.cat(list(pieces.values()))

    def draw(self, layer: nn.Module, key: str, generator: torch.Generator) -> Tensor:
        """Draw one of a layer's own parameters for init = uniform: PyTorch's own distribution; or kaiming, or xavier.

        kaiming: He et al. 2015 (arXiv:1502.01852), eq. 10; xavier: Glorot & Bengio 2010, eq. 16. Of layers that are
        neither linear nor a convolution, whatever `init` is, what their `reset_parameters` draws; without one, what the
        user's module had there.
        """
        if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            if key in (given := getattr(layer, AS_GIVEN, {})):
                return given[key]
            return _reset(layer, generator).get_parameter(key).detach()
        if self.init in ("kaiming", "xavier"):
            values = torch.zeros(layer.get_parameter(key).shape)
            if key == "weight" and self.init == "kaiming":
                nn.init.kaiming_normal_(values, nonlinearity="relu", generator=generator)
            elif key == "weight":
                nn.init.xavier_uniform_(values, generator=generator)
            return values
        bound = 1 / math.sqrt(layer.get_parameter("weight")[0].numel())  # fan-in: inputs of one output
        return bound * (2 * torch.rand(layer.get_parameter(key).shape, generator=generator) - 1)


def is_norm(layer: nn.Module) -> bool:
    """Whether this is a normalisation layer, also one of the user's own, whose class says so."""
    return isinstance(layer, NORMS) or "norm" in type(layer).__name__.lower()


def reset_of(layer: Any) -> Callable[[], object] | None:
    """What draws a layer's own parameters anew."""
    return getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)


def _reset(layer: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy of a layer with parameters drawn as its class does; the global generator is left alone."""
    copy: Any = deepcopy(layer).to_empty(device="cpu")
    reset = reset_of(copy)
    if reset is None:
        name = type(layer).__name__
        raise not_an_optimizee(f"a layer {name} with parameters and no start", f"{name}.reset_parameters()")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        reset()
    return copy


def check_module(module: nn.Module) -> None:
    """Raise PresetError unless the module is a pure function of its inputs and parameters."""
    for name, layer in module.named_modules():
        where = f"a {type(layer).__name__}{f' ({shortened(name)})' if name else ''} with"
        if layer._buffers and (held := [key for key, buffer in layer._buffers.items() if buffer is not None]):
            allowed = "no buffers: batch norm with track_running_stats=False, constants made in forward"
            raise not_an_optimizee(f"{where} buffer {shortened(held[0])}", allowed)
        if any(map(is_lazy, layer.parameters(recurse=False))):
            raise not_an_optimizee(f"{where} lazy parameters", "layers that know their sizes")
        if getattr(layer, "max_norm", None) is not None and isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
            raise not_an_optimizee(f"{where} max_norm", "no max_norm, which changes parameters in the forward pass")
        if isinstance(layer, (nn.RNNBase, nn.LSTMCell, nn.GRUCell)):
            allowed = "the recurrence written out with nn.Linear or nn.RNNCell, which torch.func.vmap can do"
            raise not_an_optimizee(f"{where} a kernel of its own", allowed)
        rate = getattr(layer, "p" if isinstance(layer, nn.modules.dropout._DropoutNd) else "dropout", 0)
        if isinstance(layer, DROPPING) and rate > 0:
            allowed = "dropout 0 there: masks are made from the noise that forward gets, so that two passes share them"
            raise not_an_optimizee(f"{where} dropout {rate:g}", allowed)
    if not any(parameter.numel() for parameter in module.parameters()):
        raise not_an_optimizee("a module without parameters", "one or more")


def write_out_norms(module: nn.Module) -> None:
    """Give norms the derivatives that torch's kernels lack: batch and instance norms by the batch's own statistics,
    whose second derivative vmap refuses, or takes wrong in silence; and layer norms."""
    for layer in module.modules():
        if type(layer).forward is nn.LayerNorm.forward:
            layer.forward = partial(_layer_normalised, layer)
        if type(layer).forward in (nn.modules.batchnorm._BatchNorm.forward, nn.InstanceNorm1d.forward):
            layer.forward = partial(normalised, layer)


def _layer_normalised(layer: Any, x: Tensor) -> Tensor:
    return layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def normalised(layer: Any, x: Tensor) -> Tensor:
    """Batch or instance norm of x, shape [D, C, ...], by its own statistics, or those of its LEADING examples."""
    is_instance = isinstance(layer, nn.modules.instancenorm._InstanceNorm)
    over = tuple(dim for dim in range(x.dim()) if dim > 1 or (dim == 0 and not is_instance))
    counting = slice(None if is_instance else getattr(layer, LEADING, None))
    centered = x - x[counting].mean(over, keepdim=True)
    variance = centered[counting].square().mean(over, keepdim=True)
    return channel_norm(centered, variance, layer.weight, layer.bias, layer.eps)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The layers whose outputs for an example depend on the others of its batch."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


@contextlib.contextmanager
def statistics_of_leading(module: nn.Module, examples: int) -> Iterator[None]:
    """Batch norm by the statistics of the first `examples` of every batch alone."""
    layers = batch_norms(module)
    for layer in layers:
        setattr(layer, LEADING, examples)
    try:
        yield
    finally:
        for layer in layers:
            delattr(layer, LEADING)


def not_an_optimizee(found: str, allowed: str) -> PresetError:
    return PresetError([Problem("task.optimizee", found, allowed)])


OPTIMIZEES = Registry[Optimizee]("optimizee", "engine.tasks.optimizees", Optimizee)


def dropped(x: Tensor, noise: Tensor | None, rate: float) -> Tensor:
    """Dropout of x, shape [D, K], by the mask `noise >= rate`; unchanged where there is no noise or no rate."""
    if noise is None or rate == 0 or noise.shape[-1] == 0:
        return x
    return x * (noise >= rate).to(x.dtype) / (1 - rate)
