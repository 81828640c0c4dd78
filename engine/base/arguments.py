"""Arguments of the public functions: declared as settings are, checked once at the border, told in one line."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from engine.base.errors import ArgumentError, Problem, printable, shortened
from engine.base.settings import Setting, did_you_mean, show

P = ParamSpec("P")
R = TypeVar("R")


def bound(signature: inspect.Signature, positional: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, defaults filled in. An unknown name is an ArgumentError with a near one."""
    for name in named:
        if name not in signature.parameters:
            allowed = list(signature.parameters)
            hint = did_you_mean(name, allowed)
            text = f"found an unknown argument {shortened(name)}; allowed: {', '.join(allowed)}"
            raise ArgumentError(printable(f"{text} ({hint})" if hint else text))
    try:
        arguments = signature.bind(*positional, **named)
    except TypeError as error:
        raise ArgumentError(str(error)) from None
    arguments.apply_defaults()
    return arguments.arguments


def named(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: an unknown argument of the function is told with the one that was probably meant."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **by_name: P.kwargs) -> R:
        return function(**bound(signature, args, by_name))  # type: ignore[call-arg]

    return call


def path(name: str, value: Any) -> str:
    """A file's or folder's path as text."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise refusal(name, "a path, as text or pathlib.Path", kind(value))
    return text


def texts(name: str, values: Any) -> list[str]:
    """A list of texts; one alone would be taken letter by letter."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise refusal(
            name, "a list of texts", show(values), f"write [{show(values)}]" if isinstance(values, str) else ""
        )
    items = list(values)
    for i, item in enumerate(items):
        if not isinstance(item, str):
            raise refusal(f"{name}[{i}]", "a text", kind(item))
    return items


def checked(setting: Setting, value: Any) -> Any:
    """A value in its canonical form; numpy's numbers and tensors without dimensions count as Python's."""
    fit, problem = setting.check(plain(value))
    if problem is not None:
        raise refused(problem)
    return fit


def checked_list(setting: Setting, values: Any) -> list[Any]:
    """Several such values, in any iterable but a text or a table."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable) or _is_number(values):
        raise refusal(setting.name, f"a list of values, each {setting.describe()}", show(plain(values)))
    return [checked(dataclasses.replace(setting, name=f"{setting.name}[{i}]"), value) for i, value in enumerate(values)]


def plain(value: Any) -> Any:
    """A number of numpy's, or a tensor without dimensions, as Python's own; anything else as it is."""
    return value.item() if _is_number(value) else value


def _is_number(value: Any) -> bool:
    return getattr(value, "shape", None) == () and callable(getattr(value, "item", None))


def refused(problem: Problem) -> ArgumentError:
    return refusal(problem.path, problem.allowed, problem.found, problem.hint)


def refusal(name: str, allowed: str, found: str, hint: str = "") -> ArgumentError:
    text = f"{shortened(name)} must be {allowed}, found {found}"
    return ArgumentError(printable(f"{text} ({hint})" if hint else text))


def kind(value: Any) -> str:
    """What a value is, for a message: "a tensor of shape [2, 3]", "a list", "None"."""
    if value is None:
        return "None"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {type(value).__name__.lower()} of shape {list(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
