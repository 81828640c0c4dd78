"""Meta-parameters: phi under meta-training, what makes the learned optimizer's parameters of it, and what moves it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from engine.base.errors import PresetError, Problem, TrainingError
from engine.base.flat import all_finite, prefixed, under
from engine.base.metrics import penalty_share, penalty_value
from engine.distributed.parallel import ProcessGroup
from engine.meta_training.partial_gradient import norm
from engine.optimizers.learned.base import Phi, from_table, without_start
from engine.penalties.base import Reparametrization
from engine.presets.tables import MetaSettings

Memory = dict[str, dict[str, Tensor]]
"""What each reparametrization remembers, by its name."""


class MetaParameters:
    """phi, the meta-optimizer that moves it, and the best there was.

    Reparametrizations stand between phi and what the learned optimizer uses; "frozen" is what it would use now.
    """

    def __init__(
        self,
        settings: MetaSettings,
        reparametrizations: Mapping[str, Reparametrization],
        fresh: Phi,
        device: torch.device,
        init_phi: Phi | None = None,
    ) -> None:
        """Start from `init_phi`, else from `fresh`, in the dtypes of `fresh`. Raises PresetError where they differ."""
        self.settings = settings
        self.reparametrizations = reparametrizations
        chosen = _fitting(init_phi, fresh) if init_phi is not None else fresh
        self.phi = {name: tensor.to(device, fresh[name].dtype, copy=True) for name, tensor in chosen.items()}
        for tensor in self.phi.values():
            tensor.requires_grad_()
        self.memory = self._fresh_memory(self.phi)
        self.meta_optimizer = self._make_meta_optimizer()
        self.averaged = 0  # iterates in the mean
        self._average = {name: torch.zeros_like(tensor) for name, tensor in self._raw().items()}
        self.initial = self.untrained = self.frozen()
        if init_phi is not None:
            fresh = {name: tensor.to(device) for name, tensor in fresh.items()}
            self.untrained = self._freeze(fresh, self._fresh_memory(fresh))
        self.keep_as_best()

    def _fresh_memory(self, phi: Phi) -> Memory:
        return {name: penalty.init(phi) for name, penalty in self.reparametrizations.items()}

    def _make_meta_optimizer(self) -> torch.optim.Optimizer:
        parameters, rate = list(self.phi.values()), self.settings.learning_rate
        if self.settings.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=self.settings.momentum)
        return torch.optim.Adam(parameters, lr=rate)

    # -- one meta-step -----------------------------------------------------------------------------------------------

    def reparametrize(self) -> tuple[Phi, dict[str, Tensor]]:
        """phi as the learned optimizer is to use it, with its graph to phi, and the metrics of what changed it."""
        used, metrics = dict(self.phi), {}
        for name, penalty in self.reparametrizations.items():
            used, moved, metrics[penalty_value(name).name] = penalty.apply(used, self.memory[name])
            self.memory = {**self.memory, name: moved}
        return used, metrics

    def pull_back(self, used: Phi, gradient: Phi) -> tuple[Phi, dict[str, Tensor]]:
        """The gradient by phi from that by the meta-parameters in use, and the metrics of what changed it."""
        if not self.reparametrizations:
            return gradient, {}
        names = list(used)
        through = torch.autograd.grad(
            [used[name] for name in names], list(self.phi.values()), [gradient[name] for name in names]
        )
        moved = dict(zip(names, through, strict=True))
        change = norm({name: moved[name] - gradient[name] for name in names}) / norm(gradient)
        return moved, {penalty_share(name).name: change for name in self.reparametrizations}

    def step(self, gradient: Phi, learning_rate: float) -> bool:
        """Clip the meta-gradient and take a meta-step; whether phi is finite after it."""
        for name, tensor in self.phi.items():
            tensor.grad = gradient[name]
        if self.settings.clip == "norm":
            torch.nn.utils.clip_grad_norm_(list(self.phi.values()), self.settings.clip_at)
        elif self.settings.clip == "value":
            torch.nn.utils.clip_grad_value_(list(self.phi.values()), self.settings.clip_at)
        self.meta_optimizer.param_groups[0]["lr"] = learning_rate
        self.meta_optimizer.step()
        return bool(all_finite(list(self.phi.values())))

    # -- phi at some time --------------------------------------------------------------------------------------------

    def _raw(self) -> Phi:
        return {name: tensor.detach().clone() for name, tensor in self.phi.items()}

    def frozen(self) -> Phi:
        """phi as it is used when frozen: reparametrizations applied, their memory left as it is."""
        return self._freeze(self._raw(), self.memory)

    def _freeze(self, phi: Phi, memory: Memory) -> Phi:
        for name, penalty in self.reparametrizations.items():
            phi = penalty.apply(phi, memory[name])[0]
        return {name: tensor.detach() for name, tensor in phi.items()}

    def keep_as_best(self) -> None:
        """What there is now is the best."""
        self.best, self._best_raw, self._best_memory = self.frozen(), self._raw(), self.memory

    def add_to_average(self) -> None:
        """Count phi as it is in the mean of the iterates."""
        self.averaged += 1
        for name, tensor in self._raw().items():
            self._average[name] = self._average[name] + (tensor - self._average[name]) / self.averaged

    def take_average(self) -> None:
        """Go to the mean of the iterates, where there is one."""
        if self.averaged:
            self._go_to(self._average)

    def go_back_to_best(self) -> None:
        """Take the best meta-parameters back; the meta-optimizer keeps its moments."""
        self._go_to(self._best_raw)
        self.memory = self._best_memory

    @torch.no_grad()
    def _go_to(self, phi: Phi) -> None:
        for name, tensor in self.phi.items():
            tensor.copy_(phi[name])

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """All of it, by name."""
        tensors = {
            **prefixed("phi", self._raw()),
            **prefixed("frozen", self.frozen()),
            **prefixed("best", self.best),
            **prefixed("best_raw", self._best_raw),
            **prefixed("initial", self.initial),
        }
        for name in self.reparametrizations:
            tensors |= prefixed(f"memory/{name}", self.memory[name])
            tensors |= prefixed(f"best_memory/{name}", self._best_memory[name])
        if self.averaged:
            tensors |= prefixed("average", self._average)
        return tensors | dict(self._moments())

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state, on any device. Raises KeyError, ValueError or RuntimeError where it does not fit."""
        device = next(iter(self.phi.values())).device
        moved = {name: tensor.to(device) for name, tensor in tensors.items()}
        self._go_to(under("phi", moved))
        self.best, self._best_raw = under("best", moved), under("best_raw", moved)
        self.initial = under("initial", moved)
        self._average = under("average", moved) or self._average
        self.memory = {name: under(f"memory/{name}", moved) for name in self.reparametrizations}
        self._best_memory = {name: under(f"best_memory/{name}", moved) for name in self.reparametrizations}
        packed = self.meta_optimizer.state_dict()
        held = {index: under(f"meta_optimizer/{index}", tensors) for index in range(len(self.phi))}
        packed["state"] = {index: state for index, state in held.items() if state}
        self.meta_optimizer.load_state_dict(packed)

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors of the meta-optimizer."""
        for index, state in self.meta_optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"meta_optimizer/{index}/{key}", value.clone()

    def check_alike(self, team: ProcessGroup, step: int) -> None:
        """Raise TrainingError where the processes of a team do not have the same bits, as they should."""
        if team.size == 1:
            return
        everyone = team.gather(self._digest())
        if others := [str(rank) for rank, theirs in enumerate(everyone) if theirs != everyone[0]]:
            raise TrainingError(
                f"after meta-step {step} the meta-parameters of process {', '.join(others)} are not those of process "
                "0: are machine, torch and version of lreg the same everywhere?"
            )

    def _digest(self) -> str:
        """The same for the same bits of phi and of the meta-optimizer."""
        digest = hashlib.sha256()
        for _, tensor in sorted({**self._raw(), **dict(self._moments())}.items()):
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()


def _fitting(phi: Phi, fresh: Phi) -> Phi:
    """Another run's meta-parameters, if they have the names and shapes of ours."""
    ours = {name: list(tensor.shape) for name, tensor in fresh.items()}
    theirs = {name: list(tensor.shape) for name, tensor in phi.items()}
    if ours != theirs:
        different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        found = f"a learned optimizer that differs in {', '.join(different)}"
        raise PresetError([Problem("meta.init_from", found, "a run with the same [optimizer] table")])
    return phi


def check_start(optimizer: Mapping[str, Any], init_phi: Phi) -> None:
    """Raise PresetError where meta-parameters are none of the learned optimizer of that [optimizer] table."""
    _fitting(without_start(init_phi), from_table(optimizer).init_phi(torch.Generator()))
