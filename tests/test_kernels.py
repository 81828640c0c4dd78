"""Kernels against plain autograd: the same updates, the same slopes, in far less time and memory."""

from __future__ import annotations

import functools
import os
import platform
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from engine import kernels
from engine.base.errors import LregError
from engine.jobs.from_preset import meta_trainer
from engine.kernels import build, compiler, rows
from engine.kernels import native as native_kernels
from engine.kernels.dense import DenseSteps, DenseTape
from engine.kernels.native import NativeTape
from engine.kernels.recompute import RecomputeTape
from engine.kernels.rows import RowsTape
from engine.kernels.steps import NativeSteps, PlainSteps
from engine.kernels.tape import SideInput
from engine.optimizers.box_ascent import BoxAscent, ascend
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS, LearnedOptimizer, Phi, State
from engine.presets.preset import from_mapping
from engine.tasks.base import Layout

F64 = torch.float64
MEMBERS = {
    "dm": LEARNED_OPTIMIZERS.create("dm"),
    "dm, one layer of 3 units": LEARNED_OPTIMIZERS.create("dm", hidden=3, layers=1),
    "dm, three layers, theta": LEARNED_OPTIMIZERS.create("dm", hidden=7, layers=3, theta_input=True),
    "rnnprop": LEARNED_OPTIMIZERS.create("rnnprop"),
    "rnnprop, theta": LEARNED_OPTIMIZERS.create("rnnprop", hidden=5, theta_input=True),
    "simple": LEARNED_OPTIMIZERS.create("simple"),
    "simple, 6 units, theta": LEARNED_OPTIMIZERS.create("simple", hidden=6, theta_input=True),
}
if kernels.native_problem() and os.environ.get("LREG_REQUIRE_KERNELS"):
    pytest.fail(f"no CPU kernels: {kernels.native_problem()}")
native = pytest.mark.skipif(bool(kernels.native_problem()), reason=f"no CPU kernels: {kernels.native_problem()}")
BUILDS = [pytest.param(isa, marks=native) for isa in ("native", "avx2", "sse2")]  # native: AVX-512 where there is it


@pytest.fixture
def isa(request, monkeypatch):
    """The kernels as another processor has them."""
    with build_for(request.param, monkeypatch):
        if problem := kernels.native_problem():
            pytest.skip(problem)
        yield request.param


@contextmanager
def build_for(instruction_set: str, monkeypatch):
    """The kernels are built anew within; afterwards they are those of before."""
    with monkeypatch.context() as within:
        within.setenv("LREG_KERNELS_ISA", instruction_set)
        forget_builds()
        yield
    forget_builds()


def forget_builds() -> None:
    build.library.cache_clear()
    kernels.native_problem.cache_clear()


GATES_ANEW = "sse2, gates computed anew"


@pytest.fixture(params=[*BUILDS, pytest.param(GATES_ANEW, marks=native), "rows", "recompute"])
def tape_class(request, monkeypatch):
    """The native tape in every build that this machine runs, and the others."""
    others = {"rows": RowsTape, "recompute": RecomputeTape}
    if request.param in others:
        monkeypatch.setattr(rows, "BLOCK", 40)  # several, the last one smaller
        yield others[request.param]
        return
    if request.param == GATES_ANEW:
        monkeypatch.setattr(native_kernels, "GATE_BYTES", 0)
    with build_for(request.param.split(",")[0], monkeypatch):
        if problem := kernels.native_problem():
            pytest.skip(problem)
        yield NativeTape


on_every_build = pytest.mark.parametrize("isa", BUILDS, indirect=True)


def make_phi(optimizer: LearnedOptimizer, dtype: torch.dtype = F64) -> Phi:
    generator = torch.Generator().manual_seed(3)
    phi = optimizer.init_phi(generator)
    biased = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in phi.items()}
    return {name: tensor.to(dtype) for name, tensor in biased.items()}


