"""The Ray engine on a real cluster of several nodes on this machine: workers begin, are signalled,
die and are reported.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from scaling.config.run_groups import group_runs
from scaling.errors import ScalingError
from scaling.execute import ray as engine
from scaling.execute.local import LocalLauncher
from scaling.execute.ray import RayLauncher, Resources, parse_resources
from scaling.execute.worker import TrainRequest
from scaling.plan import plan
from scaling.store import run_files
from scaling.tasks import open_task
from tests.execute.ray_nodes import (  # noqa: F401
    COORDINATOR,
    NEEDS_RAY,
    cluster,
    heard,
    nodes,
    stand_in,
    wait_for,
)
from tests.sweep_files import tiny


@pytest.fixture
def launch(cluster, stand_in, tmp_path):
    """Makes launchers of stand-ins for the two nodes, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(**options):
            made = RayLauncher(
                tmp_path, **({"address": cluster.address, "command": stand_in} | options)
            )
            stack.callback(made.close)
            return made

        yield make


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cpu=2", Resources(2)),
        ("gpu=0.5", Resources(1, 0.5)),
        ("cpu=0, GPU=1", Resources(0, 1)),
        ("cpu=8,tpu=4,tpu-v4=1", Resources(8, 0, (("TPU", 4), ("tpu-v4", 1)))),
    ],
)
def test_resources_are_read(text, found):
    assert parse_resources(text) == found
    assert parse_resources(str(found) if found.cpu else f"cpu=0,{found}") == found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "NAME=AMOUNT"),
        ("cpu", "NAME=AMOUNT"),
        ("=1", "NAME=AMOUNT"),
        ("cpu=1,", "NAME=AMOUNT"),
        ("cpu=1,CPU=2", "twice"),
        ("cpu=x", "no amount"),
        ("gpu=-1", "no amount"),
        ("gpu=1.5", "no amount"),
        ("cpu=nan", "no amount"),
        ("cpu=1e99", "no amount"),
        ("cpu=0", "asks for nothing"),
        ("memory=1", "cannot be asked for"),
    ],
)
def test_invalid_ray_resources_are_rejected(text, what):
    with pytest.raises(ScalingError, match=what) as caught:
        parse_resources(text)
    assert caught.value.remedy


@pytest.mark.slow
def test_ray_is_imported_lazily_and_its_absence_reported(monkeypatch, tmp_path):
    code = "import sys, scaling.execute.ray; sys.exit('ray' in sys.modules or 'jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ScalingError) as caught:
        RayLauncher(tmp_path)
    assert ".[ray]" in caught.value.remedy


@NEEDS_RAY
def test_an_address_without_a_cluster_is_an_error(monkeypatch, tmp_path):
    for address, what in (("ray://here:1", "not supported"), ("127.0.0.1:9", "cannot be reached")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ScalingError, match=what):
            RayLauncher(tmp_path)


