"""Which figures are drawn: those that were asked for, or all for which there are data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.base.errors import LregError
from engine.base.metrics import MACHINE
from engine.figures import transfers
from engine.figures.base import Block, Evaluated, Panel
from engine.figures.meta_training import meta_training, update_rules

LANDSCAPE = "landscape"
USUAL = ("meta-loss", "curves", "sharpness", "accuracy", "frontier", "rule")
FIGURES = (*USUAL, "machine", LANDSCAPE)
INTERVALS = "means over optimizees with 95% t-intervals over {seeds}"
CAPTIONS = {
    "meta-loss": "Meta-training: moving median, and band from the 10% to the 90% quantile of the window.",
    "curves": "Train loss of optimizees along the inner steps: {intervals}.",
    "sharpness": "Sharpness (largest rise of the train loss in an L2 ball) against the ball's radius: {intervals}.",
    "accuracy": "{metrics} against sharpness: {intervals}; faint: single optimizees.",
    "frontier": "Sharpness against train loss: {intervals}; lines: without penalties, updates multiplied by constants, "
    "solid up to the best constant, dashed beyond (overshoot).",
    "rule": "Updates around the zero state, for random inputs (sorted), and along the first feature.",
    "machine": "What the process of a run took of its machine: moving median, and band from the 10% to the 90% "
    "quantile.",
}
MISSING = {
    "meta-loss": "no records of meta-training yet: lreg watch {run}",
    "curves": "no transfer evaluations yet: lreg transfer {run}",
    "sharpness": "no sharpness in any transfer evaluation yet: lreg transfer {run}",
    "accuracy": "no sharpness in any transfer evaluation yet: lreg transfer {run}",
    "frontier": "{reference} was not evaluated at other scales yet: lreg transfer {run} --scales 0.5,0.7,1,1.4,2,2.8",
    "rule": "no checkpoint that can be read: lreg resume {run}",
    "machine": "nothing was noted of the machine: a run of before, or one of less than a second",
}


def blocks(evaluated: Evaluated, figures: Sequence[str] = ()) -> list[Block]:
    """The figures in the order in which they were asked for; none asked for: the usual ones for which there are
    data. Landscape is never among them: it is computed elsewhere.

    Raises LregError where data are missing for what was asked for, naming the command that makes them.
    """
    makers: dict[str, Callable[[], list[Panel]]] = {
        "meta-loss": lambda: meta_training(evaluated.arms),
        "curves": lambda: transfers.curves(evaluated),
        "sharpness": lambda: transfers.sharpness(evaluated),
        "accuracy": lambda: transfers.headlines(evaluated),
        "frontier": lambda: transfers.frontier(evaluated) if transfers.scaled_arms(evaluated) else [],
        "rule": lambda: update_rules(evaluated.arms),
        "machine": lambda: meta_training(evaluated.arms, MACHINE),
    }
    made = []
    for name in (name for name in dict.fromkeys(figures or USUAL) if name != LANDSCAPE):
        panels = makers[name]()
        if panels:
            made.append(Block(name, tuple(panels), _caption(name, evaluated, panels)))
        elif figures:
            raise LregError(f"--figure {name}: {_missing(name, evaluated)}")
    if not made and not figures:
        raise LregError(f"nothing to draw: {_missing('meta-loss', evaluated)}")
    return made


def _caption(name: str, evaluated: Evaluated, panels: Sequence[Panel]) -> str:
    counts = {len(entry.outcomes) for task in evaluated.marks.values() for entry in task.trained.values()}
    over = "meta-seeds" if max(counts, default=1) > 1 else "optimizees (one meta-seed)"
    over += " (of two: from the one to the other)" if 2 in counts else ""
    metrics = " and ".join(dict.fromkeys(panel.y.label for panel in panels))
    words = {"intervals": INTERVALS.format(seeds=over), "metrics": metrics[:1].upper() + metrics[1:]}
    return CAPTIONS[name].format(**words)


def _missing(name: str, evaluated: Evaluated) -> str:
    reference = evaluated.ordered_arms[0]
    return MISSING[name].format(run=reference.runs[0].reader.id, reference=reference.label)
