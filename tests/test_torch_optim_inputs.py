"""What users hand to the learned optimizer: groups and their values, parameters and gradients of every kind."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from members import GRADIENT_KINDS
from test_torch_optim import make, small_model, train
from torch import nn

from engine.bench.memory import peak_bytes
from engine.export.torch_optim import LoadedOptimizer
from engine.optimizers.learned.rnnprop import RNNProp
from engine.tasks.base import Layout

PARAMETER = nn.Parameter


def one(kind: str = "simple", size: int = 2, **values):
    parameter = PARAMETER(torch.ones(size))
    optimizer = LoadedOptimizer([parameter], *make(kind), **values)
    parameter.grad = torch.ones(size)
    return parameter, optimizer


BAD = [True, np.bool_(True), "1", None, float("nan"), float("inf"), -1, -1e-9, [1], 1j, 10**400, torch.ones(1)]


@pytest.mark.parametrize("name", ["lr", "weight_decay", "scale"])
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_bad_value_is_refused_wherever_it_comes_from(name, value):
    with pytest.raises(ValueError, match=name):
        one(**{name: value})
    parameter, optimizer = one()
    with pytest.raises(ValueError, match=name):
        optimizer.add_param_group({"params": [PARAMETER(torch.ones(3))], name: value})
    optimizer.param_groups[0][name] = value
    with pytest.raises(ValueError, match=name):
        optimizer.step()
    assert (parameter == 1).all() and not optimizer.state and len(optimizer.param_groups) == 1


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.int64(2), np.array(0.5), torch.tensor(0.5)], ids=repr)
def test_every_kind_of_number_is_one(value):
    parameter, optimizer = one(lr=value, scale=value, weight_decay=value)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = value
    optimizer.step()
    assert (parameter != 1).all()


def test_values_whose_product_is_not_finite_are_refused_at_once():
    with pytest.raises(ValueError, match="lr"):
        one(lr=1e300, scale=1e300)
    _, optimizer = one(lr=1e300)
    with pytest.raises(ValueError, match="lr"):
        optimizer.add_param_group({"params": [PARAMETER(torch.ones(3))], "weight_decay": 1e300})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("key", ["scael", "LR", "momentum", "betas", "\x1b[2J", 3])
def test_an_unknown_key_of_a_group_is_refused(key):
    with pytest.raises(ValueError, match="unknown key") as error:
        LoadedOptimizer([{"params": [PARAMETER(torch.ones(2))], key: 1}], *make())
    assert str(error.value).isprintable()


def test_a_key_misspelt_later_is_refused_and_a_schedulers_note_is_not():
    _, optimizer = one()
    optimizer.param_groups[0]["warmup_step"] = 3
    optimizer.step()
    optimizer.param_groups[0]["scael"] = 3
    with pytest.raises(ValueError, match="scale"):
        optimizer.step()
    del optimizer.param_groups[0]["scael"], optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match="lr"):
        optimizer.step()


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_lr_and_scale_are_factors_and_weight_decay_is_decoupled(kind):
    start, gradient = torch.randn(2, 7)
    reached = []
    for values in ({}, {"lr": 0.5}, {"scale": 0.5}, {"lr": 0.5, "weight_decay": 0.1}):
        parameter = PARAMETER(start.clone())
        optimizer = LoadedOptimizer([parameter], *make(kind), **values)
        parameter.grad = gradient.clone()
        optimizer.step()
        reached.append(parameter.detach())
    torch.testing.assert_close(reached[1] - start, 0.5 * (reached[0] - start), rtol=1e-4, atol=1e-6)
    assert torch.equal(reached[1], reached[2])
    torch.testing.assert_close(reached[3], reached[1] - 0.5 * 0.1 * start)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_a_step_that_is_not_finite_is_as_if_it_had_not_been(kind, bad):
    model, untouched = small_model(), small_model()
    optimizer, other = (LoadedOptimizer(m.parameters(), *make(kind)) for m in (model, untouched))
    train(model, optimizer, 2)
    train(untouched, other, 2)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model[2].bias.grad[1] = bad
    with pytest.warns(RuntimeWarning, match="parameter 3 is not finite") as told:
        optimizer.step()
        optimizer.step()
    assert len(told) == 1 and told[0].filename == __file__ and optimizer.skipped_steps == 2
    assert train(model, optimizer, 3, first=2) == train(untouched, other, 3, first=2)


def test_a_step_that_is_not_finite_can_be_an_error():
    parameter, optimizer = one(nonfinite="raise")
    parameter.grad[1] = float("nan")
    with pytest.raises(RuntimeError, match="not finite"):
        optimizer.step()
    assert (parameter == 1).all() and not optimizer.state
    with pytest.raises(ValueError, match="skip, raise"):
        one(nonfinite="ignore")


@pytest.mark.parametrize("phi", [None, {}, {"rnn.input": torch.zeros(3)}])
def test_meta_parameters_of_something_else_are_refused(phi):
    with pytest.raises(ValueError, match="phi must be meta-parameters of simple"):
        LoadedOptimizer([PARAMETER(torch.ones(2))], make("simple")[0], phi)


@pytest.mark.parametrize("large", [1e20, -1e25, 3e38])
@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_a_large_gradient_leaves_finite_state_and_training_goes_on(kind, large):
    model = small_model()
    optimizer = LoadedOptimizer(model.parameters(), *make(kind))
    train(model, optimizer, 2)
    model[2].bias.grad[1] = large
    optimizer.step()
    tensors = [*model.parameters(), *(part for held in optimizer.state.values() for part in held.values())]
    assert all(tensor.isfinite().all() for tensor in tensors) and not optimizer.skipped_steps
    before = model[2].bias[1].item()
    train(model, optimizer, 3, first=3)
    assert model[2].bias[1].item() != before


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_frozen_parameters_make_no_difference_and_can_be_unfrozen(kind):
    whole, part = small_model(), small_model()
    for model in (whole, part):
        model[0].requires_grad_(False)
    given_all = LoadedOptimizer(whole.parameters(), *make(kind))
    given_part = LoadedOptimizer(part[2].parameters(), *make(kind))
    assert train(whole, given_all, 3) == train(part, given_part, 3)
    for model in (whole, part):
        model[0].requires_grad_(True)
    given_part.add_param_group({"params": part[0].parameters()})
    torch.testing.assert_close(train(whole, given_all, 3, first=3), train(part, given_part, 3, first=3))


def test_new_parameters_have_a_time_of_their_own():
    first, optimizer = one("rnnprop")
    optimizer.step()
    second = PARAMETER(torch.ones(3))
    optimizer.add_param_group({"params": [second], "lr": 0.5})
    second.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.state[first]["time"] == 2 and optimizer.state[second]["time"] == 1


@pytest.mark.parametrize("change", ["delete", "replace", "clear"])
def test_a_group_that_was_in_training_cannot_be_taken_away(change):
    model = small_model()
    optimizer = LoadedOptimizer([{"params": [parameter]} for parameter in model.parameters()], *make())
    train(model, optimizer, 1)
    if change == "delete":
        del optimizer.param_groups[1]
    elif change == "replace":
        optimizer.param_groups[1]["params"] = [PARAMETER(torch.ones(2))]
    else:
        optimizer.param_groups.clear()
    for call in (optimizer.step, optimizer.state_dict):
        with pytest.raises(RuntimeError, match="group"):
            call()


def strange() -> list[nn.Parameter]:
    strided = torch.ones(4, 6)
    return [
        PARAMETER(tensor)
        for tensor in (
            torch.tensor(1.0),
            torch.ones(0),
            torch.ones(3, 0, 2),
            torch.ones(2, dtype=torch.float16),
            torch.ones(2, dtype=torch.bfloat16),
            torch.ones(3, dtype=torch.float64),
            torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
            strided[:, ::2],
            strided.T,
            torch.ones(5)[None].expand(1, 5),
            torch.ones(3, dtype=torch.complex64),
            torch.ones(2, 2, dtype=torch.complex128),
        )
    ]


@pytest.mark.parametrize("features", [[], ["previous_update"]], ids=["", "previous update"])
@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_parameters_of_every_kind_move_and_have_state_of_their_shape(kind, features):
    parameters = strange()
    optimizer = LoadedOptimizer(parameters, *make(kind, features=features), lr=1000.0)
    for size in (1, 2):
        for parameter in parameters:
            parameter.grad = size * torch.ones_like(parameter)
        optimizer.step()
    for parameter in parameters:
        numbers = torch.view_as_real(parameter) if parameter.is_complex() else parameter
        assert not numbers.numel() or (parameter != 1).any()
        for part in optimizer.state[parameter].values():
            assert not part.dim() or part.shape[: parameter.dim()] == parameter.shape
            assert part.dtype == (torch.float64 if numbers.dtype == torch.float64 else torch.float32)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step()


def test_both_parts_of_a_complex_parameter_move():
    parameter = PARAMETER(torch.ones(4, dtype=torch.complex64))
    pair = PARAMETER(torch.view_as_real(parameter.detach()).clone())
    gradient = torch.randn(4, dtype=torch.complex64)
    parameter.grad, pair.grad = gradient, torch.view_as_real(gradient)
    for tensor in (parameter, pair):
        LoadedOptimizer([tensor], *make()).step()
    assert torch.equal(torch.view_as_real(parameter.detach()), pair)


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_the_order_in_memory_makes_no_difference_even_if_it_changes(kind):
    start, gradients = torch.randn(4, 3, 5, 5), torch.randn(6, 4, 3, 5, 5)
    gaps = torch.zeros(4, 3, 5, 10)
    gaps[..., ::2] = start
    last = start.to(memory_format=torch.channels_last)
    parameters = [PARAMETER(start.clone()), PARAMETER(last), PARAMETER(gaps[..., ::2])]
    optimizers = [LoadedOptimizer([parameter], *make(kind)) for parameter in parameters]
    for step, gradient in enumerate(gradients):
        for parameter, optimizer in zip(parameters, optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
        if step == 2:
            parameters[1].data = parameters[1].data.contiguous()
            parameters[2].data = parameters[2].data.contiguous(memory_format=torch.channels_last)
    for parameter, optimizer in zip(parameters[1:], optimizers[1:], strict=True):
        torch.testing.assert_close(parameter, parameters[0], rtol=1e-5, atol=1e-6)
        for name, part in optimizer.state[parameter].items():
            torch.testing.assert_close(part, optimizers[0].state[parameters[0]][name], rtol=1e-4, atol=1e-6)


def test_a_parameter_given_twice_moves_once():
    parameter, optimizer = one()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twice = PARAMETER(torch.ones(2))
        other = LoadedOptimizer([twice, twice], *make())
    twice.grad = torch.ones(2)
    optimizer.step()
    other.step()
    assert torch.equal(parameter, twice)


def test_tensors_without_numbers_of_their_own_are_refused_in_one_line():
    from torch._subclasses import FakeTensorMode
    from torch.testing._internal.two_tensor import TwoTensor

    with FakeTensorMode():
        fake = PARAMETER(torch.ones(2))
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    for tensor in (fake, PARAMETER(TwoTensor(torch.ones(2), torch.ones(2))), PARAMETER(nested)):
        with pytest.raises(TypeError, match="parameter 1 is a") as error:
            LoadedOptimizer([PARAMETER(torch.ones(1)), tensor], *make())
        assert "\n" not in str(error.value)
    for tensor in (torch.ones(1).expand(3), torch.ones(2, dtype=torch.int32), torch.ones(2).to(torch.float8_e5m2)):
        with pytest.raises(TypeError, match="parameter 0 is"):
            LoadedOptimizer([tensor], *make())
    meta = PARAMETER(torch.ones(2, device="meta"))
    meta.grad = torch.ones(2, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        LoadedOptimizer([meta], *make()).step()


def test_a_frozen_parameter_may_be_of_any_kind():
    from torch.testing._internal.two_tensor import TwoTensor

    kinds = (
        torch.ones(2, dtype=torch.uint8),
        torch.ones(2).to(torch.float8_e5m2),
        TwoTensor(torch.ones(2), torch.ones(2)),
    )
    frozen = [PARAMETER(tensor, requires_grad=False) for tensor in kinds]
    parameter, alone = one()
    alone.step()
    beside = PARAMETER(torch.ones(2))
    beside.grad = torch.ones(2)
    optimizer = LoadedOptimizer([*frozen, beside], *make())
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert torch.equal(parameter, beside) and list(optimizer.state) == [beside]


@pytest.mark.parametrize("shape", [(6, 3), (3, 4), (2, 3), (4, 3, 1)], ids=str)
def test_a_gradient_left_from_another_shape_is_refused_before_anything_moves(shape):
    first, second = PARAMETER(torch.ones(2)), PARAMETER(torch.ones(4, 3))
    optimizer = LoadedOptimizer([first, second], *make())
    first.grad, second.grad = torch.ones(2), torch.ones(4, 3)
    second.data = torch.ones(shape)
    with pytest.raises(TypeError, match="parameter 1 has the shape"):
        optimizer.step()
    assert (first == 1).all() and not optimizer.state


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_a_step_in_inference_mode_is_a_step(kind):
    (parameter, optimizer), (other, usual) = one(kind), one(kind)
    with torch.inference_mode():
        optimizer.step()
    usual.step()
    for each in (optimizer, usual):
        each.step()
    assert torch.equal(parameter, other)


@pytest.mark.parametrize("size", [0, 1e-30, 1e-8, 1e3, 9e14])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_the_size_of_finite_gradients_leaves_no_step_out(size, dtype):
    parameter = PARAMETER(torch.ones(1000, dtype=dtype))
    optimizer = LoadedOptimizer([parameter], *make("rnnprop"), lr=100.0)
    bounds = torch.finfo(dtype)
    parameter.grad = torch.full_like(parameter, min(max(size, bounds.tiny / 8), bounds.max))  # the least is subnormal
    optimizer.step()
    assert optimizer.skipped_steps == 0 and parameter.isfinite().all() and optimizer.state[parameter]["time"] == 1
    assert (parameter != 1).all() or size < 1e-8


def test_a_sparse_gradient_is_refused_before_anything_moves():
    embedding, linear = nn.Embedding(5, 3, sparse=True), nn.Linear(3, 1)
    optimizer = LoadedOptimizer([*linear.parameters(), *embedding.parameters()], *make())
    before = linear.weight.detach().clone()
    linear(embedding(torch.tensor([1]))).sum().backward()
    with pytest.raises(TypeError, match="parameter 2 is sparse"):
        optimizer.step()
    assert torch.equal(linear.weight, before) and not optimizer.state


def test_parameters_that_have_no_numbers_yet_may_come():
    linear = nn.LazyLinear(3)
    optimizer = LoadedOptimizer(linear.parameters(), *make())
    optimizer.step()
    linear(torch.ones(2, 4)).sum().backward()
    before = linear.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(linear.weight, before)


class Averaging(RNNProp):
    """Looks at all coordinates at once, and does not say so."""

    def observe(self, theta, grad, state):
        return super().observe(theta, grad - grad.mean(-1, keepdim=True), state)


def test_a_member_of_ones_own_that_looks_at_all_coordinates_sees_them_all():
    rule = Averaging()
    phi = rule.init_phi(torch.Generator().manual_seed(0))
    model, parts = torch.randn(40), [3, 30, 7]
    theta, state = model[None], rule.init(model[None])
    parameters = [PARAMETER(part.clone()) for part in model.split(parts)]
    optimizer = LoadedOptimizer(parameters, rule, phi)
    for _ in range(4):
        gradient = torch.randn(40)
        update, state = rule.update(phi, theta, gradient[None], state)
        theta = theta + update
        for parameter, part in zip(parameters, gradient.split(parts), strict=True):
            parameter.grad = part.clone()
        optimizer.step()
    torch.testing.assert_close(torch.cat([p.detach() for p in parameters]), theta[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_steps_are_those_of_meta_trainings_frozen_evaluation_bit_by_bit(kind, dtype, monkeypatch):
    """Over several blocks, of many parameters and of parts of one."""
    from engine import kernels
    from engine.kernels import in_place

    monkeypatch.setattr(in_place, "NATIVE_BLOCK", 1000)
    rule, phi = make(kind, theta_input=True)
    phi = {name: tensor.to(dtype) for name, tensor in phi.items()}
    sizes = [1, 1300, 10, 64, 2500, 7]
    theta = torch.randn(1, sum(sizes), dtype=dtype)
    parameters = [PARAMETER(part.clone()) for part in theta[0].split(sizes)]
    optimizer = LoadedOptimizer(parameters, rule, phi, scale=0.7)
    layout = Layout({str(number): (size,) for number, size in enumerate(sizes)})
    steps = kernels.steps(rule, phi, rule.init(theta, layout), theta, layout)
    for _ in range(4):
        gradient = torch.randn(1, sum(sizes), dtype=dtype)
        theta = theta + 0.7 * steps(theta, gradient)
        for parameter, part in zip(parameters, gradient[0].split(sizes), strict=True):
            parameter.grad = part.clone()
        optimizer.step()
    stepped = torch.cat([parameter.detach() for parameter in parameters])
    if kind == "lin":  # which is in one piece there, by another kernel
        torch.testing.assert_close(stepped, theta[0], rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)
    else:
        assert torch.equal(stepped, theta[0])


@pytest.mark.skipif(peak_bytes(lambda: None, torch.device("cpu")) is None, reason="peak memory cannot be told here")
@pytest.mark.parametrize("kind", ["simple", "rnnprop"])
def test_a_step_takes_no_more_than_the_state_and_five_numbers_a_parameter(kind):
    size, device = 1_000_000, torch.device("cpu")
    parameter, optimizer = one(kind, size)
    tiny, warm_up = one(kind, 10)
    del tiny
    warm_up.step()  # whatever is loaded at first use
    first = peak_bytes(optimizer.step, device)
    state = sum(part.nbytes for part in optimizer.state[parameter].values())
    later = peak_bytes(optimizer.step, device)
    assert first < state + 5 * 4 * size + 2**24 and later < 5 * 4 * size + 2**24
    assert peak_bytes(optimizer.state_dict, device) < 2**22