class Trial:
    """A truncation of random gradients: what plain autograd makes of it."""

    def __init__(
        self, optimizer: LearnedOptimizer, optimizees: int = 2, parameters: int = 101, steps: int = 21
    ) -> None:
        generator = torch.Generator().manual_seed(1)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=F64)

        self.optimizer = optimizer
        self.phi = make_phi(optimizer)
        self.steps = steps
        self.theta = noise(optimizees, parameters)
        self.grads = [noise(optimizees, parameters) * 10 ** (3 * noise(optimizees, 1)) for _ in range(steps)]
        self.start = self._start(noise)
        self.slopes = [noise(optimizees, parameters) for _ in range(steps)]
        features = optimizer.observe(self.theta, self.grads[0], self.start)[0]
        self.side = SideInput(
            [noise(*features.shape) if index % 3 else None for index in range(steps)],
            [noise(optimizees, parameters) if index % 3 else None for index in range(steps)],
        )

    def _start(self, noise) -> State:
        """A state in the middle of an unroll."""
        state = self.optimizer.init(self.theta)
        units = self.optimizer.network.units
        return {name: 0.5 * noise(*value.shape) if name in units else value for name, value in state.items()}

    def run(self, tape) -> list[Tensor]:
        state, updates = self.start, []
        for grad in self.grads:
            features, state = self.optimizer.observe(self.theta, grad, state)
            updates.append(tape.step(features, state).clone())
        return updates

    def plain(self, with_side: bool) -> tuple[list[Tensor], Phi, State]:
        phi = {name: tensor.clone().requires_grad_() for name, tensor in self.phi.items()}
        state, updates, outputs, slopes = self.start, [], [], []
        for index, grad in enumerate(self.grads):
            features, seen = self.optimizer.observe(self.theta, grad, state)
            update, state = self.optimizer.step(phi, features, seen)
            updates.append(update)
            outputs.append(update)
            slopes.append(self.slopes[index])
            if with_side and self.side.features[index] is not None:
                outputs.append(self.optimizer.step(phi, self.side.features[index], seen)[0])
                slopes.append(self.side.slopes[index])
        found = torch.autograd.grad(outputs, list(phi.values()), slopes)
        return updates, dict(zip(phi, found, strict=True)), state


@functools.cache
def plain_truncation(name: str, with_side: bool) -> tuple[list[Tensor], Phi, State]:
    """For every tape the same."""
    updates, gradient, state = Trial(MEMBERS[name]).plain(with_side)
    return [update.detach() for update in updates], gradient, {key: value.detach() for key, value in state.items()}


@pytest.mark.parametrize("with_side", [False, True], ids=["", "side"])
@pytest.mark.parametrize("name", MEMBERS)
def test_updates_slopes_and_state_equal_plain_autograd(tape_class, name, with_side):
    trial = Trial(MEMBERS[name])
    tape = tape_class(trial.optimizer, trial.phi, trial.start, trial.steps)
    updates = trial.run(tape)
    expected, gradient, state = plain_truncation(name, with_side)
    for ours, theirs in zip(updates, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)
    found = tape.pull_back(trial.slopes, trial.side if with_side else None)
    assert found.keys() == gradient.keys()
    for key in gradient:
        error = (found[key] - gradient[key]).norm() / gradient[key].norm()
        assert error < 1e-12, f"{key}: relative error {error:.1e}"
    for key, value in tape.state().items():
        torch.testing.assert_close(value, state[key], rtol=1e-12, atol=1e-15)
    assert set(tape.state()) == set(trial.optimizer.network.units)


