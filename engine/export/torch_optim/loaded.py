"""A state_dict on its way in: whose it is, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from engine.base.errors import printable, shortened
from engine.export.torch_optim import groups
from engine.export.torch_optim.layout import Tails, shape_of
from engine.export.torch_optim.state import Loaded, misfit

_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_OLD_KEYS = {"scale", "params"}


def checked(
    given: Mapping[str, Any], present: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any], tails: Tails
) -> dict[str, Any]:
    """The state_dict with its state as `Loaded`, and groups that have every value.

    Raises ValueError, one line, for the state of another optimizer, network or model.
    """
    check_form(given)
    saved = [dict(group) for group in given["param_groups"]]
    if [len(group["params"]) for group in saved] != [len(group["params"]) for group in present]:
        raise ValueError("the optimizer state does not fit: its parameter groups are others in number or size")
    state = given["state"]
    for before, group in zip(saved, present, strict=True):
        _check_group(before, group, defaults[groups.RECORD])
    keys = [key for group in saved for key in group["params"]]
    parameters = [parameter for group in present for parameter in group["params"]]
    if not any(groups.RECORD in group for group in saved):
        state = _of_old_form(state, keys, parameters, tails)
    for key, parameter in zip(keys, parameters, strict=True):
        if state.get(key) and (problem := misfit(state[key], tails, parameter)):
            raise ValueError(f"the optimizer state does not fit: parameter {shortened(str(key))}: {printable(problem)}")
    for group in saved:
        for name, value in defaults.items():
            group.setdefault(name, value)
        groups.factors(group)
    known = set(keys)
    return {
        **given,
        "state": {key: Loaded(dict(held)) if key in known else held for key, held in state.items()},
        "param_groups": saved,
    }


def check_form(given: Any) -> None:
    """Raise ValueError, one line, for what no optimizer has written."""
    held = given if isinstance(given, Mapping) else {}
    saved = held.get("param_groups")
    if not isinstance(held.get("state"), Mapping) or not isinstance(saved, (list, tuple)):
        raise ValueError("this is no state_dict of an optimizer: it has no state, or no param_groups")
    if not all(isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple)) for group in saved):
        raise ValueError("this is no state_dict of an optimizer: a parameter group has no params")


def _check_group(saved: Mapping[str, Any], present: Mapping[str, Any], record: str) -> None:
    """Whether a saved group is of this learned optimizer and, as far as names say it, of this model."""
    if groups.RECORD not in saved:
        if others := sorted(map(str, saved.keys() - _OLD_KEYS)):
            raise ValueError(f"the optimizer state is another optimizer's: its groups have {', '.join(others)[:80]}")
    elif saved[groups.RECORD] != record:
        found = shortened(printable(str(saved[groups.RECORD])))
        raise ValueError(f"the optimizer state is another learned optimizer's: {found}, this one is {record}")
    names, ours = (list(map(_bare, group.get("param_names") or [])) for group in (saved, present))
    if names and ours and names != ours:
        first = next((f"{a}, should be {b}" for a, b in zip(names, ours, strict=False) if a != b), "")
        raise ValueError(f"the optimizer state is another model's: it has {printable(shortened(first))}")


def _bare(name: object) -> str:
    """A parameter's name without those of wrappers around the model."""
    bare = str(name)
    for wrapper in _WRAPPERS:
        bare = bare.replace(wrapper, "")
    return bare


def _of_old_form(state: Mapping[Any, Any], keys: Sequence[Any], parameters: Sequence[Tensor], tails: Tails) -> Any:
    """State as it once was, all of it under the first parameter, [P, ...], shared out."""
    held: Any = state.get(keys[0]) if keys else None
    sizes = [shape_of(parameter).numel() for parameter in parameters]
    whole = (
        isinstance(held, Mapping)
        and held.keys() == tails.keys()
        and all(isinstance(part, Tensor) for part in held.values())
    )
    if not whole or any(held[name].shape != (sum(sizes), *tail) for name, tail in tails.items() if tail is not None):
        return state
    shared: dict[Any, dict[str, Tensor]] = {key: {} for key in keys}
    for name, tail in tails.items():
        parts = [held[name]] * len(keys) if tail is None else held[name].split(sizes)
        for key, parameter, part in zip(keys, parameters, parts, strict=True):
            shared[key][name] = part if tail is None else part.view(*shape_of(parameter), *tail)
    return shared
