"""The local engine with real worker processes: sweeps end, survive signals and deaths, and are
never trained twice.
"""

import json
import signal
import subprocess

import pytest

from scaling.config.sweep_file import dump_sweep
from scaling.execute.ledger import summarize
from scaling.points.run_tables import points as points_of
from scaling.store import run_files
from tests.execute.sweeping import (
    DIE,
    WAIT,
    AtASave,
    command,
    numbers,
    optimised,
    scaling,
    wait_for,
)
from tests.sweep_files import TINY, diverging, tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny()))
    return path


def test_a_sweep_runs_once_and_running_it_again_is_a_no_op(sweep_file, tmp_path):
    out = tmp_path / "out"
    first = scaling("run", sweep_file, "--out", out, "--workers", 2)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("] done") == 4
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    again = scaling("run", sweep_file, "--out", out, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["counts"] == {
        "done": 4,
        "running": 0,
        "failed": 0,
        "missing": 0,
    }
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == before
    assert list((out / "checkpoints").glob("*")) == []
    assert not (out / "failures").exists()


@pytest.mark.exhaustive
def test_sigterm_saves_and_the_run_resumes_bit_identically(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny(design={"kind": "grid", "sizes": ["6k"], "tokens": ["300k"]})))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert scaling("run", path, "--out", whole, "--workers", 1, env=optimised()).returncode == 0
    save = AtASave(tmp_path / "hook", WAIT)
    process = subprocess.Popen(
        command("run", path, "--out", parts, "--workers", 1),
        env=optimised() | save.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(save.is_reached, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 143, said
    assert len(list((parts / "checkpoints").glob("????????????.npz"))) == 1
    assert json.loads(scaling("status", parts, "--json").stdout)["counts"]["missing"] == 1
    assert scaling("run", path, "--out", parts, "--workers", 1, env=optimised()).returncode == 0
    assert numbers(parts).equals(numbers(whole))
    spent, needed = summarize(parts), summarize(whole)  # both sessions count
    assert spent.flops == pytest.approx(needed.flops, rel=0.2)


@pytest.mark.exhaustive
def test_killed_worker_is_a_failure_and_other_runs_continue(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(
        dump_sweep(tiny(design={"kind": "grid", "sizes": ["6k"], "tokens": ["300k", "20k"]}))
    )
    out = tmp_path / "out"
    environment = optimised() | AtASave(tmp_path / "hook", DIE).environment
    options = ["--out", out, "--workers", 1, "--retries", 0]
    done = scaling("run", path, *options, env=environment)
    assert done.returncode == 3, done.stdout
    status = json.loads(scaling("status", out, "--json").stdout)
    assert status["counts"] == {"done": 1, "running": 0, "failed": 1, "missing": 0}
    assert "SIGKILL" in next(run["reason"] for run in status["runs"] if run["status"] == "failed")
    assert (
        scaling("run", path, "--out", out, "--workers", 1, env=optimised()).returncode == 0
    )  # a failed run is tried again
    assert [
        run["attempts"] for run in json.loads(scaling("status", out, "--json").stdout)["runs"]
    ] == [1, 2]


def test_killed_worker_is_replaced_and_its_run_resumes_bit_identically(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny(design={"kind": "grid", "sizes": ["6k"], "tokens": ["300k"]})))
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert scaling("run", path, "--out", whole, "--workers", 1, env=optimised()).returncode == 0
    environment = optimised() | AtASave(tmp_path / "hook", DIE).environment
    done = scaling("run", path, "--out", out, "--workers", 1, env=environment)
    assert done.returncode == 0, done.stdout
    assert "retry 1 of 2" in done.stdout
    assert numbers(out).equals(numbers(whole))


def test_diverged_runs_are_results_and_exit_3(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(dump_sweep(diverging(0.01, 10.0)))
    for _ in range(2):  # the second time nothing is trained, and the outcome is still said
        done = scaling("run", path, "--out", out, "--workers", 1, env=optimised())
        assert done.returncode == 3
        assert "diverged at step" in done.stdout
    assert points_of(run_files.load(out)).excluded == (("diverged", 1),)


def test_a_folder_of_another_sweep_is_rejected(sweep_file, tmp_path):
    out = tmp_path / "out"
    assert scaling("run", sweep_file, "--out", out, "--max-runs", 1).returncode == 0
    other = tmp_path / "other.toml"
    other.write_text(dump_sweep(tiny(name="other")))
    done = scaling("run", other, "--out", out)
    assert done.returncode == 2
    assert "holds the sweep 'tiny'" in done.stderr


def test_an_edited_sweep_trains_only_new_cells_and_keeps_old_results(sweep_file, tmp_path):
    out = tmp_path / "out"
    assert scaling("run", sweep_file, "--out", out).returncode == 0
    sweep_file.write_text(
        dump_sweep(tiny(design={"kind": "grid", "sizes": ["2k", "6k"], "tokens": ["40k", "60k"]}))
    )
    done = scaling("run", sweep_file, "--out", out)
    assert done.stdout.count("] done") == 2
    assert "no longer asks for them: 2 runs" in done.stdout


def test_train_takes_one_run_by_its_id(sweep_file, tmp_path):
    out = tmp_path / "out"
    plan = json.loads(scaling("plan", sweep_file, "--no-probe", "--json").stdout)
    run_id = plan["runs"][0]["run_id"]
    done = scaling("train", sweep_file, "--run", run_id, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "done"
    assert [path.stem for path in run_files.run_files(out)] == [run_id]
    assert scaling("train", sweep_file, "--run", "nothing", "--out", out).returncode == 2


@pytest.mark.parametrize("damage", ["none", "corrupt", "missing"])
def test_a_budget_added_later_continues_the_kept_state(tmp_path, damage):
    """Its rows are to the bit those of a folder that had it from the start; without an intact kept
    state it is trained from the start, which is said in one line.
    """
    base = TINY["base"] | {"optim": {"warmup_steps": 5}}
    grid = {"kind": "grid", "sizes": ["2k"], "tokens": ["20k", "40k"]}
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny(base=base, design=grid | {"extend_to": ["80k"]})))
    assert scaling("run", path, "--out", out).returncode == 0
    (kept,) = (out / "kept").iterdir()
    if damage == "corrupt":
        data = bytearray(kept.read_bytes())
        data[len(data) // 2] ^= 1
        kept.write_bytes(data)
    elif damage == "missing":
        kept.unlink()
    path.write_text(dump_sweep(tiny(base=base, design=grid | {"tokens": ["20k", "40k", "80k"]})))
    done = scaling("run", path, "--out", out)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    counts = "0 continue from kept states, 1" if damage == "missing" else "1 continue from kept sta"
    assert sum(f"longer runs of finished prefixes: {counts}" in line for line in lines) == 1
    anew = [line for line in lines if "checkpoint set aside, the run starts again" in line]
    assert len(anew) == (damage == "corrupt")
    assert not list((out / "kept").iterdir())
    assert scaling("run", path, "--out", tmp_path / "whole").returncode == 0
    own, whole = numbers(out), numbers(tmp_path / "whole")
    shared = own["metric"] != "constant_loss"  # also read by the longest run of the first sweep
    added = own["run_id"] == kept.stem
    assert own[shared | added].reset_index(drop=True).equals(whole)
    trained = [
        json.loads(line.partition(" ")[2])["flops"]
        for ledger in (out / "ledger").iterdir()
        for line in ledger.read_text().splitlines()
        if kept.stem in line and "flops" in line
    ]
    (row, *_) = own[added & (own["metric"] == "loss")].sort_values("step").to_dict("records")[::-1]
    assert trained == [pytest.approx(row["flops"] * (0.6 if damage == "none" else 1.0), rel=0.02)]
