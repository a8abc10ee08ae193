"""Whole sweeps on a real Slurm: elements share the runs, and preemption changes no bit."""

import json
from collections import Counter

import pytest

from scaling.config.sweep_file import dump_sweep
from scaling.execute.ledger import entries
from tests.execute.slurm_cluster import running
from tests.execute.sweeping import WAIT, AtASave, numbers, optimised, scaling, status
from tests.sweep_files import TINY, tiny

pytestmark = pytest.mark.slow

LONG = {"kind": "grid", "sizes": ["3k", "6k"], "tokens": ["100k", "200k"]}


@pytest.fixture(scope="module")
def cluster():
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The sweep file, and the numbers of a local run of it."""
    folder = tmp_path_factory.mktemp("local")
    path = folder / "tiny.toml"
    path.write_text(dump_sweep(tiny(design=LONG)))
    done = scaling("run", path, "--out", folder / "out", "--workers", 2, env=optimised())
    assert done.returncode == 0, done.stderr
    return path, numbers(folder / "out")


def submitted(path, out, *options):
    done = scaling(
        "run", path, "--out", out, "--executor", "slurm", "--json", *options, env=optimised()
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_array_tasks_share_a_sweep_bit_identically_to_a_local_run(
    cluster, undisturbed, tmp_path, monkeypatch
):
    path, want = undisturbed
    out = tmp_path / "out"
    until_both_train = f"while len(os.listdir({str(out / 'ledger')!r})) < 2: time.sleep(0.05)"
    save = AtASave(tmp_path / "hook", until_both_train)
    monkeypatch.setenv("PYTHONPATH", save.environment["PYTHONPATH"])
    job = submitted(path, out, "--workers", 2, "--slurm", "cpus-per-task=1")
    assert job["elements"] == 2
    for index in range(2):
        assert cluster.ended(f"{job['job_id']}_{index}")["JobState"] == "COMPLETED", logs(out)
    assert numbers(out).equals(want)
    finished = Counter(
        run_id
        for path in (out / "ledger").iterdir()
        for entry in entries(path)
        if entry is not None and entry.event == "done"
        for run_id in entry.run_ids
    )
    assert len(finished) == 4, logs(out)
    assert set(finished.values()) == {1}, logs(
        out
    )  # an attempt that the machine interrupts is taken up again; no run is trained by both
    assert len(list((out / "ledger").iterdir())) == 2  # both took part


@pytest.mark.exhaustive
def test_preempted_sweep_resumes_bit_identically(cluster, undisturbed, tmp_path, monkeypatch):
    path, want = undisturbed
    out = tmp_path / "out"
    save = AtASave(tmp_path / "hook", WAIT)
    monkeypatch.setenv("PYTHONPATH", save.environment["PYTHONPATH"])
    job = submitted(path, out, "--workers", 2, "--slurm", "cpus-per-task=2,partition=low")
    cluster.until(save.is_reached)
    high = cluster.ask(
        "sbatch",
        "--parsable",
        "--partition=high",
        "--nodes=2",
        "--ntasks-per-node=2",
        "--output=/dev/null",
        "--wrap=sleep 4",
    ).strip()
    assert cluster.ended(high)["JobState"] == "COMPLETED"
    for index in range(2):
        assert cluster.ended(f"{job['job_id']}_{index}")["JobState"] == "COMPLETED", logs(out)
    assert "restart 1" in logs(out)
    assert numbers(out).equals(want)


@pytest.mark.exhaustive
def test_two_nodes_train_one_run(cluster, tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny(design={"kind": "grid", "sizes": ["6k"], "tokens": ["40k"]})))
    job = submitted(path, out, "--mesh", "data=2", "--slurm", "nodes=2,cpus-per-task=1")
    assert cluster.ended(f"{job['job_id']}_0")["JobState"] == "COMPLETED", logs(out)
    assert status(out)["counts"]["done"] == 1
    assert "2 x cpu" in set(numbers(out)["device"]).pop()


def test_dry_run_shows_the_script_and_leaves_nothing(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(dump_sweep(tiny(base=TINY["base"])))
    done = scaling(
        "run",
        path,
        "--out",
        out,
        "--executor",
        "slurm",
        "--workers",
        3,
        "--dry-run",
        "--slurm",
        "time=01:00:00",
    )
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-2" in done.stdout
    assert not out.exists()


def logs(out):
    return "".join(path.read_text() for path in sorted((out / "logs").glob("*")))
