"""Trackers hold what the rows hold, each number once, whoever reads them: with the libraries' own readers, after any number of sittings."""

import json
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scaling import trackers
from scaling.cli import with_commands
from scaling.errors import ScalingError
from scaling.execute.signals import Signals
from scaling.execute.simulated import simulate
from scaling.plan import plan
from scaling.points.tracker_logs import _records
from scaling.store import rows, run_files
from scaling.store.rows import Provenance
from scaling.tasks import open_task, resolve
from scaling.trackers import KINDS
from scaling.trackers.export import export
from scaling.trackers.live import CLOSING_SECONDS, LiveTrackers, TrackerProcess
from scaling.trackers.mlflow_log import tracking_uri
from scaling.trackers.opened import opened
from scaling.trackers.recorder import Recorder
from scaling.trackers.series import name_of
from tests.sweep_files import tiny

pytestmark = pytest.mark.filterwarnings("default")  # the libraries' own
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
        found.setdefault(name_of(row.split, row.metric, row.at), []).append(
            (row.step, pytest.approx(row.value, rel=1e-6))
        )
    return found


def read(kind, out, run_id):
    """The series and the settings that a tracker holds of a run, by its library's own reader, and how often there is such a run."""
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_holds_all_rows_of_a_folder_once(kind, folder, runs, tmp_path):
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_goes_on_passes_no_step_twice(kind, runs, tmp_path):
    pytest.importorskip(kind)
    planned, out = runs[0], str(tmp_path / kind)
    rows = simulate(planned.run).measured
    steps = sorted({row.step for row in rows})

    def sitting(*events):
        recorder = Recorder(tmp_path / "sweep", "tiny", opened(kind, out))
        recorder.handle(
            {"event": "run", "run_id": planned.run_id, "config": planned.run.model_dump_json()}
        )
        for event in events:
            recorder.handle({"run_id": planned.run_id, **event})
        recorder.close()

    def progress(step):
        return {"event": "progress", "step": step, "loss": 3.0, "tokens_per_second": 1e3}

    def measured(step):
        return {"event": "measured", "rows": [asdict(row) for row in rows if row.step == step]}

    sitting(measured(steps[0]), progress(steps[1] + 2), progress(steps[1] + 4))
    publish(tmp_path / "sweep", planned)
    sitting(
        measured(steps[0]),
        progress(steps[1] + 3),
        progress(steps[1] + 6),
        measured(steps[2]),
        {"event": "done"},
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
            f"warning: wandb does not take {late} numbers: they belong to steps before the last that it holds of their run"
        ]
        if late
        else []
    )


@contextmanager
def halted(live):
    """The processes of the trackers stand still: as those that hang, or are very slow."""
    for pipe in live.pipes:
        pipe.process.send_signal(signal.SIGSTOP)
    yield
    for pipe in live.pipes:
        pipe.process.send_signal(signal.SIGCONT)


def warnings_of(told):
    return [event["text"] for event in told if event["event"] == "warning"]


def test_a_tracker_that_fails_warns_once_and_holds_nothing_up(runs, tmp_path, monkeypatch):
    """More than a pipe holds is told to a process that does not read; later it fails, and its last word is read late."""
    pytest.importorskip("tensorboard")
    folder, told, listen = tmp_path / "sweep", [], TrackerProcess._listen

    def listen_late(pipe):
        pipe.process.wait()
        time.sleep(0.3)
        listen(pipe)

    monkeypatch.setattr(TrackerProcess, "_listen", listen_late)
    folder.mkdir()
    (folder / "tracking").write_text("a file in its way")
    progress = {
        "event": "progress",
        "run_id": runs[0].run_id,
        "loss": 3.0,
        "tokens_per_second": 1e3,
    }
    with LiveTrackers(["tensorboard"], folder, "tiny", runs, told.append) as live:

        def tell():
            for step in range(4000):
                live.handle(
                    {"event": "measured", "run_id": runs[0].run_id, "rows": []}
                    if step % 2
                    else {**progress, "step": step}
                )

        with halted(live):
            telling = threading.Thread(target=tell, daemon=True)
            telling.start()
            telling.join(60)
            assert not telling.is_alive()
    warnings = warnings_of(told)
    assert len(warnings) == 1
    assert warnings[0].startswith("tensorboard logs no more (")
    assert "Error" in warnings[0]
    assert f"scaling results export {folder} --to tensorboard" in warnings[0]
    assert len(told) == 4001


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_makes_the_end_short_and_a_second_one_ends_it(times, runs, tmp_path):
    told = []
    with (
        Signals() as signals,
        LiveTrackers(["tensorboard"], tmp_path, "tiny", runs, told.append, signals) as live,
    ):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        live.pipes[0].process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
    assert time.monotonic() - begun < CLOSING_SECONDS / 2
    assert "still busy" in warnings_of(told)[0]
    assert live.pipes[0].process.returncode == -signal.SIGKILL


def test_an_event_that_cannot_be_told_ends_the_tracker_and_is_said(runs, tmp_path):
    pytest.importorskip("tensorboard")
    told, begun = [], time.monotonic()
    with LiveTrackers(["tensorboard"], tmp_path, "tiny", runs, told.append) as live:
        live.handle({"event": "measured", "run_id": runs[0].run_id, "rows": [object()]})
    assert time.monotonic() - begun < CLOSING_SECONDS / 2
    assert ["is no JSON" in text for text in warnings_of(told)] == [True]


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


def test_a_tracker_that_refuses_is_an_error_of_the_export(folder, tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ScalingError, match="tensorboard refuses"):
        export(folder, "tensorboard", str(tmp_path / "taken"))


def test_a_mistake_of_ours_is_not_told_as_the_trackers(folder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("scaling.trackers.export.points_of", lambda rows, ended: {}["ours"])
    with pytest.raises(KeyError, match="ours"):
        export(folder, "tensorboard", str(tmp_path / "boards"))


def test_what_is_not_installed_or_not_known_is_said_before_anything_is_done(
    tmp_path, monkeypatch, folder
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    (tmp_path / "tiny.toml").write_text("")
    for arguments in (
        ["run", "tiny.toml", "--track", "wandb"],
        ["results", "export", str(folder), "--to", "mlflow", "--out", "x"],
    ):
        done = CliRunner().invoke(with_commands(), arguments)
        assert done.exit_code == 2
        assert 'pip install -e ".[trackers]"' in done.output
    done = CliRunner().invoke(with_commands(), ["run", "tiny.toml", "--track", "wandbb"])
    assert done.exit_code == 2
    assert "did you mean wandb" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep", "tiny.toml"]