@pytest.mark.parametrize("free", [None, 1], ids=["all features", "the first feature"])
@pytest.mark.parametrize("name", MEMBERS)
def test_the_ascent_ends_where_autograd_ends(tape_class, name, free):
    trial = Trial(MEMBERS[name], steps=3)
    tape = tape_class(trial.optimizer, trial.phi, trial.start, trial.steps)
    state = trial.start
    for grad in trial.grads:
        features, observed = trial.optimizer.observe(trial.theta, grad, state)
        clean = tape.step(features, observed).clone()
        _, state = trial.optimizer.step(trial.phi, features, observed)
    # after the last step: about its features, with the state from before it
    offset = torch.full_like(features, 0.05)
    if free:
        offset[..., free:] = 0.0
    how = BoxAscent(1.0, 0.2, 10, free)
    worst, there = tape.ascend(offset, how)
    expected = ascend(trial.optimizer, trial.phi, features, observed, clean, offset, how)
    torch.testing.assert_close(worst, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(there, trial.optimizer.step(trial.phi, expected, observed)[0], rtol=1e-9, atol=1e-13)
    assert free is None or torch.equal(worst[..., free:], features[..., free:])


@native
def test_the_slopes_do_not_depend_on_the_number_of_threads():
    trial = Trial(MEMBERS["dm"], parameters=3000)
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            tape = NativeTape(trial.optimizer, trial.phi, trial.start, trial.steps)
            trial.run(tape)
            found.append(tape.pull_back(trial.slopes))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@on_every_build
@pytest.mark.parametrize("name", ["dm", "rnnprop", "simple"])
def test_single_precision_is_as_good_as_plain_single_precision(name, isa):
    trial = Trial(MEMBERS[name], parameters=2000)
    _, exact, _ = trial.plain(with_side=False)
    single = {key: tensor.float() for key, tensor in trial.phi.items()}
    errors = []
    for tape_class in (NativeTape, RecomputeTape):
        start = {key: value.float() for key, value in trial.start.items()}
        tape = tape_class(trial.optimizer, single, start, trial.steps)
        state = start
        for grad in trial.grads:
            features, state = trial.optimizer.observe(trial.theta.float(), grad.float(), state)
            tape.step(features, state)
        found = tape.pull_back([slope.float() for slope in trial.slopes])
        errors.append(max(float((found[key] - exact[key]).norm() / exact[key].norm()) for key in exact))
    ours, plain = errors
    assert ours < 3 * plain + 1e-6


@on_every_build
def test_small_and_extreme_inputs_keep_their_precision(isa):
    """`simple` is odd and without biases: the update of a tiny input is tiny, and right to the last digits."""
    optimizer = MEMBERS["simple"]
    phi = make_phi(optimizer, torch.float32)
    features = torch.tensor([0.0, 1e-30, -1e-20, 1e-6, -3e-3, 40.0, -1e30, torch.inf]).view(1, -1, 1)
    state = optimizer.init(torch.zeros(1, features.shape[1]))
    ours = NativeTape(optimizer, phi, state, 1).step(features, state)[0]
    exact = optimizer.step({key: value.double() for key, value in phi.items()}, features.double(), state_of(state))[0][
        0
    ]
    assert ours[0] == 0
    torch.testing.assert_close(ours[:-1].double(), exact[:-1], rtol=1e-5, atol=0.0)
    broken = features.clone()
    broken[0, 3] = torch.nan
    update = NativeTape(optimizer, phi, state, 1).step(broken, state)[0]
    assert update.isnan().tolist() == [False] * 3 + [True] + [False] * 4


@on_every_build
def test_tanh_and_sigmoid_are_right_to_some_units_in_the_last_place(isa):
    """Read from the state: one unit of `simple` is h = tanh x, and one of dm is c = sigmoid(x) where c was 1."""
    x = torch.cat([torch.linspace(-30, 30, 20_001), torch.logspace(-20, 0, 999), torch.tensor([1e20, -1e20])])
    simple = LEARNED_OPTIMIZERS.create("simple", hidden=1)
    phi = {name: torch.ones_like(tensor) for name, tensor in make_phi(simple, torch.float32).items()}
    state = simple.init(torch.zeros(1, len(x)))
    tape = NativeTape(simple, phi, state, 1)
    tape.step(x.view(1, -1, 1), state)
    (h,) = tape.state().values()
    torch.testing.assert_close(h.view(-1).double(), x.double().tanh(), rtol=6e-7, atol=0.0)

    dm = LEARNED_OPTIMIZERS.create("dm", hidden=1, layers=1)
    phi = {name: torch.zeros_like(tensor) for name, tensor in make_phi(dm, torch.float32).items()}
    phi["lstm0.input"][0, 1] = 1.0  # gates: input, forget, cell, output; the first feature to the forget gate
    state = dm.init(torch.zeros(1, len(x)))
    cell = dm.network.units[1]
    state[cell] = torch.ones_like(state[cell])
    tape = NativeTape(dm, phi, state, 1)
    tape.step(torch.stack([x, torch.zeros_like(x)], -1).unsqueeze(0), state)
    torch.testing.assert_close(tape.state()[cell].view(-1).double(), x.double().sigmoid(), rtol=0.0, atol=3e-7)


def state_of(state: State) -> State:
    return {key: value.double() for key, value in state.items()}


@native
@pytest.mark.parametrize("name", MEMBERS)
def test_frozen_steps_equal_plain_ones_and_hand_their_state_over(name):
    trial = Trial(MEMBERS[name])
    plain = PlainSteps(trial.optimizer, trial.phi, trial.start)
    ours = NativeSteps(trial.optimizer, trial.phi, trial.start)
    for index, grad in enumerate(trial.grads):
        if index == 10:  # from one to the other
            ours, plain = (
                NativeSteps(trial.optimizer, trial.phi, plain.state()),
                PlainSteps(trial.optimizer, trial.phi, ours.state()),
            )
        torch.testing.assert_close(ours(trial.theta, grad), plain(trial.theta, grad), rtol=1e-11, atol=1e-15)


@on_every_build
@pytest.mark.parametrize("hidden", [32, 5])
def test_the_steps_and_slopes_of_mlp_equal_plain_autograd(isa, hidden):
    optimizer = LEARNED_OPTIMIZERS.create("mlp", hidden=hidden)
    phi, layout = make_phi(optimizer), Layout({"a": (3, 30), "b": (11,)})
    generator = torch.Generator().manual_seed(2)
    theta = torch.randn(2, 101, generator=generator, dtype=F64)
    grads = [torch.randn(2, 101, generator=generator, dtype=F64) for _ in range(7)]
    slopes = [torch.randn(2, 101, generator=generator, dtype=F64) for _ in range(7)]
    start = optimizer.init(theta, layout)
    tape = kernels.tape(optimizer, phi, start, theta, len(grads))
    frozen = kernels.steps(optimizer, phi, start, theta, layout)
    assert isinstance(tape, DenseTape) and isinstance(frozen, DenseSteps)
    free = {name: tensor.clone().requires_grad_() for name, tensor in phi.items()}
    state, outputs = start, []
    for grad in grads:
        features, observed = optimizer.observe(theta, grad, state, layout)
        update, state = optimizer.step(free, features, observed)
        for ours in (tape.step(features, observed), frozen(theta, grad)):
            torch.testing.assert_close(ours, update.detach(), rtol=1e-12, atol=1e-15)
        outputs.append(update)
    expected = dict(zip(free, torch.autograd.grad(outputs, list(free.values()), slopes), strict=True))
    found = tape.pull_back(slopes)
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-11, atol=1e-15)
    for key, value in frozen.state().items():
        torch.testing.assert_close(value, state[key], rtol=1e-12, atol=1e-15)


