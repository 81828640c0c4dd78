"""Meta-training job: signals, units of work, records, checkpoints, and at last the result."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.base.control import Control, Stopped
from engine.base.errors import RunError
from engine.base.files import write_atomic
from engine.base.metrics import own_metrics
from engine.jobs.job_runner import JobRunner
from engine.runs import checkpoint, machine_log
from engine.runs.kinds import RUN
from engine.runs.results import preset_differences
from engine.runs.store import Run, RunReader, RunStore
from engine.runs.writer import slug

if TYPE_CHECKING:
    from engine.meta_training.meta_train import MetaTrainer


class MetaTrainingJob(JobRunner):
    """A run that is being meta-trained, perhaps by several processes: then each goes through this loop."""

    kind = RUN

    def __init__(
        self,
        run: Run,
        control: Control,
        device: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        trainer_factory: Callable[..., MetaTrainer] | None = None,
    ) -> None:
        """`trainer_factory`: makes what is driven in place of the preset's trainer."""
        super().__init__(run, control, device, data_dir)
        self.trainer_factory = trainer_factory

    @staticmethod
    def choices(reader: RunReader) -> dict[str, Any]:
        return preset_differences(reader.preset())

    @staticmethod
    def tasks(reader: RunReader) -> Sequence[Mapping[str, Any]]:
        return reader.preset().tasks

    def do(self) -> str:
        """Meta-train from the last checkpoint, if there is one, to the end. Returns finished or stopped."""
        trainer = self._trainer()
        self._start(trainer)
        if (declared := own_metrics(trainer.measured)) and not self.team.rank:
            write_atomic(self.run.path / "metrics.json", json.dumps(declared["metrics"], indent=1) + "\n")
        self.run.set_status(message="")
        self.began, self.first_step = time.monotonic(), trainer.step
        try:
            self._train(trainer)
            self._measure(trainer)
            self.remark, state = trainer.remark, "finished"
        except Stopped:  # what was under way has changed nothing yet, and is done again after a resume
            self._save(trainer)
            state = "stopped"
        self.team.leave()
        return state

    def _train(self, trainer: MetaTrainer) -> None:
        """The loop: look at the signals, checkpoint now and then, do a unit of work, write its records."""
        saved = time.monotonic()
        while not trainer.finished:
            self._wait_while_paused()
            stop, due = self.team.any(self.control.stop, time.monotonic() - saved >= self.checkpoint_every)
            if due:
                self._save(trainer)
                saved = time.monotonic()
            if stop:
                raise Stopped
            self.run.append(trainer.advance(self._tick))
            eta_s = self._eta(trainer.step - self.first_step, trainer.total - trainer.step)
            self.run.progress(trainer.step, trainer.total, eta_s)
            if trainer.improved:
                self._save_frozen(trainer, "best")
                self.run.log(f"step {trainer.step}: checkpoint best written")
        self._save(trainer)

    def _trainer(self) -> MetaTrainer:
        """Build the trainer. Here torch is imported, and first of all: the preset's check is cheaper after it."""
        import torch

        from engine.distributed.gloo import join

        self.preset = preset = RunReader(self.run.path).preset()
        if preset["threads"]:
            torch.set_num_threads(preset["threads"])
        self.team = join(self.run)
        device = self._pick_device()
        self.checkpoint_every = preset["meta"]["checkpoint_every"]
        is_fresh = not self.team.rank and not checkpoint.exists(self.run.checkpoints, "last")
        parent = RunStore(self.run.path.parent).parent_of(preset) if is_fresh else None
        init_phi = checkpoint.load_frozen(parent.path) if parent is not None else None
        if self.trainer_factory is None:
            from engine.jobs.from_preset import meta_trainer

            self.trainer_factory = partial(meta_trainer, team=self.team)
        return self.trainer_factory(preset, device=device, data_dir=self.data_dir, init_phi=init_phi)

    def _start(self, trainer: MetaTrainer) -> None:
        """Go back to the last checkpoint, with the metrics as they were then; or write the first one."""
        if self.team.rank:
            trainer.load_state_dict(*self.team.from_first(({}, {})))
        elif checkpoint.exists(self.run.checkpoints, "last"):
            tensors, values = checkpoint.load(self.run.checkpoints, "last")
            try:
                trainer.load_state_dict(tensors, values["trainer"])
                size = int(values["metrics_size"])
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                where = checkpoint.path_of(self.run.checkpoints, "last")
                raise RunError(f"{where}: does not fit this version or preset ({_line(error)})") from error
            self.run.truncate_metrics(size)
            machine_log.truncate(self.run, trainer.step)
            self.run.log(f"resumed at step {trainer.step}")
            self.team.from_first((tensors, values["trainer"]))
        elif self.run.sync_metrics():  # the first checkpoint is written before the first record
            where = checkpoint.path_of(self.run.checkpoints, "last")
            again = f"start again with: lreg run {self.run.path / 'preset.toml'}"
            raise RunError(
                f"{where}: no such checkpoint, though the run has metrics; they are left as they are; {again}"
            )
        else:
            self._save_frozen(trainer, "initial")
            self._save(trainer)
            self.team.from_first(trainer.state_dict())
        self.run.progress(trainer.step, trainer.total, None)

    def _save(self, trainer: MetaTrainer) -> None:
        """Write the checkpoint `last`, which notes how long metrics.jsonl was."""
        size = self.run.sync_metrics()
        tensors, values = trainer.state_dict()
        if self.team.rank:
            return
        checkpoint.save(self.run.checkpoints, "last", tensors, {"trainer": values, "metrics_size": size})

    def _save_frozen(self, trainer: MetaTrainer, name: str) -> None:
        if not self.team.rank:
            tensors, facts = trainer.frozen_state(name)
            checkpoint.save(self.run.checkpoints, name, tensors, {"optimizer": self.preset["optimizer"], **facts})

    def _measure(self, trainer: MetaTrainer) -> None:
        """The final comparison. A stop leaves it to the next resume."""
        evaluations = trainer.result(self._on_progress)
        names: list[str] = []
        for evaluation in evaluations:
            owner = None if evaluation.get("run", "") is None else self.run.id  # baselines belong to no run
            name = slug(f"result-{evaluation.get('label') or evaluation.get('optimizer')}")
            names.append(name)
            repeats = names.count(name)  # tasks that differ only in their settings, or late in a long name
            self.run.write_transfer(f"{name[:40]}-{repeats}" if repeats > 1 else name, {**evaluation, "run": owner})

    def _on_progress(self, text: str) -> None:
        if text != self.run.status.message:
            self.run.set_status(message=text, eta_s=None)
        self._tick()


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
