"""Presets and studies to start with, shipped, of a folder, or of a run; the lists that they are picked from; and a
run's start.

To look for them reads files: not for the console's loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tomli
from textual import work
from textual.app import App
from textual.widget import Widget

from engine.base.device import ALLOWED, NAMES
from engine.base.files import read_limited
from engine.base.settings import schema_of
from engine.jobs import spawn
from engine.presets import document as documents
from engine.presets.catalog import USUAL_ESTIMATOR, estimator_label, member_name, named_members, task_label
from engine.presets.preset import Preset, PresetSettings
from engine.runs.store import RunReader, RunStore
from engine.study.schedule import inputs
from lreg_tui.presets.preset_edit import on_disk, typed
from lreg_tui.text.present import age, clean, clean_block, setting
from lreg_tui.widgets.dialog import Field, LaunchingScreen
from lreg_tui.widgets.pick_list import Choice, PickList
from lreg_tui.widgets.threads import off_the_loop
from lreg_tui.widgets.toml_area import TomlArea

if TYPE_CHECKING:
    from lreg_tui.runs.feed import RunRow


SHIPPED = "shipped"
MOST_RUNS = 100
STUDY_TABLES = ("arm", "axes", "transfer", "search", "pick")  # one of which a study has, and no preset


@dataclass(frozen=True)
class Offer:
    """A preset or a study. `reference` is what opens it; the rest may have been written by strangers."""

    group: str
    reference: str
    name: str
    path: Path
    about: str = ""


def presets(folder: Path, rows: Sequence[RunRow]) -> Iterator[Offer]:
    """The shipped presets, those in a folder, and those of runs, the newest first."""
    for offer in _files(documents.shipped(), "quickstart", folder):
        values = _values(offer.path)
        extends = f"extends {values['extends']}" if values and "extends" in values else ""
        yield replace(offer, about="cannot be read" if values is None else str(values.get("description") or extends))
    dated = sorted(rows, key=lambda row: row.created or 0.0, reverse=True)
    for row in [row for row in dated if "edit" in row.kind.actions][:MOST_RUNS]:
        path = row.path / "preset.toml"
        yield Offer("of a run", str(path), row.name, path, f"{row.id}, {age(row.created)} ago")


def studies(folder: Path) -> Iterator[Offer]:
    """The shipped studies, small ones first, and those in a folder."""
    from engine.study.plan.sources import shipped_studies

    for offer in _files(shipped_studies(), "smoke", folder):
        values = _values(offer.path) or {}
        if offer.group == SHIPPED or any(table in values for table in STUDY_TABLES):
            yield replace(offer, about=str(values.get("description", "")))


def _files(shipped: Mapping[str, Path], first: str, folder: Path) -> Iterator[Offer]:
    """What is shipped, `first` before the rest, and the TOML files of a folder."""
    for name, path in sorted(shipped.items(), key=lambda item: (item[0] != first, item[0])):
        yield Offer(SHIPPED, name, name, path)
    for path in sorted(folder.glob("*.toml")):
        if path.name != "pyproject.toml":
            yield Offer("in this folder", str(path), path.name, path)


def _values(path: Path) -> dict[str, Any] | None:
    """A TOML file as it stands; None where it cannot be read."""
    try:
        return tomli.loads(read_limited(path, documents.LARGEST_FILE).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


class PickOfferScreen(PickList):
    HEADING: ClassVar[str]
    DEFAULT_CSS = """
    PickOfferScreen > .dialog { height: 90%; }
    PickOfferScreen OptionList { height: 1fr; max-height: 100%; }
    """

    def __init__(self, offers: Sequence[Offer]) -> None:
        self.offers = {offer.reference: offer for offer in offers}
        groups = [f"({offer.group}) " * (offer.group != SHIPPED) for offer in offers]
        choices = [Choice(o.reference, o.name, f"{group}{o.about}") for o, group in zip(offers, groups, strict=True)]
        super().__init__(self.HEADING, choices)

    @classmethod
    async def ask(cls, app: App[None], find: Callable[[], Iterable[Offer]]) -> Offer | None:
        """Let the user pick. `find` reads files."""
        screen = cls(await off_the_loop(lambda: list(find()), "offers"))
        picked = await app.push_screen_wait(screen)
        return screen.offers[picked[0]] if picked else None

    def contents(self) -> Iterable[Widget]:
        yield from super().contents()
        yield self.make_preview()

    def on_option_list_option_highlighted(self) -> None:
        if self.current is not None:
            self.preview(self.offers[self.current.value])

    def make_preview(self) -> Widget:
        """What stands below the list."""
        raise NotImplementedError

    def preview(self, offer: Offer) -> object:
        """Show what an offer is like."""
        raise NotImplementedError


class PickPresetScreen(PickOfferScreen):
    """Where there is room, the text of the highlighted preset stands below the list."""

    HEADING = "New run: which preset?"
    DEFAULT_CSS = """
    PickPresetScreen TomlArea { height: 2fr; margin-top: 1; background: $surface; }
    """

    def make_preview(self) -> TomlArea:
        area = TomlArea(read_only=True)
        area.can_focus, area.show_cursor, area.display = False, False, self.app.size.height >= 30
        return area

    @work(group="preview", exclusive=True)
    async def preview(self, offer: Offer) -> None:
        text = await off_the_loop(lambda: on_disk(offer.path), "preset")
        self.query_one(TomlArea).load_text(text if text is not None else "# cannot be read")


def launching(preset: Preset, store: RunStore, data_dir: Path | None = None, note: str = "") -> LaunchingScreen[str]:
    """Ends with the id of the run that was started, or None."""
    items = {item.name: item for item in schema_of(PresetSettings)}
    devices = ("auto", "cpu", "cuda", "cuda:0", "mps")
    fields = (
        Field("name", clean(preset.name), "what the run is called"),
        Field("seed", str(preset.seed), "meta-seed: everything random derives from it"),
        Field("device", "auto", f"{ALLOWED}; auto: the first GPU, else the CPU", devices),
    )

    def problem(values: Mapping[str, str]) -> str:
        for key in ("name", "seed"):
            if (wrong := typed(items[key], values[key])[1]) is not None:
                return str(wrong)
        name, device = values["name"], values["device"]
        if not name or len(name) > 80 or not name.isprintable():
            return f"name: found {len(name)} characters; allowed: 1 to 80 printable ones"
        return "" if NAMES.fullmatch(device) else f"device: found {device}; allowed: {ALLOWED}"

    def launch(values: Mapping[str, str]) -> str:
        return start(preset, store, values["name"], int(values["seed"]), values["device"], data_dir)

    about = clean_block(f"{summary(preset)}\n{note}".strip())
    waits_for = "its process reads the data and loads torch first"
    return LaunchingScreen("Launch", about, fields, problem, launch, waits_for)


def start(preset: Preset, store: RunStore, name: str, seed: int, device: str, data_dir: Path | None) -> str:
    """As `lreg run --detach` does it: make the run, start its process, wait until that holds it. Returns the id.

    Raises LregError with the reason. Waits for disks and processes: not for the loop.
    """
    checked = preset.with_values(name=name, seed=seed)
    inputs.check_run(checked.tasks, device, data_dir, checked["optimizer"], store.parent_of(checked))
    created = store.create(checked, argv=sys.argv, device=device, data_dir=data_dir)
    spawn.start_detached(RunReader(created.path), data_dir=data_dir)
    return created.id


def summary(preset: Preset) -> str:
    """A preset in one line: what learns what, for how long."""
    tasks = " + ".join(map(task_label, preset.tasks))
    members = named_members(preset.values)
    penalties = " + ".join(f"{member_name(path)} {setting(table['weight'])}" for path, table in members.items())
    meta = preset["meta"]
    estimator = f", {name}" if (name := estimator_label(meta)) != USUAL_ESTIMATOR else ""
    estimator += f" of {meta['pairs']} pairs" if "pairs" in meta else ""
    steps = meta["inner_steps"]
    length = f"{steps[0]} to {steps[-1]}" if isinstance(steps, tuple) else str(steps)
    return (
        f"{preset['optimizer']['kind']} on {tasks}, {penalties or 'no penalty'}{estimator}: "
        f"{meta['epochs']} meta-epochs of {length} inner steps, truncation {meta['truncation']}"
    )
