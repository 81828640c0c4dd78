"""What the console's form asks for, checked while it is typed: a plan, or what is wrong field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from engine.base.errors import LregError, Problem, RunError, SettingsError
from engine.evaluation.transfer_plan import Plan
from engine.runs.store import RunReader
from lreg_tui.presets.preset_edit import words_of
from lreg_tui.text import present
from lreg_tui.transfers import transfer_jobs, transfer_request
from lreg_tui.transfers.transfer_request import TransferRequest

FIELD_OF = {"evaluation.radii": "radii", "baseline": "baselines", "to": "targets", "set": "sets"}
FIELDS = (*TransferRequest.__dataclass_fields__, "targets", "device")


@dataclass(frozen=True)
class Checked:
    """What came out of a look at a request: its plan, and how much of it is there; or problems by field."""

    plan: Plan | None = None
    there: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> Text:
        """What there is to do, for people; empty where something is wrong."""
        if self.plan is None:
            return Text()
        plan = self.plan
        evaluations = present.count(len(list(plan.evaluations())), "evaluation")
        there = f", {self.there} of them there already" if self.there else ""
        facts = [present.count(len(plan.runs), "run"), present.count(len(plan.tasks), "task")]
        facts.append(f"{plan.settings.seeds} optimizees each, {plan.protocol.inner_steps} inner steps")
        radii = ", ".join(present.setting(radius) for radius in plan.protocol.radii)
        return Text.assemble((evaluations, "bold"), there, f": {'; '.join(facts)}; radii {radii}")


def check(readers: Sequence[RunReader], request: TransferRequest, device: str) -> Checked:
    """Plan a request, and look how much of it is there already. Reads files: not for the loop."""
    if not readers:
        return Checked(problems={"runs": "pick at least one run"})
    try:
        transfer_request.check_device(device)
        plan = transfer_request.plan(readers, request)
    except SettingsError as error:
        return Checked(problems=_by_field(error, request))
    except LregError as error:
        key = "runs" if isinstance(error, RunError) else ""
        return Checked(problems={key: str(error).splitlines()[0]})
    return Checked(plan, sum(seen is not None for _, seen in transfer_jobs.found(plan)))


def _by_field(error: SettingsError, request: TransferRequest) -> dict[str, str]:
    """Problems by the field of the form that they are about; those of no field by an empty word."""
    by_field: dict[str, str] = {}
    for problem in error.problems:
        key = _field_of(problem, request)
        words = words_of(problem) if key not in ("sets", "") else str(problem)
        by_field.setdefault(key, words if key or not problem.source else f"{problem.source}: {words}")
    return by_field


def _field_of(problem: Problem, request: TransferRequest) -> str:
    source, path = problem.source.split(" ")[0].removeprefix("--"), problem.path.removeprefix("--")
    if any(text.partition("=")[0].strip() == path for text in request.sets):
        return "sets"
    key = FIELD_OF.get(source) or FIELD_OF.get(path) or path
    return key if key in FIELDS else ""
