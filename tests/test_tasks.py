"""Tasks: splits, streams of batches, the loss and what is measured over a whole split."""

import math
import os
from pathlib import Path

import pytest
import torch
from stand_ins import BY_FILES, put_digits_in_their_place
from torch.func import grad, grad_and_value, vmap
from torch.nn import functional as F

from engine.base.errors import DataError, PresetError, RunError
from engine.base.flat import gradients_and_losses
from engine.tasks import supervised
from engine.tasks.base import Task
from engine.tasks.datasets.base import DATASETS, RawData
from engine.tasks.optimizees import resnet18
from engine.tasks.optimizees.base import OPTIMIZEES
from engine.tasks.supervised import ExampleBatch
from engine.tasks.table import build_task, resolve

CPU = torch.device("cpu")


def task(**values) -> Task:
    return build_task(values, device=CPU)


@pytest.fixture
def synthetic(monkeypatch, tmp_path):
    """Tasks on random pictures in place of the datasets that need files."""

    def read(self, folder):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (60, *self.input_shape), dtype=torch.uint8, generator=generator)
        labels = torch.arange(60) % self.classes
        return RawData(images[:40], labels[:40], images[40:], labels[40:])

    for name in ("mnist", "fmnist", "cifar10", "cifar100"):
        monkeypatch.setattr(DATASETS[name], "read", read)
    return lambda **values: build_task(values, device=CPU, data_dir=tmp_path)


def batches(stream, steps) -> list[ExampleBatch]:
    window = stream.draw(steps)
    return [window[j] for j in range(len(window))]


def equal(one: ExampleBatch, other: ExampleBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_task_knows_its_name_and_sizes():
    digits = task()
    assert digits.name == "digits/mlp" and digits.parameters == 1_510
    assert (digits.dataset.classes, digits.dataset.input_shape, digits.batch_size) == (10, (1, 8, 8), 128)
    assert [digits.size(split) for split in ("train", "validation", "test")] == [1350, 150, 297]
    assert digits.values["normalize"] == "standard" and digits.values["hidden"] == (20,)


def test_settings_reach_the_dataset_and_the_optimizee():
    digits = task(optimizee="lenet", dropout=0.5, normalize="unit", batch_size=5)
    window = digits.batches([0, 1]).draw(2)
    assert window[0].x.min() == 0 and window[0].x.max() == 1
    assert window[0].noise.shape == (2, 5, 50)


@pytest.mark.parametrize(
    "values, path, found, allowed",
    [
        ({"dataset": "digit"}, "task.dataset", '"digit"', "did you mean digits?"),
        ({"optimizee": "mpl"}, "task.optimizee", '"mpl"', "one of: autoencoder, bow"),
        ({"batch_size": 0}, "task.batch_size", "0", ">= 1"),
        ({"validation": 0.0}, "task.validation", "0.0", "> 0"),
        ({"validation": 0.0001}, "task.validation", "no validation examples", "every split"),
        ({"classes": (3, 10)}, "task.classes", "[3, 10]", "0 to 9"),
        ({"classes": (3,)}, "task.classes", "[3]", "two or more"),
        ({"classes": (3, 3)}, "task.classes", "[3, 3]", "different"),
        ({"dropout": 0.1}, "task.dropout", "an unknown key", "hidden"),
        ({"augment": True}, "task.augment", "an unknown key", "normalize"),
    ],
)
def test_bad_settings_are_one_line_with_path_found_and_allowed(values, path, found, allowed):
    with pytest.raises(PresetError) as caught:
        task(**values)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    assert found in text and allowed in text


def test_missing_data_is_a_data_error(tmp_path):
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    with pytest.raises(DataError, match="cifar100"):
        build_task({"dataset": "cifar100"}, device=CPU, data_dir=blocked)


def test_a_dataset_is_read_once(synthetic, monkeypatch):
    first = synthetic(dataset="cifar10")
    monkeypatch.setattr(DATASETS["cifar10"], "read", lambda *_: pytest.fail("read again"))
    second = synthetic(dataset="cifar10", optimizee="cnn", augment=True)
    assert second.examples["train"].x.data_ptr() == first.examples["train"].x.data_ptr()


def test_splits_are_disjoint_complete_and_the_same_for_every_run():
    one, other = task(), task(optimizee="cnn", validation=0.3)
    train, validation = one.examples["train"].order, one.examples["validation"].order
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(1500))
    assert torch.equal(other.examples["train"].order, train[:1050])  # a larger held-out part takes from the end
    assert sorted(one.examples["test"].order.tolist()) == list(range(297))
    drawn = one.batches([0]).draw(50).indices.unique()
    assert not torch.isin(drawn, validation).any() and torch.isin(drawn, train).all()
    assert torch.isin(one.batches([0], "validation").draw(50).indices, validation).all()


