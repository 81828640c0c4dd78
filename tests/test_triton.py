"""The Triton kernels against RecomputeTape: in Triton's interpreter on the CPU, and on CUDA where there is one.

The interpreter is chosen when kernels are defined, so the cases run in one child process (this file as a script), which
prints the errors it found; the tests here hold them against bounds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.kernels import triton_tape
from engine.kernels.recompute import RecomputeTape
from engine.kernels.tape import SideInput, Tape
from engine.kernels.triton_tape import TritonTape, supports
from engine.optimizers.box_ascent import BoxAscent
from engine.optimizers.learned.base import LearnedOptimizer, Network, Phi, State
from engine.optimizers.learned.dm import DM
from engine.optimizers.learned.rnnprop import RNNProp
from engine.optimizers.learned.simple import Simple

BOUND = {torch.float64: 1e-13, torch.float32: 1e-5}  # of errors relative to the largest entry, in the interpreter
BOUND_CUDA = 1e-4  # likewise, in float32 with the device's exp and division: a few units in the last place each
NO_BACKEND = 5  # exit status
QUANTITIES = ("updates", "state", "gradient", "with side")
CASES = {
    "dm": (DM(), torch.float64, (1, 9)),
    "dm, one layer": (DM(hidden=8, layers=1, theta_input=True), torch.float32, (2, 9)),
    "rnnprop, three layers": (RNNProp(hidden=20, layers=3, theta_input=True), torch.float64, (3, 7)),
}
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def setup(optimizer: LearnedOptimizer, shape: tuple[int, int], dtype: torch.dtype) -> tuple[Phi, State]:
    """Meta-parameters and a state without zeros."""
    generator = torch.Generator().manual_seed(0)

    def near(tensor: Tensor, width: float) -> Tensor:
        return (tensor + width * torch.randn(tensor.shape, generator=generator)).to(dtype)

    phi = {name: near(tensor, 0.2) for name, tensor in optimizer.init_phi(generator).items()}
    state = optimizer.init(torch.zeros(shape, dtype=dtype))
    return phi, {name: near(tensor, 0.5 * name.startswith("lstm")) for name, tensor in state.items()}


def inputs(optimizer: LearnedOptimizer, shape: tuple[int, int], dtype: torch.dtype, steps: int) -> list[list[Tensor]]:
    """Features and slopes of every step, and others for the side; the first step's has none."""
    assert optimizer.network is not None
    generator = torch.Generator().manual_seed(1)
    sizes = [(*shape, optimizer.network.features), shape] * 2
    return [[torch.randn(size, generator=generator).to(dtype) for _ in range(steps)] for size in sizes]


