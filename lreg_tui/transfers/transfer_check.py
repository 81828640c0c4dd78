"""What the console's form asks for, checked while it is typed: a plan, or what is wrong field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from engine.base.errors import LregError, Problem, RunError, SettingsError
from engine.evaluation.transfer_plan import Plan
from engine.runs.store import RunReader
from lreg_tui.text import present
from lreg_tui.transfers import transfer_files, transfer_request
from lreg_tui.transfers.transfer_request import TransferRequest

FIELD_OF = {"evaluation.radii": "radii", "baseline": "baselines", "to": "targets", "set": "sets"}
FIELDS = (*TransferRequest.__dataclass_fields__, "targets", "device")


@dataclass(frozen=True)
class Asked:
    """What the form said at one moment."""

    run_ids: tuple[str, ...]
    request: TransferRequest
    device: str


@dataclass(frozen=True)
class Checked:
    """What came out of a look at a request: its plan, and how much of it is there; or problems by field."""

    asked: Asked
    plan: Plan | None = None
    there: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> Text:
        """What there is to do, for people; empty where something is wrong."""
        if self.plan is None:
            return Text()
        plan = self.plan
        items = list(plan.evaluations())
        count = f"{len(items)} evaluation{'s' if len(items) > 1 else ''}"
        there = f", {self.there} of them there already" if self.there else ""
        facts = [f"{len(plan.runs)} run{'s' if len(plan.runs) > 1 else ''}"]
        facts.append(f"{len(plan.tasks)} task{'s' if len(plan.tasks) > 1 else ''}")
        facts.append(f"{plan.settings.seeds} optimizees each, {plan.protocol.inner_steps} inner steps")
        radii = ", ".join(present.setting(radius) for radius in plan.protocol.radii)
        return Text.assemble((count, "bold"), there, f": {'; '.join(facts)}; radii {radii}")


def check(asked: Asked, readers: Sequence[RunReader]) -> Checked:
    """Plan a request, and look how much of it is there already."""
    if not readers:
        return Checked(asked, problems={"runs": "pick at least one run"})
    try:
        transfer_request.check_device(asked.device)
        plan = transfer_request.plan(readers, asked.request)
    except SettingsError as error:
        return Checked(asked, problems=_by_field(error, asked.request))
    except LregError as error:
        key = "runs" if isinstance(error, RunError) else ""
        return Checked(asked, problems={key: str(error).splitlines()[0]})
    there = sum(seen is not None for _, seen in transfer_files.found(plan))
    return Checked(asked, plan, there)


def _by_field(error: SettingsError, request: TransferRequest) -> dict[str, str]:
    """Problems by the field of the form that they are about; those of no field by an empty word."""
    found: dict[str, str] = {}
    for problem in error.problems:
        key = _field_of(problem, request)
        words = f"found {problem.found}; allowed: {problem.allowed}" + (f" ({problem.hint})" if problem.hint else "")
        if key in ("sets", ""):
            words = f"{problem.path}: {words}" if problem.path else words
        found.setdefault(key, words if key else f"{problem.source}: {words}".removeprefix(": "))
    return found


def _field_of(problem: Problem, request: TransferRequest) -> str:
    source, path = problem.source.split(" ")[0].removeprefix("--"), problem.path.removeprefix("--")
    if any(text.partition("=")[0].strip() == path for text in request.sets):
        return "sets"
    key = FIELD_OF.get(source) or FIELD_OF.get(path) or path
    return key if key in FIELDS else ""
