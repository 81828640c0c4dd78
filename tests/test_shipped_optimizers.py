"""The learned optimizers that come with lreg: named in `load_optimizer`, in the wheel, and fit for a first use."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest
import tomli
import torch
from torch import nn

from engine.base.errors import RunError
from engine.bench import outside
from engine.export.optimizer import load_exported
from engine.export.shipped import FOLDER, PREFIX, file_of, run_of, shipped_optimizers
from engine.export.torch_optim import load_optimizer
from engine.presets.preset import from_mapping, load_preset
from engine.runs.store import RunStore

ROOT = Path(__file__).parents[1]

each_shipped = pytest.mark.parametrize("name", shipped_optimizers())


def test_there_is_the_one_of_the_readme():
    assert "lreg:flat-1" in shipped_optimizers()


@each_shipped
def test_it_is_an_export_of_less_than_a_megabyte_made_with_the_preset_of_its_name(name):
    path = Path(file_of(name))
    assert path.stat().st_size < 1_000_000
    _, _, facts = load_exported(path)
    made_with, preset = from_mapping(tomli.loads(facts["preset"])), load_preset(name.removeprefix(PREFIX))
    assert made_with.decisive(("name", "seed")) == preset.decisive(("name", "seed"))


def test_the_wheel_takes_the_files_along():
    build = tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    inside = [path.relative_to(ROOT) for path in FOLDER.glob("*.safetensors")]
    assert inside and all(path.parts[0] in build["packages"] for path in inside)
    ignored = (ROOT / ".gitignore").read_text().split()  # what git ignores, hatch leaves out
    assert not [path for path in inside if any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored)]


def test_an_unknown_name_is_one_line_that_lists_what_there_is():
    with pytest.raises(RunError, match=r"^lreg:flat-7: no shipped .* lreg:flat-1") as caught:
        load_optimizer("lreg:flat-7", nn.Linear(2, 2).parameters())
    assert "\n" not in str(caught.value)
    for odd in ("lreg:", "lreg:../shipped/flat-1", "lreg:flat-1.safetensors"):
        with pytest.raises(RunError, match="no shipped learned optimizer"):
            file_of(odd)


def spirals() -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes that wind about each other, [400, 2]."""
    generator = torch.Generator().manual_seed(0)
    angle = 6 * torch.rand(400, generator=generator)
    side = torch.arange(400) % 2
    x = torch.stack([angle.cos(), angle.sin()], 1) * (angle[:, None] + 0.5) * (2 * side[:, None] - 1) / 3
    return x, side


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    x, y = spirals()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("horizon", [300, None])
@each_shipped
def test_it_trains_an_unseen_network_to_a_tenth_of_its_first_loss(name, horizon):
    model = network()
    losses = train(model, load_optimizer(name, model.named_parameters(), horizon=horizon), 300)
    assert max(losses) < 2 * losses[0] and losses[-1] < losses[0] / 10


@each_shipped
def test_training_goes_on_from_its_state_bit_for_bit(name):
    model, resumed = network(), network()
    optimizer = load_optimizer(name, model.named_parameters(), horizon=60)
    train(model, optimizer, 20)
    resumed.load_state_dict(model.state_dict())
    other = load_optimizer(name, resumed.named_parameters(), horizon=60)
    other.load_state_dict(optimizer.state_dict())
    assert train(model, optimizer, 20) == train(resumed, other, 20)


@each_shipped
def test_its_run_folder_holds_the_same_optimizer_and_is_made_once(name, tmp_path):
    run = run_of(name, RunStore(tmp_path))
    written = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert run_of(name, RunStore(tmp_path)).path == run.path
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == written
    model, other = network(), network()
    losses = train(model, load_optimizer(name, model.named_parameters(), horizon=60), 60)
    again = train(other, load_optimizer(run, other.named_parameters(), horizon=60), 60)
    assert again == pytest.approx(losses, rel=1e-3)


@each_shipped
def test_a_run_folder_whose_making_was_broken_off_is_completed(name, tmp_path):
    run = run_of(name, RunStore(tmp_path))
    run.checkpoints()["best"].unlink()
    (run.path / "status.json").unlink()
    assert "best" in run_of(name, RunStore(tmp_path)).checkpoints() and run.state == "finished"


# -- the table of outside tasks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", outside.TASKS, ids=lambda task: task.name)
def test_outside_tasks_can_be_learned(task):
    adam = train_outside(task, 40)
    assert adam["train"] < adam["start"] and adam == train_outside(task, 40)


def train_outside(task, steps: int) -> dict[str, float]:
    return outside.train(task, lambda model: torch.optim.Adam(model.parameters(), lr=3e-3), 0, steps)


def test_the_table_says_where_training_diverged_and_what_is_lowest():
    def runs(*losses: float) -> list[dict[str, float]]:
        return [{"start": 2.0, "train": loss, "test": loss} for loss in losses]

    row = {("a", "train"): runs(1.0, 1.1, 0.9), ("b", "train"): runs(0.5, float("nan"), 3.0)}
    table = outside.table({"task": row}, "train")
    assert table.splitlines()[-1] == "| task | **1 ± 0.2** | diverged 2/3 |"


def test_trainings_are_done_once(tmp_path):
    task, path = outside.TASKS[0], tmp_path / "results.jsonl"
    made = []

    def make(model: nn.Module) -> torch.optim.Optimizer:
        made.append(model)
        return torch.optim.SGD(model.parameters(), lr=1e9)  # breaks after a few steps: quick

    first = outside.Results(path).get(task, "sgd", 0, make)
    again = outside.Results(path).get(task, "sgd", 0, make)
    assert len(made) == 1 and len(path.read_text().splitlines()) == 1 and str(first) == str(again)
