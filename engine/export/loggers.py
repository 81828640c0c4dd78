"""Run loggers: a run's records sent to a tracker of experiments as well, where the user says so.

The user names them, by --log-to or in $LREG_LOG_TO; a preset or a run folder never does. `--log-to` adds to the
variable, so that workers in the background, and those of a study, have it too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, cast

from engine.base.errors import LregError, Problem, SettingsError, printable, shortened
from engine.base.settings import show
from engine.base.status import LIVE, as_figure
from engine.runs.columns import STAMPS
from engine.runs.kinds import RUN
from engine.runs.store import Run, RunReader

VARIABLE = "LREG_LOG_TO"
PROJECT = "lreg"  # where the tracker's own environment variable names none
TAG = "lreg.run"  # MLflow gives ids of its own: by this tag a run is found again
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MOST_PARAMS = 100  # in one batch; MLflow's limit
LONGEST_PARAM = 500  # characters that every version takes
MOST_WAITING = 10_000  # records that a slow tracker may be behind
END_LIMIT_S = 30.0  # for what is still to be sent when a run ends


class RunLogger(ABC):
    """One run at one tracker. Whatever a method raises turns the logger off, and is told in the run's log."""

    @abstractmethod
    def __init__(self, run_id: str, name: str, settings: Mapping[str, Any]) -> None:
        """Begin the remote run that belongs to `run_id`, or go on with it. `settings`: the preset's, by dotted key."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the numbers of one meta-step; those that were not finite are NaN or infinite."""

    @abstractmethod
    def finish(self, state: str) -> None:
        """Send what is left. `state`: finished, stopped or failed."""


class MLflow(RunLogger):
    """Its own variables hold: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...

    https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html
    By the client: `mlflow.start_run` would take the place of a run that the user's own code has begun.
    """

    def __init__(self, run_id: str, name: str, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient()
        where = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = self.client.get_experiment_by_name(where)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(where)
        before = self.client.search_runs([experiment_id], f"tags.`{TAG}` = '{run_id}'")
        if before:
            self.run_id = before[0].info.run_id
            self.client.update_run(self.run_id, status="RUNNING")
            return
        self.run_id = self.client.create_run(experiment_id, run_name=name, tags={TAG: run_id}).info.run_id
        params = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in settings.items()]
        for first in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(self.run_id, params=params[first : first + MOST_PARAMS])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def finish(self, state: str) -> None:
        self.client.set_terminated(self.run_id, status=STATUS.get(state, "FAILED"))


class Trackio(RunLogger):
    """Local by default: https://huggingface.co/docs/trackio. It finds a run again by its name, the run's id."""

    def __init__(self, run_id: str, name: str, settings: Mapping[str, Any]) -> None:
        import trackio

        self.run = trackio.init(project=PROJECT, name=run_id, config={"name": name, **settings}, resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)  # the run, not the module: that one's is another in each thread

    def finish(self, state: str) -> None:
        self.run.finish()


