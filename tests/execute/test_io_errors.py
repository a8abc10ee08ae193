"""Errors of the file system on a sweep's own files: exit 74 and one sentence, nothing set aside,
nothing trained again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import zlib
from pathlib import Path

import pytest

from benchmarks.chaos import errors
from benchmarks.chaos.sweeps import FILES_SWEEP
from scaling import files
from scaling.config.sweep_file import load_sweep
from scaling.execute import lease, locks
from scaling.execute.lease import Lease
from scaling.execute.ledger import summarize
from scaling.execute.locks import hold
from scaling.execute.sweep_folder import SweepFolder
from scaling.store import run_files

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(FILES_SWEEP)
    return path


def test_injected_errors_end_in_no_traceback_and_cost_no_run(sweep: Path, tmp_path: Path) -> None:
    count, wrong = errors.inject(sweep, tmp_path, 30, seed=3)
    assert wrong == []
    assert count >= 30


def test_no_error_while_a_checkpoint_is_saved_or_restored_corrupts_it(
    sweep: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for call in ("open", "read", "write"):
        for first in range(1, 12):
            faults = errors.Faults(folder, call, errno.EIO, first)
            with errors.injected(faults):
                assert errors.scenarios(sweep, folder)["checkpoint"]() == ""
            assert not list(folder.rglob("*.damaged"))


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_sweep_runs_without_kernel_locks_hard_links_and_folder_sync(
    code: int, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(os, "link", unsupported if code != errno.ENOLCK else os.link)
    folder = tmp_path / "out"
    assert errors.invoke("run", sweep, "--out", folder, "--simulate", errors.LAW) == ""
    assert len(run_files.finished_run_ids(folder)) == 9
    assert list((folder / "leases").glob("[!.]*")) == []


def test_exclusive_file_replaces_the_kernel_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "try_lock", lambda descriptor: None)
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.05)
    lock = tmp_path / ".lock"
    with (
        hold(lock),
        pytest.raises(files.ScalingError, match="another process holds the folder"),
        hold(lock),
    ):
        pass
    monkeypatch.setattr(locks, "WAIT_SECONDS", 600.0)
    with hold(lock):
        pass
    monkeypatch.setattr(locks, "ABANDONED_SECONDS", 0.0)
    (tmp_path / ".lock.exclusive").write_text("")  # left by a killed process
    with hold(lock):
        pass


def test_lease_without_kernel_locks_is_kept_by_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "try_lock", lambda descriptor: None)
    monkeypatch.setattr(lease, "try_lock", lambda descriptor: None)
    with Lease(tmp_path) as one:
        assert files.read_json(one.path)["boot"] is None
        assert not one.has_kernel_lock


def test_read_only_folder_still_has_a_status_and_a_fit(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    assert errors.invoke("run", sweep, "--out", folder, "--simulate", errors.LAW) == ""
    real = os.open

    def read_only(path: object, flags: int, *arguments: object, **keywords: object) -> int:
        below = str(path).startswith(f"{folder}/")
        if below and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", read_only)
    assert errors.invoke("status", folder) == ""
    out = tmp_path / "fit.json"
    arguments = ("--law", "power", "--bootstrap", "0", "--out", out)
    assert errors.invoke("fit", folder, *arguments) == ""
    assert out.exists()


def test_results_below_a_path_that_is_not_utf8_are_kept(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"r\xe9sultats")
    for _ in range(2):
        assert errors.invoke("run", sweep, "--out", folder, "--simulate", errors.LAW) == ""
        assert len(run_files.load(folder)["run_id"].unique()) == 9
    assert errors.invoke("results", "compact", folder) == ""
    assert len(run_files.finished_run_ids(folder)) == 9
    assert not (folder / "damaged").exists()


def test_moved_folder_is_resumed_by_its_own_sweep_file(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = ("--out", "runs/first", "--simulate", errors.LAW, "--max-runs", "4")
    assert errors.invoke("run", sweep, *first, allowed=(0, 75)) == ""
    Path("runs/first").rename("runs/renamed")
    assert errors.invoke("run", "runs/renamed/sweep.toml", "--simulate", errors.LAW) == ""
    assert len(run_files.finished_run_ids(Path("runs/renamed"))) == 9
    assert not Path("results").exists()


def test_fit_takes_the_runs_of_the_plan_alone(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert errors.invoke("run", sweep, "--out", folder, "--simulate", errors.LAW) == ""
    sweep.write_text(FILES_SWEEP.replace("points = 3", "points = 5"))
    assert errors.invoke("run", sweep, "--out", folder, "--simulate", errors.LAW) == ""
    assert len(run_files.finished_run_ids(folder)) == 18
    table = run_files.load(folder, planned_only=True)
    assert table["run_id"].nunique() == 9
    assert len(table.attrs["unplanned"]) == 9
    out = tmp_path / "fit.json"
    arguments = ("--law", "power", "--bootstrap", "0", "--out", out)
    assert errors.invoke("fit", folder, *arguments) == ""
    document = files.read_json(out)
    assert document["n_points"] == 9
    assert {"reason": "no longer in the plan", "count": 9} in document["excluded"]
    assert "unplanned_runs" in {warning["code"] for warning in document["warnings"]}
    assert load_sweep(SweepFolder(folder).path / "sweep.toml").evals.points == 5


def test_fit_of_an_unfinished_sweep_says_how_many_runs_it_lacks(
    sweep: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    first = ("--out", folder, "--simulate", errors.LAW, "--max-runs", "4")
    assert errors.invoke("run", sweep, *first, allowed=(0, 75)) == ""
    out = tmp_path / "fit.json"
    arguments = ("--law", "power", "--bootstrap", "0", "--out", out)
    assert errors.invoke("fit", folder, *arguments) == ""
    (warning,) = (
        each for each in files.read_json(out)["warnings"] if each["code"] == "unfinished_sweep"
    )
    assert warning["message"].startswith("5 of 9 planned runs are not trained")


def test_odd_entries_of_a_folder_are_named_and_stop_no_command(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert errors.invoke("run", sweep, "--out", folder, "--simulate", errors.LAW) == ""
    os.mkfifo(folder / "runs" / "aaaaaaaaaaaa.parquet")
    (folder / "runs" / "bbbbbbbbbbbb.parquet").mkdir()
    (folder / "runs" / os.fsdecode(b"\xe9.parquet")).touch()
    os.mkfifo(folder / "ledger" / "pipe.jsonl")
    lines = [json.dumps(entry) for entry in ([1], {"event": "done"}, {"event": 3, "run_ids": [4]})]
    (folder / "ledger" / "odd.jsonl").write_text(
        "".join(f"{zlib.crc32(line.encode()):08x} {line}\n" for line in lines)
    )
    assert summarize(folder).unreadable == 3
    assert errors.invoke("status", folder) == ""
    assert errors.invoke("results", "check", folder, allowed=(3,)) == ""
    assert errors.invoke("results", "compact", folder) == ""
    assert errors.invoke("run", sweep, "--out", folder, "--simulate", errors.LAW) == ""
    assert len(run_files.finished_run_ids(folder)) == 9
    aside = {path.name for path in (folder / "damaged").iterdir()}
    assert {"runs-aaaaaaaaaaaa.parquet", "runs-bbbbbbbbbbbb.parquet"} < aside
