"""The learned optimizer with the tools around torch's optimizers: checkpoints, sharding, compiling, schedulers, AMP."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from members import GRADIENT_KINDS
from test_torch_optim import make, small_model, train
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR, AveragedModel

from engine.export.torch_optim import LoadedOptimizer

FORMS = [{}, {"flatten_optimizer_state_dict": True}, {"full_state_dict": True}, {"cpu_offload": True}]


@pytest.fixture(scope="module")
def alone():
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def pair(kind: str = "simple", seed: int = 0, **values):
    model = small_model(seed)
    return model, LoadedOptimizer(model.parameters(), *make(kind), **values)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *(("rnnprop", form) for form in FORMS),
        *((kind, FORMS[k % len(FORMS)]) for k, kind in enumerate(GRADIENT_KINDS) if kind != "rnnprop"),
    ],
    ids=str,
)
def test_torchs_checkpoints_go_on_where_they_were(kind, form, alone, tmp_path):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import state_dict as tools

    options = tools.StateDictOptions(**form)
    straight = train(*pair(kind), 6)
    model, optimizer = pair(kind)
    start = copy.deepcopy(model.state_dict())
    tools.get_optimizer_state_dict(model, optimizer, options=options)  # before the first step
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())
    assert train(model, optimizer, 3) == straight[:3]

    saved = {"model": model.state_dict(), "optimizer": _optimizer(tools, model, optimizer, options)}
    dcp.save(saved, checkpoint_id=tmp_path)
    again, other = pair(kind, seed=5, lr=0.1)
    target = {"model": again.state_dict(), "optimizer": _optimizer(tools, again, other, options)}
    dcp.load(target, checkpoint_id=tmp_path)
    again.load_state_dict(target["model"])
    tools.set_optimizer_state_dict(again, other, target["optimizer"], options=options)
    assert train(again, other, 3, first=3) == straight[3:] and other.param_groups[0]["lr"] == 1.0


def _optimizer(tools, model, optimizer, options):
    return tools.get_optimizer_state_dict(model, optimizer, options=options)


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_sharded_parameters_are_taken_shard_by_shard(kind, alone):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    straight = train(*pair(kind), 6)
    models = [small_model(), small_model(seed=5)]
    for model in models:
        fully_shard(model)
    first, second = (LoadedOptimizer(model.parameters(), *make(kind)) for model in models)
    torch.testing.assert_close(train(models[0], first, 3), straight[:3], rtol=1e-5, atol=1e-6)
    parameter = next(models[0].parameters())
    parts = [part for part in first.state[parameter].values() if part.dim()]
    assert all(isinstance(part, DTensor) and part.placements == parameter.placements for part in parts)
    options = StateDictOptions(full_state_dict=True)
    weights, state = copy.deepcopy(get_state_dict(models[0], first, options=options))
    set_state_dict(models[1], second, model_state_dict=weights, optim_state_dict=state, options=options)
    torch.testing.assert_close(train(models[1], second, 3, first=3), straight[3:], rtol=1e-5, atol=1e-6)


def test_whole_state_for_sharded_parameters_is_refused_with_what_helps(alone):
    from torch.distributed.fsdp import fully_shard

    model, optimizer = pair()
    train(model, optimizer, 1)
    sharded = small_model()
    fully_shard(sharded)
    with pytest.raises(ValueError, match="set_optimizer_state_dict"):
        LoadedOptimizer(sharded.parameters(), *make()).load_state_dict(optimizer.state_dict())


def test_two_processes_walk_as_one(tmp_path, zygote):
    from ranks import Ranks

    ranks = Ranks(2, zygote)
    try:
        straight = {kind: train(*pair(kind), 5) for kind in ("simple", "rnnprop")}
        for answer in ranks.call(_sharded_training, tmp_path / "meeting", 2, list(straight)):
            for kind, losses in straight.items():
                torch.testing.assert_close(answer[kind], losses, rtol=1e-4, atol=1e-5)
    finally:
        ranks.end()


def _sharded_training(team, kinds):
    """Five steps, and one between them that is not finite in one process."""
    import warnings

    from torch.distributed.fsdp import fully_shard

    if not dist.is_initialized():
        dist.init_process_group("gloo", store=team.store, rank=team.rank, world_size=team.size)
    answers = {}
    for kind in kinds:
        model = small_model()
        fully_shard(model)
        optimizer = LoadedOptimizer(model.parameters(), *make(kind))
        losses = train(model, optimizer, 3)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        if team.rank:
            next(model.parameters()).grad.to_local().fill_(float("nan"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.step()
        assert optimizer.skipped_steps == 1
        answers[kind] = losses + train(model, optimizer, 2, first=3)
    return answers


def test_shards_that_do_not_say_so_are_refused_where_the_whole_is_needed(alone):
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.optim import ZeroRedundancyOptimizer

    for kind in GRADIENT_KINDS:
        rule, phi = make(kind)
        model = small_model()
        flat = FullyShardedDataParallel(small_model(), use_orig_params=True, device_id=torch.device("cpu"))
        if rule.trusted_scope != "coordinate":
            with pytest.raises(ValueError, match="FullyShardedDataParallel"):
                LoadedOptimizer(flat.parameters(), rule, phi)
        if rule.trusted_scope in ("mean_square", "all"):
            with pytest.raises(ValueError, match="ZeroRedundancyOptimizer"):
                ZeroRedundancyOptimizer(model.parameters(), LoadedOptimizer, learned_optimizer=rule, phi=phi)
            continue
        straight = train(*pair(kind), 4)
        optimizer = ZeroRedundancyOptimizer(model.parameters(), LoadedOptimizer, learned_optimizer=rule, phi=phi)
        assert train(model, optimizer, 2) == straight[:2]
        optimizer.consolidate_state_dict()
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert train(model, optimizer, 2, first=2) == straight[2:]
        if rule.trusted_scope == "coordinate":
            torch.testing.assert_close(train(flat, LoadedOptimizer(flat.parameters(), rule, phi), 4), straight)


@pytest.mark.parametrize(("kind", "whole"), [*((kind, False) for kind in GRADIENT_KINDS), ("simple", True)])
def test_compiling_changes_nothing(kind, whole):
    straight = train(*pair(kind), 3)
    model, optimizer = pair(kind)

    def learn(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    def learn_and_step(x, y):
        loss = learn(x, y)
        optimizer.step()
        return loss

    step = torch.compile(optimizer.step, backend="eager")
    compiled = torch.compile(learn_and_step, backend="eager")
    losses = []
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        x, y = torch.randn(16, 1, 8, 8, generator=generator), torch.randint(0, 10, (16,), generator=generator)
        losses.append((compiled if whole else learn)(x, y).item())
        if not whole:
            step()
    torch.testing.assert_close(losses, straight)
    assert optimizer.state[model[0].weight]


SCHEDULERS = {
    "step": lambda o: schedulers.StepLR(o, 2),
    "multi-step": lambda o: schedulers.MultiStepLR(o, [2, 4]),
    "constant": schedulers.ConstantLR,
    "linear": schedulers.LinearLR,
    "exponential": lambda o: schedulers.ExponentialLR(o, 0.9),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 4),
    "restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "polynomial": lambda o: schedulers.PolynomialLR(o, 4),
    "lambda": lambda o: schedulers.LambdaLR(o, lambda epoch: epoch / 5),
    "multiplicative": lambda o: schedulers.MultiplicativeLR(o, lambda epoch: 0.9),
    "one-cycle": lambda o: schedulers.OneCycleLR(o, 1.0, total_steps=9, cycle_momentum=False),
    "cyclic": lambda o: schedulers.CyclicLR(o, 0.1, 1.0, cycle_momentum=False),
    "chained": lambda o: schedulers.ChainedScheduler([schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)]),
    "sequence": lambda o: schedulers.SequentialLR(o, [schedulers.ConstantLR(o), schedulers.StepLR(o, 1)], [2]),
    "averaging": lambda o: SWALR(o, swa_lr=0.05),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_move_the_updates(name):
    model, optimizer = pair("dm")
    scheduler = SCHEDULERS[name](optimizer)
    factors = set()
    for number in range(8):
        before = model[2].bias.detach().clone()
        train(model, optimizer, 1, first=number)
        lr = optimizer.param_groups[0]["lr"]
        factors.add(round(lr, 9))
        assert torch.equal(before, model[2].bias) == (lr == 0)
        scheduler.step()
    assert len(factors) > 1
    restored = pair("dm")[1]
    restored.load_state_dict(optimizer.state_dict())
    assert restored.param_groups[0]["initial_lr"] == optimizer.param_groups[0]["initial_lr"]


def test_a_plateau_lowers_the_rate_and_momentum_cannot_be_cycled():
    model, optimizer = pair()
    scheduler = schedulers.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] < 0.2
    with pytest.raises(ValueError, match="cycle_momentum"):
        schedulers.OneCycleLR(pair()[1], 1.0, total_steps=9)
    average = AveragedModel(model)
    train(model, optimizer, 1)
    average.update_parameters(model)
    torch.testing.assert_close(average.module[0].weight, model[0].weight)


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_a_gradient_scaler_leaves_out_the_step_by_itself(kind):
    model, optimizer = pair(kind)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number in range(4):
        generator = torch.Generator().manual_seed(number)
        x, y = torch.randn(16, 1, 8, 8, generator=generator), torch.randint(0, 10, (16,), generator=generator)
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
        if number == 2:
            model[0].weight.grad[0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
    reference, other = pair(kind)
    for number in (0, 1, 3):
        train(reference, other, 1, first=number)
    assert optimizer.skipped_steps == 0
    torch.testing.assert_close(list(model.parameters()), list(reference.parameters()))


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_a_pickle_goes_on_by_itself(kind):
    model, optimizer = pair(kind, nonfinite="raise")
    train(model, optimizer, 2)
    again, other = pickle.loads(pickle.dumps((model, optimizer)))
    assert other.nonfinite == "raise"
    assert train(again, other, 2, first=2) == train(model, optimizer, 2, first=2)


def test_hooks_are_called_and_what_a_load_hook_gives_is_loaded():
    model, optimizer = pair()
    seen = []
    optimizer.register_step_pre_hook(lambda *given: seen.append("before"))
    optimizer.register_step_post_hook(lambda *given: seen.append("after"))
    train(model, optimizer, 1)
    assert seen == ["before", "after"]
    other = pair()[1]

    def zeros(opt, state_dict):
        state = {k: {n: torch.zeros_like(t) for n, t in held.items()} for k, held in state_dict["state"].items()}
        return {**state_dict, "state": state}

    other.register_load_state_dict_pre_hook(zeros)
    other.register_load_state_dict_post_hook(lambda opt: seen.append(len(opt.state)))
    other.load_state_dict(optimizer.state_dict())
    assert seen[-1] == 4 and all((part == 0).all() for held in other.state.values() for part in held.values())
    train(model, optimizer, 1, first=1)
    other.load_state_dict(optimizer.state_dict())
    assert all((part == 0).all() for held in other.state.values() for part in held.values())


class TestForeignState:
    def refused(self, optimizer, state_dict, match):
        model = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        before = copy.deepcopy((model, optimizer.state_dict()))
        with pytest.raises(ValueError, match=match) as error:
            optimizer.load_state_dict(state_dict)
        assert "\n" not in str(error.value)
        after = optimizer.state_dict()
        assert after["param_groups"] == before[1]["param_groups"] and after["state"].keys() == before[1]["state"].keys()

    def test_of_another_learned_optimizer(self):
        _, optimizer = pair("dm")
        model, other = small_model(), None
        for rule, phi in (make("dm", seed=1), make("simple"), make("dm", output_scale=0.02)):
            other = LoadedOptimizer(model.parameters(), rule, phi)
            self.refused(optimizer, other.state_dict(), "another learned optimizer")
            train(model, other, 1)
            self.refused(optimizer, other.state_dict(), "another learned optimizer")

    def test_of_another_kind_of_optimizer(self):
        model, optimizer = pair()
        train(model, optimizer, 1)
        for kind in (torch.optim.Adam, torch.optim.SGD):
            other = kind(model.parameters())
            self.refused(optimizer, other.state_dict(), "another optimizer")
            other.step()
            self.refused(optimizer, other.state_dict(), "another optimizer")
        groups = [None, "a", [1], [{}], [{"params": 1}], ["params"]]
        for nonsense in ({}, None, [], "x", *({"state": {}, "param_groups": value} for value in groups)):
            self.refused(optimizer, nonsense, "no state_dict")

    @pytest.mark.parametrize("shape", [(6,), (3, 2), (2, 3, 1), (7,)], ids=str)
    def test_of_another_model_of_the_same_size(self, shape):
        optimizers = []
        for form in ((2, 3), shape):
            parameter = nn.Parameter(torch.ones(form))
            parameter.grad = torch.ones(form)
            optimizers.append(LoadedOptimizer([parameter], *make()))
            optimizers[-1].step()
        self.refused(optimizers[1], optimizers[0].state_dict(), "does not fit")

    def test_of_another_model_by_its_names(self):
        models = nn.ModuleDict({"a": small_model(), "b": small_model()})
        first, second = (LoadedOptimizer(models[name].named_parameters(name), *make()) for name in "ab")
        train(models["a"], first, 1)
        self.refused(second, first.state_dict(), "another model's")
        wrapped = LoadedOptimizer([(f"module.{n}", p) for n, p in models["a"].named_parameters("a")], *make())
        wrapped.load_state_dict(first.state_dict())

    def test_with_other_groups_or_values(self):
        model, optimizer = pair()
        train(model, optimizer, 1)
        halves = LoadedOptimizer([{"params": [p]} for p in model.parameters()], *make())
        self.refused(halves, optimizer.state_dict(), "groups")
        state_dict = copy.deepcopy(optimizer.state_dict())
        state_dict["param_groups"][0]["lr"] = float("nan")
        self.refused(optimizer, state_dict, "lr")
        state_dict = copy.deepcopy(optimizer.state_dict())
        state_dict["state"][1]["momentum"] = torch.ones(3)
        self.refused(optimizer, state_dict, "parameter 1")


@pytest.mark.parametrize("kind", GRADIENT_KINDS)
def test_state_as_earlier_versions_wrote_it_is_taken(kind):
    """All of it under the first parameter, and groups that know a scale alone."""
    model, optimizer = pair(kind)
    train(model, optimizer, 3)
    held = [optimizer.state[parameter] for parameter in model.parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]
    tails = {name: part.shape[next(model.parameters()).dim() :] for name, part in held[0].items()}
    flat = {
        name: torch.cat([state[name].reshape(n, *tail) for state, n in zip(held, sizes, strict=True)])
        if held[0][name].dim()
        else held[0][name]
        for name, tail in tails.items()
    }
    again = copy.deepcopy(model)
    other = LoadedOptimizer(again.parameters(), *make(kind))
    other.load_state_dict({"state": {0: flat}, "param_groups": [{"scale": 1.0, "params": [0, 1, 2, 3]}]})
    assert train(again, other, 3, first=3) == train(model, optimizer, 3, first=3)


def test_state_that_is_loaded_is_a_copy():
    model, optimizer = pair()
    train(model, optimizer, 1)
    other = LoadedOptimizer(copy.deepcopy(model).parameters(), *make())
    other.load_state_dict(optimizer.state_dict())
    before = copy.deepcopy(other.state_dict()["state"])
    train(model, optimizer, 1, first=1)
    assert all(torch.equal(part, before[k][n]) for k, h in other.state_dict()["state"].items() for n, part in h.items())
