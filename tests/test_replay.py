"""Replays give the numbers of the function itself, bit for bit, and what cannot be recorded stays as it is."""

import pytest
import torch

from engine.base.flat import LARGE_INPUTS, gradients_and_losses
from engine.base.replay import COMPARED, SMALL, WORTH_WHILE, _recordings, replayed
from engine.meta_training.penalty_terms import geometric_penalty_at
from engine.penalties.sam import GSAM
from engine.tasks.criteria import CrossEntropy
from engine.tasks.supervised import SupervisedTask
from engine.tasks.table import build_task

CALLS = WORTH_WHILE + COMPARED + 3


class Owner:
    recordable = True


def inputs(number: int, size: int = 5) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("optimizees", [1, 3])
def test_the_gradients_of_a_long_training_are_those_of_plain_autograd(optimizees: int) -> None:
    task = build_task({"dataset": "digits", "optimizee": "mlp", "batch_size": 16}, device="cpu")
    theta = torch.stack([task.init_theta(seed) for seed in range(optimizees)])
    stream = task.batches(range(optimizees))
    for _ in range(CALLS):
        batch = stream.draw(1)[0]
        gradients, losses = gradients_and_losses(task.loss, theta, batch)
        for row in range(optimizees):
            point = theta[row].clone().requires_grad_()
            loss = task.loss(point, batch.of(row))
            (gradient,) = torch.autograd.grad(loss, point)
            torch.testing.assert_close(gradients[row], gradient)
            torch.testing.assert_close(losses[row], loss.detach())
        theta = theta - 0.1 * gradients
    (recording,) = _recordings[task].values()
    assert recording.replay is not None and not recording.refused
    leaves = [theta, *batch]
    for replay, eager in zip(recording.replay(*leaves), recording_free(task, theta, batch), strict=True):
        assert torch.equal(replay, eager)


def test_large_convolutions_give_what_vmap_gives() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3, 2), torch.nn.Sigmoid(), torch.nn.Flatten(), torch.nn.Linear(192, 4)
    )
    examples = inputs(0, 300 * 18 * 18).double().view(300, 1, 18, 18), torch.arange(300) % 4
    task = SupervisedTask(
        "images",
        network,
        {"train": examples, "test": examples},
        CrossEntropy(),
        batch_size=256,
        dtype=torch.float64,
    )
    theta = torch.stack([task.init_theta(seed) for seed in range(3)])
    batch = task.batches(range(3)).draw(1)[0]
    assert batch.x[0].numel() >= LARGE_INPUTS
    for one, other in zip(
        gradients_and_losses(task.loss, theta, batch), recording_free(task, theta, batch), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def recording_free(task, theta, batch):
    """What a loss without an owner to record for gives."""
    return gradients_and_losses(lambda *arguments: task.loss(*arguments), theta, batch)


def test_a_penalty_is_replayed_with_its_own_radius() -> None:
    task = build_task({"dataset": "digits", "optimizee": "mlp", "batch_size": 16}, device="cpu")
    theta, batch = task.init_theta(0)[None], task.batches([0]).draw(1)[0]
    gradients, losses = gradients_and_losses(task.loss, theta, batch)
    for rho in (0.05, 0.5):
        penalty = GSAM(rho=rho)
        for _ in range(CALLS):  # built anew for every truncation
            value, slope = geometric_penalty_at(penalty, task.loss)(theta, batch, losses, gradients, 0)
        ahead = theta + rho * gradients / gradients.norm()
        worst, worst_loss = recording_free(task, ahead, batch)
        torch.testing.assert_close(value, worst_loss - losses)
        torch.testing.assert_close(slope, worst - gradients, atol=1e-6, rtol=1e-4)


def test_other_shapes_are_recorded_for_themselves() -> None:
    owner = Owner()
    for size in (3, 4):
        for number in range(CALLS):
            x = inputs(number, size)
            assert torch.equal(replayed(owner, "", lambda x: (x * 2, x.sum()), x)[1], x.sum())
    assert len(_recordings[owner]) == 2


def test_a_wide_layer_is_replayed_with_the_bits_of_eager_pytorch() -> None:
    owner, weight, bias, x = (
        Owner(),
        inputs(1, 784 * 20).view(20, 784),
        inputs(2, 20),
        inputs(3, 128 * 784).view(128, 784),
    )
    for _ in range(CALLS):
        replayed(owner, "", lambda bias, x, weight: (torch.nn.functional.linear(x, weight, bias),), bias, x, weight)
    (recording,) = _recordings[owner].values()
    assert recording.replay is not None and not recording.refused
    assert torch.equal(recording.replay(bias, x, weight)[0], torch.nn.functional.linear(x, weight, bias))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x if x.sum() > 0 else -x,),
        lambda x: (x * float(x.sum()),),
        lambda x: (x * torch.from_numpy(x.numpy().copy()),),
    ],
    ids=["decides by values", "takes a number out", "leaves torch"],
)
def test_what_no_graph_of_operations_can_hold_stays_as_it_is(function) -> None:
    owner = Owner()
    for number in range(CALLS):
        x = inputs(number)
        assert torch.equal(replayed(owner, "", function, x)[0], function(x)[0])


def test_two_inputs_that_were_once_the_same_tensor_are_told_apart() -> None:
    owner = Owner()
    for number in range(2 * CALLS):
        x = inputs(number)
        y = x if number < CALLS else inputs(number + 1000)
        assert torch.equal(replayed(owner, "", lambda x, y: (x - 2 * y,), x, y)[0], x - 2 * y)


def test_what_changes_in_place_changes_in_a_replay() -> None:
    def doubled(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x + 1
        before = y * 3
        y.mul_(2)
        return before, y

    owner = Owner()
    for number in range(CALLS):
        x = inputs(number)
        before, after = replayed(owner, "", doubled, x)
        assert torch.equal(before, (x + 1) * 3) and torch.equal(after, (x + 1) * 2)
    (recording,) = _recordings[owner].values()
    assert not recording.refused


def test_an_error_of_the_function_is_told() -> None:
    def broken(x: torch.Tensor) -> tuple[torch.Tensor]:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        for number in range(CALLS):
            replayed(Owner(), "", broken, inputs(number))


def test_large_networks_and_strangers_are_left_alone() -> None:
    stranger, owner = object(), Owner()
    for _ in range(CALLS):
        replayed(owner, "", lambda x: (x + 1,), torch.zeros(SMALL + 1))
        replayed(stranger, "", lambda x: (x + 1,), torch.zeros(2))
    assert not _recordings.get(owner)


def test_a_replay_that_is_nan_where_the_function_is_not_is_not_believed() -> None:
    """Nor is it the other way round: the function depends on what it is not given."""
    for before, after in ((float("nan"), 0.0), (0.0, float("nan")), (float("inf"), torch.finfo(torch.float32).max)):
        owner = Owner()
        for number in range(2 * CALLS):
            factor = before if number < WORTH_WHILE else after
            (result,) = replayed(owner, "", lambda x, factor=factor: (torch.ones_like(x) * factor,), inputs(number))
            torch.testing.assert_close(result, torch.full((5,), factor), rtol=0, atol=0, equal_nan=True)
