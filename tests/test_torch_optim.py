"""The learned optimizer as a torch.optim.Optimizer."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from members import GRADIENT_KINDS
from torch import nn

from engine.base.errors import RunError
from engine.base.flat import gradients_and_losses
from engine.export.torch_optim import LoadedOptimizer
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
from engine.tasks.table import build_task

CPU = torch.device("cpu")


def make(kind: str = "simple", seed: int = 0, **settings):
    rule = LEARNED_OPTIMIZERS.create(kind, **settings)
    return rule, rule.init_phi(torch.Generator().manual_seed(seed))


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 36, 10))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> list[float]:
    losses = []
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 1, 8, 8, generator=generator), torch.randint(0, 10, (16,), generator=generator)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)), y)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
    return losses


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_walks_the_trajectory_of_the_engines_own_unroll(kind):
    rule, phi = make(kind, theta_input=True)
    task = build_task({"dataset": "digits", "optimizee": "mlp"}, device=CPU)
    theta = task.init_theta(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, 10))
    nn.utils.vector_to_parameters(theta, model.parameters())
    optimizer = LoadedOptimizer(model.parameters(), rule, phi)
    point, state = theta[None], rule.init(theta[None], task.layout)
    window = task.batches([7]).draw(25)
    for step in range(25):
        batch = window[step]
        grad, _ = gradients_and_losses(task.loss, point, batch)
        update, state = rule.update(phi, point, grad, state, task.layout)
        point = point + update
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.x[0]), batch.y[0]).backward()
        optimizer.step()
    reached = nn.utils.parameters_to_vector(model.parameters())
    torch.testing.assert_close(reached, point[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_state_dict_round_trip_goes_on_as_if_nothing_had_happened(kind, dtype):
    rule, phi = make(kind)
    model = small_model().to(dtype)
    optimizer = LoadedOptimizer(model.parameters(), rule, phi, scale=0.5)
    train(model, optimizer, 3)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    expected = train(model, optimizer, 3, first=3)

    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    again = small_model(seed=9).to(dtype)
    other = LoadedOptimizer(again.parameters(), rule, phi)
    again.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    assert other.param_groups[0]["scale"] == 0.5
    assert train(again, other, 3, first=3) == expected


def test_closure_is_called_with_gradients_on_and_its_value_returned():
    rule, phi = make()
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    losses = train(model, LoadedOptimizer(model.parameters(), rule, phi), 1)
    assert losses[0] > 1.0
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_groups_are_one_flat_vector_with_a_scale_each():
    rule, phi = make()
    whole, parts = small_model(), small_model()
    one = LoadedOptimizer(whole.parameters(), rule, phi)
    groups = [{"params": list(parts[0].parameters())}, {"params": list(parts[2].parameters()), "scale": 3.0}]
    two = LoadedOptimizer(groups, rule, phi)
    start = nn.utils.parameters_to_vector(whole.parameters()).detach().clone()
    train(whole, one, 1)
    train(parts, two, 1)
    moved, scaled = (nn.utils.parameters_to_vector(m.parameters()).detach() - start for m in (whole, parts))
    head = 3 * 9 + 3
    torch.testing.assert_close(scaled[:head], moved[:head], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(scaled[head:], 3 * moved[head:], rtol=1e-3, atol=1e-6)


def test_a_parameter_without_a_gradient_is_left_alone():
    rule, phi = make("rnnprop")
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))
    optimizer = LoadedOptimizer([used, unused], rule, phi)
    used.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2, 2)) and not torch.equal(used, torch.ones(3))


def test_scalars_empty_tensors_and_half_precision_are_parameters_too():
    rule, phi = make()
    parameters = [nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.empty(0)), nn.Parameter(torch.ones(2).bfloat16())]
    optimizer = LoadedOptimizer(parameters, rule, phi, scale=10.0)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert parameters[0] != 1.0 and parameters[2].dtype == torch.bfloat16 and (parameters[2] != 1.0).all()


def test_an_unknown_run_is_a_clear_error(tmp_path, monkeypatch):
    import engine

    monkeypatch.setenv("LREG_RUNS_DIR", str(tmp_path))
    with pytest.raises(RunError, match="nowhere"):
        engine.load_optimizer("nowhere", [nn.Parameter(torch.ones(2))])


def test_a_copy_goes_on_by_itself():
    rule, phi = make("rnnprop")
    model = small_model()
    optimizer = LoadedOptimizer(model.parameters(), rule, phi)
    train(model, optimizer, 2)
    other_model, other = copy.deepcopy((model, optimizer))
    assert train(other_model, other, 3, first=2) == train(model, optimizer, 3, first=2)


def test_a_model_may_change_its_type_before_the_first_step():
    rule, phi = make("dm")
    model = small_model()
    optimizer = LoadedOptimizer(model.parameters(), rule, phi)
    model.double()
    train(model, optimizer, 2)
    assert next(model.parameters()).dtype == torch.float64


def test_the_state_of_another_model_is_refused():
    rule, phi = make()
    one, other = (LoadedOptimizer([nn.Parameter(torch.ones(size))], rule, phi) for size in (2, 3))
    one.param_groups[0]["params"][0].grad = torch.ones(2)
    one.step()
    with pytest.raises(ValueError, match="does not fit"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32)], ids=str)
def test_a_model_may_change_its_type_in_the_middle(kind, dtypes):
    rule, phi = make(kind)
    model = small_model().to(dtypes[0])
    optimizer = LoadedOptimizer(model.parameters(), rule, phi)
    train(model, optimizer, 3)
    model.to(dtypes[1])
    train(model, optimizer, 3, first=3)
    straight = small_model().double()
    reference = LoadedOptimizer(straight.parameters(), rule, phi)
    train(straight, reference, 6)
    for ours, exact in zip(model.parameters(), straight.parameters(), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4)


def test_the_state_can_be_looked_at_between_steps():
    rule, phi = make("rnnprop")
    model = small_model()
    optimizer = LoadedOptimizer(model.parameters(), rule, phi)
    train(model, optimizer, 3)
    held = optimizer.state[next(model.parameters())]
    assert held["time"] == 3 and held["lstm0.h"].abs().sum() > 0
    train(model, optimizer, 1, first=3)
    assert optimizer.state[next(model.parameters())]["time"] == 4
