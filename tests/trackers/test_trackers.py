"""Trackers hold what the rows hold, each number once."""

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scaling import trackers
from scaling.errors import ScalingError
from scaling.execute import events, tracking
from scaling.execute.local import LocalWorker
from scaling.execute.signals import Signals
from scaling.execute.simulated import simulate
from scaling.execute.tracking import track
from scaling.files import DiskError
from scaling.plan import plan
from scaling.points.tracker_logs import _records
from scaling.store import rows, run_files
from scaling.store.rows import Provenance
from scaling.tasks import open_task, resolve
from scaling.trackers import TRACKERS, open_tracker
from scaling.trackers.export import export, read_run_log, series_name
from scaling.trackers.mlflow_log import tracking_uri
from tests.command_line import scaling
from tests.sweep_files import tiny

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the libraries' own
CLOCKS = {"tokens", "flops", "seconds"}


@pytest.fixture(scope="module", autouse=True)
def service_of_wandb():
    """The process that W&B keeps for later runs ends with the module."""
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture(scope="module")
def runs():
    sweep = tiny(evals={"points": 4, "tokens": 3000})
    task = resolve(sweep.base.task)
    return plan(sweep, task, open_task(task).vocab_size, "published:besiroglu2024").runs[:2]


def publish(folder, planned):
    outcome = simulate(planned.run)
    run_files.write_run(
        folder, rows.rows("tiny", planned.run, outcome.measured, Provenance("here", None, "1"))
    )
    return outcome.measured


@pytest.fixture
def folder(tmp_path, runs):
    for planned in runs:
        publish(tmp_path / "sweep", planned)
    return tmp_path / "sweep"


def written(measured):
    """The series of a run's rows."""
    found = {}
    for row in measured:
        found.setdefault(series_name(row), []).append(
            (row.step, pytest.approx(row.value, rel=1e-6))
        )
    return found


def read(kind, out, run_id):
    """The series and the settings that a tracker holds of a run, by its library's own reader, and
    how often there is such a run.
    """
    return {"wandb": read_wandb, "tensorboard": read_tensorboard, "mlflow": read_mlflow}[kind](
        out, run_id
    )


