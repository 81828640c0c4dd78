"""Building the CPU kernels: compiled once with the machine's own C++ compiler, and kept in the user's cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

SOURCE = Path(__file__).with_name("native.cpp")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
VARIANTS = (("-march=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ("-mcpu=native",), ())
PATIENCE_S = 300


class BuildError(Exception):
    """Why there are no CPU kernels, in one line."""


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises BuildError where they cannot be built or loaded."""
    path = built()
    if not _loads(path):  # damaged
        path.unlink(missing_ok=True)
        path = built()
    return _load(path)


def built() -> Path:
    """The shared library of this source for this machine, compiled now if it is not there. Raises BuildError."""
    compiler = _compiler()
    path = folder() / f"lreg-{_fingerprint(compiler)}.so"
    if not path.exists():
        _compile(compiler, path)
    return path


def folder() -> Path:
    """Where compiled kernels are kept."""
    return user_cache_path("lreg") / "kernels"


def _compiler() -> str:
    wanted = os.environ.get("CXX", "").split()[:1] or COMPILERS
    for name in wanted:
        if found := shutil.which(name):
            return found
    raise BuildError(f"no C++ compiler found ({', '.join(wanted)})")


def _fingerprint(compiler: str) -> str:
    """Another source, compiler or processor is another library: homes are shared between machines."""
    parts = [SOURCE.read_bytes(), compiler.encode(), _first_line([compiler, "--version"]), _processor()]
    return hashlib.sha256(b"\0".join([*parts, " ".join(FLAGS).encode()])).hexdigest()[:16]


def _first_line(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout.partition(b"\n")[0]
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{command[0]}: {error}") from None


def _processor() -> bytes:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n")
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.platform()}".encode()
    return b"\n".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))


def _compile(compiler: str, path: Path) -> None:
    """Try the variants in turn; the first that compiles and loads is kept. Raises BuildError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as scratch:
            target = Path(scratch) / "lreg.so"
            for variant in VARIANTS:
                command = [compiler, *FLAGS, *variant, "-o", str(target), str(SOURCE)]
                done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
                if done.returncode == 0 and _loads(target):
                    os.replace(target, path)
                    return
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"cannot compile into {path.parent}: {error}") from None
    reason = done.stderr.decode(errors="replace").strip().partition("\n")[0][:200]
    raise BuildError(f"{compiler} does not compile them: {reason or 'the result cannot be loaded'}")


def _loads(path: Path) -> bool:
    try:
        _load(path)
    except BuildError:
        return False
    return True


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path}: {error}") from None
