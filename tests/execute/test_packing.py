"""Runs of one shape share a program where it is asked for, and their rows say so."""

import json
import os
import shutil
import signal
import subprocess

import pyarrow.parquet as pq
import pytest

from scaling.config import Execution, MeshShape
from scaling.config.sweep_file import dump_sweep
from scaling.errors import ScalingError
from scaling.execute.ledger import summarize
from scaling.execute.options import RunOptions
from scaling.store import run_files
from tests import command_line
from tests.execute.sweeping import WAIT, AtASave, command, numbers, scaling, wait_for
from tests.sweep_files import tiny


def test_a_pack_and_a_mesh_exclude_each_other():
    with pytest.raises(ScalingError, match="a pack of 2 runs and a mesh"):
        RunOptions(pack=2, execution=Execution(mesh=MeshShape(data=2)))


@pytest.mark.slow
def test_a_packed_sweep_says_so_in_its_rows_and_shares_programs(tmp_path):
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    path.write_text(
        dump_sweep(tiny(seeds=[0, 1], design={"kind": "grid", "sizes": ["2k"], "tokens": ["20k"]}))
    )
    done = scaling("run", path, "--out", out, "--workers", 1, "--pack", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["done"] == 2
    for file in (out / "runs").iterdir():
        metadata = pq.read_metadata(file).metadata
        notes = json.loads(metadata[b"scaling.execution"])
        assert notes["pack"] == 2
        assert json.loads(metadata[b"scaling.fingerprint"])["pack"] == 2
    assert list((out / "checkpoints").glob("*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("text", ["0", "-1", "two", "99999", "1.5", ""])
def test_a_pack_that_is_no_number_is_rejected(tmp_path, text):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny()))
    done = command_line.scaling("run", path, "--out", tmp_path / "out", "--pack", text)
    assert done.returncode == 2
    assert "--pack" in done.stderr


@pytest.mark.slow
def test_a_pack_resumes_though_some_of_its_runs_were_published(tmp_path):
    """A kill between the publications of a pack: the others go on from its checkpoint."""
    path, whole, out = tmp_path / "tiny.toml", tmp_path / "whole", tmp_path / "out"
    design = {"kind": "grid", "sizes": ["2k"], "tokens": ["200k"]}
    path.write_text(dump_sweep(tiny(seeds=[0, 1, 2], design=design)))
    options = ("--workers", 1, "--pack", 3)
    assert scaling("run", path, "--out", whole, *options).returncode == 0
    flops = summarize(whole).flops
    save = AtASave(tmp_path / "hook", WAIT)
    process = subprocess.Popen(
        command("run", path, "--out", out, *options),
        env=os.environ | save.environment,
        stdout=subprocess.DEVNULL,
    )
    wait_for(save.is_reached, process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 75
    assert list((out / "checkpoints").glob("pack-*.npz"))
    first = min(run_files.finished_run_ids(whole))
    (out / "runs").mkdir(exist_ok=True)
    shutil.copy(whole / "runs" / f"{first}.parquet", out / "runs")
    done = scaling("run", path, "--out", out, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 done" in done.stdout or done.stdout.count("] done") == 2
    assert numbers(out).equals(numbers(whole))
    assert summarize(out).attempts[first] == 1
    assert summarize(out).flops < 1.05 * flops  # no step was trained twice
    assert list((out / "checkpoints").glob("*")) == []
