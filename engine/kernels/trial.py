"""Trial: whether a kernel is right on the machine at hand, and faster than plain PyTorch. Verdicts are kept.

What a kernel does on a device nobody can know before it has run there. So it is tried at its first use: compiled,
compared with plain PyTorch on the numbers of that use, and timed; the fastest that is right is taken. From then on one
call in four, sixteen, ... is compared again; an exception or a mismatch ends the kernel's use for good.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from platformdirs import user_cache_path

from engine.base.device import timed
from engine.base.errors import printable, shortened
from engine.base.files import read_json, strict, write_atomic

BOUND = 2e-4  # of errors, relative to the largest number of a tensor
NOISE = 4.0  # times plain PyTorch's own error in the same precision, where that is more
MOST_NOISE = 0.01  # where that is more, nothing can be told
MOST_UNDECIDED = 3  # trials of a process that told nothing, because plain PyTorch's numbers were not finite, or noise
ROUNDS = 3  # timed, the fastest counts
HOPELESS = 3.0  # times as slow as plain PyTorch: one round is enough
MOST_UNFINISHED = 2  # trials that ended with their process: a kernel that brings it down is not tried for ever
PLAIN = "plain PyTorch"

log = logging.getLogger("lreg.kernels")
"""What is told of verdicts, a line each; a run writes it into its log."""

T = TypeVar("T")


@dataclass(frozen=True)
class TrialSubject:
    """What a verdict is about: another one of these, another verdict."""

    kernel: str
    work: str  # what is computed, and the class of its sizes
    dtype: str
    device: str  # name and capability
    source: str  # hash of the kernel's files
    versions: str  # of torch and Triton

    @property
    def text(self) -> str:
        return f"{self.kernel} on {self.device}: {self.work}, {self.dtype}"


@dataclass(frozen=True)
class TrialOutcome:
    """What the trial of one candidate came to."""

    seconds: float | None = None
    error: float | None = None
    problem: str = ""  # why it cannot be taken


@dataclass(frozen=True)
class Verdict:
    """The candidate that is taken, and how all of them did."""

    chosen: str
    outcomes: Mapping[str, TrialOutcome] = field(default_factory=dict)
    lasts: bool = True  # beyond this process

    @property
    def text(self) -> str:
        """For people, of one candidate beside plain PyTorch."""
        plain = self.outcomes.get(PLAIN, TrialOutcome()).seconds
        words = []
        for name, outcome in self.outcomes.items():
            if name == PLAIN:
                continue
            taken = "taken" if name == self.chosen else "not taken"
            if outcome.problem or not outcome.seconds or not plain:
                words.append(f"{taken}: {outcome.problem}" if outcome.problem else taken)
                continue
            pace = f"{plain / outcome.seconds:.2g} times as fast as {PLAIN} ({1e3 * outcome.seconds:.3g} ms)"
            words.append(f"{taken}: {pace}, error {outcome.error:.1e}")
        return "; ".join(words)


def subject(kernel: str, work: str, device: torch.device, dtype: torch.dtype, *files: Path) -> TrialSubject:
    """What is known by now of a kernel made of source files, for work of a class of sizes on a device."""
    name = str(dtype).removeprefix("torch.")
    return TrialSubject(kernel, work, name, machine(device), _hash_of(files), _versions())


@functools.cache
def machine(device: torch.device) -> str:
    """A device's name and capability."""
    if device.type != "cuda":
        return device.type
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})"