class WandB(RunLogger):
    """Weights & Biases. Its own variables hold: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline, WANDB_DIR, ...

    https://docs.wandb.ai/ref/python/init
    The remote run has the run's id: resuming goes on with it.
    """

    def __init__(self, run_id: str, name: str, settings: Mapping[str, Any]) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT") or PROJECT
        quiet = wandb.Settings(console="off", silent=True)  # stdout and the terminal are lreg's
        self.run = wandb.init(
            project=project, id=run_id, name=name, config=dict(settings), resume="allow", settings=quiet
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def finish(self, state: str) -> None:
        self.run.finish(exit_code=int(state == "failed"))


LOGGERS: dict[str, type[RunLogger]] = {"mlflow": MLflow, "trackio": Trackio, "wandb": WandB}


"""By the name of the package that each needs, which is imported by its first object."""


def in_use() -> list[str]:
    """The loggers that were named, each once. Raises LregError for one that is not known or not installed."""
    return _checked(os.environ.get(VARIABLE, "").split(","))


def use(names: Iterable[str]) -> None:
    """Use more loggers, here and in every process started from here. Raises LregError as `in_use`."""
    if checked := _checked([*in_use(), *names]):
        os.environ[VARIABLE] = ",".join(checked)


def _checked(names: Iterable[str]) -> list[str]:
    unique = list(dict.fromkeys(filter(None, names)))
    for name in unique:
        if name not in LOGGERS:
            raise SettingsError([Problem("--log-to", show(name), ", ".join(LOGGERS))])
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name, as wandb leaves one, is no package
            raise LregError(f"--log-to {name}: the package {name} is not installed: pip install {name}")
    return unique


@contextlib.contextmanager
def logged(run: Run) -> Iterator[None]:
    """Send the records of a held run to the loggers in use, while the block lasts."""

    def begin(name: str) -> RunLogger:
        preset = RunReader(run.path).preset()
        return LOGGERS[name](run.id, preset.name, preset.flat())

    try:
        names = in_use() if run.kind is RUN and run.is_held else []
    except LregError as error:  # in a worker that was started with another environment than its folder was made in
        names = []
        run.log(str(error))
    senders = [Sender(name, partial(begin, name), run.log) for name in names]
    run.listeners += [sender.take for sender in senders]
    try:
        yield
    finally:
        run.listeners.clear()
        state = run.status.state
        for sender in senders:
            sender.end("stopped" if state in LIVE else state)


class Sender:
    """A thread that takes records from a queue and gives them to a logger, until the logger fails."""

    def __init__(self, name: str, begin: Callable[[], RunLogger], tell: Callable[[str], None]) -> None:
        """`begin`: makes the logger, here and now; `tell`: what becomes of the line about a failure."""
        self.name = name
        self._tell = tell
        self._records: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._logger: RunLogger | None = None
        self._thread = threading.Thread(target=self._send, name=f"logger {name}", daemon=True)
        with self._off_on_error(), _prints_to_stderr():
            self._logger = begin()
            tell(f"the run is logged to {name}, too")
            self._thread.start()

    def take(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Records of metrics.jsonl, to be sent soon."""
        with contextlib.suppress(queue.Full):
            for record in records if self._logger is not None else ():
                self._records.put_nowait(record)
            return
        self._turn_off(f"it is {MOST_WAITING} records behind")

    def end(self, state: str, limit_s: float = END_LIMIT_S) -> None:
        """Send what is left, for as long as that may take."""
        if self._logger is None:
            return
        with contextlib.suppress(queue.Full):
            self._records.put_nowait(None)
        self._thread.join(limit_s)
        if self._thread.is_alive():
            self._turn_off(f"it did not take the last records within {limit_s:g} s")
        if (logger := self._logger) is not None:
            with self._off_on_error(), _prints_to_stderr():
                logger.finish(state)

    def _send(self) -> None:
        with self._off_on_error():
            while (record := self._records.get()) is not None and (logger := self._logger) is not None:
                values = {name: as_figure(value) for name, value in record.items() if name not in STAMPS}
                numbers = {name: value for name, value in values.items() if value is not None}
                logger.log(int(record["step"]), numbers)

    @contextlib.contextmanager
    def _off_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is: it is not our code, and the run goes on
            self._turn_off(" ".join(f"{type(error).__name__}: {error}".split()))

    def _turn_off(self, reason: str) -> None:
        self._logger = None
        self._tell(f"{self.name} gets no more of this run: {shortened(printable(reason), 300)}")


class _Stdout:
    """Standard output of all threads but one, whose words go to standard error: no terminal that could be asked."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return int((sys.stderr if self._is_meant() else self._stream).write(text))

    def isatty(self) -> bool:
        return not self._is_meant() and bool(self._stream.isatty())

    def _is_meant(self) -> bool:
        return threading.get_ident() == self._thread

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _prints_to_stderr() -> contextlib.AbstractContextManager[Any]:
    """What a tracker prints must not come between JSON lines of other threads."""
    return contextlib.redirect_stdout(cast(Any, _Stdout(sys.stdout)))