@NEEDS_RAY
def test_ray_worker_runs_commands_and_exits_when_closed(launch, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    launcher = launch(arguments=["--flag"])
    assert signal.getsignal(signal.SIGTERM) is before
    assert launcher.slots() == 2
    worker = launcher.start(7)
    lines = worker.events()
    ready = heard(lines, "ready")
    assert (ready["rest"], ready["threads"], ready["platforms"]) == (["--flag"], "1", "cpu")
    for order in ("one", "two"):
        worker.send(order)
        assert heard(lines, "over")["order"] == order
    assert worker.alive()
    worker.close()
    assert not worker.alive()
    assert list(lines) == []
    assert worker.exit_reason() == ("exit code 0", "last words\n")
    assert (tmp_path / "logs" / "worker-7.log").read_text() == "last words\n"
    worker.send("three")  # as if to a pipe that nobody reads
    worker.signal(signal.SIGTERM)


@NEEDS_RAY
@pytest.mark.parametrize(
    ("act", "cause", "saved"),
    [
        (lambda worker: worker.signal(signal.SIGTERM), "exit code 0", 1),
        (lambda worker: worker.signal(signal.SIGKILL), "SIGKILL", 0),
        (lambda worker: worker.close(), "exit code 0", 1),
    ],
)
def test_ray_worker_saves_on_request_and_dies_when_killed(launch, tmp_path, act, cause, saved):
    worker = launch().start(0)
    lines = worker.events()
    worker.send("work")
    heard(lines, "progress")
    act(worker)
    kinds = [json.loads(line)["event"] for line in lines]
    assert worker.exit_reason() == (cause, "last words\n")
    assert kinds.count("stopped") == saved == len(list(tmp_path.glob("saved-*")))


@NEEDS_RAY
def test_failed_ray_worker_reports_its_exit_code(launch):
    worker = launch().start(0)
    worker.send("exit")
    assert [json.loads(line)["event"] for line in worker.events()] == ["ready"]
    assert worker.exit_reason() == ("exit code 3", "last words\n")


@NEEDS_RAY
def test_ray_worker_that_cannot_start_reports_the_reason(launch, tmp_path):
    worker = launch(command=[str(tmp_path / "nothing")]).start(0)
    assert list(worker.events()) == []
    assert "could not be started" in worker.exit_reason()[0]
    assert "No such file" in worker.exit_reason()[0]


@NEEDS_RAY
def test_resources_larger_than_any_node_are_rejected(launch):
    for asked in ({"resources": Resources(2)}, {"resources": Resources(1, 1)}, {"hosts": 3}):
        with pytest.raises(ScalingError, match="no place for a worker") as caught:
            launch(**asked)
        assert "CPU=2" in caught.value.remedy
    assert launch(resources=Resources(1, 1), wait_for_nodes=True).slots() == 0


@NEEDS_RAY
@pytest.mark.exhaustive
def test_ray_worker_without_a_node_waits_and_can_be_cancelled(launch, monkeypatch):
    monkeypatch.setattr(engine, "NOTICE_SECONDS", 0.2)
    notices = []
    launcher = launch(notice=notices.append)
    busy = [launcher.start(index) for index in range(2)]
    for worker in busy:
        heard(worker.events(), "ready")
    third = launcher.start(2)
    assert third.alive()
    wait_for(lambda: third.alive() and notices)
    assert "waiting for CPU=1" in notices[0]
    busy[0].close()
    assert heard(third.events(), "ready")
    fourth = launcher.start(3)
    fourth.send("work")
    fourth.signal(signal.SIGTERM)
    assert list(fourth.events()) == []
    assert fourth.exit_reason() == (engine.STOPPED_EARLY, "")


@NEEDS_RAY
def test_processes_of_a_two_host_worker_end_together(launch, tmp_path):
    launcher = launch(hosts=2)
    assert launcher.slots() == 1
    worker = launcher.start(0)
    lines = worker.events()
    address, *rest = heard(lines, "ready")["rest"][1:]
    assert address.rpartition(":")[2].isdigit()
    assert rest == ["--processes", "2", "--process", "0"]
    other = tmp_path / "logs" / "worker-0-host-1.log"
    wait_for(lambda: other.exists() and other.read_text())  # the other one is there too
    worker.send("work")
    heard(lines, "progress")
    worker.signal(signal.SIGTERM)
    assert "stopped" in [json.loads(line)["event"] for line in lines]
    assert worker.exit_reason()[0].endswith("exit code 0")
    assert len(list(tmp_path.glob("saved-*"))) == 2

    worker = launcher.start(0)  # the places have been given back
    lines = worker.events()
    heard(lines, "ready")
    worker.send("exit")
    list(lines)
    assert "of 2 on " in worker.exit_reason()[0]
    assert "exit code 3" in worker.exit_reason()[0]
    assert not worker.alive()


@NEEDS_RAY
def test_a_run_whose_coordinator_was_killed_saves_itself(cluster, stand_in, tmp_path):
    script = tmp_path / "coordinator.py"
    script.write_text(COORDINATOR)
    command = [sys.executable, str(script), str(tmp_path), cluster.address, stand_in[1]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pid = heard(process.stdout, "ready")["pid"]
        heard(process.stdout, "progress")
        process.kill()
    wait_for(lambda: (tmp_path / f"saved-{pid}").exists())
    wait_for(lambda: not _is_alive(pid))


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@NEEDS_RAY
@pytest.mark.exhaustive
def test_a_dead_node_ends_its_worker_and_no_other(stand_in, tmp_path, capfd):
    with (
        nodes(2) as (found, (lost, _)),
        contextlib.closing(
            RayLauncher(tmp_path, address=found.address, command=stand_in)
        ) as launcher,
    ):
        workers = [launcher.start(index) for index in range(2)]
        lines = [worker.events() for worker in workers]
        for worker, said in zip(workers, lines, strict=True):
            worker.send("work")
            heard(said, "progress")
        found.remove_node(lost, allow_graceful=False)
        wait_for(lambda: not all(worker.alive() for worker in workers))
        dead = next(index for index, worker in enumerate(workers) if not worker.alive())
        list(lines[dead])
        assert "node" in workers[dead].exit_reason()[0]
        assert "\n" not in workers[dead].exit_reason()[0]
        assert workers[dead].exit_reason()[1] == "last words\n"
        assert heard(lines[1 - dead], "progress")
        workers[1 - dead].close()
        again = launcher.start(2)
        again.send("one")
        assert heard(again.events(), "over")
    assert capfd.readouterr().out == ""


def _rows(folder):
    """All rows but the clock's, in a fixed order."""
    table = run_files.load(folder).drop(columns=["seconds"])
    table = table[table["metric"] != "tokens_per_second"]
    return table.sort_values(["run_id", "step", "split", "metric"]).reset_index(drop=True)


@NEEDS_RAY
def test_a_run_on_ray_gives_the_rows_of_a_local_one(cluster, tmp_path):
    sweep = tiny(design={"kind": "grid", "sizes": ["2k"], "tokens": ["20k"]})
    runs = plan(sweep, sweep.base.task, open_task(sweep.base.task).vocab_size).runs
    (family,) = group_runs([item.run for item in runs])
    made = {
        "here": lambda folder: LocalLauncher(folder, "worker", 2),
        "ray": lambda folder: RayLauncher(folder, address=cluster.address),
    }
    for name, launcher in made.items():
        (tmp_path / name).mkdir()
        with contextlib.closing(launcher(tmp_path / name)) as opened:
            worker = opened.start(0)
            lines = worker.events()
            worker.send(TrainRequest(sweep.name, family).dump())
            assert heard(lines, "done")
            worker.close()
    assert _rows(tmp_path / "ray").equals(_rows(tmp_path / "here"))
