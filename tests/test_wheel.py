"""A wheel with the CPU kernels: without a compiler they compute what plain PyTorch does."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine import kernels
from engine.kernels import compiler

ROOT = Path(__file__).parents[1]
SCRIPT = """
import os, sys, torch
from engine import kernels
from engine.kernels import build, compiler
from engine.kernels.steps import NativeSteps, PlainSteps
from engine.optimizers.learned.base import LEARNED_OPTIMIZERS

def describe(isa):
    os.environ["LREG_KERNELS_ISA"] = isa
    build.library.cache_clear()
    kernels.native_problem.cache_clear()
    print(kernels.describe(torch.device("cpu")))

optimizer = LEARNED_OPTIMIZERS.create("dm")
phi = {name: tensor.double() for name, tensor in optimizer.init_phi(torch.Generator().manual_seed(3)).items()}
theta = torch.linspace(-1, 1, 101, dtype=torch.float64)[None]
for isa in sys.argv[1:]:
    describe(isa)
    native, plain = (way(optimizer, phi, optimizer.init(theta)) for way in (NativeSteps, PlainSteps))
    for _ in range(3):
        torch.testing.assert_close(native(theta, theta.cos()), plain(theta, theta.cos()), rtol=1e-12, atol=1e-15)
with open(compiler.SOURCE, "a") as file:
    file.write("// changed")
describe("native")
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as a wheel leaves it, for a processor without AVX-512; where hatchling is missing, put together."""
    command = shlex.quote(compiler.find_compiler()[0])
    lacking = """case "$*" in *avx512*) set -- "$@" "-D__builtin_cpu_supports(what)=false";; esac"""
    monkeypatch.setenv("CXX", shlex.join(["sh", "-c", f'{lacking}; exec {command} "$@" -O0', "c++"]))  # in a second
    monkeypatch.setenv("LREG_BUILD_KERNELS", "1")
    site = tmp_path / "site"
    if importlib.util.find_spec("hatchling"):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
        subprocess.run(build, cwd=ROOT, check=True)
        (wheel,) = tmp_path.glob("lreg-*-py3-none-[!a]*.whl")  # of any Python, but of this platform
        zipfile.ZipFile(wheel).extractall(site)
    else:
        shutil.copytree(ROOT / "engine", site / "engine", ignore=shutil.ignore_patterns("__pycache__"))
        (site / "engine" / "kernels" / "prebuilt").mkdir()
        compiler.prebuild(site / "engine" / "kernels" / "prebuilt")
    return site


@pytest.mark.skipif(bool(kernels.native_problem()), reason="no C++ compiler")
@pytest.mark.skipif(platform.machine() not in compiler.IN_WHEELS, reason="no wheels with kernels for this processor")
def test_the_kernels_of_a_wheel_need_no_compiler(installed):
    isas = ("native", *compiler.IN_WHEELS[platform.machine()][-2:])
    environment = os.environ | {"PATH": "", "CXX": "", "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *isas],
        cwd=installed,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    named = ["NEON", "NEON"] if "neon" in isas else ["AVX2", "AVX2", "SSE2"]
    *prebuilt, changed = done.stdout.splitlines()
    assert prebuilt == [f"native, {name}, prebuilt" for name in named]
    assert "no C++ compiler found" in changed, "kernels of another source are not taken"
    for library in installed.glob("engine/kernels/prebuilt/*"):
        assert b"libgomp" not in library.read_bytes(), "threads are those of torch: a compiler's library may be missing"