@native
def test_mlp_with_an_update_penalty_or_other_mathematics_goes_by_autograd():
    optimizer, theta = LEARNED_OPTIMIZERS.create("mlp"), torch.zeros(1, 5, dtype=F64)
    phi, state = make_phi(optimizer), optimizer.init(theta)
    assert kernels.tape(optimizer, phi, state, theta, 2, ascends=True) is None
    changed = type("Changed", (type(optimizer),), {"step": lambda self, phi, features, state: (0 * theta, state)})()
    assert kernels.tape(changed, phi, state, theta, 2) is None


def test_meta_parameters_of_another_precision_are_refused():
    optimizer = MEMBERS["dm"]
    theta = torch.zeros(1, 5, dtype=F64)
    step = kernels.steps(optimizer, make_phi(optimizer, torch.float32), optimizer.init(theta), theta)
    with pytest.raises(RuntimeError, match="dtype"):
        step(theta, theta)


MEMORY = """
import torch
from engine.bench.memory import process_peak_bytes
from engine.kernels.{module} import {tape} as Tape
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS
optimizer = LEARNED_OPTIMIZERS.create("dm")
theta = torch.zeros(1, 15_910)
state = optimizer.init(theta)
phi = optimizer.init_phi(torch.Generator())
tape = Tape(optimizer, phi, state, 200)
for _ in range(200):
    tape.step(torch.zeros(1, 15_910, 2), state)
tape.pull_back([theta] * 200)
print(process_peak_bytes() / 2**30)
"""


@native
def test_a_truncation_of_200_steps_fits_in_two_gigabytes():
    code = MEMORY.format(module="native", tape="NativeTape")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0  # GiB, torch itself included; autograd's graph would take 15