def test_class_subsets_are_renumbered_in_their_order():
    subset = task(classes=(7, 2, 4), validation=0.5)
    assert subset.outputs(subset.init_theta(0), torch.zeros(1, 1, 8, 8)).shape == (1, 3)
    raw = DATASETS.create("digits").read(Path())
    batch = subset.fixed_batch(10_000)
    kept = raw.train_targets[subset.examples["train"].order]
    assert batch.y.tolist() == [{7: 0, 2: 1, 4: 2}[label] for label in kept.tolist()]
    assert set(batch.y.tolist()) == {0, 1, 2}
    assert subset.size("test") == int(torch.isin(raw.test_targets, torch.tensor([7, 2, 4])).sum())


def test_a_stream_gives_examples_with_their_own_labels():
    digits = task(batch_size=6)
    raw = DATASETS.create("digits").read(Path())
    window = digits.batches([3, 4]).draw(2)
    batch = window[1]
    assert batch.x.shape == (2, 6, 1, 8, 8) and batch.y.shape == (2, 6) and batch.noise.shape == (2, 6, 0)
    expected = DATASETS.create("digits").to_input(raw.train_inputs[window.indices[1]], torch.float32)
    assert torch.equal(batch.x, expected) and torch.equal(batch.y, raw.train_targets[window.indices[1]])
    assert equal(batch.of(1), ExampleBatch(batch.x[1], batch.y[1], batch.noise[1]))


def test_sampling_is_uniform_over_the_split():
    digits = task()
    counts = torch.bincount(digits.batches([0]).draw(1000).indices.flatten(), minlength=1500)
    counts = counts[digits.examples["train"].order].double()  # mean 94.8, standard deviation 9.7
    assert 90 < counts.var() < 100 and counts.min() > 45 and counts.max() < 145


def test_a_batch_may_be_larger_than_its_split():
    assert task(batch_size=400, validation=0.01).batches([0], "validation").draw(1)[0].x.shape[1] == 400


@pytest.mark.parametrize("settings", [{}, {"optimizee": "lenet", "dropout": 0.5}])
def test_an_optimizee_gets_the_same_batches_whatever_the_others_are(settings):
    digits = task(batch_size=4, **settings)
    alone, among = batches(digits.batches([8]), 3), batches(digits.batches([5, 8, 9]), 3)
    assert all(equal(one.of(0), other.of(1)) for one, other in zip(alone, among, strict=True))
    assert not torch.equal(among[0].x[0], among[0].x[1])
    assert not torch.equal(among[0].x[0], among[1].x[0])


@pytest.mark.parametrize("settings", [{}, {"optimizee": "lenet", "dropout": 0.5}])
def test_drawing_in_pieces_changes_nothing(settings):
    digits = task(batch_size=4, **settings)
    whole = batches(digits.batches([1, 2]), 7)
    stream = digits.batches([1, 2])
    assert all(equal(a, b) for a, b in zip(whole, batches(stream, 3) + batches(stream, 4), strict=True))


def test_a_restored_stream_continues_exactly():
    digits = task(batch_size=4)
    stream = digits.batches([1, 2])
    stream.draw(3)
    state = stream.state()
    assert state.dtype == torch.uint8 and len(state) == 2
    expected = batches(stream, 5)
    other = digits.batches([7, 8])
    other.load_state(state)
    assert all(equal(a, b) for a, b in zip(expected, batches(other, 5), strict=True))
    with pytest.raises(RunError, match="state has shape"):
        other.load_state(state[:1])


def test_training_batches_alone_are_augmented(synthetic):
    plain = synthetic(dataset="cifar10", batch_size=30)
    augmented = synthetic(dataset="cifar10", batch_size=30, augment=True)
    pictures = plain.fixed_batch(40, dtype=torch.float32).x.flatten(1)
    assert torch.equal(augmented.fixed_batch(40, dtype=torch.float32).x.flatten(1), pictures)

    def known(batch, among):
        return (batch.x[0].flatten(1)[:, None] == among).all(-1).any(-1).float().mean()

    assert known(plain.batches([0]).draw(1)[0], pictures) == 1
    assert known(augmented.batches([0]).draw(1)[0], pictures) < 0.5  # a crop in the middle, unflipped: 1 in 162
    held_out = plain.fixed_batch(40, "validation", torch.float32).x.flatten(1)
    assert known(augmented.batches([0], "validation").draw(1)[0], held_out) == 1