def read_wandb(out, run_id):
    from wandb.proto import wandb_internal_pb2

    series, settings, groups = (
        {},
        {},
        set(),
    )  # wandb 0.31 has the messages, but no reader of its files: the framing is ours
    for path in sorted(Path(out).glob(f"wandb/offline-run-*/run-{run_id}.wandb")):
        for data in _records(path.read_bytes(), path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                settings |= {
                    item.key: json.loads(item.value_json) for item in record.run.config.update
                }
                groups.add((record.run.run_id, record.run.run_group))
            for item in record.history.item:
                name = item.key or ".".join(item.nested_key)
                if not name.startswith("_"):
                    series.setdefault(name, []).append(
                        (record.history.step.num, json.loads(item.value_json))
                    )
    assert groups == {(run_id, "tiny")}
    return series, settings


def read_tensorboard(out, run_id):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    held = EventAccumulator(str(Path(out) / "tiny" / run_id)).Reload()
    series = {
        tag: [(event.step, event.value) for event in held.Scalars(tag)]
        for tag in held.Tags()["scalars"]
    }
    content = held.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    told = metadata.parse_session_start_info_plugin_data(content).hparams
    return series, {
        name: value.number_value if value.HasField("number_value") else value.string_value
        for name, value in told.items()
    }


def read_mlflow(out, run_id):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=Path(out).absolute().as_uri())
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (run,) = client.search_runs([experiment], filter_string=f"tags.`scaling.run_id` = '{run_id}'")
    assert run.info.status == "FINISHED"
    series = {
        name: [
            (entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }
    return series, dict(run.data.params)


@pytest.mark.parametrize("kind", TRACKERS)
def test_tracker_gets_every_row_of_a_folder_once(kind, folder, runs, tmp_path):
    pytest.importorskip(kind)
    out = str(tmp_path / kind)
    done = export(folder, kind, out)
    assert (done["runs"], done["runs_written"]) == (2, 2)
    again = export(folder, kind, out)
    assert (again["runs_written"], again["numbers_written"]) == (0, 0)
    for planned in runs:
        series, settings = read(kind, out, planned.run_id)
        assert {name: held for name, held in series.items() if name not in CLOCKS} == written(
            simulate(planned.run).measured
        )
        assert series["tokens"][-1] == (planned.run.n_steps, planned.run.tokens)
        assert float(settings["optim.lr"]) == pytest.approx(planned.run.optim.lr)
        assert float(settings["n_params"]) == planned.n_params["total"]
        assert settings["sweep"] == "tiny"


@pytest.mark.parametrize("kind", TRACKERS)
def test_run_that_was_logged_in_part_is_logged_whole_and_once(
    kind, folder, runs, tmp_path, monkeypatch
):
    pytest.importorskip(kind)
    out, run_id = str(tmp_path / kind), runs[0].run_id
    run = read_run_log(run_files.read_run(folder, run_id), time.time())
    part = replace(run, points=run.points[:1])
    with monkeypatch.context() as patch:
        cut_short(kind, patch)
        with pytest.raises(InterruptedError):
            open_tracker(kind, out)(part)
    done = export(folder, kind, out)
    assert (done["runs_written"], export(folder, kind, out)["runs_written"]) == (2, 0)
    series, _ = read(kind, out, run_id)
    assert {name: values for name, values in series.items() if name not in CLOCKS} == written(
        simulate(runs[0].run).measured
    )


def cut_short(kind, patch):
    """The tracker is killed after its numbers, before it says that the run is whole."""

    def killed(*_):
        raise InterruptedError

    if kind == "tensorboard":
        patch.setattr(Path, "rename", killed)
    elif kind == "wandb":
        patch.setattr(Path, "touch", killed)
    else:
        from mlflow import MlflowClient

        patch.setattr(MlflowClient, "set_terminated", killed)


def warnings_of(seen):
    return [event.message for event in seen if isinstance(event, events.RunWarning)]


def test_failing_tracker_warns_once_and_delays_nothing(folder, runs, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 900.0)
    (folder / "tracking").write_text("a file in its way")
    seen, ended = [], events.RunEnded(event="done", run_id=runs[0].run_id)
    with Signals() as signals, track("tensorboard", folder, seen.append, signals) as handle:
        for _ in range(20_000):  # more than a pipe holds
            handle(ended)
    (warning,) = warnings_of(seen)
    assert "tensorboard lacks runs (NotADirectoryError: " in warning
    assert f"scaling results export {folder} --to tensorboard" in warning
    assert len(seen) == 20_001


@pytest.mark.parametrize("times", [1, 2])
def test_first_signal_shortens_the_wait_and_a_second_ends_it(times, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 1e9)
    if times == 2:
        monkeypatch.setattr(tracking, "STOPPING_SECONDS", 1e9)
    processes, seen = [], []

    class Hanging(LocalWorker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.process.send_signal(signal.SIGSTOP)
            processes.append(self.process)

    monkeypatch.setattr(tracking, "LocalWorker", Hanging)
    with Signals() as signals, track("tensorboard", tmp_path, seen.append, signals):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
    assert "still busy" in warnings_of(seen)[0]
    assert processes[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "out",
    [
        "file:/shared/mlruns",
        "sqlite:///runs.db",
        "http://host:5000",
        "databricks",
        "databricks://profile",
    ],
)
def test_a_uri_is_no_folder(out):
    assert tracking_uri(out) == out


@pytest.mark.parametrize("out", ["mlruns", "./a:b", "/shared/mlruns", "databricks-runs"])
def test_a_folder_is_a_uri_of_files(out):
    assert tracking_uri(out) == Path(out).absolute().as_uri()


@pytest.mark.parametrize("kind", ["wandb", "tensorboard"])
def test_an_address_is_no_folder_of_a_tracker(kind):
    with pytest.raises(ScalingError, match="s3:// addresses are not supported"):
        open_tracker(kind, "s3://bucket/boards")


def test_tracker_error_is_an_error_of_the_export(folder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DiskError, match="taken is a file, not a folder"):
        export(folder, "tensorboard", str(tmp_path / "taken"))

    def fail(*_):
        raise RuntimeError("no more boards")

    monkeypatch.setattr("scaling.trackers.export.open_tracker", fail)
    with pytest.raises(ScalingError, match="tensorboard refuses: RuntimeError: no more boards"):
        export(folder, "tensorboard", str(tmp_path / "boards"))


def test_our_own_bug_is_not_reported_as_the_trackers(folder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("scaling.trackers.export.read_run_log", lambda *_: {}["ours"])
    with pytest.raises(KeyError, match="ours"):
        export(folder, "tensorboard", str(tmp_path / "boards"))


def test_missing_or_unknown_tracker_is_rejected_first(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    (tmp_path / "tiny.toml").write_text("")
    for arguments in (
        ["run", "tiny.toml", "--track", "wandb"],
        ["results", "export", str(folder), "--to", "mlflow", "--out", "x"],
    ):
        assert 'pip install -e ".[trackers]"' in scaling(*arguments, code=2).stderr
    done = scaling("run", "tiny.toml", "--track", "wandbb", code=2)
    assert "did you mean wandb" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep", "tiny.toml"]
