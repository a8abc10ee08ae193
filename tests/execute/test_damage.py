"""Files that are no longer what was written, and disks that refuse: named, set aside, done again to
the same bits.
"""

import contextlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys

import pytest

from benchmarks.chaos import flips, reads
from benchmarks.chaos.verdict import numbers
from scaling import files
from scaling.config.sweep_file import dump_sweep
from scaling.errors import ScalingError
from scaling.execute.lease import Lease
from scaling.execute.ledger import add, summarize
from scaling.execute.prepare_folder import origin
from scaling.execute.status import read_status
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.verify import inspect
from scaling.plan import plan
from scaling.store import compaction, run_files
from tests import command_line
from tests.execute.sweeping import scaling, status, wait_for
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow

LAW = "published:hoffmann2022"
MANY = {
    "design": {"kind": "grid", "sizes": ["2k", "6k", "20k"], "tokens": ["20k", "40k", "80k"]},
    "seeds": [0, 1],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished simulated sweep: (its file, its folder)."""
    folder = tmp_path_factory.mktemp("made")
    path = folder / "sweep.toml"
    path.write_text(dump_sweep(tiny(**MANY)))
    assert scaling("run", path, "--out", folder / "out", "--simulate", LAW).returncode == 0
    return path, folder / "out"


@pytest.fixture
def copy(made, tmp_path):
    path, out = made
    shutil.copytree(out, tmp_path / "out")
    return path, tmp_path / "out"


def truncated(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:100] + bytes([data[100] ^ 4]) + data[101:]


@pytest.mark.parametrize("damage", [pytest.param(truncated, marks=pytest.mark.exhaustive), flipped])
def test_corrupt_run_is_named_by_readers_and_retrained_by_run(copy, damage):
    path, out = copy
    want = numbers(out)
    victim = run_files.run_files(out)[3]
    victim.write_bytes(damage(victim.read_bytes()))
    entry = next(run for run in status(out)["runs"] if run["run_id"] == victim.stem)
    assert entry["status"] == "missing"
    assert "corrupt" in entry["reason"]
    fitted = scaling("fit", out, "--bootstrap", "0", "--json")
    assert fitted.returncode == 0, fitted.stderr
    document = json.loads(fitted.stdout)
    assert {"reason": "in a corrupt file", "count": 1} in document["excluded"]
    assert victim.name in " ".join(item["message"] for item in document["warnings"])
    if damage is truncated:
        assert scaling("report", out).returncode == 0
        assert victim.name in (out / "report" / "report.md").read_text()
    done = scaling("run", path, "--out", out, "--simulate", LAW)
    assert done.returncode == 0
    assert f"set aside as damaged/runs-{victim.name}" in done.stderr
    assert numbers(out).equals(want)


def test_compaction_changes_no_number_and_is_idempotent(copy):
    path, out = copy
    want = numbers(out)
    before = read_status(SweepFolder(out)).to_dict()
    assert json.loads(scaling("results", "compact", out, "--json").stdout)["runs"] == len(
        want["run_id"].unique()
    )
    assert run_files.run_files(out) == []
    assert len(run_files.merged_files(out)) == 1
    assert numbers(out).equals(want)
    after = read_status(SweepFolder(out)).to_dict()
    assert after["runs"] == before["runs"]
    assert json.loads(scaling("results", "compact", out, "--json").stdout)["written"] == 0
    assert "0 of 18 runs to train" in scaling("run", path, "--out", out, "--simulate", LAW).stdout
    (merged,) = run_files.merged_files(out)
    assert set(run_files.index(merged)) == set(want["run_id"])


def test_the_runs_of_a_corrupt_merged_file_are_trained_again(copy):
    path, out = copy
    want = numbers(out)
    with Lease(out) as lease:
        compaction.compact(out, lease.locked)
    (victim,) = run_files.merged_files(out)
    data = victim.read_bytes()
    victim.write_bytes(data[:200] + bytes([data[200] ^ 4]) + data[201:])
    (corrupt,) = [item for item in inspect(out) if item.state == "corrupt"]
    assert out / corrupt.path == victim
    (damage,) = run_files.read_folder(out).corrupt_files
    assert set(damage.run_ids) == set(want["run_id"])
    done = scaling("run", path, "--out", out, "--simulate", LAW)
    assert f"{len(damage.run_ids)} runs are trained again" in done.stderr
    assert f"set aside as damaged/merged-{victim.name}" in done.stderr
    assert numbers(out).equals(want)


def test_run_in_single_and_compacted_file_counts_once(copy):
    _, out = copy
    want = numbers(out)
    single = run_files.run_files(out)[0]
    data = single.read_bytes()
    with Lease(out) as lease:
        compaction.compact(out, lease.locked)
    single.write_bytes(data)
    assert numbers(out).equals(want)
    with Lease(out) as lease:
        assert compaction.compact(out, lease.locked).removed >= 1
    assert run_files.run_files(out) == []
    assert numbers(out).equals(want)


@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in ("plan.json", "failures", "sweep.toml")
        ),
        "ledger",
    ],
)
def test_other_corrupt_files_are_reported_and_recovered(copy, name):
    path, out = copy
    run_id = run_files.run_files(out)[0].stem
    if name == "failures":
        SweepFolder(out).write_failure(run_id, "it was late")
    victim = {
        "failures": out / "failures" / f"{run_id}.txt",
        "ledger": next(out.glob("ledger/*")),
    }.get(name, out / name)
    data = victim.read_bytes()
    victim.write_bytes(data[:30] + bytes([data[30] ^ 1]) + data[31:])
    found = scaling("results", "check", out)
    assert found.returncode == 3
    assert str(victim.relative_to(out)) in found.stdout
    if name == "ledger":
        assert summarize(out).unreadable == 1
        assert [item["code"] for item in status(out)["warnings"]] == ["corrupt_ledger"]
        return
    told = scaling("status", out, "--json")
    assert told.returncode == (2 if name == "plan.json" else 0)
    assert scaling("run", path, "--out", out, "--simulate", LAW).returncode == 0
    assert scaling("results", "check", out).returncode == 0


def test_a_sweep_file_that_was_cut_off_is_named(copy):
    _, out = copy
    victim = out / "sweep.toml"
    victim.write_bytes(victim.read_bytes().partition(b"]")[0])
    found = scaling("results", "check", out)
    assert found.returncode == 3
    assert "not valid TOML" in found.stdout
    assert f"scaling run SWEEP.toml --out {out}" in found.stdout + found.stderr


def test_a_corrupt_fit_is_rejected(copy):
    _, out = copy
    assert scaling("fit", out, "--bootstrap", "0").returncode == 0
    victim = out / "fits" / "chinchilla.json"
    text = victim.read_text()
    place = text.index('"value": ') + 9
    victim.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    done = scaling("predict", victim, "--flops", "1e20")
    assert done.returncode == 2
    assert "corrupt or was edited" in done.stderr


def test_foreign_files_are_left_alone(copy):
    path, out = copy
    (out / "runs" / "notes.txt").write_text("mine")
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "checkpoints" / "30").mkdir()
    (out / "mine").mkdir()
    (out / "mine" / "x.parquet").write_text("not yours")
    assert scaling("run", path, "--out", out, "--simulate", LAW).returncode == 0
    assert (out / "runs" / "notes.txt").read_text() == "mine"
    assert status(out)["counts"]["done"] == 18


@pytest.mark.exhaustive
def test_a_bit_flipped_anywhere_is_noticed(made, tmp_path):
    path, _ = made
    folder = tmp_path / "out"
    with flips.whole_sweep(path, folder) as lease:
        with lease.locked():
            lease.claim(["aaaaaaaaaaaa"])
        want, chance = numbers(folder), random.Random(1)
        assert [item for item in inspect(folder) if item.state != "whole"] == []
        assert [said for _ in range(30) if (said := flips.flip(folder, chance, want))] == []


def test_reads_succeed_during_writes(tmp_path):
    sweep = tiny(**MANY)
    planned = plan(sweep, sweep.base.task, 16, LAW)
    folder = SweepFolder(tmp_path)
    folder.write_plan(planned, origin(planned, LAW))
    assert reads.read(tmp_path, planned, reads=100) == []


def test_truncated_line_of_the_attempts_file_costs_no_other(tmp_path):
    path = SweepFolder(tmp_path).path_of("ledger", "one")
    for number in range(3):
        add(path, event="started", run_ids=[f"run{number}"])
    path.write_bytes(path.read_bytes()[:-5])
    assert summarize(tmp_path).unreadable == 1
    add(path, event="started", run_ids=["run3"])
    found = summarize(tmp_path)
    assert set(found.attempts) == {"run0", "run1", "run3"}
    assert found.unreadable == 1


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of its own that can be full or read-only; needs the right to mount one."""
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    try:
        yield lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", folder], check=True
        )
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_is_reported_and_the_sweep_resumes_with_space(made, tmp_path):
    path, whole = made
    with small_disk(tmp_path / "disk", "200k") as remount:
        out = tmp_path / "disk" / "out"
        done = scaling("run", path, "--out", out, "--simulate", LAW)
        assert done.returncode == 74, done.stdout
        assert "No space left" in done.stdout + done.stderr
        assert "bytes free" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert list(out.rglob("*.tmp")) == []
        held = {file.name: file.read_bytes() for file in run_files.run_files(out)}
        assert 0 < len(held) < 18
        remount("size=20M")
        assert scaling("run", path, "--out", out, "--simulate", LAW).returncode == 0
        assert {
            file.name: file.read_bytes() for file in run_files.run_files(out) if file.name in held
        } == held
        assert numbers(out).equals(numbers(whole))


