"""MLflow: the sweep is an experiment, a run is one of its runs, with the tag `scaling.run_id`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from scaling.store.rows import EndKind
from scaling.trackers.run_log import Point, RunInfo, RunLog, Tracker

TAG = "scaling.run_id"
ENDINGS = {"done": "FINISHED", "diverged": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
MAX_PARAMS, MAX_METRICS = 100, 1000  # that MLflow takes in one request
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # an absent server is an error in seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def tracking_uri(out: str) -> str:
    """`out` where it is a URI (`sqlite:///runs.db`, `file:/shared/mlruns`) or the word
    `databricks`; else that of the folder `out`.
    """
    is_uri = re.match(r"[A-Za-z][\w+.-]+:", out) or out == "databricks"
    return out if is_uri else Path(out).absolute().as_uri()


def open_mlflow(out: str) -> Tracker:
    """A tracking server or database by its URI, or a folder of files: the run of an id, or a new
    one.

    MLflow calls its folders of files outdated and opens one only where a variable allows it; it is
    set here, for a folder needs no server.
    """
    uri = tracking_uri(out)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri)

    @cache
    def experiment_of(sweep: str) -> str:
        try:
            return str(client.create_experiment(sweep))
        except MlflowException:  # it exists already
            experiment = client.get_experiment_by_name(sweep)
            if experiment is None:
                raise
            return str(experiment.experiment_id)

    def open_run(run: RunInfo) -> MLflowLog:
        experiment, tag = experiment_of(run.sweep), f"tags.`{TAG}` = '{run.run_id}'"
        known = client.search_runs([experiment], filter_string=tag, max_results=1)
        return MLflowLog(client, experiment, run, known[0] if known else None)

    return open_run


class MLflowLog(RunLog):
    """One run in MLflow, made (or opened again) when there is something to write."""

    def __init__(self, client: Any, experiment: str, run: RunInfo, known: Any) -> None:
        super().__init__(run)
        self._client, self._experiment, self._is_open = client, experiment, False
        self._mlflow_id: str = known.info.run_id if known is not None else ""
        for name in known.data.metrics if known is not None else ():
            entries = client.get_metric_history(self._mlflow_id, name)
            self.steps[name] = {entry.step for entry in entries}

    def write(self, point: Point) -> bool:
        """One metric for each name."""
        from mlflow.entities import Metric

        if not self._is_open:
            self._open()
        when = int(point.when * 1000)
        metrics = [Metric(name, value, when, point.step) for name, value in point.values.items()]
        for first in range(0, len(metrics), MAX_METRICS):
            chunk = metrics[first : first + MAX_METRICS]
            self._client.log_batch(self._mlflow_id, metrics=chunk)
        return True

    def _open(self) -> None:
        from mlflow.entities import Param

        self._is_open = True
        if self._mlflow_id:
            self._client.update_run(self._mlflow_id, status="RUNNING")
            return
        tags = {TAG: self.run.run_id, "scaling.sweep": self.run.sweep}
        created = self._client.create_run(self._experiment, run_name=self.run.run_id, tags=tags)
        self._mlflow_id = created.info.run_id
        params = [Param(name, str(value)) for name, value in self.run.settings.items()]
        for first in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self._mlflow_id, params=params[first : first + MAX_PARAMS])

    def end(self, status: EndKind, points: Iterable[Point] = ()) -> None:
        """How it ended, where anything was written."""
        if self._is_open:
            self._client.set_tag(self._mlflow_id, "scaling.status", status)
            self._client.set_terminated(self._mlflow_id, ENDINGS[status])
