"""The `torch.optim.Optimizer` itself."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from engine.base.arguments import kind, refusal
from engine.base.errors import RunError, printable
from engine.evaluation.frozen import CHECKPOINT, load_learned_optimizer
from engine.evaluation.scale import best_scale
from engine.export.optimizer import load_exported
from engine.export.shipped import file_of
from engine.export.torch_optim import blocks
from engine.export.torch_optim.gradients import (
    GradientSummary,
    Share,
    local_gradient,
    rest_rows,
    scale_steps,
    summarized,
)
from engine.export.torch_optim.layout import INNER_STEP, CoordinateRow, local, tails
from engine.export.torch_optim.parameters import (
    RECORD,
    check_caller,
    check_gradient,
    check_group,
    check_parameter,
    factors,
    number,
)
from engine.export.torch_optim.state import Loaded, adopted, brought_in_order, check_form, checked_state, fresh
from engine.kernels.in_place import block_size, step_in_place
from engine.optimizers.learned.base import LearnedOptimizer, Phi, StepInfo, fits, without_start
from engine.runs.store import RunReader, RunStore
from engine.tasks.base import Layout

Nonfinite = Literal["skip", "raise"]


class LoadedOptimizer(torch.optim.Optimizer):
    """Trains parameters with a frozen learned optimizer.

    theta <- theta - lr * weight_decay * theta + lr * scale * factor * u(theta, gradient)

    A group has a learning rate `lr` (1: the updates as they were meta-trained; schedulers of torch move it),
    `weight_decay` (decoupled, as AdamW's; the update u is that of the parameters before they decay) and `scale`, a
    constant factor of the updates. They are checked at every step. The factor of a tensor is what the learned optimizer
    was meta-trained with (`step_scale`); with mup, embeddings are known by their names: give `named_parameters`.

    Rows of embeddings, as far as names tell them, whose gradient is zero get no update (`sparse_rows`); they decay.

    `horizon` is how many steps the training has, T, for learned optimizers that go by t / T; where it is None, t / T
    stays 0: the learned schedule rests at its beginning.

    Parameters without a gradient are left alone, and so is their state: passing them or not makes no difference. All
    others are one vector, as in meta-training: `simple` divides by the root mean square of all their gradients, and
    that only above a floor, so gradients below some 3e-3 give smaller updates. `dm` and `rnnprop` have biases: where a
    gradient is zero, but not None, the parameter drifts.

    A step with a gradient that is not finite changes nothing: it raises RuntimeError (`nonfinite="raise"`), or is left
    out, counted in `skipped_steps`, and warned of once ("skip"). Gradients beyond 1e15 (1e140 in double precision) are
    taken for that.

    State is kept for each parameter and belongs to it: of the parameter's shape, and one more dimension where a
    coordinate has several numbers. It is in float32 at least, also for half precision. `state_dict` copies nothing, as
    in torch, and `load_state_dict` refuses what another learned optimizer or model has written. A step takes memory for
    a block of coordinates, and for one number a parameter with `simple`.

    DTensors (fully_shard, tensor parallelism) are taken shard by shard. Other tensor subclasses are refused, and so
    are, for `simple`, shards that do not say so: FullyShardedDataParallel, ZeroRedundancyOptimizer. `step` is left out
    by torch.compile.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        learned_optimizer: LearnedOptimizer,
        phi: Phi,
        *,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        scale: float = 1.0,
        nonfinite: Nonfinite = "skip",
        horizon: int | None = None,
    ) -> None:
        """`phi` are the meta-parameters to use.

        Raises ValueError for numbers that are not finite, negative, or a scale of 0; for unknown keys of a group; for
        another word for `nonfinite`; for a horizon below 1; for meta-parameters of something else. TypeError for a
        parameter that cannot be taken.
        """
        if horizon is not None and (not isinstance(horizon, int) or isinstance(horizon, bool) or horizon < 1):
            raise ValueError(f"horizon must be a number of steps >= 1, or None, found {horizon!r}")
        if nonfinite not in get_args(Nonfinite):
            raise ValueError(f"nonfinite must be one of {', '.join(get_args(Nonfinite))}, found {nonfinite!r}")
        if not isinstance(phi, Mapping) or not fits(learned_optimizer, phi):
            raise refusal("phi", f"meta-parameters of {learned_optimizer.name}, by name", kind(phi))
        check_caller(learned_optimizer)
        self.nonfinite: Nonfinite = nonfinite
        self.horizon = horizon
        self.skipped_steps = 0
        self._learned_optimizer = learned_optimizer
        self._phi_given = phi
        self._phi = {name: tensor.detach() for name, tensor in phi.items()}
        self._phis: dict[tuple[torch.device, torch.dtype], Phi] = {}
        self._tails = tails(learned_optimizer)
        self._scope = learned_optimizer.trusted_scope
        self._record = _record(learned_optimizer, self._phi)
        values = {"lr": lr, "weight_decay": weight_decay, "scale": scale}
        check_group(values, self._record)
        super().__init__(params, {**values, RECORD: self._record})

    def __getstate__(self) -> dict[str, Any]:
        public = ("nonfinite", "horizon", "skipped_steps")
        private = ("_learned_optimizer", "_phi", "_phi_given", "_tails", "_scope", "_record")
        return {**super().__getstate__(), **{name: self.__dict__[name] for name in public + private}, "_phis": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for parameter, held in self.state.items():
            if isinstance(held, Loaded):
                self.state[parameter] = adopted(held, self._tails, parameter)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, at any time: new coordinates start with fresh state."""
        if isinstance(param_group, dict) and "params" in param_group:
            for name, value in (("learned_optimizer", self._learned_optimizer), ("phi", self._phi_given)):
                if param_group.get(name) is value:  # ZeroRedundancyOptimizer notes the arguments in every group
                    del param_group[name]
            check_group(param_group, self._record)
            factors({**self.defaults, **param_group})
            params = param_group["params"]
            if not isinstance(params, (Tensor, set)):
                param_group["params"] = params = list(params)
            count = sum(len(group["params"]) for group in self.param_groups)
            for index, entry in enumerate([params] if isinstance(params, Tensor) else params, count):
                tensor = entry[1] if isinstance(entry, tuple) else entry
                if isinstance(tensor, Tensor):
                    check_parameter(tensor, f"parameter {index}", self._learned_optimizer)
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step from the gradients in place; returns what `closure`, if any, returns.

        Raises ValueError for a group's values, TypeError and RuntimeError for parameters, gradients and state that
        cannot be taken, all before anything is changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if problem := self._take_step(loss):
            advice = "such steps are counted in skipped_steps; nonfinite='raise' raises an error"
            warnings.warn(f"{problem}: the step is left out ({advice})", RuntimeWarning, stacklevel=3)
        return loss

    @torch._disable_dynamo
    @torch.no_grad()
    def _take_step(self, loss: Any) -> str:
        """Returns what to warn of."""
        self._check_whole()
        shares = self._shares()
        needs_mean_square = self._scope == "mean_square"
        seen = summarized(shares, (p for _, p, _ in self._labelled()), mean_square=needs_mean_square)
        if seen.broken:
            return self._pass_over(seen.broken)
        idle = seen.zero and not any(share.factor or self.state.get(share.parameter) for share in shares)
        self._bring_state(shares)
        if not idle:  # so torch.distributed.checkpoint asks for state before the first step: it is made, nothing moves
            self._move(shares, seen, loss)
            for share in shares:
                if share.row.home is not None:
                    share.row.home.copy_(share.row.flat.view(share.row.shape))
        return ""

    def _shares(self) -> list[Share]:
        """The parameters that have gradients, each once."""
        values = [factors(group) for group in self.param_groups]
        shares: dict[Tensor, Share] = {}
        for label, parameter, group_index in self._labelled():
            if parameter.grad is None or parameter in shares:
                continue
            check_parameter(parameter, label, self._learned_optimizer)
            check_gradient(parameter, label)
            if parameter.is_meta:
                raise RuntimeError(f"{label} is on the meta device: it has no numbers")
            row = CoordinateRow.of(parameter, by_shape=self._learned_optimizer.uses_layout)
            shares[parameter] = Share(parameter, label, row, local_gradient(parameter, row), *values[group_index])
        scale_steps(self._learned_optimizer, list(shares.values()))
        if self._learned_optimizer.sparse_rows:
            rest_rows(list(shares.values()))
        return list(shares.values())

    def _pass_over(self, label: str) -> str:
        """Leave out a step. Returns what to warn of: the first time only."""
        problem = f"the gradient of {label} is not finite"
        if self.nonfinite == "raise":
            raise RuntimeError(f"{problem}; nothing was changed")
        self.skipped_steps += 1
        return problem if self.skipped_steps == 1 else ""

    def _bring_state(self, shares: list[Share]) -> None:
        """State for all, checked for all before it is changed for one."""
        ordered = {
            share.parameter: brought_in_order(held, self._tails, share.parameter, share.row, share.label)
            for share in shares
            if (held := self.state.get(share.parameter))
        }
        for share in shares:
            state = ordered.get(share.parameter)
            state = fresh(self._learned_optimizer, self._tails, share.parameter, share.row) if state is None else state
            self.state[share.parameter] = state
            share.scalars = tuple(state[name].item() for name, tail in self._tails.items() if tail is None)

    def _move(self, shares: list[Share], seen: GradientSummary, loss: Any) -> None:
        """One step of all, block by block."""
        moved: dict[Tensor, dict[str, Tensor]] = {}
        for block in blocks.of(self._learned_optimizer, shares, self.state, self._tails, block_size):
            phi = self._phi_on(block.device, block.dtype)
            square = None if seen.mean_square is None else blocks.as_mean(seen.mean_square, block)
            theta, grad = block.theta(), block.gradient()
            held = self.state[block.pieces[0].share.parameter]
            scalars = {name: held[name] for name, tail in self._tails.items() if tail is None}
            if (taken := scalars.pop(INNER_STEP, None)) is not None:  # of parameters that came later, the others'
                taken = max(self.state[piece.share.parameter][INNER_STEP] for piece in block.pieces)
            context = self._context(block, taken, loss)
            update, scalars = step_in_place(
                self._learned_optimizer, phi, theta, grad, block.state, scalars, square, *context
            )
            if taken is not None:
                scalars[INNER_STEP] = taken + 1
            block.apply(theta, update)
            moved |= {piece.share.parameter: scalars for piece in block.pieces}
        for parameter, scalars in moved.items():
            for name, value in scalars.items():
                self.state[parameter][name].copy_(value)

    def _context(
        self, block: blocks.CoordinateBlock, taken: Tensor | None, loss: Any
    ) -> tuple[Layout | None, StepInfo | None]:
        """The layout of a block and the info on the step, for a learned optimizer that uses them."""
        layout = info = None
        if self._learned_optimizer.uses_layout:
            layout = Layout({piece.share.label: piece.share.row.shape for piece in block.pieces})
        if taken is not None:
            value = None if loss is None else torch.as_tensor(loss, dtype=block.dtype, device=block.device).detach()
            info = StepInfo(value, int(taken), self.horizon)
        return layout, info

    def _phi_on(self, device: torch.device, dtype: torch.dtype) -> Phi:
        if (device, dtype) not in self._phis:
            self._phis[device, dtype] = {name: tensor.to(device, dtype) for name, tensor in self._phi.items()}
        return self._phis[device, dtype]

    def state_dict(self) -> dict[str, Any]:
        """As in torch: the state is the optimizer's own, no copy. Raises RuntimeError where a group was taken away."""
        self._check_whole()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, hooks included; the state is copied.

        Raises ValueError, before anything is changed, for what another optimizer or another model has written.
        """

        def take(optimizer: torch.optim.Optimizer, incoming: dict[str, Any]) -> dict[str, Any]:
            return checked_state(incoming, self.param_groups, self.defaults, self._tails)

        check_form(state_dict)
        last = self.register_load_state_dict_pre_hook(take)  # after every other: what they give is what counts
        try:
            super().load_state_dict(state_dict)
        finally:
            last.remove()

    def _check_whole(self) -> None:
        """Raise RuntimeError where parameters that have state are in no group any more."""
        present = {id(parameter) for _, parameter, _ in self._labelled()}
        if any(isinstance(key, Tensor) and id(key) not in present for key, held in self.state.items() if held):
            advice = "set lr=0 to rest, or make a new optimizer"
            raise RuntimeError(f"a parameter group that was in training has been taken away or replaced: {advice}")
        if not self.param_groups:
            raise RuntimeError("the optimizer has no parameter groups any more")

    def _labelled(self) -> list[tuple[str, Tensor, int]]:
        """Every parameter with what to call it and the place of its group."""
        labelled: list[tuple[str, Tensor, int]] = []
        for group_index, group in enumerate(self.param_groups):
            names = group.get("param_names") or []
            for index, parameter in enumerate(group["params"]):
                name = f" ({names[index]})" if index < len(names) else ""
                labelled.append((f"parameter {len(labelled)}{name}", parameter, group_index))
        return labelled


def _record(learned_optimizer: LearnedOptimizer, phi: Phi) -> str:
    """What the learned optimizer is known by in a state: its kind, a digest of its settings and meta-parameters."""
    # what is as usual is left out: there may be new settings one day
    chosen = [
        (item.name, getattr(learned_optimizer, item.name), item.default)
        for item in dataclasses.fields(learned_optimizer)
    ]
    digest = hashlib.sha256(repr(sorted((name, value) for name, value, usual in chosen if value != usual)).encode())
    for name in sorted(phi):
        values = local(phi[name]).to("cpu", torch.float64).contiguous()
        digest.update(f"{name}{list(values.shape)}".encode() + values.numpy().tobytes())
    return f"{getattr(learned_optimizer, 'name', type(learned_optimizer).__name__)} {digest.hexdigest()[:16]}"


def load_optimizer(
    run: str | os.PathLike[str] | RunReader,
    params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
    lr: float = 1.0,
    weight_decay: float = 0.0,
    scale: float | Literal["best"] = 1.0,
    *,
    checkpoint: str | None = None,
    nonfinite: Nonfinite = "skip",
    horizon: int | None = None,
) -> LoadedOptimizer:
    """The learned optimizer of a run (path, id, or "last" in the run store) for the parameters of a model of yours.

    Every update is multiplied by `lr`, which schedulers move, and by `scale`, a constant of the run; "best" is the one
    that `lreg transfer --scales` chose on validation. `weight_decay` is decoupled, as AdamW's: lr * weight_decay of a
    parameter goes at every step, so with lr = 1 small values are enough. `checkpoint` is best (on validation; where
    none is given), last, or initial. `nonfinite`: what to do with a step whose gradients are not finite, see
    `LoadedOptimizer`. `horizon`: how many steps the training has, for learned optimizers that go by t / T; None: t / T
    stays 0. Raises RunError where there is no such run, checkpoint or scale, ValueError for other arguments.

    `run` may also be "lreg:NAME", a learned optimizer that comes with lreg (docs/shipped.md), or a file that
    `lreg export --to safetensors` wrote: both hold one checkpoint, and a scale that is multiplied by `scale`, or taken
    as it is for "best".
    """
    if scale != "best":
        scale = number("scale", scale)
    if not isinstance(run, RunReader):
        run = file_of(run)
    if not isinstance(run, RunReader) and run.endswith(".safetensors"):
        learned_optimizer, phi, facts = load_exported(run)
        if checkpoint not in (None, facts["checkpoint"]):
            contents = f"{printable(run)}: holds checkpoint {printable(facts['checkpoint'])!r} alone"
            raise RunError(f"{contents}, found {printable(str(checkpoint))!r}")
        factor = facts["scale"] * (1.0 if scale == "best" else scale)
    else:
        reader = run if isinstance(run, RunReader) else RunStore().resolve(run)
        learned_optimizer, phi = load_learned_optimizer(reader, CHECKPOINT if checkpoint is None else checkpoint)
        factor = best_scale(reader) if scale == "best" else scale
    if learned_optimizer.uses_task:
        told = f"{learned_optimizer.name} looks at the episodes that it trains on, which parameters alone do not have"
        raise RunError(f"{printable(str(run))}: {told}; allowed: a run of another learned optimizer")
    values = {"lr": lr, "weight_decay": weight_decay, "scale": factor}
    return LoadedOptimizer(
        params, learned_optimizer, without_start(phi), **values, nonfinite=nonfinite, horizon=horizon
    )
