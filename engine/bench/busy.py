"""Busy: whether other processes are in the way, so that timings cannot be trusted or threads wait for each other."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass

import torch

LOOK_S = 0.5  # to see what others take
MOST_TAKEN = 0.25  # of a core
SLOWER = 1.15  # all threads against one: beyond this they are in each other's way
ROUNDS = 9
WIDTH = 80


@dataclass(frozen=True)
class Busyness:
    """How busy the machine is, and what several threads gain."""

    cores: int
    threads: int  # of torch
    taken: float  # cores that other processes keep busy
    gain: float  # time of a small product on one thread over that on all: 2 at best on two cores

    @property
    def fewer_are_faster(self) -> bool:
        return self.threads > 1 and self.gain < 1 / SLOWER

    @property
    def problem(self) -> str:
        """One line on what is wrong; empty where nothing is."""
        if self.fewer_are_faster:
            slower = f"{self.threads} threads take {1 / self.gain:.1f} times as long as one"
            return f"{slower}: another process wants the cores: run with OMP_NUM_THREADS=1"
        if self.taken > MOST_TAKEN:
            return f"other processes keep {self.taken:.1f} of {self.cores} cores busy: timings cannot be trusted"
        return ""

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.problem:
            return self.problem
        if self.threads == 1:
            return "one thread; the cores are free"
        return f"{self.threads} threads are {self.gain:.1f} times as fast as one; the cores are free"


def look() -> Busyness:
    """Look at the machine, for about a second. The number of threads is as before afterwards."""
    import psutil

    shares = psutil.cpu_percent(interval=LOOK_S, percpu=True)  # of every core; this process sleeps meanwhile
    if hasattr(os, "sched_getaffinity"):
        shares = [shares[core] for core in os.sched_getaffinity(0) if core < len(shares)] or shares
    return Busyness(len(shares), torch.get_num_threads(), sum(shares) / 100, _gain())


def _gain() -> float:
    """One thread against all on what a learned optimizer does: a product with a small matrix, and a tanh."""
    threads = torch.get_num_threads()
    if threads == 1:
        return 1.0
    left, right, out = torch.randn(8000, 20), torch.randn(20, WIDTH), torch.empty(8000, WIDTH)
    taken: dict[int, list[float]] = {1: [], threads: []}
    try:
        for _ in range(ROUNDS):  # in turn, so that a disturbance meets both
            for number, times in taken.items():
                torch.set_num_threads(number)
                torch.mm(left, right, out=out).tanh_()
                begin = time.perf_counter()
                for _ in range(5):
                    torch.mm(left, right, out=out).tanh_()
                times.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(taken[1]) / statistics.median(taken[threads])