def test_dropout_noise_is_for_training_batches_only():
    digits = task(optimizee="lenet", dropout=0.5, batch_size=64)
    noise = digits.batches([0]).draw(20)[3].noise
    assert noise.dtype == torch.float32 and noise.min() >= 0 and noise.max() < 1 and abs(noise.mean() - 0.5) < 0.03
    assert digits.batches([0], "validation").draw(1)[0].noise.shape == (1, 64, 0)
    assert digits.fixed_batch(3).noise.shape == (3, 0)


def test_loss_is_the_mean_cross_entropy():
    digits = task(optimizee="mlp-relu", init="uniform")
    theta, batch = digits.init_theta(0), digits.batches([0]).draw(1)[0].of(0)
    logits = digits.outputs(theta, batch.x)
    expected = -torch.stack([logits[d].log_softmax(0)[batch.y[d]] for d in range(128)]).mean()
    torch.testing.assert_close(digits.loss(theta, batch), expected)


def test_loss_follows_the_dtype_of_theta():
    digits = task(optimizee="lenet", dropout=0.5)
    batch = digits.batches([0]).draw(1)[0].of(0)
    assert digits.loss(digits.init_theta(0), batch).dtype == torch.float32
    assert digits.loss(digits.init_theta(0).double(), batch).dtype == torch.float64
    assert build_task({}, device=CPU, dtype=torch.float64).batches([0]).draw(1)[0].x.dtype == torch.float64


OF_NUMBERS = [name for name in OPTIMIZEES.names() if OPTIMIZEES[name].form == "numbers" and name != "resnet18"]


@pytest.mark.parametrize(
    ("optimizee", "dataset"), [(name, ("digits", "mnist", "cifar10")[k % 3]) for k, name in enumerate(OF_NUMBERS)]
)
def test_vmap_of_the_loss_equals_a_loop(dataset, optimizee, synthetic):
    check_vmap(synthetic(dataset=dataset, optimizee=optimizee, batch_size=3))


@pytest.mark.parametrize("settings", [{"optimizee": "lenet", "dropout": 0.5}, {"optimizee": "resnet18"}])
def test_vmap_of_the_loss_equals_a_loop_with_dropout_and_batch_norm(settings, monkeypatch):
    monkeypatch.setattr(resnet18, "STAGES", ((8, 1), (16, 2), (24, 2)))
    check_vmap(task(batch_size=3, **settings))


