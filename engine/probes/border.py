"""The border of the public probes: every argument and the loss's contract are checked, once for each call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from engine.base.arguments import bound, checked, checked_list, kind, refusal
from engine.base.loss_contract import (
    check_loss,
    check_repeats,
    check_theta,
    first_finite,
    for_many,
    is_transformed,
    own_loss,
    random_state,
    value_and_grad_once,
    with_graph,
)
from engine.base.settings import Setting

P = ParamSpec("P")
R = TypeVar("R")

SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("radius", ("float",), None, "radius of the ball", minimum=0),
        Setting("norm", ("str",), "l2", "norm of the ball", choices=("l2", "linf")),
        Setting("restarts", ("int",), 10, "starts of each search", minimum=1, maximum=10_000),
        Setting("ascent_steps", ("int",), 50, "ascent steps of each search", minimum=1),
        Setting("iterations", ("int",), 60, "Lanczos steps at most", minimum=1),
        Setting("samples", ("int",), 30, "random vectors", minimum=1),
        Setting("trace_samples", ("int",), 30, "random vectors; 0: no trace", minimum=0),
        Setting("linf", ("bool",), True, "whether the l-infinity ball is searched"),
        Setting("seed", ("int",), 0, "of random vectors and starts", minimum=0, maximum=2**53),
    )
}


def public(probe: Callable[P, R]) -> Callable[P, R]:
    """A probe of `loss` and `theta` that refuses a wrong argument, or a loss that breaks its contract, in one line."""
    signature = inspect.signature(probe)

    @wraps(probe)
    def call(*args: Any, **named: Any) -> Any:
        arguments = check_settings(bound(signature, args, named))
        loss = with_graph(check_loss(arguments["loss"]))
        theta = arguments["theta"] = checked_point(arguments["theta"])
        with own_loss():
            point = theta[first_finite(theta)] if theta.dim() == 2 else theta
            once, state = value_and_grad_once(loss, point), random_state(point)
            check_repeats(loss, point, once, value_and_grad_once(loss, point), state)
            arguments["loss"] = for_many(loss, theta if theta.dim() == 2 else theta[None])
            return probe(**arguments)  # type: ignore[call-arg]

    return call


def check_settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with those that `SETTINGS` knows, `radii` and `tick` checked and in canonical form."""
    for name, value in arguments.items():
        if name == "radii":
            arguments[name] = checked_list(replace(SETTINGS["radius"], name=name), value)
        elif name == "tick" and not callable(value):
            raise refusal(name, "a function without arguments", kind(value))
        elif name in SETTINGS and not (name == "iterations" and value is None):
            arguments[name] = checked(SETTINGS[name], value)
    return arguments


def checked_point(theta: Any) -> Any:
    if is_transformed(theta):
        raise refusal("theta", "a plain tensor", "one inside vmap or grad", "pass [B, P] for B points")
    return check_theta(theta)
