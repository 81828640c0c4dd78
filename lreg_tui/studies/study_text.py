"""What the screen of a study says around its grid: how far it is, the run under the cursor, signs and colours."""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import cell_len
from rich.text import Text

from lreg_tui.studies.study_grid import RANKS, SIGNS
from lreg_tui.studies.study_rows import WINNER, GridCell, GridRow, StudyLook
from lreg_tui.studies.study_scale import Scale
from lreg_tui.text import present
from lreg_tui.text.present import clean

BAR = 24  # columns of the progress bar
ORDER = ("failed", "crashed", "running", "paused", "queued", "stopped")  # what is most urgent is cut last
LEAST_KNOWN = ("failed", "crashed", "stopped", "paused", "queued", "running", "missing")  # whose signs tell least
WORDS = {"missing": "to come"}
HELP = """Cells
A figure is the metric on validation by which winners are picked: less is better, and brighter.
· to come   ○ queued   ▸ running   = paused   ■ stopped   ✕ failed   ! crashed
★ winner of its arm   ☆ best so far"""


def head(look: StudyLook) -> Text:
    """Two lines: how far the study is, and how many of its runs are in which state."""
    row = look.row
    line = Text.assemble((clean(row.name, 60), "bold"), "  ", present.state_text(row.state), "  ")
    if look.problem:  # nothing is known of its runs
        return line.append(f"\n{clean(row.message, 300)}", "dim")
    full = round(BAR * look.progress)
    line.append("━" * full, "bold").append("─" * (BAR - full), "dim").append(f" {present.percent(look.progress, 0)}")
    if row.eta_s is not None:
        line.append(f"  ETA {present.duration(row.eta_s)}")
    line.append("\n").append(counts(look))
    if row.message and row.state not in ("running", "queued"):
        line.append(f"  {clean(row.message, 300)}", "dim")
    return line


def counts(look: StudyLook) -> str:
    """How many runs and transfers have finished, and what is with the other runs."""
    found: Mapping[str, int] = look.counts
    done = f"{found.get('finished', 0)} of {len(look.cells)} runs" + " asked for" * look.is_search
    if look.jobs:
        done += f", {sum(job.state == 'finished' for job in look.jobs)} of {len(look.jobs)} transfers"
    others = [f"{found[state]} {state}" for state in ORDER if found.get(state)]
    return "; ".join(filter(None, [done, ", ".join(others)]))


def cell(look: StudyLook, row: GridRow | None, found: GridCell | None) -> Text:
    """Two lines on the run under the cursor: which it is; and how it is, with its id as far as there is room."""
    if row is None or found is None:
        return Text()
    number = f"trial {row.number}" if row.number else ""
    where = [row.arm, number, row.point, f"seed {found.seed}"]
    line = Text.assemble(("   ".join(clean(part, 120) for part in where if part), "bold"))
    if row.rank:
        of = "winner of its arm" if row.rank == WINNER else "best of its arm so far"
        line.append(f"   {RANKS[row.rank]} {of}")
    line.append("\n").append(present.state_text(WORDS.get(found.state, found.state)))
    if found.value is not None:
        line.append(f"   {present.label(look.metric)} {present.number(found.value, 5)}")
    elif found.state not in ("missing", "queued", "finished"):
        line.append(f" {present.percent(found.done, 0)}")
    if found.eta_s is not None:
        line.append(f"   ETA {present.duration(found.eta_s)}")
    line.append(f"   {clean(found.message, 300)}" if found.message else "")
    return line.append(f"   {clean(found.run_id, 200)}", "dim")


def legend(look: StudyLook, scale: Scale | None, plain: bool, room: int) -> Text:
    """The colours of the figures, the signs in the cells, and what the figures are, if there is room for that."""
    line = Text(no_wrap=True, overflow="ellipsis", end="")
    if scale is not None:
        line.append(scale.legend(plain))
    ranks = {row.rank for row in look.rows}
    signs = [f"{sign} {rank}" for rank, sign in RANKS.items() if rank in ranks]
    signs += [f"{SIGNS[state]} {WORDS.get(state, state)}" for state in LEAST_KNOWN if look.counts.get(state)]
    line.append("   " * bool(line) + "  ".join(signs), "dim")
    metric = f"   {present.label(look.metric)}" if look.metric else ""
    return line.append(metric, "dim") if line.cell_len + cell_len(metric) <= room else line