def quantities(tape: Tape, state: State, given: list[list[Tensor]]) -> dict[str, list[Tensor]]:
    """What a tape gives for a truncation."""
    features, slopes, elsewhere, beside = given
    updates = [tape.step(one, state).clone() for one in features]
    end, gradient = tape.state(), tape.pull_back(slopes)
    sided = tape.pull_back(slopes, SideInput([None, *elsewhere[1:]], [None, *beside[1:]]))
    again = tape.state()  # not spoilt by the pull-back
    assert all(torch.equal(end[name], again[name]) for name in end)
    found = [[values[name] for name in sorted(values)] for values in (end, gradient, sided)]
    return dict(zip(QUANTITIES, [updates, *found], strict=True))


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error, relative to the largest entry of each tensor."""
    pairs = zip(found, expected, strict=True)
    return max(((one - other).abs().max() / other.abs().max()).item() for one, other in pairs)


def compare(name: str, steps: int) -> dict[str, float]:
    optimizer, dtype, shape = CASES[name]
    phi, state = setup(optimizer, shape, dtype)
    given = inputs(optimizer, shape, dtype, steps)
    found, expected = (
        quantities(kind(optimizer, phi, state, steps), state, given) for kind in (TritonTape, RecomputeTape)
    )
    return {quantity: error(found[quantity], expected[quantity]) for quantity in QUANTITIES}


def ascents(optimizer: LearnedOptimizer, free: int | None) -> float:
    """Features and update at the end of an ascent that meets the walls of its box."""
    phi, state = setup(optimizer, (1, 9), torch.float64)
    (features, _, offset, _) = (given[0] for given in inputs(optimizer, (1, 9), torch.float64, 1))
    tapes = [kind(optimizer, phi, state, 1) for kind in (TritonTape, RecomputeTape)]
    for tape in tapes:
        tape.step(features, state)
    found, expected = (tape.ascend(0.1 * offset, BoxAscent(0.3, 0.15, 3, free)) for tape in tapes)
    assert not torch.equal(expected[0], features + 0.1 * offset)
    return error([*found], [*expected])


def extremes() -> dict[str, float | bool]:
    """Relative precision of tiny updates; and a coordinate that has diverged stays so, alone."""
    optimizer = RNNProp(hidden=8, layers=1)
    phi, state = setup(optimizer, (1, 20), torch.float32)
    phi = {name: torch.zeros_like(value) if name.endswith("bias") else 1e-3 * value for name, value in phi.items()}
    features = torch.logspace(-12, 12, 40).reshape(1, 20, 2)
    features[0, 3, 0] = torch.nan
    rest = {name: torch.zeros_like(value) for name, value in state.items()}
    found, expected = (kind(optimizer, phi, rest, 1).step(features, rest) for kind in (TritonTape, RecomputeTape))
    fine = ~expected.isnan()
    off = ((found - expected) / expected)[fine].abs().max().item()
    return {"tiny": off, "diverged": bool(torch.equal(found.isnan(), expected.isnan()) and not fine.all())}


def tried(home: Path) -> dict[str, object]:
    """A trial of the kernels by an unroll with ascents and sides, as if they were fast, and a truncation on them."""
    from test_trial import drive

    from engine import kernels
    from engine.kernels import trial

    trial.folder = lambda: home / "trials"
    trial.timed = lambda call, device: 0.5 if TritonTape in getattr(call, "args", ()) else 1.0
    kernels.native_problem, kernels.LARGEST_GRAPH = (lambda: "pretended away"), 0
    with trial.thorough():
        drive(ascends=True, truncations=2, steps=2, layers=1)
    (kept,) = trial.verdicts()
    return {"chosen": kept.verdict.chosen, "error": kept.verdict.outcomes[kernels.TRITON].error}


def child(what: str, home: Path) -> subprocess.CompletedProcess[str]:
    """This file as a script, with Triton's cache in `home`."""
    root = Path(__file__).parents[1]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
    variables |= {"TRITON_CACHE_DIR": str(home), "TRITON_INTERPRET": "01"[what == "interpret"], "LREG_KERNELS": "auto"}
    command = [sys.executable, "-W", "ignore", __file__, what]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, cwd=root)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    done = child("interpret", tmp_path_factory.mktemp("triton"))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@needs_triton
def test_the_kernels_compile_for_cuda(tmp_path):
    """Without a device: Triton's own language is narrower than what its interpreter runs."""
    done = child("compile", tmp_path)
    if done.returncode == NO_BACKEND:
        pytest.skip("this Triton does not compile for CUDA")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["forward", "backward", "ascent"]


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_a_truncation_and_its_gradients_equal_autograds(interpreted, name):
    bound = BOUND[CASES[name][1]]
    assert {quantity: value for quantity, value in interpreted[name].items() if not value < bound} == {}


@needs_triton
def test_pieces_change_nothing(interpreted):
    """Where not all states are kept they are computed anew: one coordinate after the other, the same numbers."""
    assert interpreted["pieces"] == interpreted["dm, one layer"]


@needs_triton
@pytest.mark.parametrize("which", ["ascent", "ascent of the gradient's features"])
def test_the_ascent_ends_where_autograds_does(interpreted, which):
    assert interpreted[which] < BOUND[torch.float64]


@needs_triton
def test_the_kernels_stand_their_trial(interpreted):
    """The verdict is Triton's still after a truncation on it was checked."""
    assert interpreted["trial"]["chosen"] == "Triton" and interpreted["trial"]["error"] < BOUND[torch.float32]


@needs_triton
def test_small_and_spoilt_numbers(interpreted):
    assert interpreted["extremes"]["tiny"] < BOUND[torch.float32]
    assert interpreted["extremes"]["diverged"]


