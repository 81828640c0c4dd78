"""The pieces of work that the bench knows, by name: WORK/OPTIMIZER/OPTIMIZEE/B. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.base.errors import LregError, printable, shortened
from engine.base.settings import did_you_mean

PARTICLES = ("es", "pes")  # with 8 pairs
NETWORKS = ("dm", "rnnprop", "simple")  # recurrent ones, which have kernels
OPTIMIZERS = (*NETWORKS, "lin", "mlp", "adafac")
STEP = "step"  # one of engine.LoadedOptimizer on a model's parameters, gradients given
PROBED = ("probe", "transfer")  # the figures of the landscape in a transfer evaluation; with the truncation before them
WORKS = {
    "meta-train": OPTIMIZERS,
    "meta-train-smooth": NETWORKS,
    "meta-train-sam": OPTIMIZERS,
    "second-order": OPTIMIZERS,
    **dict.fromkeys(PARTICLES, OPTIMIZERS),
    "frozen": OPTIMIZERS,
    STEP: NETWORKS,
    **dict.fromkeys(PROBED, OPTIMIZERS),
}
"""Pieces of work, and the learned optimizers that can be asked for in each."""
OPTIMIZEES = ("mlp", "conv3", "resnet18")
META_BATCHES = (1, 8, 64)
LARGEST_META_BATCH = 4096
TRUNCATION = 20
BATCH_SIZE = 128
INPUT_SHAPES = {"mlp": (1, 28, 28), "conv3": (3, 32, 32), "resnet18": (3, 32, 32)}  # MNIST's; CIFAR-10's
CLASSES = 10


@dataclass(frozen=True)
class Workload:
    """A piece of work: a truncation of 20 inner steps, batch 128, float32; a step of a user's optimizer; or probes."""

    work: str
    optimizer: str
    optimizee: str
    meta_batch: int

    @property
    def name(self) -> str:
        return f"{self.work}/{self.optimizer}/{self.optimizee}/{self.meta_batch}"

    @property
    def facts(self) -> dict[str, str | int]:
        """What every line of the bench starts with."""
        names = {"work": self.work, "optimizer": self.optimizer, "optimizee": self.optimizee}
        return {**names, "meta_batch": self.meta_batch}


def piece(text: str) -> Workload:
    """The piece of work that is meant, "meta-train/dm/mlp/1". Raises LregError that says what is allowed."""
    words = text.split("/")
    if len(words) != 4:
        raise _refused(text, "WORK/OPTIMIZER/OPTIMIZEE/B, such as meta-train/dm/mlp/1", "")
    allowed_words = (tuple(WORKS), WORKS.get(words[0], ()), OPTIMIZEES)
    for part, word, allowed in zip(("the work", "the optimizer", "the optimizee"), words, allowed_words, strict=False):
        if word not in allowed:
            raise _refused(word, f"{part} is one of {', '.join(allowed)}", did_you_mean(word, allowed))
    number = words[3]
    if not re.fullmatch(r"[0-9]{1,9}", number, re.ASCII) or not 1 <= int(number) <= LARGEST_META_BATCH:
        raise _refused(number, f"the meta-batch is a whole number from 1 to {LARGEST_META_BATCH}", "")
    if words[0] == STEP and int(number) != 1:
        raise _refused(text, f"{STEP} has the meta-batch 1", "")
    return Workload(words[0], words[1], words[2], int(number))


def _refused(found: str, allowed: str, hint: str) -> LregError:
    text = f"--only: found {printable(shortened(found))!r}; allowed: {allowed}"
    return LregError(f"{text} ({hint})" if hint else text)


def everything() -> list[Workload]:
    """Every work with every optimizer, optimizee and meta-batch."""
    return [
        Workload(work, optimizer, optimizee, meta_batch)
        for optimizee in OPTIMIZEES
        for meta_batch in META_BATCHES
        for work, optimizers in WORKS.items()
        for optimizer in optimizers
        if work != STEP or meta_batch == 1
    ]


def usual(on_gpu: bool) -> list[Workload]:
    """What says most in about two minutes: on two CPU cores, or on a GPU."""
    names = [
        *(f"meta-train/{optimizer}/mlp/1" for optimizer in NETWORKS),
        *(f"frozen/{optimizer}/mlp/1" for optimizer in NETWORKS),
        "meta-train-sam/dm/mlp/1",
        "meta-train-smooth/dm/mlp/1",
        "meta-train-smooth/simple/mlp/1",
        "meta-train/dm/conv3/1",
        "meta-train/dm/mlp/8",
        "frozen/dm/mlp/8",
        "second-order/dm/mlp/1",
        "es/lin/mlp/1",
        "pes/simple/mlp/1",
        f"{STEP}/dm/conv3/1",
        f"{STEP}/simple/resnet18/1",
    ]
    if on_gpu:
        names += ["meta-train/dm/mlp/64", "meta-train-smooth/dm/mlp/64", "meta-train/rnnprop/conv3/64"]
        names += ["frozen/dm/mlp/64", "meta-train/dm/resnet18/1", "frozen/dm/resnet18/1"]
    return [piece(name) for name in names]
