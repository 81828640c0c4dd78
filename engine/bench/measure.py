"""Measure one piece of work: ours and the reference in turn, memory, share of the limit, and whether they agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from engine import kernels
from engine.bench import check, needs, step
from engine.bench.limits import Limits, least_seconds, timed
from engine.bench.memory import peak_bytes
from engine.bench.runs import run, run_eager
from engine.bench.scene import RandomTask, Scene, scene
from engine.bench.works import STEP, Piece

BUDGET_S = 8.0  # for the measurements of a piece of work, after the warm-up
MOST_ROUNDS, FEWEST_ROUNDS = 15, 2
LONG_ROUND_S = 2.0  # so long that what was left behind is nothing


@dataclass
class Bench:
    """One session of measurements on a device."""

    device: torch.device
    limits: Limits
    quick: bool = False
    by_name: bool = False  # the works were asked for one by one: none is too long
    _tasks: dict[str, tuple[RandomTask, needs.Pilot]] = field(default_factory=dict)

    def measure(self, piece: Piece) -> dict[str, Any]:
        """The figures of a piece of work, or its name and, under "skipped", why it is left out."""
        facts = {**piece.facts, "device": str(self.device)}
        if piece.work == STEP:
            return {
                **facts,
                **step.measured(piece, RandomTask(piece.optimizee, device=self.device), self.limits, quick=self.quick),
            }
        begin = time.perf_counter()
        way = kernels.describe(self.device)  # compiles what has not been compiled on this machine
        compile_s = time.perf_counter() - begin
        task, one = self._task(piece.optimizee)
        wanted, free = needs.estimated(piece, task, self.limits, one), needs.free_memory(self.device)
        if reason := wanted.problem(free, self.by_name):
            return {**facts, "skipped": reason}
        missing = wanted.eager_problem(free)
        place = scene(piece, task)
        ours, eager, shown = self._times(place, with_eager=not missing)
        shown["compile_s"] += compile_s
        figures = self._figures(place, ours, eager, one)
        agreement = check.agreement(piece, self.device)
        return {
            **facts,
            **figures,
            "kernels": way,
            **shown,
            **agreement,
            **({"eager_skipped": missing} if missing else {}),
        }

    def _task(self, optimizee: str) -> tuple[RandomTask, needs.Pilot]:
        if optimizee not in self._tasks:
            self._tasks.clear()  # one optimizee's batches at a time
            task = RandomTask(optimizee, device=self.device)
            self._tasks[optimizee] = task, needs.pilot(task)
        return self._tasks[optimizee]

    def _times(self, place: Scene, *, with_eager: bool) -> tuple[float, float | None, dict[str, Any]]:
        """Seconds of a truncation, ours and the reference's for all its optimizees, and what the runs showed besides.

        The reference takes one optimizee after another: the first is measured, and counts `meta_batch` times.
        """
        first = timed(lambda: run(place), self.device)  # whatever is loaded or compiled at first use is in here
        memory = peak_bytes(lambda: run(place), self.device)
        eager: Callable[[], object] | None = (lambda: run_eager(place)) if with_eager else None
        started = time.perf_counter()
        ours_s, eager_s = [timed(lambda: run(place), self.device)], [timed(eager, self.device)] if eager else []
        round_s = time.perf_counter() - started
        rounds = 1 if self.quick else min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(BUDGET_S / (2 * max(round_s, 1e-6)))))
        if round_s < BUDGET_S / 2:  # those were a warm-up, unless a round is long
            ours_s, eager_s = [], []
        for _ in range(rounds - len(ours_s)):  # in turn: a disturbance meets both
            ours_s.append(self._settled(lambda: run(place), round_s))
            if eager:
                eager_s.append(self._settled(eager, round_s))
        ours = statistics.median(ours_s)
        shown = {"rounds": len(ours_s), "compile_s": max(0.0, first - ours), "memory_bytes": memory}
        return ours, statistics.median(eager_s) * place.piece.meta_batch if eager_s else None, shown

    def _settled(self, call: Callable[[], object], round_s: float) -> float:
        """Seconds of a call, the second one in a row: the first meets what the other way left of memory and caches."""
        if round_s < LONG_ROUND_S:
            call()
        return timed(call, self.device)

    def _figures(self, place: Scene, ours: float, eager: float | None, one: needs.Pilot) -> dict[str, Any]:
        network = place.optimizer.network
        assert network is not None
        coordinate_steps = place.coordinates * place.steps
        least = least_seconds(place.piece.work, network, coordinate_steps, self.limits)
        return {
            "ms_per_inner_step": 1e3 * ours / place.steps,
            "eager_ms_per_inner_step": None if eager is None else 1e3 * eager / place.steps,
            "inner_steps_per_s": place.steps / ours,
            "coordinate_steps_per_s": coordinate_steps / ours,
            "ratio_to_eager": None if eager is None else eager / ours,
            "share_of_limit": least / ours,
            "optimizee_share": one.seconds * place.piece.meta_batch * place.steps / ours,
            "truncation": place.steps,
            "coordinates": place.coordinates,
            "threads": torch.get_num_threads(),
            "limit_flops_per_s": self.limits.flops_per_s,
            "limit_bytes_per_s": self.limits.bytes_per_s,
        }
