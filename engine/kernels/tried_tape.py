"""A tape on a kernel that has to prove itself: by its first truncation, and by later ones now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from engine.kernels import trial as trials
from engine.kernels.recompute import RecomputeTape
from engine.kernels.tape import SideInput, Tape
from engine.kernels.trial import Trial, Verdict
from engine.optimizers.box_ascent import BoxAscent
from engine.optimizers.learned.base import LearnedOptimizer, Phi, State

LOST_CLIMB = 0.01  # how much lower than plain PyTorch's an ascent may end: a slope near 0 may take either sign

TapeClass = Callable[[LearnedOptimizer, Phi, State, int], Tape]
T = TypeVar("T")


@dataclass
class Answers:
    """What a tape gives for a truncation."""

    updates: list[Tensor] = field(default_factory=list)
    ascents: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    state: State = field(default_factory=dict)
    gradients: list[Phi] = field(default_factory=list)


@dataclass
class Script:
    """What a truncation asks of its tape, so that another one can be asked the same."""

    optimizer: LearnedOptimizer
    phi: Phi
    start: State
    steps: int
    taken: list[tuple[Tensor, State]] = field(default_factory=list)  # features and the observed state
    ascents: list[tuple[int, Tensor, BoxAscent]] = field(default_factory=list)  # after which step, and from where
    pulls: list[tuple[list[Tensor], SideInput | None]] = field(default_factory=list)

    def tape(self, kind: TapeClass) -> Tape:
        """A fresh tape at the start of the truncation."""
        return kind(self.optimizer, self.phi, self.start, self.steps)

    def ask(self, kind: TapeClass) -> Answers:
        """Another tape's answers, from the first step to the last."""
        tape, answers = self.tape(kind), Answers()
        for index, step in enumerate(self.taken):
            answers.updates.append(tape.step(*step))
            answers.ascents += [tape.ascend(offset, ascent) for at, offset, ascent in self.ascents if at == index]
        answers.state = tape.state()
        answers.gradients = [tape.pull_back(*pull) for pull in self.pulls]
        return answers

    def take_steps(self, kind: TapeClass) -> Tape:
        """Another tape at where this truncation is now."""
        tape = self.tape(kind)
        for step in self.taken:
            tape.step(*step)
        return tape

    def double(self) -> Script:
        """The same in float64. A tensor that is seen in many steps, as the state is, is copied once."""
        copies: dict[int, Tensor] = {}

        def copy(tensor: Tensor) -> Tensor:
            if id(tensor) not in copies:
                copies[id(tensor)] = tensor.double()
            return copies[id(tensor)]

        def copy_all(tensors: State) -> State:
            return {name: copy(tensor) for name, tensor in tensors.items()}

        def copy_side(side: SideInput) -> SideInput:
            return SideInput(*([None if tensor is None else copy(tensor) for tensor in part] for part in side))

        taken = [(copy(features), copy_all(observed)) for features, observed in self.taken]
        ascents = [(index, copy(offset), ascent) for index, offset, ascent in self.ascents]
        pulls = [([copy(slope) for slope in slopes], side and copy_side(side)) for slopes, side in self.pulls]
        return Script(self.optimizer, copy_all(self.phi), copy_all(self.start), self.steps, taken, ascents, pulls)


@dataclass
class Climb:
    """An ascent by plain PyTorch in float64."""

    index: int  # among the ascents of the truncation
    center: Tensor  # [B, P, F]
    clean: Tensor  # the update there, [B, P]
    half_width: float  # of the box
    height: float  # the squared change of the update at its end
    update_at: Callable[[Tensor], Tensor]

    def error(self, features: Tensor, update: Tensor) -> Tensor:
        """How far another ascent is from right, in units of a relative error: its update, its box, its height."""
        truly = self.update_at(features.double())
        outside = (
            (features - self.center).abs().max() / self.half_width - 1.0 if self.half_width else update.new_zeros(())
        )
        lost = 1.0 - _height(truly, self.clean) / self.height if self.height else torch.zeros_like(outside)
        lost = lost * trials.BOUND / LOST_CLIMB
        return torch.stack([_relative([update], [truly]), outside.to(truly), lost.to(truly)]).max()


class Reference:
    """A script's answers by plain PyTorch in float64. Of ascents the first and the last are compared."""

    def __init__(self, script: Script) -> None:
        script = script.double()
        tape, self._expected = RecomputeTape(script.optimizer, script.phi, script.start, script.steps), Answers()
        self._climbs: list[Climb] = []
        for index, step in enumerate(script.taken):
            update = tape.step(*step)
            self._expected.updates.append(update)
            for number in {0, len(script.ascents) - 1} if script.ascents else ():
                at, offset, ascent = script.ascents[number]
                if at == index:
                    height = _height(tape.ascend(offset, ascent)[1], update).item()
                    self._climbs.append(Climb(number, step[0], update, ascent.epsilon, height, tape.last_step()))
        self._expected.state = tape.state()
        self._expected.gradients = [tape.pull_back(*pull) for pull in script.pulls]

    @property
    def is_finite(self) -> bool:
        """Whether there is anything to compare with: of one that has diverged a kernel may give anything."""
        expected = self._expected
        tensors = [*expected.updates, *(tensor for phi in expected.gradients for tensor in phi.values())]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def error(self, answers: Answers) -> float:
        """The largest difference, relative to the largest number of all updates, a gradient, a part of the state."""
        expected = self._expected
        errors = [_relative(answers.updates, expected.updates)]
        for ours, theirs in zip(
            [answers.state, *answers.gradients], [expected.state, *expected.gradients], strict=True
        ):
            errors += [_relative([ours[name]], [theirs[name]]) for name in theirs]
        errors += [climb.error(*answers.ascents[climb.index]) for climb in self._climbs]
        return torch.stack(errors).max().item()  # NaN if one is NaN


