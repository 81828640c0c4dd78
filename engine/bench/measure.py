"""Measure one piece of work: ours and the reference in turn, memory, share of the limit, and whether they agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from engine import kernels
from engine.bench import check, needs, reference, step
from engine.bench.limits import Limits, timed
from engine.bench.memory import peak_bytes
from engine.bench.scene import RandomTask, network_of, scene, state_bytes
from engine.bench.works import PARTICLES, PROBED, STEP, Workload

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

    def measure(self, piece: Workload) -> dict[str, Any]:
        """The numbers of a piece of work, or its name and, under "skipped", why it is left out."""
        measured = self._step(piece) if piece.work == STEP else self._truncation(piece)
        return {**piece.facts, "device": str(self.device), **measured}

    def _truncation(self, piece: Workload) -> dict[str, Any]:
        begin = time.perf_counter()
        way = kernels.describe(self.device)  # compiles what has not been compiled on this machine
        compile_s = time.perf_counter() - begin
        if piece.optimizee not in self._tasks:
            self._tasks.clear()  # one optimizee's batches at a time
            task = RandomTask(piece.optimizee, device=self.device)
            self._tasks[piece.optimizee] = task, needs.pilot(task)
        task, pilot = self._tasks[piece.optimizee]
        estimate, free = needs.estimated(piece, task, self.limits, pilot), needs.free_memory(self.device)
        if reason := estimate.problem(free, self.by_name):
            return {"skipped": reason}
        missing = "nobody has written the searches out" if piece.work in PROBED else estimate.eager_problem(free)
        setup = scene(piece, task)
        first = timed(setup.run, self.device)  # whatever is loaded or compiled at first use is in here
        for _ in range(2 if self.device.type == "cuda" else 0):
            setup.run()  # recorded, then tried
        memory = peak_bytes(setup.run, self.device)
        calls = [setup.run] if missing else [setup.run, lambda: reference.run(setup)]
        (ours, *eager), rounds = self._medians(calls)
        steps = 1 if piece.work in PROBED else setup.steps  # of these the whole is what counts
        coordinates = setup.coordinates * (setup.estimator.particles if piece.work in PARTICLES else 1)
        return {
            **self._speed(piece, ours, coordinates, steps, [seconds * piece.meta_batch for seconds in eager]),
            "optimizee_share": None if piece.work in PROBED else pilot.seconds * piece.meta_batch * steps / ours,
            "kernels": way,
            "rounds": rounds,
            "compile_s": compile_s + max(0.0, first - ours),
            "memory_bytes": memory,
            **check.agreement(piece, self.device),
            **({"eager_skipped": missing} if missing else {}),
        }

    def _step(self, piece: Workload) -> dict[str, Any]:
        """One step of a user's optimizer. memory_bytes is the most that a step takes, the first one, which makes the
        state; extra_bytes_per_parameter is what later ones take beyond it.
        """
        task = RandomTask(piece.optimizee, device=self.device)
        if reason := step.problem(piece, task):
            return {"skipped": reason}
        ours, adam = step.optimizers(piece, task)
        compile_s = timed(lambda: kernels.describe(self.device), self.device)
        memory, extra = (peak_bytes(ours.step, self.device) for _ in range(2))
        adam.step()
        (seconds, adams), _ = self._medians([ours.step, adam.step])
        return {
            **self._speed(piece, seconds, task.parameters, 1, []),
            "eager_skipped": "a step is compared with Adam's",
            "adam_ms_per_inner_step": 1e3 * adams,
            "ratio_to_adam": seconds / adams,
            "memory_bytes": memory,
            "bytes_per_parameter": None if memory is None else memory / task.parameters,
            "extra_bytes_per_parameter": None if extra is None else extra / task.parameters,
            "state_bytes_per_parameter": state_bytes(piece),
            "compile_s": compile_s,
            "kernels": kernels.describe(self.device),
            **check.agreement_of(lambda dtype: step.largest_error(piece, self.device, dtype), self.device),
        }

    def _medians(self, calls: Sequence[Callable[[], object]]) -> tuple[list[float], int]:
        """Seconds of each call, medians over rounds, and how many these were. In turn: a disturbance meets all.

        Of a short round each counts the second time in a row: the first meets what the others left in the caches.
        """
        times = [[timed(call, self.device) for call in calls]]
        round_s = sum(times[0])
        rounds = 1 if self.quick else min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(BUDGET_S / (2 * max(round_s, 1e-6)))))
        if round_s < BUDGET_S / 2:  # that was a warm-up, unless a round is long
            times.clear()
        while len(times) < rounds:
            again = range(1 if round_s >= LONG_ROUND_S else 2)
            times.append([[timed(call, self.device) for _ in again][-1] for call in calls])
        return [statistics.median(column) for column in zip(*times, strict=True)], len(times)

    def _speed(
        self, piece: Workload, ours: float, coordinates: int, steps: int, eager: Sequence[float]
    ) -> dict[str, Any]:
        """What every line has, of so many seconds; `eager`: the reference's for all optimizees, if it was measured."""
        work = "frozen" if piece.work == STEP else piece.work
        network = None if work in PROBED else network_of(piece)
        least = self.limits.least_seconds(work, network, coordinates * steps)
        return {
            "ms_per_inner_step": 1e3 * ours / steps,
            "eager_ms_per_inner_step": 1e3 * eager[0] / steps if eager else None,
            "inner_steps_per_s": steps / ours,
            "coordinate_steps_per_s": coordinates * steps / ours,
            "ratio_to_eager": eager[0] / ours if eager else None,
            "share_of_limit": least / ours if least else None,
            "truncation": steps,
            "coordinates": coordinates,
            "threads": torch.get_num_threads(),
            "limit_flops_per_s": self.limits.flops_per_s,
            "limit_bytes_per_s": self.limits.bytes_per_s,
        }
