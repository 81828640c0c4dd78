"""The CPU kernels' library: the wheel's, or compiled once with the machine's own C++ compiler and kept in its cache."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from engine.base.errors import LregError, printable
from engine.kernels import compiler
from engine.kernels.compiler import ISAS, BuildError, digest

PREBUILT = Path(__file__).with_name("prebuilt")  # in a wheel that was built with LREG_BUILD_KERNELS=1


def instruction_set() -> str:
    """LREG_KERNELS_ISA. Raises LregError where it names none."""
    isa = os.environ.get("LREG_KERNELS_ISA", "native") or "native"
    if isa not in ISAS:
        raise LregError(f"LREG_KERNELS_ISA: found {printable(isa)!r}; allowed: {', '.join(ISAS)}")
    return isa


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels, loaded. Raises BuildError where there are none in the package, and they cannot be built or run."""
    wanted, reason = instruction_set(), ""
    for isa in ISAS if wanted == "native" else (wanted,):
        path = PREBUILT / compiler.prebuilt_name(isa)
        try:
            if path.exists():
                return _load(path)
        except BuildError as error:  # usually one for a better processor
            reason = f"; prebuilt: {error}"
    try:
        return _compiled(compiler.find_compiler())
    except BuildError as error:
        raise BuildError(f"{error}{reason}") from None


def is_prebuilt(loaded: ctypes.CDLL) -> bool:
    """Whether kernels were in the package, not compiled on this machine."""
    return Path(loaded._name).parent == PREBUILT


def _compiled(command: Sequence[str]) -> ctypes.CDLL:
    name = f"lreg-{_fingerprint(command)}.so"
    try:
        return _kept(command, folder() / name)
    except BuildError as error:
        if "compile them" in str(error):  # no place is to blame
            raise
    scratch = Path(tempfile.mkdtemp(prefix="lreg-kernels-"))  # a cache that cannot be written, or executed from
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return _kept(command, scratch / name)


def folder() -> Path:
    """Where compiled kernels are kept."""
    return user_cache_path("lreg") / "kernels"


def _kept(command: Sequence[str], path: Path) -> ctypes.CDLL:
    """The library at a path; compiled now if it is not there, or not what was written there."""
    try:
        if not _is_whole(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):  # of many processes one compiles
                if not _is_whole(path):
                    _compile(command, path)
        return _load(path)
    except NotImplementedError as error:  # a file system without locks
        raise BuildError(f"{path}: {error}") from None
    except OSError as error:
        raise BuildError(f"{error.filename or path}: {error.strerror}") from None


def _is_whole(path: Path) -> bool:
    """Whether a file is what was compiled: loading a torn one would end the process."""
    try:
        return digest(path.read_bytes()) == _seal(path).read_text()
    except (OSError, ValueError):
        return False


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _fingerprint(command: Sequence[str]) -> str:
    """Another source, compiler, processor or instruction set is another library: homes are shared between machines."""
    version = compiler.run([*command, "--version"]).stdout.partition(b"\n")[0]
    parts = [compiler.prebuilt_name(instruction_set()).encode(), " ".join(command).encode(), version, _processor()]
    return digest(b"\0".join(parts))[:16] + f"-{instruction_set()}"


def _processor() -> bytes:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n")
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.platform()}".encode()
    return b"\n".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))


def _compile(command: Sequence[str], path: Path) -> None:
    """Compile beside the path and move it there. Raises BuildError, and OSError of the path."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as scratch:
        target = Path(scratch) / path.name
        compiler.compile_kernels(command, instruction_set(), target)
        _keep(target, path)


def _keep(target: Path, path: Path) -> None:
    """Move a library to its place, safely on the disk, and its seal after it."""
    with open(target, "rb+") as file:
        sealed = digest(file.read())
        os.fsync(file.fileno())
    seal = _seal(target)
    seal.write_text(sealed)
    os.replace(target, path)
    os.replace(seal, _seal(path))


def _load(path: Path) -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.lreg_isa.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        raise BuildError(f"{path}: {error}") from None
    if not loaded.lreg_runs_here():
        raise BuildError(f"LREG_KERNELS_ISA={instruction_set()}: this processor has no {isa_of(loaded)}")
    return loaded


def isa_of(loaded: ctypes.CDLL) -> str:
    """The vector instructions that compiled kernels use: AVX-512, AVX2, AVX, SSE2, or those of another processor."""
    return str(loaded.lreg_isa().decode())
