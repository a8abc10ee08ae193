"""Whole sweeps on a real Ray of several nodes: the same bits as here, also when a node dies in the
middle.
"""

import subprocess

import pytest

from scaling.config.sweep_file import dump_sweep
from tests.execute.ray_nodes import NEEDS_RAY, QUICK, nodes
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
)
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow


def run_on(cluster, path, out, *more, resources="cpu=1"):
    ray = ("--executor", "ray", "--ray-address", cluster.address, "--resources", resources)
    return subprocess.Popen(
        command("run", path, "--out", out, *ray, *more),
        env=optimised(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@NEEDS_RAY
def test_a_sweep_on_ray_is_stopped_with_its_state_and_ends_with_the_bits_of_a_local_run(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the nodes take over what they are started with
    path, want, out = tmp_path / "tiny.toml", tmp_path / "want", tmp_path / "out"
    path.write_text(
        dump_sweep(tiny(design={"kind": "grid", "sizes": ["3k"], "tokens": ["200k", "800k"]}))
    )
    assert scaling("run", path, "--out", want, env=optimised()).returncode == 0
    save = AtASave(tmp_path / "hook", WAIT)
    monkeypatch.setenv("PYTHONPATH", save.environment["PYTHONPATH"])
    with nodes(2) as (cluster, _):
        process = run_on(cluster, path, out)
        wait_for(save.is_reached, process)
        process.terminate()
        said, _ = process.communicate()
        assert process.returncode == 143, said
        assert list((out / "checkpoints").iterdir())
        process = run_on(cluster, path, out)
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert numbers(out).equals(numbers(want))


@pytest.mark.exhaustive
@NEEDS_RAY
def test_a_sweep_whose_node_dies_ends_with_the_bits_of_a_local_run(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    path, want, out = tmp_path / "tiny.toml", tmp_path / "want", tmp_path / "out"
    path.write_text(
        dump_sweep(tiny(design={"kind": "grid", "sizes": ["3k", "6k"], "tokens": ["500k", "1M"]}))
    )
    assert scaling("run", path, "--out", want, "--workers", 2, env=optimised()).returncode == 0
    with nodes(2, QUICK) as (cluster, (lost, _)):
        process = run_on(cluster, path, out)
        wait_for(lambda: training(out), process)
        cluster.remove_node(lost, allow_graceful=False)
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert numbers(out).equals(numbers(want))
    assert status(out)["counts"]["done"] == 4


@NEEDS_RAY
def test_options_of_ray_are_for_ray_and_a_cluster_must_be_there(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny()))
    alone = scaling("run", path, "--out", tmp_path / "out", "--resources", "cpu=1")
    assert alone.returncode == 2
    assert "--executor ray" in alone.stderr
    absent = scaling(
        "run", path, "--out", tmp_path / "out", "--executor", "ray", "--ray-address", "127.0.0.1:1"
    )
    assert absent.returncode == 2
    assert "127.0.0.1:1" in absent.stderr
    assert not (tmp_path / "out" / "plan.json").exists()
