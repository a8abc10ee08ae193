"""Programs for GPUs and TPUs that are not here, where their compilers are installed (`aot`)."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILERS = {"h100x8-tiny-tensor": "jax_cuda12_plugin", "h100-tiny": "jax_cuda12_plugin"}
COMPILERS |= {"v5e-tiny": "libtpu", "h100x8-tiny-experts": "jax_cuda12_plugin"}


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPILERS)
def test_a_small_models_programs_hold_every_check(case):
    if importlib.util.find_spec(COMPILERS[case]) is None:
        pytest.skip(f"{COMPILERS[case]} is not installed: the extra `aot` has it (1.6 GB)")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.aot", "--only", case, "--json"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    rows = json.loads(done.stdout or "[]")
    assert [row["faults"] for row in rows] == [[]], done.stderr[-2000:]
    assert 0.0 < rows[0]["mfu"] < 1.0