def check_vmap(any_task: Task) -> None:
    theta = torch.stack([any_task.init_theta(seed) for seed in range(2)]).double()
    batch = any_task.batches([0, 1]).draw(1)[0]
    gradient, loss = vmap(grad_and_value(any_task.loss))(theta, batch)
    for k in range(2):
        expected_gradient, expected = grad_and_value(any_task.loss)(theta[k], batch.of(k))
        torch.testing.assert_close(loss[k], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradient[k], expected_gradient, rtol=1e-7, atol=1e-10)
    for members in (slice(0, 1), slice(0, 2)):
        some = ExampleBatch(*(part[members] for part in batch))
        fast_gradient, fast_loss = gradients_and_losses(any_task.loss, theta[members], some)
        assert not fast_loss.requires_grad and not fast_gradient.requires_grad
        torch.testing.assert_close(fast_loss, loss[members], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(fast_gradient, gradient[members], rtol=1e-7, atol=1e-10)


def test_one_diverged_optimizee_does_not_touch_the_others():
    digits = task()
    theta = torch.stack([digits.init_theta(0), digits.init_theta(1) * float("nan")])
    batch = digits.batches([0, 1]).draw(1)[0]
    gradient, loss = gradients_and_losses(digits.loss, theta, batch)
    assert loss[1].isnan() and torch.allclose(gradient[0], grad(digits.loss)(theta[0], batch.of(0)))


def test_init_theta_is_a_function_of_the_seed():
    digits = task()
    assert torch.equal(digits.init_theta(3), digits.init_theta(3))
    assert not torch.equal(digits.init_theta(3), digits.init_theta(4))
    assert digits.init_theta(3).dtype == torch.float32


@pytest.mark.parametrize("optimizee", ["mlp", "cnn"])
def test_metrics_are_of_a_whole_split(optimizee, monkeypatch):
    digits = task(optimizee=optimizee, init="uniform")
    theta = torch.stack([digits.init_theta(seed) for seed in range(3)])
    batch = digits.fixed_batch(10_000, "test", torch.float32)
    assert len(batch.y) == 297
    for chunk in (1000, 50):
        monkeypatch.setattr(supervised, "EVALUATED_AT_ONCE", chunk)
        loss, accuracy = digits.metrics_of_each(theta, "test").values()
        assert loss.shape == accuracy.shape == (3,) and not loss.requires_grad
        for k in range(3):
            logits = digits.outputs(theta[k], batch.x)
            torch.testing.assert_close(loss[k], F.cross_entropy(logits, batch.y))
            torch.testing.assert_close(accuracy[k], (logits.argmax(1) == batch.y).float().mean())


def test_metrics_take_batch_norm_statistics_from_each_chunk(monkeypatch):
    """Chunks are of equal size (here 9 or 10 of 29), so that no chunk is too small for statistics."""
    digits = task(optimizee="resnet18", validation=0.02, batch_size=2)
    theta = digits.init_theta(0)[None]
    batch = digits.fixed_batch(10_000, "validation", torch.float32)
    monkeypatch.setattr(supervised, "EVALUATED_AT_ONCE", 14)
    loss = digits.metrics_of_each(theta, "validation")["loss"]
    chunks = torch.arange(len(batch.y)).tensor_split(3)
    each = [F.cross_entropy(digits.outputs(theta[0], batch.x[c]), batch.y[c], reduction="sum") for c in chunks]
    torch.testing.assert_close(loss[0], (sum(each) / len(batch.y)).detach(), rtol=1e-4, atol=1e-5)


def test_metrics_are_without_dropout():
    with_dropout, without = task(optimizee="lenet", dropout=0.5), task(optimizee="lenet")
    theta = without.init_theta(0)[None]
    assert torch.equal(*(one.metrics_of_each(theta, "test")["loss"] for one in (with_dropout, without)))


def test_fixed_batch_is_the_beginning_of_the_split():
    digits = task()
    batch = digits.fixed_batch(20)
    assert batch.x.dtype == torch.float64 and batch.x.shape == (20, 1, 8, 8)
    longer = digits.fixed_batch(10_000)
    assert len(longer.x) == 1350 and torch.equal(longer.x[:20], batch.x) and torch.equal(longer.y[:20], batch.y)


def test_building_a_task_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    task(optimizee="cnn").batches([0]).draw(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradient_descent_learns_the_digits():
    """Plain descent on the sigmoid MLP passes 85% in 200 steps; chance is 10%."""
    digits = task(init="uniform")
    theta = digits.init_theta(0)[None]
    window = digits.batches([0]).draw(200)
    for j in range(len(window)):
        theta = theta - 1.0 * gradients_and_losses(digits.loss, theta, window[j])[0]
    assert digits.metrics(theta[0], "test")["accuracy"] > 0.85


def test_resolve_fills_in_every_default():
    assert resolve({"dataset": "cifar10", "augment": True})["augment"] is True
    assert resolve({"optimizee": "mlp-xh"})["hidden"] == (32,)


@pytest.mark.parametrize("dataset", BY_FILES)
def test_tasks_on_digits_in_the_shape_of_every_dataset(dataset, monkeypatch):
    """An untrained network knows nothing: every class is as likely as any other."""
    put_digits_in_their_place(monkeypatch)
    stand_in = task(dataset=dataset, optimizee="mlp")
    assert [stand_in.size(split) for split in ("train", "validation", "test")] == [1350, 150, 297]
    assert (stand_in.dataset.classes, stand_in.dataset.input_shape) == (
        DATASETS[dataset].classes,
        DATASETS[dataset].input_shape,
    )
    loss, accuracy = stand_in.metrics(stand_in.init_theta(0), "test").values()
    assert abs(loss - math.log(stand_in.dataset.classes)) < 0.05 and accuracy < 0.25


@pytest.mark.data
@pytest.mark.parametrize("dataset, size", [("mnist", 54_000), ("fmnist", 54_000), ("cifar10", 45_000)])
def test_tasks_on_real_data(dataset, size):
    folder = os.environ.get("LREG_DATA_DIR", "")
    if not folder:
        pytest.skip("LREG_DATA_DIR is not set")
    try:
        real = task(dataset=dataset, optimizee="mlp")
    except DataError as error:
        pytest.skip(str(error))
    assert real.size("train") == size and real.size("test") == 10_000
    loss, accuracy = real.metrics(real.init_theta(0), "test").values()
    assert abs(loss - 2.303) < 0.05 and accuracy < 0.2
