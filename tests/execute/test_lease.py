"""Several processes on one folder: they share the work, take over from the dead, and a process that
was taken for dead publishes nothing.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from scaling import files
from scaling.config.sweep_file import dump_sweep
from scaling.execute import lease as leases
from scaling.execute.lease import Heartbeats, Lease, peers
from scaling.execute.ledger import summarize
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.worker import publish
from scaling.store import run_files
from scaling.store.rows import Provenance
from tests.execute.sweeping import AtASave, command, scaling, status, training, wait_for
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow

LAW = "published:hoffmann2022"
LONG = {"kind": "grid", "sizes": ["3k"], "tokens": ["900M"]}
HOLDER = """
import sys, time
from pathlib import Path
from scaling.execute.lease import Lease
with Lease(Path(sys.argv[1])) as lease:
    with lease.locked():
        lease.claim(sys.argv[2:])
    print("holding", flush=True)
    time.sleep(1000)
"""


@contextlib.contextmanager
def holding(folder, *run_ids):
    """Another process that has runs in hand."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *run_ids], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "holding\n"
            yield process
        finally:
            process.kill()


def test_eight_processes_execute_fifty_runs_once_each(tmp_path):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text(
        dump_sweep(
            tiny(
                seeds=list(range(25)),
                design={"kind": "grid", "sizes": ["2k", "6k"], "tokens": ["20k"]},
            )
        )
    )
    together = [
        subprocess.Popen(
            command("run", path, "--out", out, "--simulate", LAW), stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    said = [process.communicate()[0] for process in together]
    assert [process.returncode for process in together] == [0] * 8, said
    assert len(run_files.finished_run_ids(out)) == 50
    found = summarize(out)
    assert sum(found.attempts.values()) == 50
    assert set(found.attempts.values()) == {1}
    assert list((out / "leases").glob("*.json")) == []


def test_processes_share_real_runs_and_wait_for_each_other(tmp_path):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny()))
    together = [
        subprocess.Popen(
            command("run", path, "--out", out, "--workers", 1), stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in together]
    assert [process.returncode for process in together] == [0, 0], said
    assert set(summarize(out).attempts.values()) == {1}
    assert len(run_files.finished_run_ids(out)) == 4


def test_leased_run_is_left_to_its_process_until_it_dies(tmp_path):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny()))
    assert scaling("run", path, "--out", out, "--simulate", LAW, "--max-runs", 1).returncode == 0
    left = [run["run_id"] for run in status(out)["runs"] if run["status"] == "missing"]
    with holding(out, left[0]) as holder:
        process = subprocess.Popen(
            command("run", path, "--out", out, "--simulate", LAW), stdout=subprocess.PIPE, text=True
        )
        wait_for(lambda: len(run_files.finished_run_ids(out)) == 3, process)
        time.sleep(1)
        assert process.poll() is None
        assert (
            next(run["status"] for run in status(out)["runs"] if run["run_id"] == left[0])
            == "running"
        )
        holder.kill()
        process.communicate()
        assert process.returncode == 0
    assert len(run_files.finished_run_ids(out)) == 4


def test_process_without_heartbeat_is_dead(tmp_path, monkeypatch):
    with holding(tmp_path, "aaa") as holder, Lease(tmp_path) as mine:
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
        with mine.locked() as held:
            assert held == {"aaa"}
        monkeypatch.setattr(leases, "EXPIRES", 0.0)
        with mine.locked() as held:
            assert held == set()
        os.kill(holder.pid, signal.SIGCONT)
        assert not list((tmp_path / "leases").glob(f"*-{holder.pid}-*.json"))


