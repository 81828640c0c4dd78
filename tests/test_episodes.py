"""Episodes: what is drawn, what optimizees of several episodes are given, and how they are measured."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from engine.base.errors import ArgumentError, PresetError, RunError
from engine.tasks.episodes import EpisodeTask, prototype_accuracy
from engine.tasks.outside import as_task, check_task
from engine.tasks.table import build_task

CPU = torch.device("cpu")
SPLITS = ("train", "validation", "test")


def digits(dtype: torch.dtype = torch.float32, **values) -> EpisodeTask:
    task = build_task({"dataset": "digits-episodes", **values}, device=CPU, dtype=dtype)
    assert isinstance(task, EpisodeTask)
    return task


def purposes(task: EpisodeTask) -> dict[str, EpisodeTask]:
    return {"train": task, "validation": task.held_out("validation"), "test": task.held_out("test")}


def owner(task: EpisodeTask) -> dict[int, tuple[str, str]]:
    """The split and class of every image, by its position in the data."""
    return {
        position: (split, name)
        for split, classes in task.data.splits.items()
        for name, positions in classes.items()
        for position in positions.tolist()
    }


def test_a_table_becomes_a_task_of_episodes():
    task = digits(optimizee="conv4", shots=3, queries=4)
    assert task.name == "digits-episodes/conv4" and task.parameters == task.layout.size == 28_386
    assert (task.ways, task.shots, task.queries) == (2, 3, 4)
    assert [task.size(split) for split in SPLITS] == [6, 8, 8]
    assert task.facts == {**task.facts, "dataset": "digits-episodes", "optimizee": "conv4", "shots": 3, "queries": 4}
    check_task(task)
    assert task.outputs(task.init_theta(0), torch.zeros(5, 1, 8, 8)).shape == (5, 2)


def test_no_image_and_no_class_is_in_two_splits():
    task = digits()
    assert [list(task.data.splits[split]) for split in SPLITS] == [list("012345"), ["6", "7"], ["8", "9"]]
    assert sum(len(rows) for classes in task.data.splits.values() for rows in classes.values()) == 1797
    assert len(owner(task)) == 1797
    classes = owner(task)
    for split, one in purposes(task).items():
        assert {classes[position][0] for position in one.of(range(50)).episodes.flatten().tolist()} == {split}


def test_an_episode_has_its_classes_in_order_and_no_image_twice():
    task = digits(ways=2, shots=4, queries=7)
    bound, classes = task.of(range(100)), owner(task)
    for support, query in zip(bound.positions("train").tolist(), bound.positions("test").tolist(), strict=True):
        assert len({*support, *query}) == 2 * (4 + 7)
        of_labels = [{classes[p][1] for p in (*support[4 * k : 4 * k + 4], *query[7 * k : 7 * k + 7])} for k in (0, 1)]
        assert [len(names) for names in of_labels] == [1, 1] and of_labels[0] != of_labels[1]
    assert bound.labels("train").tolist() == [0] * 4 + [1] * 4
    assert bound.labels("test").tolist() == bound.labels("validation").tolist() == [0] * 7 + [1] * 7


def test_episodes_over_seeds_have_every_class_at_every_label_equally_often():
    task, classes = digits(), owner(digits())
    drawn = task.of(range(3000)).episodes[:, :, 0]
    counts = torch.zeros(2, 6)
    for label in (0, 1):
        for position in drawn[:, label].tolist():
            counts[label, int(classes[position][1])] += 1
    assert (counts - 500).abs().max() < 5 * math.sqrt(500)
    used = task.of(range(3000)).episodes.unique()
    assert len(used) == sum(map(len, task.data.splits["train"].values()))


def test_an_episode_depends_on_its_seed_alone():
    task = digits()
    before = torch.get_rng_state()
    several, alone = task.of([5, 8, 2**62]), task.of([8])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(several.episodes[1], alone.episodes[0])
    assert not torch.equal(several.episodes[0], several.episodes[1])
    assert torch.equal(several.of([5]).episodes[0], several.episodes[0])  # a bound one is bound anew
    again = build_task({"dataset": "digits-episodes"}, device=CPU).of([8])
    assert torch.equal(again.episodes, alone.episodes)


def test_held_out_tasks_are_the_same_objects_and_alike_but_for_the_classes():
    task = digits()
    test = task.held_out("test")
    assert (
        test is task.held_out("test") is task.held_out("validation").held_out("test") is task.of([1]).held_out("test")
    )
    assert test is not task and test != task.held_out("validation") and len({task, test, task.held_out("test")}) == 2
    assert test.layout is task.layout and test.name == task.name and test.facts == task.facts
    assert torch.equal(test.init_theta(3), task.init_theta(3))
    with pytest.raises(ArgumentError, match="purpose.*'validation' or 'test'"):
        task.held_out("train")


@pytest.mark.parametrize("split", SPLITS)
def test_every_inner_step_is_the_whole_set_whatever_the_seeds(split):
    task = digits(shots=3, queries=2, normalize="unit")
    bound = task.of([4, 7, 9])
    window = bound.batches([0, 0, 1], split).draw(4)
    assert len(window) == 4
    count = 2 * (3 if split == "train" else 2)
    for step in range(4):
        batch = window[step]
        assert batch.x.shape == (3, count, 1, 8, 8) and batch.y.shape == (3, count) and batch.noise.shape[2] == 0
        for row in range(3):
            pixels = task.data.images[bound.positions(split)[row]] / 255
            torch.testing.assert_close(batch.x[row], pixels)
            assert torch.equal(batch.y[row], bound.labels(split))
    unbound = task.batches([4, 7, 9], split).draw(1)[0]
    assert torch.equal(unbound.x, window[0].x) and torch.equal(unbound.y, window[0].y)
    first = bound.fixed_batch(1, split, torch.float32)
    assert torch.equal(first.x, window[0].x[0]) and torch.equal(first.y, window[0].y[0])


def test_validation_and_test_of_an_episode_are_the_same_queries():
    bound = digits().of([1, 2])
    assert torch.equal(*(bound.batches([0, 0], split).draw(1)[0].x for split in ("validation", "test")))


def test_rows_have_to_be_as_many_as_episodes():
    bound = digits().of([1, 2, 3])
    with pytest.raises(ArgumentError, match="seeds must be 3, one for each episode.*found 2"):
        bound.batches([1, 2])
    with pytest.raises(ArgumentError, match="theta must be 3.*found 1"):
        bound.metrics(bound.init_theta(0), "test")
    with pytest.raises(ArgumentError, match="bound to episodes"):
        prototype_accuracy(digits())


def test_dropout_is_drawn_for_training_and_a_restored_stream_goes_on():
    task = digits(optimizee="lenet", dropout=0.5, shots=2).of([1, 2])
    stream = task.batches([3, 4])
    whole = stream.draw(5)
    assert whole[0].noise.shape == (2, 4, 50) and not torch.equal(whole[0].noise, whole[1].noise)
    assert not torch.equal(whole[0].noise[0], whole[0].noise[1])
    state, expected = stream.state(), stream.draw(2)
    other = task.batches([8, 9])
    other.load_state(state)
    continued = other.draw(2)
    assert all(torch.equal(continued[step].noise, expected[step].noise) for step in (0, 1))
    alone = digits(optimizee="lenet", dropout=0.5, shots=2).batches([4]).draw(5)
    assert torch.equal(alone[3].noise[0], whole[3].noise[1])
    assert task.batches([3, 4], "test").draw(1)[0].noise.shape == (2, 30, 0)
    with pytest.raises(RunError, match="state has shape"):
        other.load_state(state[:1])


def test_inputs_are_standardised_by_the_training_classes():
    task = digits(dtype=torch.float64)
    training = torch.cat(list(task.data.splits["train"].values()))
    inputs = task.inputs_at(training, torch.float64)
    assert abs(inputs.mean()) < 1e-12 and abs(inputs.std(correction=0) - 1) < 1e-12
    held_out = task.inputs_at(torch.cat(list(task.data.splits["test"].values())), torch.float64)
    assert 0.01 < abs(held_out.mean()) < 1


@pytest.mark.parametrize("optimizee", ["mlp", "conv4"])
@pytest.mark.parametrize("split", SPLITS)
def test_metrics_are_of_each_episodes_own_set(optimizee, split, monkeypatch):
    monkeypatch.setattr("engine.tasks.episodes.EVALUATED_AT_ONCE", 70)  # two episodes at once, then one
    settings = {"optimizee": optimizee, "init": "uniform", "batch_norm": "transductive"}
    task = digits(**settings, dtype=torch.float64).held_out("validation")
    bound = task.of([11, 12, 13])
    theta = torch.stack([task.init_theta(seed) for seed in range(3)])
    measured = bound.metrics_of_each(theta, split)
    for row, seed in enumerate((11, 12, 13)):
        positions = task.episode(seed)[:, :1] if split == "train" else task.episode(seed)[:, 1:]
        x = task.inputs_at(positions.reshape(-1), torch.float64)
        y = torch.arange(2).repeat_interleave(positions.shape[1])
        logits = task.outputs(theta[row], x)
        torch.testing.assert_close(measured["loss"][row], F.cross_entropy(logits, y).detach())
        torch.testing.assert_close(measured["accuracy"][row], (logits.argmax(1) == y).double().mean())
        alone = task.of([seed]).metrics(theta[row], split)
        torch.testing.assert_close(alone["loss"], measured["loss"][row])
    batch = bound.batches([0, 0, 0], split).draw(1)[0]
    torch.testing.assert_close(bound.loss(theta[1], batch.of(1)).detach(), measured["loss"][1])


def by_support_statistics(task, theta, support, query):
    """conv4's logits of queries, layer by layer, each batch norm by the support set's mean and variance."""
    parameters = task.layout.split(theta)
    x, n = torch.cat([support, query]), len(support)
    for block in range(4):
        weight, bias = (parameters[f"convolutions.{block}.{name}"] for name in ("weight", "bias"))
        x = F.conv2d(x, weight, bias, padding=1)
        scale, shift = (parameters[f"norms.{block}.{name}"] for name in ("weight", "bias"))
        mean, variance = x[:n].mean((0, 2, 3)), x[:n].var((0, 2, 3), correction=0)
        x = F.batch_norm(x, mean, variance, scale, shift, eps=1e-3).relu()
        x = F.max_pool2d(x, 2) if min(x.shape[2:]) >= 2 else x
    return x[n:].flatten(1) @ parameters["output.weight"].T + parameters["output.bias"]


def test_queries_are_seen_with_the_statistics_of_the_support_set_and_the_other_way_is_measured_beside():
    running = digits(optimizee="conv4", shots=3, dtype=torch.float64).of([5, 6])
    transductive = digits(optimizee="conv4", shots=3, batch_norm="transductive", dtype=torch.float64).of([5, 6])
    theta = torch.stack([running.init_theta(seed) for seed in (0, 1)])
    measured, other = running.metrics_of_each(theta, "test"), transductive.metrics_of_each(theta, "test")
    for row in (0, 1):
        support = running.inputs_at(running.positions("train")[row], torch.float64)
        logits = by_support_statistics(
            running, theta[row], support, running.inputs_at(running.positions("test")[row], torch.float64)
        )
        targets = running.labels("test")
        torch.testing.assert_close(measured["loss"][row], F.cross_entropy(logits, targets))
        torch.testing.assert_close(measured["accuracy"][row], (logits.argmax(1) == targets).double().mean())
    torch.testing.assert_close(measured["transductive_accuracy"], other["accuracy"])
    torch.testing.assert_close(other["running_accuracy"], measured["accuracy"])
    assert not torch.equal(measured["loss"], other["loss"])
    support = running.metrics_of_each(theta, "train")
    torch.testing.assert_close(support["accuracy"], support["transductive_accuracy"])
    assert set(
        digits(optimizee="mlp").of([0]).metrics_of_each(theta[:1, : digits(optimizee="mlp").parameters], "test")
    ) == {
        "loss",
        "accuracy",
    }


def test_an_unbound_task_is_measured_on_the_episode_of_its_fixed_batch():
    task = digits()
    theta = torch.stack([task.init_theta(seed) for seed in range(2)])
    batch = task.fixed_batch(1, "test", torch.float32)
    for row in (0, 1):
        expected = task.loss(theta[row], batch).detach()
        torch.testing.assert_close(task.metrics_of_each(theta, "test")["loss"][row], expected)


def test_prototypes_are_the_nearest_class_means():
    task = digits(shots=5, queries=8, dtype=torch.float64)
    bound = task.of(range(6))
    accuracies = prototype_accuracy(bound)
    first_pixels = prototype_accuracy(bound, lambda x: x.flatten(1)[:, 10:14])
    for part, accuracy in ((slice(None), accuracies), (slice(10, 14), first_pixels)):
        for row in range(6):
            pixels = task.inputs_at(task.episode(row), torch.float64).flatten(2)[:, :, part]  # [N, K + Q, F]
            means = [pixels[label, :5].sum(0) / 5 for label in (0, 1)]
            right = 0
            for label in (0, 1):
                for query in pixels[label, 5:]:
                    distances = [float(((query - mean) ** 2).sum()) for mean in means]
                    right += distances.index(min(distances)) == label
            assert accuracy[row] == pytest.approx(right / 16)
    assert prototype_accuracy(digits().of(range(200))).mean() > 0.8  # chance is one half


def test_gradient_descent_learns_an_episode():
    task = digits(optimizee="conv4", shots=5).held_out("test").of(range(4))
    theta = torch.stack([task.init_theta(seed) for seed in range(4)])
    batch = task.batches([0] * 4).draw(1)[0]
    slope = torch.func.vmap(torch.func.grad(task.loss))
    for _ in range(30):
        theta = theta - 0.1 * slope(theta, batch)
    assert task.metrics_of_each(theta, "train")["accuracy"].min() == 1
    assert task.metrics_of_each(theta, "test")["accuracy"].mean() > 0.75


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ways": 3}, "task.ways: found 3; allowed: at most 2, the validation classes of digits-episodes"),
        ({"shots": 200}, "task.queries: found 200 shots and 15 queries; allowed: at most 174 together"),
        ({"batch_size": 16}, "task.batch_size: found 16; allowed: 128"),
        ({"validation": 0.2}, "task.validation: found 0.2; allowed: 0.1"),
        ({"classes": (1, 2)}, "task.classes: found [1, 2]; allowed: []"),
        ({"ways": 1}, "task.ways: found 1; allowed: an integer"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(values, words):
    with pytest.raises(PresetError) as caught:
        digits(**values)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_other_tasks_are_the_same_for_all_and_outside_ones_may_have_episodes_too():
    plain = build_task({}, device=CPU)
    assert plain.of([1, 2]) is plain and plain.held_out("test") is plain

    class Outside:
        """A user's own task, without the base class."""

        layout = {"w": (2,)}

        def __init__(self, target=0.0):
            self.target = target

        def init_theta(self, seed):
            return torch.zeros(2)

        def loss(self, theta, batch):
            return ((theta - batch) ** 2).sum()

        def batches(self, seeds, split):
            return iter(lambda: torch.full((len(seeds), 2), self.target), None)

    class OutsideEpisodes(Outside):
        def of(self, seeds):
            return Outside(float(seeds[0]))

        def held_out(self, purpose):
            return self if purpose == "test" else Outside(-1.0)

    same = as_task(Outside())
    assert same.of([3]) is same and same.held_out("test") is same
    episodes = as_task(OutsideEpisodes())
    assert float(episodes.of([3]).batches([3]).draw(1)[0][0, 0]) == 3
    assert episodes.held_out("test") is episodes
    assert float(episodes.held_out("validation").batches([0]).draw(1)[0][0, 0]) == -1
