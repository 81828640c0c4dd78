"""Options that are given twice: lists add up; of a single value nobody knows which one is meant."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from engine.base.errors import Problem, SettingsError


class SingleValueCommand(TyperCommand):
    """A command that refuses an option that has one value where it is given more than once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises SettingsError."""
        rest = super().parse_args(ctx, list(args))
        order = [] if ctx.resilient_parsing else self.make_parser(ctx).parse_args(list(args))[2]
        repeated = [param for param in dict.fromkeys(order) if order.count(param) > 1 and _is_single(param)]
        if repeated:
            problems = [Problem(max(p.opts, key=len), f"it {order.count(p)} times", "once") for p in repeated]
            raise SettingsError(problems)
        return rest


def _is_single(param: Any) -> bool:
    """True for an option with one value, or for a choice of two flags; one flag may be given again."""
    if param.param_type_name != "option" or param.multiple:
        return False
    return bool(param.secondary_opts) or not param.is_flag