@native
def test_meta_training_learns_the_same_with_every_way(monkeypatch):
    """Six meta-steps in single precision: rounding is all that may differ."""
    preset = from_mapping(
        {
            "name": "same",
            "task": {"dataset": "digits", "hidden": [8], "batch_size": 32},
            "optimizer": {"kind": "dm", "hidden": 8},
            "meta": {"epochs": 2, "inner_steps": 15, "truncation": 5, "meta_batch": 2},
            "penalty": {"smooth": {"ascent_steps": 2, "weight": 10.0}, "gsam": {"weight": 2.0}},
            "evaluation": {"every": 2, "optimizees": 1, "examples": 50, "restarts": 1, "ascent_steps": 2},
        }
    )
    found = {}
    for way in ("native", "rows", "recompute", "plain"):
        monkeypatch.setenv("LREG_KERNELS", way)
        trainer = meta_trainer(preset, device=torch.device("cpu"))
        records = []
        while not trainer.finished:
            records += trainer.advance()
        found[way] = records
    for way in ("native", "rows", "recompute"):
        for ours, plain in zip(found[way], found["plain"], strict=True):
            for metric in ("meta_loss", "meta_grad_norm", "smooth_penalty", "validation_loss", "sharpness"):
                assert (metric in ours) == (metric in plain)
                if metric in ours:
                    assert ours[metric] == pytest.approx(plain[metric], rel=2e-3), f"{way}: {metric}"


def test_an_unknown_way_is_an_error(monkeypatch):
    monkeypatch.setenv("LREG_KERNELS", "fast")
    with pytest.raises(LregError, match="LREG_KERNELS: found 'fast'; allowed: auto, native, rows"):
        kernels.chosen()


def test_an_unknown_instruction_set_is_an_error(monkeypatch):
    monkeypatch.setenv("LREG_KERNELS_ISA", "[avx1024]")
    with pytest.raises(LregError, match="LREG_KERNELS_ISA: found '.avx1024.'; allowed: native, avx512, avx2, sse2"):
        build.instruction_set()


@on_every_build
def test_the_doctor_names_the_vector_instructions(isa):
    named = kernels.describe(torch.device("cpu"))
    assert named.startswith({"avx2": "native, AVX2, ", "sse2": "native, SSE2, "}.get(isa, "native, "))


@native
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags of other processors")
def test_what_this_processor_cannot_run_is_not_run(own_cache, monkeypatch):
    """A build for another processor ends in a reason, not in an illegal instruction."""
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-D__builtin_cpu_supports(what)=false"))
    with build_for("avx2", monkeypatch):
        assert kernels.native_problem() == "LREG_KERNELS_ISA=avx2: this processor has no AVX2"