def test_read_only_folder_is_reported(made, tmp_path):
    path, _ = made
    with small_disk(tmp_path / "disk", "5M") as remount:
        out = tmp_path / "disk" / "out"
        assert (
            scaling("run", path, "--out", out, "--simulate", LAW, "--max-runs", 2).returncode == 0
        )
        remount("ro")
        done = scaling("run", path, "--out", out, "--simulate", LAW)
        assert done.returncode == 74
        assert "Read-only file system" in done.stderr
        assert status(out)["counts"]["done"] == 2
        assert (
            scaling("fit", out, "--out", tmp_path / "fit.json").returncode == 2
        )  # two points, but they can be read


def test_write_once_keeps_what_is_there(tmp_path):
    assert files.write_once(tmp_path / "a", lambda path: path.write_text("first"))
    assert not files.write_once(tmp_path / "a", lambda path: path.write_text("second"))
    assert (tmp_path / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_results_of_another_origin_need_confirmation(tmp_path):
    path, out = tmp_path / "sweep.toml", tmp_path / "out"
    two = {"kind": "grid", "sizes": ["2k"], "tokens": ["5k", "10k"]}
    path.write_text(dump_sweep(tiny(design=two)))
    assert scaling("run", path, "--out", out, "--max-runs", 1).returncode == 0
    document = files.read_json(out / "plan.json")
    files.write_json(out / "plan.json", document | {"code": "0123456789ab"})
    done = scaling("run", path, "--out", out)
    assert done.returncode == 2
    assert "code was 0123456789ab, is " in done.stderr
    assert "--accept-changes" in done.stderr
    done = scaling("run", path, "--out", out, "--accept-changes")
    assert done.returncode == 0
    assert "warning: results of two origins" in done.stderr


def test_simulated_and_trained_runs_do_not_mix(copy):
    path, out = copy
    done = scaling("run", path, "--out", out)
    assert done.returncode == 2
    assert "simulated runs (published:hoffmann2022)" in done.stderr
    done = scaling("run", path, "--out", out, "--simulate", "published:besiroglu2024")
    assert done.returncode == 2


def test_a_newer_schema_is_rejected(copy):
    _, out = copy
    victim = run_files.run_files(out)[0]
    table = run_files.read_parquet(victim)
    run_files.pq.write_table(table.replace_schema_metadata({b"scaling.schema": b"99"}), victim)
    with pytest.raises(ScalingError, match="row schema 99"):
        run_files.load(out)


def test_run_file_under_another_id_is_retrained_and_not_compacted(copy):
    path, out = copy
    want = numbers(out)
    one, other = run_files.run_files(out)[:2]
    other.write_bytes(one.read_bytes())
    assert "do not belong" in scaling("results", "check", out).stdout
    told = scaling("results", "compact", out)
    assert "left where it is" in told.stderr
    done = scaling("run", path, "--out", out, "--simulate", LAW)
    assert done.returncode == 0
    assert numbers(out).equals(want)


def test_folder_in_place_of_a_run_file_is_set_aside(copy):
    path, out = copy
    want = numbers(out)
    pipe, folder, loop = run_files.run_files(out)[:3]
    for victim in (pipe, folder, loop):
        victim.unlink()
    os.mkfifo(pipe)
    folder.mkdir()
    loop.symlink_to(loop)
    (out / "failures").mkdir()
    (out / "failures" / f"{pipe.stem}.txt").mkdir()
    missing = [run["reason"] for run in status(out)["runs"] if run["status"] == "missing"]
    assert len(missing) == 3
    assert all("it is not a regular file" in reason for reason in missing)
    assert scaling("results", "check", out).returncode == 3
    assert scaling("run", path, "--out", out, "--simulate", LAW).returncode == 0
    assert numbers(out).equals(want)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        *(
            pytest.param(text, marks=pytest.mark.exhaustive)
            for text in (
                "[" * 200_000,
                '{"sweep": 3, "runs": []}',
                '{"sweep": "x", "runs": [{"run_id": "aaaaaaaaaaaa"}]}',
                "\x00",
            )
        ),
    ],
)
def test_plan_of_the_wrong_type_is_corrupt(copy, text):
    path, out = copy
    (out / "plan.json").write_text(text)
    told = scaling("status", out)
    assert told.returncode == 2
    assert "is corrupt" in told.stderr
    other = scaling("run", path, "--out", out, "--simulate", "published:kaplan2020")
    assert other.returncode == 2  # the runs themselves say what they are
    assert scaling("run", path, "--out", out, "--simulate", LAW).returncode == 0


