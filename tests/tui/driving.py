"""What the tests of the console share. Import it as `tui.driving`: tests/cli has a `driving` of its own."""

from __future__ import annotations

import asyncio
import json
import time
import unicodedata
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from textual.events import Key
from textual.keys import KEY_NAME_REPLACEMENTS
from textual.pilot import Pilot
from textual.screen import Screen

from engine.base.status import LIVE
from engine.evaluation import transfer_plan
from engine.jobs.transfer_job import TransferJob
from engine.presets.preset import from_mapping
from engine.runs import notes
from engine.runs.store import Run, RunReader, RunStore

if TYPE_CHECKING:
    from lreg_tui.app.console import LregApp

Value = TypeVar("Value")
NOBODY = 2**22 + 1  # no process has this number
NEVER_S = 3600.0
LIMIT_S = 120.0
CALM_ROUNDS = 2  # without a message: a widget may have sent one to a widget that was asked before it
PRINTABLE = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def run(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """Do what a test describes as a coroutine."""
    return asyncio.run(coroutine)


def make_run(
    root: Path,
    name: str = "tiny",
    *,
    state: str = "finished",
    step: int = 10,
    total: int = 10,
    records: Sequence[Mapping[str, Any]] | None = None,
    latest: Mapping[str, float | None] | None = None,
    age_s: float = 0.0,
    log: str = "",
    tags: Sequence[str] = (),
    pinned: bool = False,
    **tables: Any,
) -> Run:
    """A run folder in `root`, as a process leaves it. `crashed`: it says that it is running, and nobody is there.

    Of `queued`, `running` and `paused` this process is the one that ought to hold it. `tables` are the preset's.
    """
    made = Run.create(root, from_mapping({"name": name, "task": {"dataset": "digits"}, **tables}))
    made.append(curve(step) if records is None else records)
    changes: dict[str, Any] = {"state": state, "step": step, "total": total, "message": ""}
    if state == "crashed":
        changes |= {"state": "running", "pid": NOBODY, "process_started": 1.0}
    if latest is not None:
        changes["latest"] = dict(latest)
    made.set_status(**changes)
    made._close_metrics()
    if state in LIVE:
        change_json(made.path / "status.json", heartbeat=time.time() + NEVER_S)  # on a busy machine a test takes long
    if age_s:
        change_json(made.path / "run.json", created=_utc(time.time() - age_s))
    if log:
        (made.path / "log.txt").write_text(log)
    if tags or pinned:
        notes.write(made.path, notes.Notes(tags=tuple(tags), pinned=pinned))
    return made


def curve(count: int) -> list[dict[str, float]]:
    """Records of a run that gets better: the meta-loss halves every ten meta-steps."""
    return [
        {"step": step, "meta_loss": 2.0 * 0.5 ** (step / 10), "sharpness": 0.1 / (1 + step), "test_accuracy": 0.5}
        for step in range(count)
    ]


def make_job(root: Path, runs: Sequence[Run], *, state: str = "finished", step: int = 2, total: int = 4) -> Run:
    """The folder of a transfer job on some runs, which get a checkpoint (an empty one: it is not to be read)."""
    for made in runs:
        (made.path / "checkpoint" / "best.safetensors").touch()
    plan = transfer_plan.make([RunReader(made.path) for made in runs], (), transfer_plan.TransferSettings(seeds=1))
    job = TransferJob.start(root, plan)
    job.set_status(state=state, step=step, total=total, message="")
    return job


def make_store(root: Path) -> RunStore:
    """Three runs: `alpha` has finished, `beta` is running (in this process's name), `gamma` has crashed."""
    make_run(root, "alpha", age_s=7200)
    make_run(root, "beta", state="running", step=4, total=20, age_s=3600, penalty={"sam": {"weight": 1.0}})
    make_run(root, "gamma", state="crashed", step=7, total=20, age_s=60, log="loading\nout of memory\n")
    return RunStore(root)


def make_app(store: RunStore, folder: Path, **options: Any) -> LregApp:
    """The console on a store; what it remembers is kept in `folder`, not in the user's."""
    from lreg_tui.app.console import LregApp

    return LregApp(store, session_path=folder / "console.json", **options)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


async def until(pilot: Pilot[Any], condition: Callable[[], Value], limit_s: float = LIMIT_S) -> Value:
    """Let the console work until a condition holds; return what it gave."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        _check(pilot)
        assert time.monotonic() < deadline, "waited too long"
        await pilot.pause(0.01)
    return found


async def settle(pilot: Pilot[Any]) -> None:
    """Let workers end, messages arrive, and the screen be drawn."""
    await calm(pilot)
    await until(pilot, lambda: all(worker.is_finished for worker in pilot.app.workers))
    await calm(pilot)
    await until(pilot, lambda: _is_drawn(pilot.app.screen))
    await calm(pilot)


async def calm(pilot: Pilot[Any]) -> None:
    """Let messages be handled until there are no more. Textual waits for an idle processor, which takes far longer."""
    rounds, deadline = 0, time.monotonic() + LIMIT_S
    while rounds < CALM_ROUNDS:
        _check(pilot)
        assert time.monotonic() < deadline, "messages without end"
        await pilot.pause(0)
        nodes = [pilot.app, *pilot.app.screen.walk_children(with_self=True)]
        rounds = 0 if any(node.message_queue_size for node in nodes) else rounds + 1


def _is_drawn(screen: Screen[Any]) -> bool:
    """Textual draws by a timer, up to a sixtieth of a second after the messages that ask for it."""
    due = (screen._layout_required, screen._scroll_required, screen._repaint_required, screen._dirty_widgets)
    return not any(due)


def _check(pilot: Pilot[Any]) -> None:
    """Raise what has ended the console: it would keep and print one picture after another of what still comes."""
    if pilot.app._exception is not None:
        raise pilot.app._exception


class Quick(Pilot[Any]):
    """Presses keys as fast as they are handled, and waits no longer than until all is drawn."""

    async def pause(self, delay: float | None = None) -> None:
        if delay is not None:
            return await super().pause(delay)
        await calm(self)
        await until(self, lambda: _is_drawn(self.app.screen))
        await calm(self)

    async def resize_terminal(self, width: int, height: int) -> None:
        await super().resize_terminal(width, height)
        await super().pause()  # another layout comes some time after the messages that ask for it
        await until(self, lambda: self.app.screen.size == (width, height))
        await self.pause()

    async def press(self, *keys: str) -> None:
        for key in keys:
            self.app.post_message(key_event(key))
            await calm(self)


def key_event(key: str) -> Key:
    """What a terminal tells of a key: a character, or a name such as "escape" or "slash"."""
    if len(key) == 1:
        return Key(key if key.isalnum() else _name_of(key), key)
    return Key(key, next((character for character in PRINTABLE if _name_of(character) == key), None))


def _name_of(character: str) -> str:
    name = unicodedata.name(character).lower().replace("-", "_").replace(" ", "_")
    return KEY_NAME_REPLACEMENTS.get(name, name)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")


def on_dashboard(folder: Path, doing: Any, size: tuple[int, int] = (80, 24), **options: Any) -> None:
    """Do `doing(pilot, app)` in a console that has listed the three runs of a new store."""

    async def go() -> None:
        app = make_app(make_store(folder / "runs"), folder, **options)
        async with app.run_test(size=size):
            pilot = Quick(app)
            await until(pilot, lambda: len(app.feed.rows) == 3)
            await settle(pilot)
            await doing(pilot, app)

    run(go())
