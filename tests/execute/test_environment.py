"""What the environment of a machine may change (cores, memory) and what it may not (numbers)."""

import math
import os

import pytest

from scaling.execute import environment
from scaling.plan.device_fit import USABLE


@pytest.fixture
def control_groups(tmp_path, monkeypatch):
    """A /sys/fs/cgroup and a /proc/self/cgroup that a test writes; the machine has 8 cores."""
    membership = tmp_path / "membership"
    membership.write_text("")
    read = environment._read
    monkeypatch.setattr(environment, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(
        environment,
        "_read",
        lambda path: read(membership if str(path) == "/proc/self/cgroup" else path),
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def write(own, files):
        membership.write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 8),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000"}, 2),
        ("0::/../outside\n", {"cpu.max": "400000 100000\n"}, 4),
        (
            "3:cpu,cpuacct:/job\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "200000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        (
            "3:cpu:/gone\n",
            {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2,
        ),
    ],
)
def test_cores_are_the_least_of_affinity_and_quota(control_groups, monkeypatch, own, files, cores):
    control_groups(own, files)
    monkeypatch.setattr(environment, "has_accelerator", lambda: False)
    monkeypatch.delenv("NPROC", raising=False)
    assert environment.cores() == cores
    assert environment.default_workers() == cores
    assert environment.worker_environment(1)["NPROC"] == str(cores)


def test_jax_takes_as_much_of_a_gpu_as_the_planner_counts_on(monkeypatch):
    monkeypatch.delenv(environment.MEMORY_FRACTION, raising=False)
    assert environment.worker_environment(1)[environment.MEMORY_FRACTION] == str(USABLE)
    assert environment.worker_environment(2)[environment.MEMORY_FRACTION] == str(USABLE / 2)
    monkeypatch.setenv(environment.MEMORY_FRACTION, "0.5")
    assert environment.worker_environment(1)[environment.MEMORY_FRACTION] == "0.5"


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "700000000\n"}, 700_000_000),
        ("0::/a/b\n", {"a/memory.max": "5000000\n", "a/b/memory.max": "9000000\n"}, 5_000_000),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "600000000\n"}, 600_000_000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    ],
)
def test_memory_limit_is_that_of_the_control_groups(control_groups, own, files, limit):
    control_groups(own, files)
    assert environment.memory_bytes()["limit_bytes"] == limit


def test_numbers_of_jax_are_pinned_against_its_environment(monkeypatch):
    jax = pytest.importorskip("jax")
    from scaling.train.fingerprint import pin_numerics

    def draw():
        return jax.random.normal(jax.random.key(0), (2,)).tolist()

    pin_numerics()
    expected = draw()
    try:
        jax.config.update("jax_default_prng_impl", "rbg")
        jax.config.update("jax_threefry_partitionable", False)
        jax.config.update("jax_default_matmul_precision", "bfloat16")
        assert not all(map(math.isclose, draw(), expected))
        pin_numerics()
        assert draw() == expected
        assert jax.config.jax_default_matmul_precision is None
    finally:
        pin_numerics()
