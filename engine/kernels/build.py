"""Building the CPU kernels: compiled once with the machine's own C++ compiler, and kept in the user's cache."""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import itertools
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from engine.base.errors import LregError, printable

SOURCE = Path(__file__).with_name("native.cpp")
VERSION = 2  # of lreg_version in it
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
ISAS = {  # what LREG_KERNELS_ISA may be: compilers' flags for it, of which the first that work are used
    "native": (("-march=native",), ("-mcpu=native",), ()),
    "avx512": (("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"),),
    "avx2": (("-mavx2", "-mfma"),),
    "sse2": (("-march=x86-64",),),
}
PATIENCE_S = 300


class BuildError(Exception):
    """Why there are no CPU kernels, in one line."""


def instruction_set() -> str:
    """LREG_KERNELS_ISA. Raises LregError where it names none."""
    isa = os.environ.get("LREG_KERNELS_ISA", "native") or "native"
    if isa not in ISAS:
        raise LregError(f"LREG_KERNELS_ISA: found {printable(isa)!r}; allowed: {', '.join(ISAS)}")
    return isa


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises BuildError where they cannot be built, loaded or run."""
    compiler = _compiler()
    name = f"lreg-{_fingerprint(compiler)}.so"
    try:
        return _kept(compiler, folder() / name)
    except BuildError as error:
        if "compile them" in str(error):  # no place is to blame
            raise
    scratch = Path(tempfile.mkdtemp(prefix="lreg-kernels-"))  # a cache that cannot be written, or executed from
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return _kept(compiler, scratch / name)


def folder() -> Path:
    """Where compiled kernels are kept."""
    return user_cache_path("lreg") / "kernels"


def _kept(compiler: Sequence[str], path: Path) -> ctypes.CDLL:
    """The library at a path; compiled now if it is not there, or not what was written there."""
    try:
        if not _is_whole(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):  # of many processes one compiles
                if not _is_whole(path):
                    _compile(compiler, path)
        return _load(path)
    except NotImplementedError as error:  # a file system without locks
        raise BuildError(f"{path}: {error}") from None
    except OSError as error:
        raise BuildError(f"{error.filename or path}: {error.strerror}") from None


def _is_whole(path: Path) -> bool:
    """Whether a file is what was compiled: loading a torn one would end the process."""
    try:
        return _digest(path.read_bytes()) == _seal(path).read_text()
    except (OSError, ValueError):
        return False


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _compiler() -> list[str]:
    """The command of the compiler: $CXX, with what words it has, else the first that is there."""
    cxx = os.environ.get("CXX", "")
    for command in [[cxx], shlex.split(cxx)] if cxx else [[name] for name in COMPILERS]:
        if command and (executable := shutil.which(command[0])):
            return [executable, *command[1:]]
    raise BuildError(f"no C++ compiler found ({cxx or ', '.join(COMPILERS)})")


def _fingerprint(compiler: Sequence[str]) -> str:
    """Another source, compiler, processor or instruction set is another library: homes are shared between machines."""
    parts = [SOURCE.read_bytes(), " ".join(compiler).encode(), _version(compiler), _processor()]
    return _digest(b"\0".join([*parts, " ".join(FLAGS).encode()]))[:16] + f"-{instruction_set()}"


def _version(compiler: Sequence[str]) -> bytes:
    return _run([*compiler, "--version"]).stdout.partition(b"\n")[0]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run the compiler. Raises BuildError where it cannot be, or takes too long."""
    try:
        return subprocess.run(command, capture_output=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} does not compile them within {PATIENCE_S} s") from None
    except OSError as error:
        raise BuildError(f"{command[0]} does not compile them: {error.strerror}") from None


def _processor() -> bytes:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n")
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.platform()}".encode()
    return b"\n".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))


def _compile(compiler: Sequence[str], path: Path) -> None:
    """Try the variants in turn; the first that compiles is kept. Raises BuildError, and OSError of the path."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as scratch:
        target = Path(scratch) / path.name
        for threads, isa in itertools.product(("-fopenmp", ""), ISAS[instruction_set()]):
            done = _run([*compiler, *FLAGS, *filter(None, (threads, *isa)), "-o", str(target), str(SOURCE)])
            if done.returncode == 0:
                _keep(target, path)
                return
    reason = done.stderr.decode(errors="replace").strip().partition("\n")[0][:200]
    raise BuildError(f"{compiler[0]} does not compile them: {reason or f'exit code {done.returncode}'}")


def _keep(target: Path, path: Path) -> None:
    """Move a library to its place, safely on the disk, and its seal after it."""
    with open(target, "rb+") as file:
        digest = _digest(file.read())
        os.fsync(file.fileno())
    seal = _seal(target)
    seal.write_text(digest)
    os.replace(target, path)
    os.replace(seal, _seal(path))


def _load(path: Path) -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(path))
        if loaded.lreg_version() != VERSION:
            raise BuildError(f"{path}: kernels of another version")
        loaded.lreg_isa.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        raise BuildError(f"{path}: {error}") from None
    if not loaded.lreg_runs_here():
        raise BuildError(f"LREG_KERNELS_ISA={instruction_set()}: this processor has no {isa_of(loaded)}")
    return loaded


def isa_of(loaded: ctypes.CDLL) -> str:
    """The vector instructions that compiled kernels use: AVX-512, AVX2, AVX, SSE2, or those of another processor."""
    return str(loaded.lreg_isa().decode())
