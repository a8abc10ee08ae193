"""Runs of one shape share a program as far as memory and FLOPs allow, and their rows say so."""

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
from scaling.execute.run_queue import pack_limit
from scaling.plan import plan
from scaling.plan.device_fit import DeviceMemory
from scaling.store import run_files
from scaling.tasks import open_task
from tests import command_line
from tests.execute.sweeping import WAIT, AtASave, command, numbers, scaling, wait_for
from tests.sweep_files import tiny


def runs(**changes):
    sweep = tiny(seeds=[0, 1, 2, 3, 4, 5, 6, 7], **changes)
    return [
        item.run
        for item in plan(sweep, sweep.base.task, open_task(sweep.base.task).vocab_size).runs
    ]


def test_auto_packs_small_runs_on_an_accelerator_as_far_as_its_memory_reaches():
    run = runs()[0]
    need = DeviceMemory("gpu", "gpu", 1).required_bytes(run, Execution())
    for capacity, expected in ((1.5 * need, 1), (6.5 * need, 3), (1e3 * need, 8)):
        device = DeviceMemory("a GPU", "gpu", int(capacity))
        assert pack_limit("auto", Execution(), device)(run) == expected


def test_auto_packs_no_run_that_keeps_an_accelerator_busy():
    large = runs()[0].model_copy(update={"batch_size": 10_000_000})
    device = DeviceMemory("a GPU", "gpu", 10**18)
    assert pack_limit("auto", Execution(), device)(large) == 1


def test_auto_packs_neither_on_a_cpu_nor_on_a_mesh_nor_on_a_cluster():
    gpu, cpu = DeviceMemory("a GPU", "gpu", 10**12), DeviceMemory("here", "cpu", 10**12)
    mesh = Execution(mesh=MeshShape(data=2))
    for execution, device in ((mesh, gpu), (Execution(), cpu), (Execution(), None)):
        assert pack_limit("auto", execution, device)(runs()[0]) == 1


def test_a_pack_and_a_mesh_exclude_each_other():
    with pytest.raises(ScalingError, match="a pack of 2 runs and a mesh"):
        pack_limit(2, Execution(mesh=MeshShape(data=2)), None)


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
        assert (notes["pack"], notes["pack_limit"]) == (2, 2)
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