def test_folders_in_place_of_state_files_stop_no_reader(copy):
    _, out = copy
    (out / "leases" / "x.json").write_text("[1]")
    (out / "leases" / "y.json").write_text('{"runs": [{}], "boot": "z"}')
    (out / "leases" / "y.live.json").write_text('{"runs": 3}')
    (out / "ledger" / "q.jsonl").mkdir()
    (out / "merged").mkdir()
    run_files.pq.write_table(run_files.pa.table({"a": [1]}), out / "merged" / "z.parquet")
    document = status(out)
    assert document["counts"]["done"] == 18
    messages = {item["code"]: item["message"] for item in document["warnings"]}
    assert messages.keys() == {"corrupt_file"}
    assert "columns missing" in messages["corrupt_file"]


@pytest.mark.parametrize(
    "options",
    [
        ["--slurm", "partition=x"],
        ["--hosts", "2"],
        ["--pack", "x"],
        ["--simulate", LAW, "--executor", "slurm"],
        ["--simulate", "published:x"],
    ],
)
def test_conflicting_options_are_rejected_before_anything_is_written(made, tmp_path, options):
    done = command_line.scaling("run", made[0], "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    assert 1 <= len(done.stderr.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


def test_closed_output_pipe_does_not_end_the_sweep(made, tmp_path):
    words = [str(made[0]), "--out", str(tmp_path / "out"), "--simulate", LAW]
    command = shlex.join([sys.executable, "-m", "scaling", "run", *words])
    subprocess.run(["bash", "-c", f"{command} | head -1"], check=True, capture_output=True)
    wait_for(lambda: len(run_files.finished_run_ids(tmp_path / "out")) == 18)
