"""Programs for GPUs and TPUs that are not here, where their compilers are installed (`aot`)."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.aot import CASES, COMPILERS

ROOT = Path(__file__).parents[2]
SMALL = [name for name, case in CASES.items() if case.model == "tiny"]


@pytest.mark.slow
@pytest.mark.parametrize("case", SMALL)
def test_a_small_models_programs_hold_every_check(case):
    module = COMPILERS[CASES[case].kind]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: the extra `aot` has it (1.6 GB)")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.aot", "--only", case, "--json"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = json.loads(done.stdout or "[]")
    assert [row["faults"] for row in rows] == [[]], done.stderr[-2000:]
    assert 0.0 < rows[0]["mfu"] < 1.0
