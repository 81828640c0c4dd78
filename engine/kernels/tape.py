"""Tape: a truncation of a learned optimizer's steps without autograd's graph.

The gradients that feed a learned optimizer are constants, so the meta-gradient needs only the slopes of its updates,
pulled back through its own network. A tape keeps what that takes (the features, and the optimizer state now and then)
and computes everything else anew, block by block, when it is pulled back.

Shape letters as everywhere: B optimizees, P parameters, F input features, T inner steps.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from engine.optimizers.box_ascent import BoxAscent
from engine.optimizers.learned.base import Phi, State


class SideInput(NamedTuple):
    """A second input to the same steps, whose updates count but whose state goes nowhere."""

    features: list[Tensor | None]  # [B, P, F] of each inner step; None: none there
    slopes: list[Tensor | None]  # [B, P], of the updates there


class Tape(Protocol):
    """One truncation, from its first inner step to its last. All tensors are constants."""

    def step(self, features: Tensor, observed: State) -> Tensor:
        """The update, [B, P], for features [B, P, F] and the state `observe` gave with them. Valid until `close`."""
        ...

    def ascend(self, offset: Tensor, ascent: BoxAscent) -> tuple[Tensor, Tensor]:
        """From `offset`, [B, P, F], the features of the last step that change its update most, and the update there."""
        ...

    def state(self) -> State:
        """The network's part of the optimizer state after the last step, shapes of `LearnedOptimizer.init`."""
        ...

    def pull_back(self, slopes: list[Tensor], side: SideInput | None = None) -> Phi:
        """The gradient by phi of sum_t <slopes_t, update_t>, and of the like sum over the side."""
        ...

    def close(self) -> None:
        """The truncation is done with: its memory may be used again."""
        ...
