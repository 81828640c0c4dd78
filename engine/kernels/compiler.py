"""The C++ compiler of the CPU kernels. Standard library alone: .ci/hatch_build.py runs it where nothing else is."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("native.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
ISAS = {  # what LREG_KERNELS_ISA may be, the best first: compilers' flags for it, of which the first that work are used
    "native": (("-march=native",), ("-mcpu=native",), ()),
    "avx512": (("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"),),
    "avx2": (("-mavx2", "-mfma"),),
    "sse2": (("-march=x86-64",),),
    "neon": (("-march=armv8-a",),),
}
IN_WHEELS = {"x86_64": ("avx512", "avx2", "sse2"), "aarch64": ("neon",), "arm64": ("neon",)}
PATIENCE_S = 300


class BuildError(Exception):
    """Why there are no CPU kernels, in one line."""


def find_compiler() -> list[str]:
    """The command of the compiler: $CXX, with what words it has, else the first that is there."""
    cxx = os.environ.get("CXX", "")
    for command in [[cxx], shlex.split(cxx)] if cxx else [[name] for name in COMPILERS]:
        if command and (executable := shutil.which(command[0])):
            return [executable, *command[1:]]
    raise BuildError(f"no C++ compiler found ({cxx or ', '.join(COMPILERS)})")


def run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run the compiler. Raises BuildError where it cannot be, or takes too long."""
    try:
        return subprocess.run(command, capture_output=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} does not compile them within {PATIENCE_S} s") from None
    except OSError as error:
        raise BuildError(f"{command[0]} does not compile them: {error.strerror}") from None


def compile_kernels(compiler: Sequence[str], isa: str, target: Path, form: str = "-shared") -> None:
    """Try the flags in turn; the first that compile make the target, a library or (-c) an object. Raises BuildError."""
    for threads, flags in itertools.product(("-fopenmp", ""), ISAS[isa]):
        done = run([*compiler, *FLAGS, *filter(None, (form, threads, *flags)), "-o", str(target), str(SOURCE)])
        if done.returncode == 0:
            return
    raise _failure(compiler, done)


def _failure(compiler: Sequence[str], done: subprocess.CompletedProcess[bytes]) -> BuildError:
    reason = done.stderr.decode(errors="replace").strip().partition("\n")[0][:200]
    return BuildError(f"{compiler[0]} does not compile them: {reason or f'exit code {done.returncode}'}")


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def prebuilt_name(isa: str) -> str:
    """The file of an instruction set in a wheel: of another source, or by other flags, it has another name."""
    return f"lreg-{digest(SOURCE.read_bytes() + ' '.join(FLAGS).encode())[:16]}-{isa}.so"


def prebuild(folder: Path) -> list[Path]:
    """Compile for every instruction set of wheels for this kind of processor, into a folder. Raises BuildError.

    No OpenMP library is linked: the one that torch brings, and loads for all, runs the threads.
    """
    compiler, libraries = find_compiler(), []
    for isa in IN_WHEELS.get(platform.machine(), ()):
        library = folder / prebuilt_name(isa)
        compile_kernels(compiler, isa, library.with_suffix(".o"), "-c")
        done = run([*compiler, "-shared", "-o", str(library), str(library.with_suffix(".o"))])
        if done.returncode != 0:
            raise _failure(compiler, done)
        libraries.append(library)
    return libraries