class TriedTape:
    """One truncation on a kernel, as far as its trial allows."""

    def __init__(
        self, trial: Trial, kernel: TapeClass, keeps_graph: bool, optimizer: LearnedOptimizer, phi: Phi, state: State,
        steps: int,
    ) -> None:  # fmt: skip
        """`keeps_graph`: without the kernel no step would be taken twice, as a `RecomputeTape` does."""
        self._trial, self._kernel, self._keeps_graph = trial, kernel, keeps_graph
        self._script = Script(optimizer, {name: tensor.detach() for name, tensor in phi.items()}, state, steps)
        self._answers = Answers() if trial.takes_kernel and trial.due() else None  # kept where they are to be compared
        self._on_kernel = trial.takes_kernel
        self._tape: Tape | None = None

    def step(self, features: Tensor, observed: State) -> Tensor:
        update = self._ask(lambda tape: tape.step(features, observed))
        self._script.taken.append((features, observed))
        if self._answers is not None:
            self._answers.updates.append(update)
        return update

    def ascend(self, offset: Tensor, ascent: BoxAscent) -> tuple[Tensor, Tensor]:
        worst = self._ask(lambda tape: tape.ascend(offset, ascent))
        self._script.ascents.append((len(self._script.taken) - 1, offset, ascent))
        if self._answers is not None:
            self._answers.ascents.append(worst)
        return worst

    def state(self) -> State:
        state = self._ask(lambda tape: tape.state())
        if self._answers is not None:
            self._answers.state = state
        return state

    def pull_back(self, slopes: list[Tensor], side: SideInput | None = None) -> Phi:
        gradient = self._ask(lambda tape: tape.pull_back(slopes, side))
        self._script.pulls.append((slopes, side))
        if self._answers is not None:
            self._answers.gradients.append(gradient)
        return gradient

    def close(self) -> None:
        """The truncation is done with. Now the kernel is tried or checked."""
        tape, self._tape = self._tape, None
        if self._trial.is_open:
            self._trial.settle(self._judge)
        elif self._on_kernel and self._answers is not None:
            self._check(self._answers)
        if tape is not None:
            tape.close()

    def _ask(self, question: Callable[[Tape], T]) -> T:
        """Ask the tape; where the kernel fails, plain PyTorch, which takes the steps until now again."""
        if self._on_kernel:
            try:
                if self._tape is None:
                    self._tape = self._script.tape(self._kernel)
                return question(self._tape)
            except Exception as error:  # whatever a kernel that fails raises
                self._trial.condemn(trials.reason_of(error), error)
                self._on_kernel, self._tape = False, None
        if self._tape is None:
            self._tape = self._script.take_steps(RecomputeTape)
        return question(self._tape)

    def _judge(self) -> Verdict | None:
        script, reference = self._script, Reference(self._script)
        if not reference.is_finite:
            return None
        plain = partial(script.ask, RecomputeTape)
        noise, kernel = reference.error(plain()), {self._trial.subject.kernel: partial(script.ask, self._kernel)}
        if not noise <= trials.MOST_NOISE:
            return None
        spare = partial(script.take_steps, RecomputeTape) if self._keeps_graph else None  # a graph is made as they go
        return trials.judge(plain, kernel, reference.error, noise, next(iter(script.phi.values())).device, spare)

    def _check(self, answers: Answers) -> None:
        try:
            reference = Reference(self._script)
            error = reference.error(answers)
            if not reference.is_finite or error <= trials.BOUND:
                return
            bound = trials.allowed(reference.error(self._script.ask(RecomputeTape)))
        except torch.OutOfMemoryError:
            return  # the next check may have the memory
        if not error <= bound:
            self._trial.condemn(f"wrong: error {error:.1e}, at most {bound:.1e} is allowed")


def _relative(ours: Iterable[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """The largest difference, as a share of the largest number of theirs, [] in float64."""
    differences = [(one.double() - other).abs().max() for one, other in zip(ours, theirs, strict=True)]
    difference, scale = torch.stack(differences).max(), torch.stack([other.abs().max() for other in theirs]).max()
    return torch.where(scale > 0, difference / scale, difference)


def _height(update: Tensor, clean: Tensor) -> Tensor:
    return ((update - clean) ** 2).sum()
