"""What makes a sweep stop: signals, budgets, a first failure; and what it leaves."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from scaling.config.sweep_file import dump_sweep
from scaling.execute.ledger import summarize
from scaling.execute.signals import Signals
from scaling.store import run_files
from tests import command_line
from tests.execute.sweeping import (
    WAIT,
    AtASave,
    command,
    numbers,
    optimised,
    scaling,
    status,
    training,
    wait_for,
    workers_of,
)
from tests.sweep_files import diverging, tiny

pytestmark = pytest.mark.slow

LONG = {"kind": "grid", "sizes": ["6k"], "tokens": ["900M"]}  # half an hour: none ends by itself


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = tmp_path_factory.mktemp("sweep") / "tiny.toml"
    made.write_text(dump_sweep(tiny(design=LONG)))
    return made


def begun(path, out, save=None):
    """A sweep in training, or at its first save, which comes before its first step."""
    process = subprocess.Popen(
        command("run", path, "--out", out, "--workers", 1),
        env=optimised() | (save.environment if save else {}),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(save.is_reached if save else lambda: training(out), process)
    return process


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as handle:
        return handle.read().split(") ")[1][0] != "Z"


def is_asked_to_stop(pid):
    """Whether SIGTERM waits for a process that stands still."""
    (pending,) = re.findall(r"^ShdPnd:\t(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGUSR1, 75),
        pytest.param(signal.SIGUSR2, 75, marks=pytest.mark.exhaustive),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
    ],
)
def test_a_signal_saves_and_leaves_no_child(path, tmp_path, number, code):
    process = begun(path, tmp_path)
    workers = workers_of(process)
    process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == code, said
    assert "stopped" in said
    assert not any(map(is_alive, workers))
    assert list(tmp_path.glob("checkpoints/*.npz"))
    assert list(tmp_path.rglob("*.tmp")) == []
    assert list(tmp_path.glob("leases/*.json")) == []


@pytest.mark.parametrize("number", [None, signal.SIGHUP])
def test_the_end_of_a_terminal_is_ignored_under_nohup(number):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL if number else signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received == number
            assert not signals.force_quit  # a shell and the kernel may both send it
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_leaves_at_once(path, tmp_path):
    process = begun(path, tmp_path)
    workers = workers_of(process)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # it cannot save
    process.send_signal(signal.SIGINT)
    wait_for(lambda: all(map(is_asked_to_stop, workers)), process)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    wait_for(lambda: not any(map(is_alive, workers)))


def test_a_warning_and_the_sigterm_after_it_are_one_request(path, tmp_path):
    process = begun(path, tmp_path)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75
    assert list(tmp_path.glob("checkpoints/*.npz"))


@pytest.mark.exhaustive
def test_worker_stopped_from_outside_is_replaced(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny(design={"kind": "grid", "sizes": ["6k"], "tokens": ["300k"]})))
    save = AtASave(tmp_path / "hook", WAIT)
    process = begun(path, out, save)
    for pid in workers_of(process):
        os.kill(pid, signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "retry 1 of 2" in said


@pytest.mark.exhaustive
def test_run_and_time_budgets_end_a_sweep_that_then_resumes(tmp_path):
    path, whole, out = tmp_path / "tiny.toml", tmp_path / "whole", tmp_path / "out"
    path.write_text(
        dump_sweep(tiny(design={"kind": "grid", "sizes": ["6k"], "tokens": ["500k", "1M"]}))
    )
    assert scaling("run", path, "--out", whole, "--workers", 1, env=optimised()).returncode == 0
    done = scaling(
        "run", path, "--out", out, "--workers", 1, "--max-flops", "1e10", env=optimised()
    )
    assert done.returncode == 75, done.stdout
    assert "--max-flops 1e+10 is used up" in done.stdout
    spent = status(out)["cost"]["flops"]
    assert 1e10 <= spent < 4e10
    assert scaling("run", path, "--out", out, "--workers", 1, env=optimised()).returncode == 0
    assert numbers(out).equals(numbers(whole))
    assert status(out)["cost"]["flops"] == pytest.approx(status(whole)["cost"]["flops"], rel=0.2)


def test_a_budget_of_seconds_ends_a_sweep(path, tmp_path):
    done = scaling(
        "run", path, "--out", tmp_path, "--workers", 1, "--max-seconds", 5, env=optimised()
    )
    assert done.returncode == 75
    assert "--max-seconds 5 are over" in done.stdout


@pytest.mark.parametrize("given", ["-1", "nan", "inf", "lots"])
@pytest.mark.parametrize("option", ["--max-flops", "--max-seconds"])
def test_invalid_budget_is_rejected(path, tmp_path, option, given):
    done = command_line.scaling("run", path, "--out", tmp_path / "out", f"{option}={given}")
    assert done.returncode == 2
    assert option in done.stderr
    assert not (tmp_path / "out").exists()


def test_fail_fast_stops_at_the_first_run_that_diverges(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    seeds = list(range(20))  # more than can end before the stop
    path.write_text(dump_sweep(diverging(10.0, 0.01, seeds=seeds)))
    done = scaling("run", path, "--out", out, "--workers", 1, "--fail-fast")
    assert done.returncode == 3, done.stdout
    assert "--fail-fast" in done.stdout
    assert len(run_files.finished_run_ids(out)) < 40
    assert sum(summarize(out).attempts.values()) < 40
