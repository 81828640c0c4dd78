"""The [evaluation] table: how often and on what a learned optimizer is measured."""

from __future__ import annotations

from dataclasses import dataclass

from engine.base.settings import setting


@dataclass(frozen=True)
class EvaluationSettings:
    """The [evaluation] table."""

    every: int = setting(10, minimum=1, help="meta-epochs between two evaluations")
    optimizees: int = setting(4, minimum=1, maximum=10_000, help="held-out optimizees in every evaluation")
    radius: float = setting(
        0.05, above=0.0, as_typed=True, help="radius of the sharpness figures recorded while meta-training"
    )
    radii: tuple[float, ...] = setting(
        (0.001, 0.005, 0.01, 0.05, 0.1),
        above=0.0,
        as_typed=True,
        help="radii of the sharpness figures of transfer evaluations",
    )
    adaptive_radius: float = setting(
        0.5,
        above=0.0,
        as_typed=True,
        help="radius of adaptive sharpness: the perturbation's L2 norm in units of |theta|",
    )
    examples: int = setting(1000, minimum=1, help="training examples that the sharpness figures are measured on")
    restarts: int = setting(3, minimum=1, maximum=10_000, help="starts of each search for the worst point of a ball")
    ascent_steps: int = setting(20, minimum=1, help="ascent steps of each search for the worst point of a ball")
    precision: str = setting(
        "float64", choices=("float64", "float32"), help="of the sharpness figures; float32 is rough below radius 0.01"
    )
    extended: bool = setting(
        True,
        help="transfer evaluations measure the Hessian's trace and the l-infinity ball, too: twice the time",
    )
    final_optimizees: int = setting(
        5, minimum=0, maximum=10_000, help="fresh optimizees in the result table; 0: no table"
    )
