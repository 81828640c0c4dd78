"""The scheduler of a study: everything is done, nothing twice, whatever is killed when."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import zygote as forking
from fakes import FakeTrainer, trained_by
from studying import STAMP, arm, job, records, study, transfers

from engine.base.control import Control
from engine.base.errors import LregError, RunError
from engine.base.status import HELD
from engine.jobs import spawn
from engine.runs.kinds import STUDY
from engine.runs.reader import RunReader
from engine.runs.store import Run, RunStore
from engine.study.plan.plan import Search, StudyAxis, StudyPlan
from engine.study.plan.snapshot import Watcher
from engine.study.plan.state import trials_of
from engine.study.schedule import executors, loop
from engine.study.schedule.attempts import BUSY, FAILED, FINISHED, LEFT, MOST_TRIES, START, Attempts
from engine.study.schedule.executors import Local
from engine.study.schedule.job import Schedule, new_stamp, set_schedule, unfinished
from engine.study.schedule.loop import StudyJob, StudyProgress
from engine.worker import work

# -- the policy: with runs that are done at once, in this process ------------------------------------------


class AtOnce:
    """An executor that does every run in this process as soon as it is started, with a trainer that is quick."""

    def __init__(self, room: int = 2, trainer=FakeTrainer, broken: tuple[str, ...] = ()) -> None:
        self.room, self.trainer, self.broken = room, trainer, broken
        self.started: list[str] = []

    def slots(self, busy):
        return ["cpu"] * self.room

    def start(self, starts):
        for reader, _ in starts:
            self.started.append(reader.id)
            fails = any(word in reader.id for word in self.broken)
            trainer = partial(self.trainer, fail_at=3) if fails else self.trainer
            try:
                work(Run(reader.path), make_runner=trained_by(trainer))
            except LregError:
                assert fails

    def pending(self):
        return set()

    def why(self, reader):
        return ""

    def stop(self, readers):
        raise AssertionError("nothing is live")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(loop, "REST_S", 0.02)


class Scheduler(StudyJob):
    """Runs of the fake trainer have nothing to report on."""

    def _report(self) -> Path:
        return self.folder / "report" / "report.md"


def schedule(started: Run, executor=None, on_look=loop.nothing, control: Control | None = None) -> str:
    return work(Run(started.path), control=control, make_runner=partial(Scheduler, executor=executor, on_look=on_look))


def states(started: Run) -> dict[str, str]:
    plan = StudyPlan.from_json(json.loads((started.path / "study.json").read_text()))
    return {cell.run.id: cell.state for cell in Watcher(plan, started.path).look().cells}


def test_every_run_is_done_once_and_never_again(tmp_path):
    plan, executor = study(), AtOnce()
    started = job(tmp_path, plan)
    assert schedule(started, executor) == "finished"
    assert len(executor.started) == 6 == len(set(executor.started))
    assert set(states(started).values()) == {"finished"}
    assert {reader.id for reader in RunStore(tmp_path).list()} == set(executor.started)
    status = RunReader(started.path).status()
    assert (status.state, status.step, status.total) == ("finished", 6, 6)
    with pytest.raises(RunError, match="is finished: nothing to resume"):
        schedule(started, AtOnce())


def test_a_failed_run_fails_its_candidate_alone_and_is_tried_again_when_asked(tmp_path):
    seen: list[StudyProgress] = []
    started = job(tmp_path, study())
    broken = AtOnce(broken=("learning_rate0.001-s1",))
    assert schedule(started, broken, on_look=seen.append) == "failed"
    assert Counter(states(started).values()) == {"finished": 5, "failed": 1}
    assert "learning_rate0.001-s1" in RunReader(started.path).status().message
    winners = seen[-1].snapshot.winners
    assert set(winners) == {"plain", "sam"}
    assert winners["sam"].point == {"meta.learning_rate": 0.01}, "the other point has lost a run"

    again = AtOnce()
    assert schedule(started, again) == "failed" and not again.started
    Schedule(devices="cpu", retry_failed=True).write(started.path)
    assert schedule(started, again) == "finished"
    assert len(again.started) == 1 and set(states(started).values()) == {"finished"}


def test_a_half_made_run_folder_is_made_anew(tmp_path):
    plan = study(seeds=(0,))
    started = job(tmp_path, plan)
    folder = tmp_path / plan.grid()[0].run_id(STAMP)
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "queued", "pid"')
    assert states(started)[folder.name] == "missing"
    assert schedule(started, AtOnce()) == "finished"
    assert RunReader(folder).facts["id"] == folder.name and RunReader(folder).preset().seed == 0


def test_a_search_notes_its_points_before_their_runs_and_goes_on_with_them(tmp_path):
    pytest.importorskip("optuna")

    class Noting(AtOnce):
        def start(self, starts):
            trials = trials_of(started.path)
            known = {cell.run.id for cell in Watcher(plan, started.path).look().cells}
            assert trials["sam"] and {reader.id for reader, _ in starts} <= known
            super().start(starts)

    rate = StudyAxis("meta.learning_rate", low=1e-4, high=1e-1)
    arms = (arm("plain"), arm("sam", rate, penalty={"sam": {}}))
    plan = study(arms=arms, seeds=(0,), search=Search(sampler="random", trials=5))
    started = job(tmp_path, plan)
    executor = Noting(room=2)
    stop_after(2, started, executor)
    before = trials_of(started.path)["sam"]
    assert 0 < len(before) < 5
    assert schedule(started, executor) == "finished"
    after = trials_of(started.path)["sam"]
    assert len(after) == 5 and after[: len(before)] == before
    assert len(executor.started) == 1 + 5 == len(set(executor.started))


def test_a_search_ends_when_a_person_has_stopped_what_it_waits_for(tmp_path):
    pytest.importorskip("optuna")
    rate = StudyAxis("meta.learning_rate", low=1e-4, high=1e-1)
    arms = (arm("plain"), arm("sam", rate, penalty={"sam": {}}))
    started = job(tmp_path, study(arms=arms, seeds=(0,), search=Search(sampler="random", trials=3)))

    class Stopping(AtOnce):
        def start(self, starts):
            super().start(starts)
            for reader in (reader for reader, _ in starts if "sam" in reader.id):
                Run(reader.path).set_status(state="stopped")  # as `lreg stop` leaves it

    assert schedule(started, Stopping()) == "stopped"
    assert "stopped by hand" in RunReader(started.path).status().message
    assert len(trials_of(started.path)["sam"]) == 1


def stop_after(runs: int, started: Run, executor: AtOnce) -> None:
    control = Control()

    def on_look(seen: StudyProgress) -> None:
        control.stop = seen.snapshot.counts["finished"] >= runs

    assert schedule(started, executor, on_look, control) == "stopped"


def test_equal_studies_are_found_again_and_others_are_told_apart(tmp_path):
    plan, store = study(), RunStore(tmp_path)
    assert unfinished(store, plan) == (None, False)
    started = job(tmp_path, plan)
    later = study(stamp=new_stamp(store))
    found, others = unfinished(store, later)
    assert found is not None and found.path == started.path and not others
    assert unfinished(store, study(seeds=(1, 2))) == (None, True)
    assert unfinished(store, study("another")) == (None, False)
    assert store.resolve(started.id).path == started.path and store.resolve(started.id).kind is STUDY
    assert schedule(started, AtOnce()) == "finished"
    assert unfinished(store, later) == (None, False)


def test_more_meta_seeds_go_on_with_the_runs_that_there_are(tmp_path):
    store, first = RunStore(tmp_path), AtOnce()
    started = job(tmp_path, study(seeds=(0, 1)))
    assert schedule(started, first) == "finished"
    more = study(seeds=(0, 1, 2), stamp=new_stamp(store))
    begun, _ = unfinished(store, more)
    assert begun is not None and begun.path == started.path
    second = AtOnce()
    assert schedule(loop.take_up(store, more, begun, Schedule(), None), second) == "finished"
    assert len(second.started) == len(first.started) // 2 and not set(first.started) & set(second.started)
    assert len(store.list()) == len(first.started) + len(second.started)
    assert unfinished(store, study(seeds=(0, 1))) == (None, False) == unfinished(store, more)


def test_a_second_scheduler_says_who_has_the_study(tmp_path):
    started = job(tmp_path, study())
    with Run(started.path), pytest.raises(RunError, match=f"is being written by process {os.getpid()} on host"):
        schedule(started, AtOnce())


def test_the_schedule_of_a_study_that_is_at_work_is_left_alone(tmp_path):
    """Else it would be resumed, one day, by the schedule of somebody who was refused."""
    started = job(tmp_path, study(), jobs=3)
    other = Run(started.path)
    with Run(started.path), pytest.raises(RunError, match=f"is being written by process {os.getpid()} on host"):
        set_schedule(other, Schedule(jobs=7))
    assert Schedule.of(started.path).jobs == 3
    set_schedule(other, Schedule(jobs=7))
    assert Schedule.of(started.path).jobs == 7


def test_whoever_goes_on_takes_as_many_threads_as_the_first(tmp_path, monkeypatch):
    """Sums are rounded otherwise on more threads: the same study would end with other figures on another machine."""
    monkeypatch.setattr(executors, "cores", lambda: 6)
    started = job(tmp_path, study())
    at_once = Control()
    at_once.stop = True
    assert schedule(started, control=at_once) == "stopped"
    assert Schedule.of(started.path).threads == 3
    monkeypatch.setattr(executors, "cores", lambda: 64)
    set_schedule(started, Schedule(devices="cpu", jobs=2, retry_failed=True))
    noted = Schedule.of(started.path)
    assert (noted.threads, noted.retry_failed) == (3, True)
    assert loop.executor_of(noted, started.path, [], None).threads == 3
    set_schedule(started, Schedule(devices="cpu", threads=8))
    assert Schedule.of(started.path).threads == 8, "as it is asked for"


# -- what is tried again ------------------------------------------


def run_in(tmp_path: Path, state: str, step: int = 0, pid: int = 0) -> RunReader:
    path = tmp_path / f"{state}-{step}"
    path.mkdir(exist_ok=True)
    status = {"state": state, "step": step, "pid": pid, "heartbeat": time.time()}
    (path / "status.json").write_text(json.dumps(status))
    return RunReader(path)


def test_what_a_person_stops_meanwhile_is_left_alone_and_what_was_stopped_before_goes_on(tmp_path):
    before = run_in(tmp_path, "stopped", 1)
    tried = Attempts()
    assert tried.verdict(before, "stopped", ()) == START
    meanwhile = run_in(tmp_path, "stopped", 2)
    assert tried.verdict(meanwhile, "stopped", ()) == LEFT
    assert tried.verdict(meanwhile, "stopped", {meanwhile.path}) == BUSY, "somebody goes on with it"
    asked_by_the_last_scheduler = Attempts(forgiven=[meanwhile.path])
    meanwhile = run_in(tmp_path, "stopped", 2)
    assert asked_by_the_last_scheduler.verdict(meanwhile, "stopped", ()) == START


def test_a_run_that_crashes_where_it_stands_is_given_up_and_one_that_gets_further_is_not(tmp_path):
    tried, run = Attempts(), run_in(tmp_path, "crashed", 5)
    for _ in range(MOST_TRIES):
        assert tried.verdict(run, "crashed", ()) == START
        tried.started(run)
    assert tried.verdict(run, "crashed", ()) == FAILED and "3 times at step 5" in tried.reasons[run.path]
    tried = Attempts()
    for step in range(2 * MOST_TRIES):
        (run.path / "status.json").write_text(json.dumps({"state": "running", "step": step}))
        assert tried.verdict(run, "crashed", ()) == START
        tried.started(run)


def test_what_has_ended_stays_so(tmp_path):
    failed = run_in(tmp_path, "failed")
    assert Attempts().verdict(failed, "failed", ()) == FAILED
    again = Attempts(retry_failed=True)
    assert again.verdict(failed, "failed", ()) == START
    assert again.verdict(run_in(tmp_path, "failed"), "failed", ()) == FAILED, "once is enough"
    assert again.verdict(run_in(tmp_path, "finished"), "finished", ()) == FINISHED
    mine, other = run_in(tmp_path, "queued", 1, os.getpid()), run_in(tmp_path, "queued", 2, os.getppid())
    assert again.verdict(mine, "queued", ()) == START and again.verdict(mine, "queued", {mine.path}) == BUSY
    assert again.verdict(other, "queued", ()) == BUSY


@pytest.mark.parametrize(("state", "verdict"), [("failed", FAILED), ("stopped", LEFT)])
def test_the_clock_of_a_runs_host_may_be_behind(tmp_path, state, verdict):
    """Else what fails at once would be started again for as long as the clocks differ."""
    run = run_in(tmp_path, state)
    tried = Attempts(retry_failed=True)
    for minutes, expected in ((9, START), (8, verdict)):
        (run.path / "status.json").write_text(json.dumps({"state": state, "heartbeat": time.time() - 60 * minutes}))
        assert tried.verdict(run, state, ()) == expected
        tried.started(run)


# -- slots ------------------------------------------


def busy_on(tmp_path: Path, *devices: str, memory_bytes: float | None = 1.0) -> list[RunReader]:
    readers = []
    for number, device in enumerate(devices):
        path = tmp_path / f"busy-{number}"
        path.mkdir(exist_ok=True)
        status = {"state": "running", "pid": os.getpid(), "device": device, "latest": {"memory_bytes": memory_bytes}}
        (path / "status.json").write_text(json.dumps(status))
        readers.append(RunReader(path))
    return readers


def test_free_devices_are_filled_evenly(tmp_path):
    local = Local(["cuda:0", "cuda:1"], jobs=4)
    assert local.slots(busy_on(tmp_path, "cuda:0", "cuda:0")) == ["cuda:1", "cuda:1"]
    assert sorted(local.slots([])) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"], "by now it is known how large one is"
    assert Local(["cpu"], jobs=1).slots(busy_on(tmp_path, "cpu")) == []


def test_no_run_is_started_that_memory_has_no_room_for(tmp_path, monkeypatch):
    readers = busy_on(tmp_path, "cpu")
    mine = executors.resident(os.getpid())
    monkeypatch.setattr(executors, "free_memory", lambda: int(0.8 * mine))
    assert Local(["cpu"], jobs=8).slots(readers) == []
    monkeypatch.setattr(executors, "free_memory", lambda: int(2.5 * mine))
    local = Local(["cpu"], jobs=8)
    assert len(local.slots(readers)) == 2
    assert len(local.slots([])) == 2, "with none busy, as many as fit, and not all eight"
    monkeypatch.setattr(executors, "free_memory", lambda: 0)
    assert len(local.slots([])) == 1, "one at a time goes always"
    monkeypatch.setattr(executors, "free_memory", lambda: 50 * mine)
    assert len(Local(["cpu"], jobs=8).slots(busy_on(tmp_path, "cpu", memory_bytes=20 * mine))) == 1, "as it has said"
    assert len(Local(["cuda:0"], jobs=8).slots(busy_on(tmp_path, "cuda:0", memory_bytes=20 * mine))) == 7, "of the GPU"


def test_the_first_run_is_alone_until_it_has_said_how_large_it_is(tmp_path, monkeypatch):
    """Eight at once would fill the memory before any of them could be looked at."""
    sleeping = subprocess.Popen(["sleep", "600"])
    monkeypatch.setattr(executors.spawn, "start_worker", lambda *_, **__: sleeping)
    (tmp_path / "told").mkdir()
    told = busy_on(tmp_path / "told", "cpu")
    (silent,) = busy_on(tmp_path, "cpu", memory_bytes=None)
    try:
        local = Local(["cpu"], jobs=8)
        assert local.slots([]) == ["cpu"]
        local.start([(silent, "cpu")])
        assert local.slots([silent]) == []
        assert len(local.slots(told)) == 7 == len(local.slots([silent]))
        late = Local(["cpu"], jobs=8)
        late.start([(silent, "cpu")])
        assert late.slots([silent]) == []
        monkeypatch.setattr(executors, "SETTLE_S", 0.0)  # a transfer, or a first step that takes minutes
        assert len(late.slots([silent])) == 7
    finally:
        sleeping.kill()
        sleeping.wait()


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/outer/inner", {"outer/memory.max": 1000, "outer/memory.current": 700, "outer/inner/memory.max": "max"}),
        ("0::/of/the/host", {"memory.max": 1000, "memory.current": 700}),
        (
            "4:cpu,memory:/inner",
            {"memory/inner/memory.limit_in_bytes": 1000, "memory/inner/memory.usage_in_bytes": 700},
        ),
    ],
)
def test_a_containers_memory_limit_counts(tmp_path, monkeypatch, line, files):
    own = tmp_path / "self-cgroup"
    own.write_text(f"9:name=systemd:/\n{line}\n")
    monkeypatch.setattr(executors, "OWN_CGROUPS", own)
    monkeypatch.setattr(executors, "CGROUPS", tmp_path)
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert executors.free_memory() == 300
    limited = (tmp_path / next(iter(files))).parent
    (limited / "memory.stat").write_text("anon 600\ninactive_file 50\ntotal_inactive_file 50\n")
    assert executors.free_memory() == 350, "files in the cache make room"


def test_by_default_as_many_as_the_cores_keep_busy(monkeypatch):
    monkeypatch.setattr(executors, "cores", lambda: 8)
    assert executors.local("cpu", 0, 0, [{"threads": 0}], None).jobs == 8 // executors.THREADS
    assert executors.local("cpu", 0, 0, [{"threads": 1}], None).jobs == 8
    four = executors.local("cpu", 0, 4, [{"threads": 1}], None)
    assert (four.jobs, four.threads) == (2, 4)
    assert executors.local("cpu", 3, 0, [], None).threads == 2


# -- the real thing: workers of their own, killed at random ------------------------------------------


def real_plan() -> StudyPlan:
    """Runs of a second or two, so that there is something to kill on a fast machine, too."""
    rates = {"plain": 1e-3, "fast": 1e-2}
    arms = tuple(
        arm(name, meta={"epochs": 30, "learning_rate": rate}, evaluation={"every": 15}) for name, rate in rates.items()
    )
    return study("real", seeds=(0,), arms=arms, transfer=transfers(baselines=("sgd",)))


def outcome(store: Path) -> dict[str, object]:
    """What a study has left in its run store, without what depends on the clock."""
    found: dict[str, object] = {}
    for reader in RunStore(store).list():
        found[reader.id] = records(reader.path)
        for name, evaluation in reader.transfers().items():
            found[f"{reader.id}/{name}"] = {key: value for key, value in evaluation.items() if key != "created"}
    found["jobs"] = [(reader.id, reader.state) for reader in RunStore(store).transfers()]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, zygote) -> dict[str, object]:
    """What the study leaves that nothing happens to."""
    store = tmp_path_factory.mktemp("undisturbed")
    started = job(store, real_plan())
    with forking.in_use(zygote):
        assert schedule(started) == "finished"
    return outcome(store)


def test_a_study_ends_with_its_transfers(undisturbed):
    runs = {name: found for name, found in undisturbed.items() if name != "jobs"}
    by_arm = Counter(name.split("/")[0].split("-")[3] for name in runs if "/" in name)
    assert by_arm == {"plain": 2, "fast": 1}, "the reference arm is told of the baseline, too"
    assert [state for _, state in undisturbed["jobs"]] == ["finished"] * 3
    assert len([name for name in runs if "/" not in name]) == 2


@pytest.mark.parametrize("seed", [0])
def test_killed_over_and_over_it_ends_with_the_same_results(tmp_path, undisturbed, forked, seed):
    chance = random.Random(seed)
    started = job(tmp_path, real_plan())
    reader = RunReader(started.path)
    ran, killed = 0, 0
    while reader.state != "finished" and ran < 20 and (ran < 4 or killed < 3):
        ran += 1
        scheduler = spawn.start_worker(reader)
        enough = written(tmp_path) + chance.randint(0, 3_000)  # bytes of metrics: some ten records
        while scheduler.poll() is None and written(tmp_path) < enough:
            time.sleep(0.01)
        scheduler.kill()
        scheduler.wait()
        if chance.random() < 0.8:
            killed += kill_workers(tmp_path)
    assert killed > 2, "else this is no test"
    if reader.state != "finished":
        assert schedule(started) == "finished"
    assert outcome(tmp_path) == undisturbed


def written(store: Path) -> int:
    """Bytes that the runs of a store have recorded."""
    return sum(path.stat().st_size for path in store.glob("*/metrics.jsonl"))


def kill_workers(store: Path) -> int:
    """kill -9 to whatever holds a run of the store; how many there were."""
    readers = [*RunStore(store).list(), *RunStore(store).transfers()]
    alive = [status for reader in readers if (status := reader.status()).state in HELD]
    for status in alive:
        os.kill(status.pid, signal.SIGKILL)
    return len(alive)


def test_an_abort_waits_for_no_worker_but_leaves_none_that_was_not_asked(tmp_path, forked):
    arms = (arm("long", meta={"epochs": 4000}), arm("other", meta={"epochs": 4001}))
    started = job(tmp_path, study("long", seeds=(0,), arms=arms, reference="long"))

    def on_look(seen: StudyProgress) -> None:
        if min(cell.run.recorded_status().step for cell in seen.snapshot.cells) > 0:
            raise KeyboardInterrupt  # as a second Ctrl-C does, just after the first

    with pytest.raises(KeyboardInterrupt):
        schedule(started, on_look=on_look)
    readers, deadline = RunStore(tmp_path).list(), time.monotonic() + 240
    while any(reader.is_held for reader in readers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [reader.state for reader in readers] == ["stopped", "stopped"]


def test_the_environment_gives_a_worker_its_share_of_the_cores():
    assert spawn.environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_look_again_costs_no_look_at_what_has_finished(tmp_path):
    plan = study(seeds=(0,))
    started = job(tmp_path, plan)
    assert schedule(started, AtOnce()) == "finished"
    watcher = Watcher(plan, started.path)
    first = watcher.look()
    for reader in RunStore(tmp_path).list():
        (reader.path / "status.json").unlink()
        (reader.path / "metrics.jsonl").unlink()
    again = watcher.look()
    assert [cell.value for cell in again.cells] == [cell.value for cell in first.cells]
    assert again.counts == {"finished": 3} and first.cells[0].value is not None
