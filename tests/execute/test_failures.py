"""Runs that fail: each is an outcome with its reason, tried again where the cause may pass, and the
others go on.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.config.sweep_file import dump_sweep
from scaling.execute.worker import cause_of
from scaling.formatting import format_count
from tests.execute.sweeping import command, scaling, status, training, wait_for
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow

# Put in the way of the worker by Python itself, at its start: the first attempts at the largest
# runs fail as told.
SABOTAGE = """
import os
if os.environ.get("SABOTAGE"):
    import scaling.execute.worker as worker
    trained = worker.train_group
    def train_group(folder, order, **options):
        kind, times = os.environ["SABOTAGE"].split()
        run = order.group.runs[0]
        marks = folder.path.parent / f"mark-{run.run_id}"
        count = int(marks.read_text()) if marks.exists() else 0
        if run.model.d_model > 20 and count < int(times):
            marks.write_text(str(count + 1))
            import jax
            if kind == "memory":
                message = "RESOURCE_EXHAUSTED: Out of memory allocating 8796093022208 bytes."
                raise jax.errors.JaxRuntimeError(message)
            if kind == "device":
                raise jax.errors.JaxRuntimeError("INTERNAL: the link to the device is lost")
            if kind == "abort":
                os.abort()
            raise ValueError("a bug")
        return trained(folder, order, **options)
    worker.train_group = train_group
"""


@pytest.fixture
def sabotaged(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE)
    path = tmp_path / "tiny.toml"
    path.write_text(
        dump_sweep(tiny(design={"kind": "grid", "sizes": ["2k", "6k"], "tokens": ["20k"]}))
    )

    def run(kind, times, *options):
        env = os.environ | {"PYTHONPATH": str(tmp_path), "SABOTAGE": f"{kind} {times}"}
        done = scaling("run", path, "--out", tmp_path / "out", "--workers", 1, *options, env=env)
        return done, {entry["status"]: entry for entry in status(tmp_path / "out")["runs"]}

    return run


@pytest.mark.parametrize("kind", ["device", pytest.param("abort", marks=pytest.mark.exhaustive)])
def test_transient_failures_are_retried(sabotaged, kind):
    done, runs = sabotaged(kind, 2)
    assert done.returncode == 0, done.stdout
    assert set(runs) == {"done"}
    assert done.stdout.count("interrupted") == 2


def test_retries_are_bounded(sabotaged, tmp_path):
    done, runs = sabotaged("device", 5, "--retries", 1)
    assert done.returncode == 3
    assert runs["failed"]["attempts"] == 2
    assert "the link to the device is lost" in runs["failed"]["reason"]
    assert runs["done"]["loss"]
    assert (
        "Traceback"
        in (tmp_path / "out" / "failures" / f"{runs['failed']['run_id']}.txt").read_text()
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("memory", "out of memory (N = 7.8k, batch 8 x 30 tokens)"),
        pytest.param("bug", "ValueError: a bug", marks=pytest.mark.exhaustive),
    ],
)
def test_permanent_failures_are_not_retried(sabotaged, kind, said):
    done, runs = sabotaged(kind, 1)
    assert done.returncode == 3
    assert runs["failed"]["attempts"] == 1
    assert said in runs["failed"]["reason"]
    assert runs["done"]["loss"]
    again, runs = sabotaged(kind, 1)  # another command tries it anew
    assert again.returncode == 0
    assert set(runs) == {"done"}


def test_failure_causes_are_classified():
    from jax.errors import JaxRuntimeError

    assert cause_of(MemoryError()) == "memory"
    assert cause_of(ValueError("RESOURCE_EXHAUSTED: Out of memory")) == "memory"
    assert cause_of(RuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY")) == "memory"
    assert cause_of(JaxRuntimeError("UNAVAILABLE: socket closed")) == "device"
    assert cause_of(JaxRuntimeError("INVALID_ARGUMENT: shapes")) == "bug"
    assert cause_of(KeyError("x")) == "bug"


def test_json_of_a_failed_sweep_is_one_document(sabotaged):
    done, _ = sabotaged("bug", 9, "--json")
    assert json.loads(done.stdout)["counts"]["failed"] == 1


def test_worker_that_cannot_start_reports_why_and_is_not_retried(sabotaged, tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    sabotaged("none", 0, "--max-runs", 1)
    env = os.environ | {"XLA_FLAGS": "--xla_no_such_flag=1"}
    done = scaling("run", path, "--out", out, "--workers", 1, "--accept-changes", env=env)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "could not start" in done.stdout
    assert "xla_no_such_flag" in done.stdout
    assert "retry" not in done.stdout
    states = {entry["status"]: entry for entry in status(out)["runs"]}
    assert states["failed"]["attempts"] == 1
    assert "xla_no_such_flag" in states["failed"]["reason"]


def test_failure_file_is_removed_when_its_run_restarts(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny(design={"kind": "grid", "sizes": ["2k"], "tokens": ["900M"]})))
    words = ("run", path, "--out", out, "--workers", 1)
    failed = scaling(*words, env=os.environ | {"XLA_FLAGS": "--xla_no_such_flag=1"})
    assert failed.returncode == 3
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: training(out), process)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate()
    assert process.returncode == 75, said
    assert "next: scaling run" in said
    (run,) = status(out)["runs"]
    assert (run["status"], run["reason"]) == ("missing", None)


def test_workers_import_nothing_from_the_working_folder(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny(design={"kind": "grid", "sizes": ["2k"], "tokens": ["20k"]})))
    (tmp_path / "random.py").write_text("raise ImportError('a module of the working folder')")
    program = Path(sys.executable).with_name("scaling")
    done = subprocess.run(
        [program, "run", path, "--out", out, "--workers", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 done" in done.stdout


def test_status_counts_n_as_the_plan_does_and_names_its_losses(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny(design={"kind": "grid", "sizes": ["2k"], "tokens": ["20k"]})))
    planned = json.loads(scaling("plan", path, "--no-probe", "--json").stdout)["runs"][0]
    done = scaling("run", path, "--out", out, "--simulate", "published:hoffmann2022")
    shown = format_count(planned["n_params_with_head"])
    assert f"N {shown} " in done.stdout
    (run,) = status(out)["runs"]
    assert run["n_params_with_head"] == planned["n_params_with_head"]
    assert run["n_params"] == planned["n_params"]
    assert run["loss_split"] == "val"
    table = scaling("status", out).stdout
    assert f" {shown} " in table
    assert "N: blocks + head" in table
    header, row = table.splitlines()[1:3]
    at = header.index("  split  ") + 2
    assert row[at : at + 3] == "val"  # what the loss is of