@needs_triton
def test_knows_what_it_cannot_do(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cuda, known = torch.device("cuda"), Network("lstm", 2, 20, 2, 0.01)
    assert not supports(None, cuda, torch.float32)
    assert not supports(known, torch.device("cpu"), torch.float32)
    assert not supports(known, cuda, torch.float64)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert supports(known, torch.device("cpu"), torch.float64)
    assert not supports(Simple().network, cuda, torch.float32)
    assert not supports(Network("lstm", 2, 33, 2, 0.01), cuda, torch.float32)
    assert not supports(Network("lstm", 9, 20, 2, 0.01), cuda, torch.float32)
    assert not supports(Network("lstm", 2, 20, 5, 0.01), cuda, torch.float32)


def test_triton_is_loaded_late():
    """Not by the tape's module, on top of what PyTorch itself loads."""
    code = "import sys, torch; before = 'triton' in sys.modules; import engine.kernels.triton_tape; "
    code += "sys.exit(before != ('triton' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("optimizer", [DM(), RNNProp(), RNNProp(hidden=8, layers=3, theta_input=True)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 31), (3, 5003)])
def test_on_cuda_as_plain_pytorch(optimizer, shape):
    cuda, steps = torch.device("cuda"), 4
    phi, state = ({n: v.to(cuda) for n, v in part.items()} for part in setup(optimizer, shape, torch.float32))
    given = [[one.to(cuda) for one in part] for part in inputs(optimizer, shape, torch.float32, steps)]
    assert supports(optimizer.network, cuda, torch.float32)
    found, expected = (
        quantities(kind(optimizer, phi, state, steps), state, given) for kind in (TritonTape, RecomputeTape)
    )
    assert {q: e for q in QUANTITIES if not (e := error(found[q], expected[q])) < BOUND_CUDA} == {}


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("optimizer", [DM(), RNNProp()])
def test_the_ascent_on_cuda(optimizer):
    """A slope near 0 may take either sign in float32: nearly all coordinates end alike, and every update is right."""
    cuda, shape = torch.device("cuda"), (2, 5003)
    phi, state = ({n: v.to(cuda) for n, v in part.items()} for part in setup(optimizer, shape, torch.float32))
    features, _, offset, _ = (part[0].to(cuda) for part in inputs(optimizer, shape, torch.float32, 1))
    tapes = [kind(optimizer, phi, state, 1) for kind in (TritonTape, RecomputeTape)]
    for tape in tapes:
        tape.step(features, state)
    (found, there), (expected, _) = (tape.ascend(0.05 * offset, BoxAscent(1.0, 0.2, 10)) for tape in tapes)
    assert ((found - expected).abs().amax(-1) < 1e-4).float().mean() > 0.99
    assert error([there], [optimizer.step(phi, found, state)[0]]) < BOUND_CUDA


def interpret() -> None:
    """All cases in the interpreter, with up to two blocks for a program; JSON to stdout."""
    torch.set_grad_enabled(False)
    triton_tape.BLOCK, triton_tape.PROGRAMS = 16, 1
    steps = {name: 3 if dtype == torch.float32 else 2 for name, (_, dtype, _) in CASES.items()}
    found: dict[str, object] = {name: compare(name, steps[name]) for name in CASES}
    triton_tape.LARGEST_LINE = 0
    found["pieces"] = compare("dm, one layer", 3)  # of two steps and of one
    found["ascent"] = ascents(RNNProp(hidden=8, layers=1), None)
    found["ascent of the gradient's features"] = ascents(DM(hidden=8, theta_input=True), 2)
    found["extremes"] = extremes()
    found["trial"] = tried(Path(os.environ["TRITON_CACHE_DIR"]))
    print(json.dumps(found))


def compile_kernels() -> None:
    """Every kernel of a small network to machine code; its name to stdout."""
    import triton
    from triton.backends.compiler import GPUTarget

    from engine.kernels import triton_lstm

    if "nvidia" not in triton.backends.backends:
        sys.exit(NO_BACKEND)
    sizes = {"F": 2, "FP": 16, "H": 8, "HP": 16, "LAYERS": 2, "BLOCK": 16}
    sizes |= {"ENTRANCE": True, "SQUASHED": True, "ALONE": False}
    os.environ["DISABLE_PTXAS_OPT"] = "1"  # in half the time
    numbers = dict.fromkeys(("coordinates", "size", "steps", "free"), "i32")
    numbers |= dict.fromkeys(("scale", "epsilon", "length"), "fp32")
    for name in ("forward", "backward", "ascent"):
        kernel = getattr(triton_lstm, name)
        signature = {n: "constexpr" if n in sizes else numbers.get(n, "*fp32") for n in kernel.arg_names}
        constants = {n: sizes[n] for n in kernel.arg_names if n in sizes}
        source = triton.compiler.ASTSource(kernel, signature, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 4})
        assert compiled.asm["cubin"]
        print(name)


if __name__ == "__main__":
    {"interpret": interpret, "compile": compile_kernels}[sys.argv[1]]()