def test_lease_of_another_machine_is_judged_by_heartbeat(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now[0]))
    path = tmp_path / "leases" / "far-1-00000000.json"
    files.write_json(
        path,
        {"name": "far-1-00000000", "host": "far", "boot": "another", "pid": 1, "runs": ["aaa"]},
    )
    os.utime(path, (0, 0))  # its clock is 56 years behind: that does not matter
    watch = Heartbeats()
    assert [peer.claims for peer in peers(tmp_path, watch)] == [frozenset({"aaa"})]
    now[0] += 0.6 * leases.EXPIRES
    os.utime(path, (10**10, 10**10))  # a heartbeat, from far ahead
    assert peers(tmp_path, watch)
    now[0] += 0.6 * leases.EXPIRES
    assert peers(tmp_path, watch)
    now[0] += 0.6 * leases.EXPIRES
    assert peers(tmp_path, watch) == []


def test_process_that_lost_its_lease_publishes_nothing(tmp_path):
    from scaling.execute.simulated import simulate
    from scaling.plan import plan

    sweep = tiny()
    run = plan(sweep, sweep.base.task, 16, LAW).runs[0].run
    source = Provenance("here", None, "0")
    with Lease(tmp_path) as lease:
        lease.path.unlink()
        ended = publish(SweepFolder(tmp_path), "tiny", run, simulate(run), source, lease.path)
        assert ended.event == "stopped"
        assert run_files.finished_run_ids(tmp_path) == set()
        with pytest.raises(Exception, match="others took over its runs"), lease.locked():
            lease.claim(["aaa"])


def test_first_of_two_results_is_kept(tmp_path):
    from scaling.execute.simulated import simulate
    from scaling.plan import plan

    sweep = tiny()
    run = plan(sweep, sweep.base.task, 16, LAW).runs[0].run
    for device in ("first", "second"):
        publish(
            SweepFolder(tmp_path), "tiny", run, simulate(run), Provenance(device, None, "0"), None
        )
    assert set(run_files.load(tmp_path)["device"]) == {"first"}


def test_corrupt_lease_is_ended_and_its_process_told(tmp_path):
    with Lease(tmp_path) as theirs, Lease(tmp_path) as mine:
        with theirs.locked():
            theirs.claim(["aaa"])
        theirs.path.write_bytes(theirs.path.read_bytes().replace(b"aaa", b"aba"))
        with mine.locked() as claimed:
            assert claimed == set()
        with pytest.raises(files.ScalingError, match="its lease has ended") as caught:
            theirs.release(["aaa"])
        assert caught.value.exit_code == 75


def test_stale_leases_of_killed_processes_are_removed(tmp_path):
    folder = tmp_path / "leases"
    folder.mkdir()
    for name in ("gone-1-0.lock", "gone-2-0.live.json"):
        (folder / name).write_text("{}")
    with Lease(tmp_path) as mine:
        assert mine.is_alone()
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            [".lock", f"{mine.name}.json", f"{mine.name}.lock"]
        )


def test_train_leaves_a_leased_run_alone(tmp_path):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny()))
    run_id = json.loads(scaling("plan", path, "--no-probe", "--json").stdout)["runs"][0]["run_id"]
    with holding(out, run_id):
        done = scaling("train", path, "--run", run_id, "--out", out)
    assert done.returncode == 75
    assert "in training by another process" in done.stderr


@pytest.mark.parametrize("notices", ["heartbeat", "save"])
def test_folder_that_is_moved_away_stops_the_process_and_is_not_made_again(tmp_path, notices):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny(design=LONG)))
    move = f"os.rename({str(out)!r}, {str(tmp_path / 'moved')!r})"
    environment = AtASave(tmp_path / "hook", move).environment if notices == "save" else {}
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            command("run", path, "--out", out, "--workers", 1),
            env=os.environ | environment,
            stderr=errors,
        )
    if not environment:
        wait_for(lambda: training(out), process)
        out.rename(tmp_path / "moved")
    assert process.wait() == 75
    assert "the folder was moved or removed" in (tmp_path / "errors").read_text()
    assert not (out / "leases").exists()
    assert not (out / "ledger").exists()
    assert scaling("status", tmp_path / "moved").returncode == 0
