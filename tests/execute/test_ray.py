"""What is asked of a Ray cluster of several nodes on this machine, and what a node does."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from scaling import __version__
from scaling.errors import ScalingError
from scaling.execute.options import Executor, RunOptions
from scaling.execute.ray import RayCluster, WorkerDied, listed, parse_resources, run_on_node
from tests.execute.ray_nodes import NEEDS_RAY, cluster  # noqa: F401


def options(**changes):
    return RunOptions(executor=Executor.RAY, on_message=lambda message: None, **changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu=2", {"CPU": 2}),
        ("gpu=0.5", {"CPU": 1, "GPU": 0.5}),
        ("cpu=0, GPU=1", {"GPU": 1}),
        ("cpu=8,tpu=4,tpu-v4=1", {"CPU": 8, "TPU": 4, "tpu-v4": 1}),
    ],
)
def test_resources_are_read(text, expected):
    resources = parse_resources(text)
    assert resources == expected
    assert parse_resources(f"cpu=0,{listed(resources)}" if "cpu=0" in text else text) == resources


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "NAME=AMOUNT"),
        ("cpu", "NAME=AMOUNT"),
        ("=1", "NAME=AMOUNT"),
        ("cpu=1,", "NAME=AMOUNT"),
        ("cpu=1,CPU=2", "twice"),
        ("cpu=x", "NAME=AMOUNT"),
        ("gpu=-1", "NAME=AMOUNT"),
        ("gpu=1.5", "NAME=AMOUNT"),
        ("cpu=nan", "NAME=AMOUNT"),
        ("cpu=1e99", "NAME=AMOUNT"),
        ("cpu=0", "asks for nothing"),
        ("memory=1", "memory cannot be asked for"),
    ],
)
def test_invalid_ray_resources_are_rejected(text, what):
    with pytest.raises(ScalingError, match=what) as caught:
        parse_resources(text)
    assert caught.value.remedy


@pytest.mark.slow
def test_ray_is_imported_lazily_and_its_absence_reported(monkeypatch):
    code = "import sys, scaling.execute.ray; sys.exit('ray' in sys.modules or 'jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ScalingError) as caught:
        RayCluster(options())
    assert ".[ray]" in caught.value.remedy


@NEEDS_RAY
@pytest.mark.slow
def test_without_a_cluster_one_is_started_here_and_that_of_the_caller_stays():
    code = """
from scaling.execute.options import Executor, RunOptions
from scaling.execute.ray import RayCluster
cluster = RayCluster(RunOptions(executor=Executor.RAY, on_message=print))
print(cluster.slots >= 1)
cluster.close()
import ray
print(ray.is_initialized())
ray.init()  # by the program that calls
RayCluster(RunOptions(executor=Executor.RAY, on_message=print)).close()
print(ray.is_initialized())
ray.shutdown()
"""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short path, for Ray's sockets
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=env | {"RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == ["True", "False", "True"]


@NEEDS_RAY
def test_an_address_without_a_cluster_is_an_error(monkeypatch):
    for address, what in (("ray://here:1", "not supported"), ("127.0.0.1:9", "cannot be reached")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ScalingError, match=what):
            RayCluster(options())


@NEEDS_RAY
def test_resources_larger_than_any_node_are_rejected(cluster):
    before = signal.getsignal(signal.SIGTERM)
    for asked in ({"resources": "cpu=2"}, {"resources": "cpu=1,gpu=1"}):
        with pytest.raises(ScalingError, match="no place for a worker") as caught:
            RayCluster(options(ray_address=cluster.address, **asked))
        assert "CPU=2" in caught.value.remedy
    for asked, slots in (({}, 2), ({"resources": "gpu=1"}, 0)):
        joined = RayCluster(options(ray_address=cluster.address, wait_for_nodes=True, **asked))
        with contextlib.closing(joined):
            assert joined.slots == slots
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_node_runs_a_command_with_its_share_of_cores_and_keeps_what_it_prints(tmp_path):
    log = tmp_path / "ray.log"
    arguments = (["doctor", "--json"], {"CPU": 1.0}, log, {"XLA_FLAGS": ""}, os.getcwd())
    assert run_on_node(*arguments, __version__) == 0
    assert '"JAX_PLATFORMS": "cpu"' in log.read_text()
    assert '"NPROC": "1"' in log.read_text()
    with pytest.raises(WorkerDied, match=r"(?s)exit code 2, .*no such file or folder"):
        run_on_node(["status", "nothing"], *arguments[1:], __version__)


def test_a_node_of_another_version_or_without_the_disk_is_named(tmp_path):
    arguments = ([], {"CPU": 1.0}, tmp_path / "absent" / "ray.log", {}, "/")
    with pytest.raises(RuntimeError, match="this node has scaling"):
        run_on_node(*arguments, "0.0.0")
    with pytest.raises(RuntimeError, match="all nodes share"):
        run_on_node(*arguments, __version__)
