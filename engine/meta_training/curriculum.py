"""Curriculum: growing unrolls, each stage left when it stops improving (Chen et al. 2020, arXiv:2010.09089).

Held-out unrolls of the next stage's length judge a stage (half as long again in the last). An improvement is the new
best. Without one, once the stage had three evaluations: if it improved at all, the best meta-parameters are taken
back and the next stage begins; if it never did, meta-training stops. A single length is no curriculum: it is trained
to the last meta-epoch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

PATIENCE = 3


@dataclass
class Curriculum:
    """Which stage meta-training is in, and the best validation loss so far."""

    stages: tuple[int, ...]
    stage: int = 0
    evaluations: int = 0  # in this stage, its baseline not counted
    improvements: int = 0
    best: float = field(default=math.inf)
    ended: bool = False

    @property
    def inner_steps(self) -> int:
        """How long an unroll of meta-training is."""
        return self.stages[self.stage]

    @property
    def evaluated_steps(self) -> int:
        """How long a held-out unroll is."""
        if len(self.stages) == 1:
            return self.inner_steps
        return self.stages[self.stage + 1] if self.stage + 1 < len(self.stages) else self.inner_steps * 3 // 2

    def baseline(self, loss: float) -> None:
        """What the stage has to improve on."""
        self.best = loss if math.isfinite(loss) else math.inf

    def judge(self, loss: float) -> str:
        """Take an evaluation in; returns "improved", "continue", "next stage" or "ended"."""
        self.evaluations += 1
        if loss < self.best:
            self.best = loss
            self.improvements += 1
            return "improved"
        if len(self.stages) == 1 or self.evaluations < PATIENCE:
            return "continue"
        if self.improvements == 0 or self.stage + 1 == len(self.stages):
            self.ended = True
            return "ended"
        self.stage += 1
        self.evaluations = self.improvements = 0
        return "next stage"

    def to_json(self) -> dict[str, Any]:
        state = asdict(self)
        return {**state, "best": None if math.isinf(self.best) else self.best}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Curriculum:
        best = math.inf if state["best"] is None else state["best"]
        return cls(**{**state, "stages": tuple(state["stages"]), "best": best})
