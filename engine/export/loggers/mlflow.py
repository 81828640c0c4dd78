"""MLflow. Its own variables hold: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...

https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from engine.export.loggers.base import PROJECT, RunLogger

TAG = "lreg.run"  # MLflow gives ids of its own: by this tag a run is found again
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MOST_PARAMS = 100  # in one batch; MLflow's limit
LONGEST_PARAM = 500  # characters that every version takes


class Logger(RunLogger):
    """By the client: `mlflow.start_run` would take the place of a run that the user's own code has begun."""

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
