"""Commands that answer at once, import little, and end without a traceback."""

import json
import subprocess
import sys

import pytest

from scaling.config.sweep_file import dump_sweep
from tests.command_line import scaling
from tests.sweep_files import tiny


@pytest.mark.slow
def test_no_heavy_import_before_it_is_needed():
    code = """
import sys, scaling.cli, scaling.fit, scaling.report
sys.argv = ["scaling", "--help"]
try:
    scaling.cli.main()
except SystemExit:
    pass
heavy = {"jax", "flax", "optax", "pandas", "scipy", "matplotlib", "plotly", "pyarrow"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.slow
def test_fitting_side_never_imports_jax(tmp_path):
    table = tmp_path / "runs.csv"
    rows = [
        f"{n},{d},{1.7 + 400 / n**0.34 + 400 / d**0.28}"
        for n in (1e6, 3e6, 1e7, 3e7)
        for d in (2e7, 1e8, 5e8)
    ]
    table.write_text("N,D,loss\n" + "\n".join(rows) + "\n")
    code = f"""
import sys
from scaling.cli import main
sys.argv = ["scaling", "fit", {str(table)!r}, "--bootstrap", "0", "--json"]
try:
    main()
except SystemExit as end:
    code = end.code
print([m for m in ("jax", "flax", "optax") if m in sys.modules], code, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.strip().splitlines()[-1] == "[] 0", done.stderr


def test_count_knows_llama():
    model = (
        "d_model=4096,n_layers=32,n_heads=32,d_head=128,n_kv_heads=8,"
        "ffn=swiglu,d_ff=14336,vocab_size=128256,qk_norm=false"
    )
    counted = json.loads(scaling("count", "--model", model, "--seq-len", 8192, "--json").stdout)[
        "models"
    ][0]
    assert counted["n_params"]["total"] == 8_030_261_248  # the published size of Llama 3 8B
    cache = {name: form["kv_cache_bytes"] / 2**30 for name, form in counted["attention"].items()}
    assert cache == {"MHA": 4.0, "GQA-8": 1.0, "MQA": 0.125}


@pytest.mark.slow
def test_count_of_the_largest_model_takes_no_time():
    model = f"d_model=64,n_layers=2,n_heads={2**40},d_head=2"
    counted = json.loads(scaling("count", "--model", model, "--json").stdout)["models"][0]
    assert set(counted["attention"]) == {"MHA", f"GQA-{2**38}", "MQA"}


def test_a_closed_pipe_is_no_traceback(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m scaling count --model d_model=64 | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr


def test_plan_lists_runs_and_trains_nothing(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny()))
    document = json.loads(scaling("plan", path, "--no-probe", "--json", cwd=tmp_path).stdout)
    assert len(document["runs"]) == 4
    assert document["runs"][0]["seconds"] is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize(
    "verb", [["plan"], ["fit"], ["report"], ["next", "--budget", "1e20", "--target", "1e22"]]
)
def test_a_path_that_is_too_long_to_be_one_is_rejected_without_a_traceback(verb):
    done = scaling(verb[0], "x" * 300, *verb[1:], code=74)
    assert "File name too long" in done.stderr
