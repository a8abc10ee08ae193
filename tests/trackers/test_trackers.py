"""Trackers hold what the rows hold, each number once, after any number of sessions."""

import json
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from scaling import trackers
from scaling.errors import ScalingError
from scaling.execute import events, tracking
from scaling.execute.local import LocalWorker
from scaling.execute.signals import Signals
from scaling.execute.simulated import simulate
from scaling.execute.tracking import LiveTrackers
from scaling.plan import plan
from scaling.points.tracker_logs import _records
from scaling.store import rows, run_files
from scaling.store.rows import Measurement, Provenance
from scaling.tasks import open_task, resolve
from scaling.trackers import TRACKERS, open_tracker
from scaling.trackers.export import export
from scaling.trackers.mlflow_log import tracking_uri
from scaling.trackers.process import Recorder
from scaling.trackers.run_log import Point, RunUpdate, points_of, run_info, series_name
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
def test_resumed_run_logs_no_step_twice(kind, runs, tmp_path):
    pytest.importorskip(kind)
    planned, out = runs[0], str(tmp_path / kind)
    rows = simulate(planned.run).measured
    steps = sorted({row.step for row in rows})

    info = run_info("tiny", planned.run)

    def session(*updates):
        recorder = Recorder(tmp_path / "sweep", open_tracker(kind, out))
        for update in updates:
            recorder.handle(update)
        recorder.close()

    def progress(step):
        return RunUpdate(info, (Point(step, {"progress/loss": 3.0}, time.time()),))

    def measured(step):
        at_step = [row for row in rows if row.step == step]
        return RunUpdate(info, points_of(planned.run, at_step, time.time()))

    session(measured(steps[0]), progress(steps[1] + 2), progress(steps[1] + 4))
    publish(tmp_path / "sweep", planned)
    session(
        measured(steps[0]),
        progress(steps[1] + 3),
        progress(steps[1] + 6),
        measured(steps[2]),
        RunUpdate(info, status="done"),
    )
    series, _ = read(kind, out, planned.run_id)
    assert series["progress/loss"] == [(steps[1] + more, 3.0) for more in (2, 4, 6)]
    expected = written(rows)
    for name, points in expected.items():
        late = [
            point for point in points if kind == "wandb" and point[0] == steps[1]
        ]  # its history goes forward only
        assert sorted(series[name]) == [point for point in points if point not in late]
    files, said = sorted(Path(out).rglob("*")), []
    done = export(tmp_path / "sweep", kind, out, said.append)
    assert (done["numbers_written"], done["runs_written"], sorted(Path(out).rglob("*"))) == (
        0,
        0,
        files,
    )
    late = sum(row.step == steps[1] for row in rows) + len(CLOCKS) if kind == "wandb" else 0
    assert done["numbers_refused"] == late
    assert said == (
        [
            f"warning: wandb does not take {late} numbers: they belong to steps before the last "
            "that it has of their run"
        ]
        if late
        else []
    )


@contextmanager
def halted(live):
    """The process of the trackers stands still, as one that hangs or is very slow."""
    live.process.process.send_signal(signal.SIGSTOP)
    yield
    live.process.process.send_signal(signal.SIGCONT)


def warnings_of(seen):
    return [event.message for event in seen if isinstance(event, events.RunWarning)]


def test_failing_tracker_warns_once_and_delays_nothing(runs, tmp_path, monkeypatch):
    """A process that does not read gets more than a pipe holds; it fails, and says so late."""
    pytest.importorskip("tensorboard")
    folder, seen, read_events = tmp_path / "sweep", [], LocalWorker.events

    def events_late(worker):
        worker.process.wait()
        time.sleep(0.3)
        yield from read_events(worker)

    monkeypatch.setattr(LocalWorker, "events", events_late)
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 900.0)
    folder.mkdir()
    (folder / "tracking").write_text("a file in its way")
    row = Measurement(1, "val", "loss", 3.0)
    with LiveTrackers(["tensorboard"], folder, "tiny", runs, seen.append) as live:

        def send():
            for _ in range(4000):
                live.handle(events.Measured(run_id=runs[0].run_id, rows=(row,)))

        with halted(live):
            sending = threading.Thread(target=send, daemon=True)
            sending.start()
            sending.join(600)
            assert not sending.is_alive()
    warnings = warnings_of(seen)
    assert len(warnings) == 1
    assert warnings[0].startswith("tensorboard logs no more (")
    assert "Error" in warnings[0]
    assert f"scaling results export {folder} --to tensorboard" in warnings[0]
    assert len(seen) == 4001


def test_dropped_points_of_a_full_queue_are_reported_once(runs, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(tracking, "MAX_WAITING", 5)
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 900.0)
    seen, row = [], Measurement(1, "val", "loss", 3.0)
    with LiveTrackers(["tensorboard"], tmp_path, "tiny", runs, seen.append) as live, halted(live):
        measured = events.Measured(run_id=runs[0].run_id, rows=(row,))
        for _ in range(4000):
            live.handle(measured)
        left_out = live._left_out
    (warning,) = warnings_of(seen)
    assert 0 < left_out < 4000
    assert f"{left_out} updates did not fit its queue" in warning
    assert f"scaling results export {tmp_path} --to tensorboard" in warning


@pytest.mark.parametrize("times", [1, 2])
def test_first_signal_shortens_the_flush_and_a_second_ends_it(times, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSING_SECONDS", 1e9)
    if times == 2:
        monkeypatch.setattr(tracking, "STOPPING_SECONDS", 1e9)
    seen = []
    with (
        Signals() as signals,
        LiveTrackers(["tensorboard"], tmp_path, "tiny", runs, seen.append, signals) as live,
    ):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        live.process.process.send_signal(signal.SIGSTOP)
    assert "still busy" in warnings_of(seen)[0]
    assert live.process.process.returncode == -signal.SIGKILL


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


def test_tracker_error_is_an_error_of_the_export(folder, tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ScalingError, match="tensorboard refuses"):
        export(folder, "tensorboard", str(tmp_path / "taken"))


def test_our_own_bug_is_not_reported_as_the_trackers(folder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("scaling.trackers.export.read_points", lambda *_: {}["ours"])
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
