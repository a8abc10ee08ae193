"""What the environment of a machine may change (cores, memory) and what it may not (numbers)."""

import math
import os
import subprocess

import pytest

from scaling.execute import environment
from scaling.plan.device_fit import USABLE
from scaling.store.provenance import compiler_flags


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


def test_numbers_of_jax_are_pinned_against_its_environment():
    jax = pytest.importorskip("jax")
    from scaling.train.fingerprint import PINNED, pin_numerics

    def draw():
        return jax.random.normal(jax.random.key(0), (2,)).tolist()

    pin_numerics()
    expected = draw()
    other = {
        "default_prng_impl": "rbg",
        "threefry_partitionable": False,
        "random_seed_offset": 7,
        "default_matmul_precision": "bfloat16",
        "numpy_dtype_promotion": "strict",
        "numpy_rank_promotion": "raise",
    }
    try:
        for name, value in other.items():
            jax.config.update(f"jax_{name}", value)
        assert not all(map(math.isclose, draw(), expected))
        pin_numerics()
        assert draw() == expected
        assert jax.config.jax_default_matmul_precision is None
        assert set(other) <= set(PINNED)
    finally:
        pin_numerics()


def test_a_worker_hears_where_it_runs_and_no_setting_that_changes_numbers(monkeypatch):
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "3",
        "JAX_RANDOM_SEED_OFFSET": "7",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    code = (
        "import scaling.train, jax\n"
        "print(jax.device_count(), jax.config.jax_random_seed_offset, "
        "jax.config.jax_numpy_dtype_promotion.value)"
    )
    done = subprocess.run(
        [*environment.python_module("scaling")[:2], "-c", code],
        env=os.environ | settings | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["3", "0", "standard"]


def test_flags_of_compilers_are_part_of_what_decides_the_numbers(monkeypatch):
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    assert compiler_flags() == "--xla_a=1"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert compiler_flags() == "--xla_a=1 NVIDIA_TF32_OVERRIDE=0"
