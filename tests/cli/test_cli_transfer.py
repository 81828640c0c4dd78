"""`lreg transfer` as a user calls it: results, reuse, interruption, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from driving import TINY, completed, eventually

from engine.presets.preset import load_preset
from engine.runs.store import Run, RunReader, RunStore
from engine.worker import train

SMALL = ("--radii", "0.05", "--set", "evaluation.examples=40")
MARKED = ("--steps", "10", "--marks", "5", "--seeds", "2", *SMALL)
FEW_FIGURES = ("--set", "evaluation.extended=false")
QUICK = ("--steps", "10", "--seeds", "2", *SMALL, *FEW_FIGURES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The run store of a run that has finished."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY)
    train(load_preset(str(folder / "tiny.toml"), ["evaluation.final_optimizees=0"]), folder / "runs", "cpu")
    return folder / "runs"


@pytest.fixture
def run(trained, home) -> RunReader:
    shutil.copytree(trained, home / "runs")
    return RunStore(home / "runs").resolve("last")


def test_a_run_on_drawn_tasks_is_evaluated_on_held_out_draws_the_same_ones_for_every_seed(lreg, home):
    draws = ["task.activation=['sigmoid', 'relu']", "task.hidden=[3, 9]", "evaluation.final_optimizees=0"]
    draws += ["meta.epochs=1"]
    (home / "tiny.toml").write_text(TINY)
    tasks = []
    for seed in ("0", "1"):
        sets = [word for text in draws for word in ("--set", text)]
        assert lreg("run", "tiny.toml", "--seed", seed, *sets).code == 0
        outcome = lreg("transfer", "last", "--steps", "2", "--seeds", "1", *SMALL, *FEW_FIGURES, "--json")
        assert outcome.code == 0
        tasks.append([line["task"] for line in outcome.lines])
    assert tasks[0] == tasks[1] and 2 <= len(tasks[0]) == len(set(map(str, tasks[0]))) <= 5
    assert all(3 <= task["hidden"][0] <= 9 and len(task["hidden"]) == 1 for task in tasks[0])
    refused = lreg("transfer", "last", "--to", "digits/mlp", "--set", "task.batch_size=[8, 16]")
    assert refused.code == 2
    assert "--to digits/mlp: task.batch_size: found [8, 16]; allowed: one value" in refused.err


def files(reader: RunReader) -> dict[str, dict]:
    return {name: found for name, found in reader.transfers().items() if not name.startswith("result-")}


def test_json_prints_what_is_saved(lreg, run):
    outcome = lreg("transfer", "last", *MARKED, "--json")
    assert outcome.code == 0
    (line,) = outcome.lines
    (saved,) = files(run).values()
    assert line == saved
    assert line["run"] == run.id and line["optimizer"] == "simple" and line["checkpoint"] == "best"
    assert line["task"] == {"dataset": "digits", "optimizee": "mlp", "batch_size": 16} and line["scale"] == 1.0
    assert [seed["seed"] for seed in line["seeds"]] == [0, 1]
    marks = line["seeds"][0]["marks"]
    assert [mark["inner_step"] for mark in marks] == [5, 10]
    last = marks[-1]
    for name in ("sharpness", "max_grad_norm", "surrogate_gap", "r1", "sharpness_linf", "max_grad_norm_linf"):
        assert list(last[name]) == ["0.05"] and last[name]["0.05"] is not None
    assert last["sharpness"]["0.05"] <= last["r1"]["0.05"] * (1 + 1e-9)
    assert last["trace"] is not None and line["seeds"][0]["mean_update_norm"] > 0


def test_what_is_there_is_not_measured_again_and_more_seeds_are_added(lreg, run):
    first = lreg("transfer", "last", *QUICK, "--json").lines[0]
    again = lreg("transfer", "last", *QUICK, "--json").lines[0]
    assert again == first
    more = lreg("transfer", "last", *QUICK, "--seeds", "3", "--json").lines[0]
    assert more["seeds"][:2] == first["seeds"] and len(more["seeds"]) == 3
    assert len(files(run)) == 1
    fewer = lreg("transfer", "last", *QUICK, "--json").lines[0]
    assert fewer["seeds"] == first["seeds"] and len(next(iter(files(run).values()))["seeds"]) == 3


def test_scales_keep_the_best_one_with_the_run(lreg, run):
    import engine

    outcome = lreg("transfer", "last", *QUICK, "--scales", "0.5,2", "--json")
    losses = {
        line["scale"]: sum(seed["marks"][-1]["validation_loss"] for seed in line["seeds"]) for line in outcome.lines
    }
    assert set(losses) == {1.0, 0.5, 2.0}
    best = min(losses, key=losses.get)
    assert run.best_scale()["scale"] == best
    import torch

    model = torch.nn.Linear(3, 2)
    assert engine.load_optimizer(run.path, model.parameters(), scale="best").param_groups[0]["scale"] == best


def test_a_grid_of_scale_and_weight_decay_and_sam_are_kept_as_facts_and_gone_on_with(lreg, run, home, monkeypatch):
    from engine.evaluation import optimizer_source

    grid = ("--scales", "0.5", "--weight-decays", "0,1e-3,1e-2", "--sam", "0.05")
    measured, evaluate_each = [], optimizer_source.evaluate_each

    def counted(*arguments, changes, **settings):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(changes)
        return evaluate_each(*arguments, changes=changes, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(optimizer_source, "evaluate_each", counted)
        assert lreg("transfer", "last", *MARKED, *grid).code == 130
    assert len(files(run)) == 2
    (job,) = RunStore(home / "runs").transfers()
    outcome = lreg("resume", job.id, "--json")
    points = [(line["scale"], line["weight_decay"], line["sam"]) for line in outcome.lines]
    decayed = [(scale, decay, 0.0) for decay in (1e-3, 1e-2) for scale in (1.0, 0.5)]
    assert points == [(1.0, 0.0, 0.0), (0.5, 0.0, 0.0), *decayed, (1.0, 0.0, 0.05)]
    assert [line["passes_per_step"] for line in outcome.lines] == [1] * 6 + [2]
    last = [line["seeds"][0]["marks"] for line in outcome.lines]
    assert [len(marks) for marks in last] == [2, 2, 1, 1, 1, 1, 2], "the points of a grid are measured at the end alone"
    norms = [marks[-1]["parameter_norm"] for marks in last]
    assert norms[0] > norms[2] > norms[4] and len(files(run)) == 7
    assert set(last[2][0]) >= {"train_loss", "test_loss", "top_eigenvalue", "sharpness", "adaptive_sharpness"}
    assert run.best_scale()["validation_loss"].keys() == {"0.5", "1"}, "chosen without decay"


@pytest.mark.parametrize(("option", "value"), [("--weight-decays", "2"), ("--weight-decays", "-1"), ("--sam", "0")])
def test_a_decay_or_a_radius_that_makes_no_sense_is_named(lreg, run, option, value):
    outcome = lreg("transfer", "last", f"{option}={value}")
    assert outcome.code == 2 and f"{option}: found" in outcome.err and "allowed" in outcome.err


def test_the_scale_of_another_checkpoint_is_not_the_runs(lreg, run):
    assert lreg("transfer", "last", *QUICK, "--checkpoint", "last", "--scales", "0.5,2").code == 0
    assert run.best_scale() == {}


def test_the_scale_has_to_be_chosen_first(run):
    import torch

    import engine

    with pytest.raises(engine.RunError, match="has no scale chosen on validation yet: lreg transfer"):
        engine.load_optimizer(run.path, torch.nn.Linear(3, 2).parameters(), scale="best")


def test_controls_and_cached_baselines(lreg, run, home):
    outcome = lreg("transfer", "last", *QUICK, "--untrained", "--baseline", "sgd", "--json")
    labels = [line["label"] for line in outcome.lines]
    assert labels == ["simple (best)", "simple (untrained)", "sgd"]
    sgd = outcome.lines[-1]
    assert sgd["run"] is None and sgd["learning_rate"] > 0 and sgd["passes_per_step"] == 1
    assert "rate" in lreg("transfer", "last", *QUICK, "--baseline", "sgd").out
    assert "rate" not in lreg("transfer", "last", *QUICK).out, "a column for those who have one"
    assert lreg("run", "tiny.toml", "--seed", "1", "--set", "evaluation.final_optimizees=0").code == 0
    other = lreg("transfer", "last", *QUICK, "--baseline", "sgd", "--json").lines[-1]
    assert other == sgd, "the second comparison does not pay again"
    assert sgd in files(RunStore(home / "runs").resolve("last")).values(), "every run's folder is complete"


def test_the_untrained_control_needs_no_file(lreg, run):
    (run.path / "checkpoint" / "initial.safetensors").unlink()
    outcome = lreg("transfer", "last", *QUICK, "--untrained", "--json")
    assert [line["label"] for line in outcome.lines] == ["simple (best)", "simple (untrained)"]


def test_the_time_that_is_left_is_told_while_a_baseline_is_tuned(lreg, run, monkeypatch):
    told: list[tuple[str, float | None]] = []
    progress = Run.progress

    def tell(job: Run, step: int, total: int, eta_s: float | None) -> None:
        told.append((job.status.message, eta_s))
        progress(job, step, total, eta_s)

    monkeypatch.setattr(Run, "progress", tell)
    assert lreg("transfer", "last", "--steps", "50", *QUICK[2:], "--baseline", "sgd").code == 0
    tuning = [eta_s for message, eta_s in told if "learning rate on validation, 100%" in message]
    assert tuning and tuning[0] is not None and tuning[0] > 0


def test_settings_that_were_chosen_are_kept_when_the_evaluation_is_interrupted(lreg, run, home, monkeypatch):
    from engine.evaluation import optimizer_source

    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimizer_source, "evaluate_baseline", interrupted)
        assert lreg("transfer", "last", *QUICK, "--baseline", "sgd").code == 130
    (job,) = RunStore(home / "runs").transfers()
    with monkeypatch.context() as patch:
        patch.setattr(optimizer_source, "tune", interrupted)
        outcome = lreg("resume", job.id, "--json")
    assert outcome.code == 0
    sgd = outcome.lines[-1]
    assert sgd["learning_rate"] > 0 and sgd["at_edge"] is not None and len(sgd["seeds"]) == 2
    assert not list((job.path / "partial").iterdir())


def test_a_run_store_that_was_moved_can_be_gone_on_with(lreg, run, home, monkeypatch):
    from engine.evaluation import optimizer_source

    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optimizer_source, "evaluate_each", interrupted)
        assert lreg("transfer", "last", *QUICK).code == 130
    (home / "runs").rename(home / "moved")
    (job,) = RunStore(home / "moved").transfers()
    assert lreg("resume", str(job.path)).code == 0
    assert files(RunReader(home / "moved" / run.id))


def test_a_table_for_every_task(lreg, run):
    outcome = lreg("transfer", "last", *QUICK, "--to", "digits/mlp", "--to", "digits/mlp-relu")
    rows = [line for line in outcome.out.splitlines() if line.startswith("simple (best)")]
    assert outcome.code == 0 and "digits/mlp-relu" in outcome.out and len(rows) == 2
    assert "lreg compare" in outcome.out


def test_unseen_classes(lreg, run):
    line = lreg("transfer", "last", *QUICK, "--set", "task.classes=[8, 9]", "--json").lines[0]
    assert line["task"]["classes"] == [8, 9]
    assert line["seeds"][0]["curve"]["train_loss"][0] == pytest.approx(0.693, abs=0.1)  # two classes


def test_a_damaged_file_is_measured_again_with_one_line(lreg, run):
    first = lreg("transfer", "last", *QUICK, "--json").lines[0]
    (name,) = files(run)
    path = run.path / "transfer" / f"{name}.json"
    path.write_text(path.read_text()[:200])
    outcome = lreg("transfer", "last", *QUICK, "--json")
    assert outcome.code == 0 and outcome.err.count("damaged; measured again") == 1 and str(path) in outcome.err
    assert outcome.lines[0]["seeds"] == first["seeds"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "digits"), 'error: --to: found "digits"; allowed: DATASET/OPTIMIZEE, as "fmnist/cnn", or all'),
        (("--to", "digits/resnet"), "error: --to digits/resnet: task.optimizee"),
        (("--steps", "many"), 'error: --steps: found "many"; allowed: '),
        (("--seeds", "0"), "error: --seeds: found 0; allowed: "),
        (("--marks", "5000"), "error: --marks: found 5000; allowed: inner steps from 0 to "),
        (("--scales", "1,-1"), "error: --scales: found"),
        (("--radii", "0.1,x"), "error: evaluation.radii"),
        (("--baseline", "sdg"), "error: --baseline: found"),
        (("--checkpoint", "worst"), "error: --checkpoint: found"),
        (("--set", "meta.epochs=3"), "error: --set: meta: found"),
        (("--set", "task.clases=[1]"), "task.clases"),
        (("--to", "mnist/mlp", "--data-dir", "nowhere"), "mnist"),
    ],
)
def test_bad_input_is_one_line(lreg, run, monkeypatch, arguments, message):
    outcome = lreg("transfer", "last", *arguments)
    assert outcome.code == 2 and message in outcome.err and outcome.out == ""
    assert "Traceback" not in outcome.err and len(outcome.err.splitlines()) == 1
    assert not files(run)


def test_a_run_without_a_checkpoint(lreg, run):
    (run.path / "checkpoint" / "best.safetensors").unlink()
    outcome = lreg("transfer", "last", *QUICK)
    assert outcome.code == 2 and "no checkpoint best; it has initial" in outcome.err.replace("last, ", "")
    outcome = lreg("transfer", "last", *QUICK, "--checkpoint", "last")
    assert outcome.code == 0


def test_interrupted_and_resumed(lreg, lreg_forked, run, home):
    """Ctrl-C ends with 130; what was complete stays, and the rest is measured after a resume."""
    arguments = ("--to", "digits/mlp", "--to", "digits/mlp-relu", "--seeds", "2", *SMALL, *FEW_FIGURES)
    whole = [
        json.dumps(line["seeds"]) for line in lreg("transfer", "last", *arguments, "--steps", "400", "--json").lines
    ]
    for path in (run.path / "transfer").glob("best-*"):
        path.unlink()
    process = lreg_forked("transfer", "last", *arguments, "--steps", "400")
    eventually(lambda: files(run))
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 130
    done = len(files(run))
    (job,) = [reader for reader in RunStore(home / "runs").transfers() if reader.state == "stopped"]
    outcome = lreg("resume", job.id, "--json")
    assert outcome.code == 0 and done == 1
    assert [json.dumps(line["seeds"]) for line in outcome.lines] == whole


def test_detached_it_can_be_watched_and_stopped(forked, lreg, run, home):
    started = lreg("transfer", "last", "--steps", "200000", "--seeds", "2", "--detach")
    job = started.out.strip()
    assert started.code == 0
    eventually(lambda: "inner step" in lreg("watch", "--help").out or True)
    (reader,) = RunStore(home / "runs").transfers()
    eventually(lambda: "inner step" in reader.status().message)
    assert "digits/mlp" in reader.status().message
    assert lreg("pause", job).code == 0 and reader.state == "paused"
    assert lreg("continue", job).code == 0
    assert lreg("stop", job).code == 0 and reader.state == "stopped"
    assert "transfer" not in json.dumps([line["id"] for line in lreg("runs", "--json").lines])
    assert RunStore(home / "runs").resolve("last").id == run.id


def test_the_command_for_more_names_runs_that_it_finds(lreg, run, home):
    (home / "else where").mkdir()
    moved = run.path.rename(home / "else where" / run.id)
    outcome = lreg("transfer", "else where/" + run.id, *QUICK)
    assert f"lreg compare '{moved}'" in outcome.out
    (job,) = RunStore(home / "runs").transfers()
    assert f"lreg compare '{moved}'" in lreg("watch", job.id).out


def test_a_file_with_nothing_measured_in_it_is_measured_again(lreg, run):
    lreg("transfer", "last", *QUICK)
    (path,) = (run.path / "transfer").glob("best-*")
    saved = json.loads(path.read_text())
    for change in ({"task": None}, {"seeds": [{**saved["seeds"][0], "marks": []}]}):
        path.write_text(json.dumps({**saved, **change}))
        outcome = lreg("transfer", "last", *QUICK)
        assert outcome.code == 0 and "damaged; measured again" in outcome.err
        assert json.loads(path.read_text())["seeds"] == saved["seeds"]


def test_a_run_that_is_gone_is_said_to_be_and_not_made_anew(lreg, run, home, monkeypatch):
    from engine.evaluation import optimizer_source, transfer

    def deleted(*arguments, **settings):
        shutil.rmtree(run.path)
        return transfer.evaluate_each(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(optimizer_source, "evaluate_each", deleted)
        outcome = lreg("transfer", "last", *QUICK)
    assert outcome.code == 1 and "No such file or directory; what was measured is untouched" in outcome.err
    assert not run.path.exists()
    (job,) = RunStore(home / "runs").transfers()
    outcome = lreg("resume", job.id)
    assert outcome.code == 2 and f"error: {run.path}: no such run any more" in outcome.err
    assert f"transfer {job.id}: failed" in lreg("runs").err, "it can be resumed where the run is brought back"


def test_a_run_that_cannot_be_written_is_found_out_at_once(lreg, run, monkeypatch):
    from engine.evaluation import optimizer_source
    from engine.jobs import transfer_job

    monkeypatch.setattr(transfer_job.os, "access", lambda path, mode: False)  # nothing is forbidden to root
    monkeypatch.setattr(optimizer_source, "evaluate_each", None)
    outcome = lreg("transfer", "last", *QUICK)
    assert outcome.code == 2 and f"error: {run.path}" in outcome.err and "results are kept there" in outcome.err


def test_an_abort_speaks_of_measurements_not_of_checkpoints(lreg, run, home, monkeypatch):
    from engine.evaluation import optimizer_source

    def aborted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(optimizer_source, "evaluate_each", aborted)
    assert lreg("transfer", "last", *QUICK).code == 130
    (job,) = RunStore(home / "runs").transfers()
    assert job.status().message == "aborted; what was measured stays"


def test_completion_knows_jobs_where_they_can_be_used(lreg, run, home):
    lreg("transfer", "last", *QUICK)
    (job,) = RunStore(home / "runs").transfers()
    assert completed("lreg watch ") == ["last", run.id, job.id]
    assert completed("lreg transfer ") == ["last", run.id, "lreg:flat-1"]
    assert completed("lreg transfer last --baseline sgd") == ["sgd", "sgdm"]


def test_what_comes_with_lreg_is_evaluated_like_a_run(lreg, home):
    outcome = lreg("transfer", "lreg:flat-1", "--to", "digits/mlp", *QUICK, "--json")
    assert outcome.code == 0
    (line,) = outcome.lines
    assert (line["run"], line["optimizer"], line["scale"]) == ("lreg-flat-1", "lin", 1.0)
    (table,) = lreg("compare", "lreg:flat-1", "--json").lines
    assert "lreg-flat-1" in json.dumps(table)
    assert lreg("export", "lreg:flat-1", "--to", "safetensors").code == 0
    assert [row["id"] for row in lreg("runs", "--json").lines] == ["lreg-flat-1"]
    for command in ("transfer", "compare"):
        refused = lreg(command, "lreg:flat-7")
        assert refused.code == 2 and refused.err.count("\n") == 1 and "there are: lreg:flat-1" in refused.err
    assert completed("lreg transfer lreg:") == completed("lreg compare lreg:") == ["lreg:flat-1"]
    assert not completed("lreg stop lreg:")  # nothing that is at work