@functools.cache
def _hash_of(files: tuple[Path, ...]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


@functools.cache
def _versions() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"torch {torch.__version__}, triton {importlib.metadata.version('triton')}"
    return f"torch {torch.__version__}"


class Trial:
    """One subject: its verdict, from the cache or made in this process, and when it is to be checked again."""

    def __init__(self, subject: TrialSubject) -> None:
        self.subject = subject
        self._calls = self._undecided = 0
        cached = _read(self._path)
        self._unfinished = cached.unfinished if cached is not None and cached.subject == subject else 0
        self.verdict = cached.verdict if cached is not None and cached.subject == subject else None
        if self.verdict is None and self._unfinished >= MOST_UNFINISHED:
            self.verdict = self._refusal("it brought its process down", lasts=True)

    @property
    def is_open(self) -> bool:
        """Whether there is no verdict yet."""
        return self.verdict is None

    @property
    def takes_kernel(self) -> bool:
        return self.verdict is not None and self.verdict.chosen != PLAIN

    def due(self) -> bool:
        """Count a call; whether it is one of those that are checked: the first, the 4th, the 16th and so on."""
        self._calls += 1
        return _thorough or (self._calls & (self._calls - 1) == 0 and self._calls.bit_length() % 2 == 1)

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """A kernel is tried within: it is noted, for the case that it brings the process down."""
        self._unfinished += 1
        self._keep()
        try:
            yield
        finally:
            self._unfinished -= 1
            self._keep()

    def settle(self, judge: Callable[[], Verdict | None]) -> None:
        """Have a verdict made, kept and told, unless none could be. One for lack of memory is this process's alone."""
        with self.under_way():
            try:
                self.verdict = judge() or self._undecided_once_more()
            except torch.OutOfMemoryError:
                self.verdict = self._refusal("no memory for its trial")
        if self.verdict is not None:
            log.info("%s: %s", self.subject.text, self.verdict.text)

    def condemn(self, problem: str, error: BaseException | None = None) -> None:
        """No longer take the kernel: plain PyTorch from here on."""
        global generation
        generation += 1
        self.verdict = self._refusal(problem, lasts=not isinstance(error, torch.OutOfMemoryError))
        self._keep()
        log.warning("%s: no longer taken, %s from here on: %s", self.subject.text, PLAIN, problem)

    def _refusal(self, problem: str, *, lasts: bool = False) -> Verdict:
        return Verdict(PLAIN, {self.subject.kernel: TrialOutcome(problem=problem)}, lasts)

    def _undecided_once_more(self) -> Verdict | None:
        self._undecided += 1
        return None if self._undecided < MOST_UNDECIDED else self._refusal("nothing to compare with")

    @property
    def _path(self) -> Path:
        digest = hashlib.sha256(json.dumps(asdict(self.subject)).encode()).hexdigest()
        return folder() / f"{digest[:24]}.json"

    def _keep(self) -> None:
        """In the cache. One that cannot be written is done without: the next process tries again."""
        verdict = self.verdict if self.verdict is not None and self.verdict.lasts else None
        with contextlib.suppress(OSError):
            if verdict is None and not self._unfinished:
                self._path.unlink(missing_ok=True)
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            record = asdict(CachedVerdict(self.subject, verdict, self._unfinished))
            write_atomic(self._path, json.dumps(strict(record), indent=1), durable=False)


_thorough = False
generation = 0
"""How many kernels were condemned in this process: what was recorded before with them is out of date."""


@contextlib.contextmanager
def thorough() -> Iterator[None]:
    """Every call within is checked."""
    global _thorough
    before, _thorough = _thorough, True
    try:
        yield
    finally:
        _thorough = before


@functools.cache
def trial_of(subject: TrialSubject) -> Trial:
    """The trial of a subject: one for all of this process."""
    return Trial(subject)


def tell(listener: Callable[[str], object]) -> None:
    """Have a listener told of verdicts, in place of the one before."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            listener(record.getMessage())

    log.handlers, log.propagate = [Handler()], False
    log.setLevel(logging.INFO)


def reason_of(error: BaseException) -> str:
    """An exception in one line."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return shortened(printable(f"{type(error).__name__}: {first}"), 200)


def judge(
    plain: Callable[[], object],
    candidates: Mapping[str, Callable[[], T]],
    error: Callable[[T], float],
    noise: float,
    device: torch.device,
    spare: Callable[[], object] | None = None,
) -> Verdict:
    """Try candidates that do what `plain` does; the fastest that is right is chosen.

    `error` of a result is relative to the largest numbers, `noise` is plain PyTorch's own. `spare`: what of `plain` is
    done for the trial alone, and not timed.
    """
    seconds = _fastest(plain, device) - (_fastest(spare, device) if spare is not None else 0.0)
    outcomes = {PLAIN: TrialOutcome(seconds=max(seconds, 1e-9), error=noise)}
    for name, call in candidates.items():
        outcomes[name] = _tried(call, error, allowed(noise), seconds, device)
    right = {name: outcome.seconds for name, outcome in outcomes.items() if not outcome.problem and outcome.seconds}
    return Verdict(min(right, key=lambda name: right[name]), outcomes)


def allowed(noise: float) -> float:
    """The largest error of what is right, where plain PyTorch has an error of its own."""
    return max(BOUND, NOISE * noise)


def _tried(
    call: Callable[[], T], error: Callable[[T], float], bound: float, plain_seconds: float, device: torch.device
) -> TrialOutcome:
    try:
        worst = error(call())  # compiled now
        if not worst <= bound:  # NaN neither
            return TrialOutcome(error=worst, problem=f"wrong: error {worst:.1e}, at most {bound:.1e} is allowed")
        return TrialOutcome(seconds=_fastest(call, device, HOPELESS * plain_seconds), error=worst)
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # what a kernel that can be neither compiled nor launched raises is its verdict
        return TrialOutcome(problem=reason_of(problem))


def _fastest(call: Callable[[], object], device: torch.device, hopeless: float = float("inf")) -> float:
    seconds = [timed(call, device)]
    while len(seconds) < ROUNDS and seconds[0] < hopeless:
        seconds.append(timed(call, device))
    return min(seconds)


# ---- the cache -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CachedVerdict:
    """A file of the cache."""

    subject: TrialSubject
    verdict: Verdict | None
    unfinished: int  # trials that were begun and did not end


def folder() -> Path:
    """Where verdicts are kept."""
    return user_cache_path("lreg") / "trials"


def verdicts() -> list[CachedVerdict]:
    """Those of this version of the kernels, torch and Triton, on any device."""
    with contextlib.suppress(OSError):
        cached = [_read(path) for path in sorted(folder().glob("*.json"))]
        return [verdict for verdict in cached if verdict is not None and verdict.subject.versions == _versions()]
    return []


def forget(device: torch.device) -> None:
    """Let everything on a device be tried anew."""
    trial_of.cache_clear()
    for path in folder().glob("*.json"):
        cached = _read(path)
        if cached is not None and cached.subject.device == machine(device):
            with contextlib.suppress(OSError):
                path.unlink()


def _read(path: Path) -> CachedVerdict | None:
    """None where there is none, or what is there was not written here."""
    try:
        data = read_json(path)
        facts = data["verdict"]
        verdict = None if facts is None else Verdict(str(facts["chosen"]), _outcomes(facts["outcomes"]))
        texts = {name: str(value) for name, value in data["subject"].items()}
        return CachedVerdict(TrialSubject(**texts), verdict, int(data["unfinished"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _outcomes(record: Mapping[str, Any]) -> dict[str, TrialOutcome]:
    outcomes = {}
    for name, outcome in record.items():
        seconds, error = (None if outcome[key] is None else float(outcome[key]) for key in ("seconds", "error"))
        outcomes[str(name)] = TrialOutcome(seconds, error, str(outcome["problem"]))
    return outcomes
