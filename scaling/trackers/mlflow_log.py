"""MLflow: the sweep is an experiment, a run a run of it, found again by its tag `scaling.run_id`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.trackers.series import Point, RunInfo, Status

TAG = "scaling.run_id"
ENDINGS = {"done": "FINISHED", "diverged": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
PARAMS, METRICS = 100, 1000  # that MLflow takes in one request
OLD_SECONDS = 60.0  # of a list of runs: another process may have begun one since


def tracking_uri(out: str) -> str:
    """`out` where it is a URI (`sqlite:///runs.db`, `file:/shared/mlruns`) or the word `databricks`; else that of the folder `out`."""
    return (
        out
        if re.match(r"[A-Za-z][\w+.-]+:", out) or out == "databricks"
        else Path(out).absolute().as_uri()
    )


class MLflow:
    """A tracking server or database by its URI, or a folder of files.

    MLflow calls its folders of files outdated and opens one only where it is told to; we tell it, for a folder needs no server.
    """

    def __init__(self, out: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault(
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3"
        )  # a server that is not there is said within seconds, not minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        out = tracking_uri(out)
        if out.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=out)
        self._experiments: dict[str, str] = {}
        self._listed: dict[str, tuple[float, dict[str, Any]]] = {}

    def open(self, about: RunInfo) -> MLflowLog:
        """The run of this id, or a new one."""
        experiment = self._experiment(about.sweep)
        known = self._known(experiment, about.run_id)
        return MLflowLog(self.client, experiment, about, known)

    def _known(self, experiment: str, run_id: str) -> Any:
        """The run with this tag, of a list of all that is asked for again where it is old: a folder of files is read run by run."""
        listed, found = self._listed.get(experiment, (-OLD_SECONDS, {}))
        if run_id not in found and time.monotonic() - listed > OLD_SECONDS:
            found = {}
            token: str | None = ""
            while token is not None:
                page = self.client.search_runs(
                    [experiment], max_results=1000, page_token=token or None
                )
                found |= {run.data.tags.get(TAG, ""): run for run in page}
                token = page.token or None
            self._listed[experiment] = time.monotonic(), found
        return found.get(run_id)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            try:
                self._experiments[name] = (
                    found.experiment_id
                    if found is not None
                    else self.client.create_experiment(name)
                )
            except MlflowException:  # another process was faster
                if (found := self.client.get_experiment_by_name(name)) is None:
                    raise
                self._experiments[name] = found.experiment_id
        return self._experiments[name]


class MLflowLog:
    """One run in MLflow, made (or opened again) when there is something to write."""

    def __init__(self, client: Any, experiment: str, about: RunInfo, known: Any) -> None:
        self._client, self._experiment, self._about = client, experiment, about
        self._run_id: str = known.info.run_id if known is not None else ""
        names = known.data.metrics if known is not None else ()
        self.held = {
            name: {entry.step for entry in client.get_metric_history(self._run_id, name)}
            for name in names
        }
        self._begun = False

    def _begin(self) -> None:
        from mlflow.entities import Param

        self._begun = True
        if self._run_id:
            self._client.update_run(self._run_id, status="RUNNING")
            return
        tags = {TAG: self._about.run_id, "scaling.sweep": self._about.sweep}
        self._run_id = self._client.create_run(
            self._experiment, run_name=self._about.run_id, tags=tags
        ).info.run_id
        params = [Param(name, str(value)) for name, value in self._about.settings.items()]
        for first in range(0, len(params), PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + PARAMS])

    def write(self, point: Point) -> bool:
        """A metric a name."""
        from mlflow.entities import Metric

        if not self._begun:
            self._begin()
        found = [
            Metric(name, value, int(point.when * 1000), point.step)
            for name, value in point.values.items()
        ]
        for first in range(0, len(found), METRICS):
            self._client.log_batch(self._run_id, metrics=found[first : first + METRICS])
        return True

    def end(self, status: Status, last: Mapping[str, float]) -> None:
        """How it ended, where anything was written."""
        if self._begun:
            self._client.set_tag(self._run_id, "scaling.status", status)
            self._client.set_terminated(self._run_id, ENDINGS[status])
