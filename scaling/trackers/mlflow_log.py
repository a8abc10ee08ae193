"""MLflow: the sweep is an experiment, a run is one of its runs, with the tag `scaling.run_id`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from scaling.trackers.export import RunLog

TAG = "scaling.run_id"
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


def open_mlflow(out: str) -> Callable[[RunLog], bool]:
    """A tracking server or database by its URI, or a folder of files. A run that was logged in part
    is logged anew.

    MLflow calls its folders of files outdated and opens one only where a variable allows it; it is
    set here, for a folder needs no server.
    """
    uri = tracking_uri(out)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
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

    def log_mlflow(run: RunLog) -> bool:
        experiment, tag = experiment_of(run.sweep), f"tags.`{TAG}` = '{run.run_id}'"
        for known in client.search_runs([experiment], filter_string=tag):
            if known.info.status == "FINISHED":
                return False
            client.delete_run(known.info.run_id)
        tags = {TAG: run.run_id, "scaling.sweep": run.sweep}
        run_id = client.create_run(experiment, run_name=run.run_id, tags=tags).info.run_id
        params = [Param(name, str(value)) for name, value in run.settings.items()]
        metrics = [
            Metric(name, value, int(point.when * 1000), point.step)
            for point in run.points
            for name, value in point.values.items()
        ]
        for first in range(0, len(params), MAX_PARAMS):
            client.log_batch(run_id, params=params[first : first + MAX_PARAMS])
        for first in range(0, len(metrics), MAX_METRICS):
            client.log_batch(run_id, metrics=metrics[first : first + MAX_METRICS])
        client.set_terminated(run_id, "FINISHED")
        return True

    return log_mlflow