def test_without_a_compiler_there_is_a_reason_and_a_fallback(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv("LREG_KERNELS", raising=False)
    forget_builds()
    optimizer = MEMBERS["dm"]
    theta = torch.zeros(1, 4, dtype=F64)
    try:
        assert "no C++ compiler found (no-such-compiler)" in kernels.describe(torch.device("cpu"))
        tape = kernels.tape(optimizer, make_phi(optimizer), optimizer.init(theta), theta, 5)
        assert isinstance(tape, RowsTape)
        monkeypatch.setenv("LREG_KERNELS", "native")
        with pytest.raises(LregError, match="no C\\+\\+ compiler"):
            kernels.tape(optimizer, make_phi(optimizer), optimizer.init(theta), theta, 5)
    finally:
        monkeypatch.undo()
        forget_builds()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of compiled kernels for one test."""
    monkeypatch.setattr(build, "folder", lambda: tmp_path / "kernels")
    monkeypatch.setattr(
        compiler, "FLAGS", [{"-O3": "-O0"}.get(flag, flag) for flag in compiler.FLAGS]
    )  # compiled in a second
    forget_builds()
    yield tmp_path / "kernels"
    forget_builds()


@native
def test_of_many_that_want_the_kernels_one_compiles_them_and_a_torn_library_is_compiled_again(
    own_cache, monkeypatch, tmp_path
):
    (command,) = compiler.find_compiler()
    script = f'case "$*" in *-o*) echo >> {shlex.quote(str(tmp_path / "compiled"))};; esac; exec {command} "$@"'
    monkeypatch.setenv("CXX", shlex.join(["sh", "-c", script, "c++"]))  # a command of several words
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(lambda _: build.library.__wrapped__(), range(4)))
    assert all(library.lreg_lanes(4) for library in libraries)
    assert len((tmp_path / "compiled").read_text()) == 1
    (path,) = own_cache.glob("*.so")
    left = {file.suffix for file in own_cache.iterdir()} - {".lock"}
    assert left == {".so", ".sha256"}, "it and its seal; no scratch is left"
    whole = path.read_bytes()
    path.unlink()  # it is loaded: never write into it
    path.write_bytes(whole[: len(whole) // 2])  # loading this would end the process
    assert build.library().lreg_lanes(4) and path.read_bytes() == whole
    assert len((tmp_path / "compiled").read_text()) == 2


@native
def test_a_cache_that_cannot_be_written_is_done_without(own_cache):
    own_cache.write_text("no folder")
    assert build.library().lreg_lanes(4)


class Trebled(LEARNED_OPTIMIZERS["dm"]):
    """A member's subclass with another update: `network` still describes the member's."""

    def step(self, phi: Phi, features: Tensor, state: State) -> tuple[Tensor, State]:
        update, state = super().step(phi, features, state)
        return 3 * update, state


def test_a_subclass_with_another_step_is_not_computed_as_its_parent():
    optimizer = Trebled()
    phi, theta = make_phi(optimizer), torch.zeros(1, 7, dtype=F64)
    state = optimizer.init(theta)
    assert LEARNED_OPTIMIZERS.create("dm").trusted_network is not None and optimizer.trusted_network is None
    grad = torch.ones_like(theta)
    update = kernels.steps(optimizer, phi, state, theta)(theta, grad)
    torch.testing.assert_close(update, optimizer.update(phi, theta, grad, state)[0])


@native
def test_a_tape_that_is_closed_twice_gives_its_memory_back_once():
    trial = Trial(MEMBERS["dm"])
    tape = NativeTape(trial.optimizer, trial.phi, trial.start, trial.steps)
    trial.run(tape)
    tape.close()
    tape.close()
    one, other = (NativeTape(trial.optimizer, trial.phi, trial.start, trial.steps) for _ in range(2))
    updates = trial.run(one), trial.run(other)
    assert one._features.data_ptr() != other._features.data_ptr()
    assert all(torch.equal(*pair) for pair in zip(*updates, strict=True))
    with pytest.raises((TypeError, RuntimeError, IndexError)):
        tape.step(torch.zeros(2, 101, 2, dtype=F64), trial.start)


def test_a_graph_too_large_is_computed_anew(monkeypatch):
    monkeypatch.setenv("LREG_KERNELS", "auto")
    monkeypatch.setattr(kernels, "native_problem", lambda: "switched off")
    monkeypatch.setattr(kernels, "LARGEST_GRAPH", 10**6)
    optimizer = MEMBERS["dm"]
    small, large = torch.zeros(1, 4, dtype=F64), torch.zeros(1, 4000, dtype=F64)
    assert isinstance(kernels.tape(optimizer, make_phi(optimizer), optimizer.init(small), small, 5), RowsTape)
    tape = kernels.tape(optimizer, make_phi(optimizer), optimizer.init(large), large, 5)
    assert isinstance(tape, RecomputeTape)


@pytest.mark.parametrize("ages", ["alike", "different"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_of_lin_is_its_plain_step(ages, dtype, monkeypatch):
    """Many optimizers at once, each with its own meta-parameters; coordinates may be of different ages."""
    from engine.kernels import steps, takes_many
    from engine.optimizers.learned.base import StepInfo
    from engine.optimizers.learned.base import get as learned

    monkeypatch.setenv("LREG_KERNELS", "auto")
    optimizer, generator = learned("lin"), torch.Generator().manual_seed(0)
    phi = {
        name: torch.randn(3, *part.shape, generator=generator).to(dtype)
        for name, part in optimizer.init_phi(generator).items()
    }
    theta = torch.randn(3, 2, 37, generator=generator).to(dtype)
    state = torch.func.vmap(optimizer.init)(theta)
    if ages == "different":
        state["features.time"] = torch.arange(37, dtype=dtype).expand(3, 2, 37)
    assert takes_many(optimizer, phi, theta)
    together = steps(optimizer, phi, state, theta)
    plain = [(theta[m], {name: tensor[m] for name, tensor in state.items()}) for m in range(3)]
    for number in range(4):
        grad, info = torch.randn(3, 2, 37, generator=generator).to(dtype), StepInfo(None, number, 5)
        update = together(theta, grad, info)
        for m, (point, before) in enumerate(plain):
            own, after = optimizer.update(
                {name: part[m] for name, part in phi.items()}, point, grad[m], before, None, info
            )
            torch.testing.assert_close(update[m], own, rtol=1e-5 if dtype == torch.float32 else 1e-11, atol=1e-6)
            plain[m] = (point + own, after)
        theta = torch.stack([point for point, _ in plain])
    for name, tensor in together.state().items():
        expected = torch.stack([after[name] for _, after in plain])
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
