"""What is planned, under which names it is kept, and what is refused before anything is computed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from engine.base.errors import LregError, PresetError, RunError
from engine.evaluation.transfer_plan import BASELINE_NAMES, GRID, Plan, TransferSettings, make, marks_within
from engine.optimizers.baselines import BASELINES
from engine.presets.preset import from_mapping
from engine.runs.store import Run, RunReader
from engine.tasks.table import resolve

TABLES = {
    "task": {"dataset": "digits", "optimizee": "mlp", "batch_size": 16},
    "optimizer": {"kind": "simple"},
    "meta": {"inner_steps": [10, 40], "truncation": 5},
    "evaluation": {"radii": [0.01, 0.1], "examples": 50},
}


@pytest.fixture
def reader(tmp_path) -> RunReader:
    run = Run.create(tmp_path / "runs", from_mapping(TABLES))
    (run.checkpoints / "best.safetensors").write_bytes(b"")
    return RunReader(run.path)


def test_by_default_the_tasks_and_the_horizon_of_meta_training(reader):
    plan = make([reader], [], TransferSettings())
    assert [item.task_name for item in plan.evaluations()] == ["digits/mlp"]
    assert plan.protocol.inner_steps == 40 and plan.protocol.radii == (0.01, 0.1) and plan.protocol.examples == 50
    assert plan.tasks[0]["batch_size"] == 16


def test_all_is_the_papers_grid(reader):
    plan = make([reader], ["all"], TransferSettings())
    assert [item.task_name for item in plan.evaluations()] == GRID and len(GRID) == 9
    assert all(task["batch_size"] == 16 for task in plan.tasks)


def test_what_a_target_does_not_have_is_not_asked_of_it(reader):
    tables = make([reader], ["omniglot/conv4", "digits/mlp"], TransferSettings(), {"task": {"validation": 0.2}}).tasks
    assert [table["batch_size"] for table in tables] == [128, 16]
    tables = make([reader], ["omniglot/conv4"], TransferSettings()).tasks
    assert resolve(tables[0])["batch_size"] == 128


def test_settings_of_the_task_are_the_targets_own(reader):
    sizes = {"task": {"layers": 1, "length": 8, "batch_size": 4}, "evaluation": {"examples": 9}}
    plan = make([reader], ["shakespeare-excerpt/gpt"], TransferSettings(), sizes)
    (table,) = plan.tasks
    assert (table["layers"], table["length"], table["batch_size"]) == (1, 8, 4) and plan.protocol.examples == 9
    with pytest.raises(PresetError, match="^--to digits/mlp: .*task.layers"):
        make([reader], ["digits/mlp"], TransferSettings(), {"task": {"layers": 1}})
    with pytest.raises(PresetError, match="task.layers"):
        make([reader], [], TransferSettings(), {"task": {"layers": 1}})


def test_scales_controls_and_baselines_in_order(reader):
    settings = TransferSettings(scales=(2.0, 0.5), untrained=True, baselines=("sgd", "sam-adam"))
    labels = [item.label for item in make([reader], [], settings).evaluations()]
    assert labels == [
        "simple (best)",
        "simple (best) x0.5",
        "simple (best) x2",
        "simple (untrained)",
        "sgd",
        "sam-adam",
    ]


def test_a_grid_of_scale_and_weight_decay_has_the_probes_of_a_frontier_alone(reader):
    settings = TransferSettings(scales=(2.0,), weight_decays=(1e-3, 0.0, 1e-4), sam=(0.05,))
    plan = make([reader], [], settings)
    labels = ["x2", "decay 0.0001", "x2 decay 0.0001", "decay 0.001", "x2 decay 0.001", "sam 0.05"]
    assert [item.label for item in plan.evaluations()] == ["simple (best)", *(f"simple (best) {it}" for it in labels)]
    items = list(plan.evaluations())
    assert all(item.protocol == plan.protocol for item in (*items[:2], items[-1]))
    grid = items[2].protocol
    assert (grid.radii, grid.marks, grid.extended, grid.examples) == ((0.1,), (40,), False, 50)
    assert [len(group) for group in plan.groups()] == [1, 1, 4, 1]
    names = {item.file_name(item.identity("phi")) for item in items}
    assert len(names) == 7 and any(name.startswith("best-x2-decay0.001-digits-mlp-40-") for name in names)
    assert Plan.from_json(json.loads(plan.dumps())) == plan


def test_the_names_of_files_stay_what_they_were(reader):
    """Results of before are found by them; neither decay nor SAM were there then."""
    item = next(make([reader], [], TransferSettings(scales=(2.0,))).evaluations())
    assert item.identity("phi") == "dceb71db"


def test_unseen_classes_go_into_the_task(reader):
    plan = make([reader], ["digits/cnn"], TransferSettings(), {"task": {"classes": [6, 7]}})
    assert plan.tasks[0]["classes"] == (6, 7)
    own = make([reader], [], TransferSettings(), {"task": {"classes": [6, 7]}})
    assert own.tasks[0]["classes"] == (6, 7)


@pytest.mark.parametrize(
    ("steps", "marks"),
    [(1, (1,)), (20, (1, 2, 5, 10, 20)), (1000, (50, 100, 200, 500, 1000)), (700, (50, 100, 200, 500, 700))],
)
def test_marks_are_logarithmic_up_to_the_end(steps, marks):
    assert marks_within(steps) == marks


def test_wanted_marks(reader):
    assert marks_within(100, (30, 60)) == (30, 60, 100)
    with pytest.raises(PresetError, match="--marks: found 300; allowed: inner steps from 0 to 100"):
        marks_within(100, (30, 300))


def test_a_plan_survives_its_file(reader):
    settings = TransferSettings(scales=(1.0, 2.0), baselines=("adam",), marks=(3,))
    plan = make([reader], ["digits/mlp", "fmnist/cnn"], settings, {"task": {"classes": [0, 1]}})
    assert Plan.from_json(json.loads(plan.dumps())) == plan


@pytest.mark.parametrize(
    "text", ["{}", '{"runs": 3}', '{"runs": [], "optimizers": ["a"], "tasks": [], "settings": {}}']
)
def test_a_damaged_plan_is_one_clear_line(text):
    with pytest.raises(RunError, match=r"^plan.json: no plan of a transfer evaluation .*$"):
        Plan.from_json(json.loads(text))


def test_what_decides_the_figures_decides_the_name(reader):
    item = next(make([reader], [], TransferSettings()).evaluations())
    name = item.file_name(item.identity("phi"))
    assert name.startswith("best-digits-mlp-40-")
    others = [
        dataclasses.replace(item, scale=2.0).identity("phi"),
        dataclasses.replace(item, task={**item.task, "batch_size": 17}).identity("phi"),
        dataclasses.replace(item, protocol=dataclasses.replace(item.protocol, radii=(0.01,))).identity("phi"),
        item.identity("other phi"),
    ]
    assert len({item.identity("phi"), *others}) == 5
    assert item.identity("phi") == next(make([reader], [], TransferSettings(seeds=9)).evaluations()).identity("phi")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("digits", '--to: found "digits"; allowed: DATASET/OPTIMIZEE'),
        ("mnisd/mlp", "did you mean"),
        ("mnist/mpl", "did you mean"),
        ("/", "allowed: DATASET/OPTIMIZEE"),
    ],
)
def test_an_unknown_target_is_named(reader, target, message):
    with pytest.raises(PresetError) as found:
        make([reader], [target], TransferSettings())
    assert message in str(found.value) and target in str(found.value)


def test_a_run_without_a_checkpoint_is_named(reader):
    with pytest.raises(LregError, match="no checkpoint last; it has best"):
        make([reader], [], TransferSettings(checkpoint="last"))
    (reader.path / "checkpoint" / "best.safetensors").unlink()
    with pytest.raises(LregError, match="no checkpoint best; it has none"):
        make([reader], [], TransferSettings())


def test_every_baseline_can_be_asked_for():
    assert set(BASELINE_NAMES) == set(BASELINES)
