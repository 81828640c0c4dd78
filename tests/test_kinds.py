"""Kinds of jobs: what a folder is of, also where version 0.1 wrote it, or a version that is still to come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeTrainer, trained_by
from studying import TINY, study

from engine import worker
from engine.base.errors import RunError
from engine.evaluation import transfer_plan
from engine.jobs.transfer_job import TransferJob
from engine.presets.preset import from_mapping
from engine.runs.kinds import KINDS, RUN, STUDY, TRANSFER, JobKind
from engine.runs.store import Run, RunReader, RunStore
from engine.study.schedule.loop import StudyJob
from engine.worker import RUNNERS, runner_of, work


@pytest.fixture
def store(tmp_path) -> RunStore:
    """A run, a transfer job and a study, with nothing but what version 0.1 wrote."""
    made = Run.create(tmp_path, from_mapping(TINY))
    (made.checkpoints / "best.safetensors").touch()
    plan = transfer_plan.make([RunReader(made.path)], (), transfer_plan.TransferSettings(seeds=1))
    rewrite(made.path, kind=None)
    rewrite(TransferJob.start(tmp_path, plan).path)
    rewrite(StudyJob.start(tmp_path, study()).path)
    return RunStore(tmp_path)


def rewrite(path: Path, **changes: object) -> None:
    """Change keys of a folder's run.json; None takes one away."""
    facts = {**json.loads((path / "run.json").read_text()), **changes}
    (path / "run.json").write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))


def folders(store: RunStore) -> list[tuple[RunReader, JobKind]]:
    (run,), (transfer,), (of_many,) = store.list(), store.transfers(), store.studies()
    return [(run, RUN), (transfer, TRANSFER), (of_many, STUDY)]


@pytest.mark.parametrize("says_kind", [True, False])
def test_folders_of_the_first_version_are_what_they_were(store, says_kind):
    for reader, kind in folders(store):
        if not says_kind:
            rewrite(reader.path, kind=None)
        assert reader.kind is kind and store.resolve(reader.id).path == reader.path
        assert runner_of(reader).choices(reader) and runner_of(reader).tasks(reader)
        with Run(reader.path) as held:
            assert held.kind is kind and held.status.state == "running"


def test_a_run_of_the_first_version_is_trained(store):
    ((reader, _), *_) = folders(store)
    assert work(Run(reader.path), make_runner=trained_by(FakeTrainer)) == "finished"


def test_every_kind_has_what_does_it():
    assert [runner.kind for runner in RUNNERS.values()] == list(RUNNERS) == list(KINDS.values())


def test_a_kind_of_a_newer_version_is_looked_at_and_refused_in_one_line(tmp_path, capsys):
    made = Run.create(tmp_path, from_mapping(TINY))
    rewrite(made.path, kind="search\x1b[31m")
    before = sorted(path.name for path in made.path.iterdir())
    (reader,) = RunStore(tmp_path).list()
    assert reader.status().state == "queued" and not reader.kind.actions
    with pytest.raises(RunError) as refused, Run(reader.path):
        pass
    assert 'of kind "search' in str(refused.value) and str(refused.value).isprintable()
    with pytest.raises(RunError, match="does not know"):
        runner_of(reader)
    assert worker.main([str(reader.path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in made.path.iterdir()) == before
