"""The command line: help for every command, quick starts, errors that say what,
where and what to do.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.config.sweep_file import dump_sweep
from tests.command_line import scaling
from tests.sweep_files import tiny

VERBS = [
    "plan",
    "tune",
    "run",
    "train",
    "status",
    "next",
    "fit",
    "predict",
    "report",
    "count",
    "coord-check",
    "data",
    "doctor",
    "init",
    "schema",
]
README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_with_an_example_and_is_in_the_readme(verb):
    done = scaling(verb, "--help")
    assert done.returncode == 0
    assert "Example: scaling" in done.stdout or verb == "data"
    assert f"`{verb}" in README.read_text(
        encoding="utf-8"
    ) or f"scaling {verb}" in README.read_text(encoding="utf-8")


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


BAD_SWEEPS = {
    'name = "x"\nnonsense = 1\n': [
        "nonsense is not a known key",
        "design is missing",
        "base is missing",
    ],
    "": ["the sweep file is empty"],
    "name = \n": ["not valid TOML"],
    f"seeds = [{'9' * 5000}]": ["not valid TOML", "limit"],
    "\n".join(f"key{i} = 1" for i in range(20_000)): ["20003 mistakes"],
    'name = "../x"\n': ["name"],
    dump_sweep(tiny()).replace("2000.0", '"2kk"'): ["'2kk' is not a number"],
    dump_sweep(tiny()).replace("n_layers", "n_layer"): [
        "recipe.n_layer is not a known key (did you mean n_layers?)"
    ],
    dump_sweep(tiny()).replace('kind = "grid"', 'kind = "gird"'): ["design.kind", "gird"],
    dump_sweep(tiny(base={"task": {"kind": "text", "corpus": "no/such/folder"}})): [
        "no/such/folder"
    ],
}


@pytest.mark.parametrize(("text", "words"), BAD_SWEEPS.items())
def test_bad_sweep_file_exits_2_in_three_lines_and_writes_nothing(tmp_path, text, words):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    for verb in ("plan", "run"):
        done = scaling(verb, path, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) <= 3
        assert "bad.toml" in done.stderr or "no/such/folder" in done.stderr
        for word in words:
            assert word in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.toml"]


def test_all_errors_of_a_sweep_file_are_printed_at_once(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        dump_sweep(tiny())
        .replace("2000.0", '"2kk"')
        .replace("n_layers", "n_layer")
        .replace("batch_size = 8", "batch_size = 0")
    )
    done = scaling("plan", path)
    assert done.stderr == (
        f"error: {path}: 3 mistakes: design.sizes[0]: '2kk' is not a number; write it as 1e13 or "
        '"10T" (suffixes K, M, B, T, P, E); base.batch_size = 0: should be greater than 0; '
        "recipe.n_layer is not a known key (did you mean n_layers?)\n"
        "  fix these values; docs/sweep-files.md lists every key with its range\n"
    )


USAGE = [
    (["run", "absent.toml"], ["absent.toml", "no such file"]),
    (["run", "tiny.toml", "--executor", "locl"], ["locl", "did you mean local?"]),
    (["run", "tiny.toml", "--workers", "0"], ["--workers"]),
    (["status", "absent"], ["absent"]),
    (
        ["count", "--model", "d_model=64,n_layer=2"],
        ["n_layer is not a known key (did you mean n_layers?)"],
    ),
    (["count", "--model", "n_layers=2"], ["d_model is missing"]),
    (["count", "--model", "d_model=64", "--device", "h1000"], ["h1000", "did you mean h100?"]),
    (["predict", "published:hoffman2022", "--flops", "1e21"], ["hoffman2022", "hoffmann2022"]),
    (["predict", "published:hoffmann2022", "--flops", "nan"], ["nan"]),
    (["predict", "published:hoffmann2022"], ["--flops"]),
    (["report", "absent"], ["absent"]),
    (["next", "absent", "--budget", "1e12", "--target", "1e13"], ["absent"]),
    (["fit", "absent.csv"], ["absent.csv", "no such file"]),
    (["data", "prepare", "absent.txt", "--out", "store"], ["absent.txt"]),
    (["data", "info", "absent"], ["absent"]),
    (["run", "tiny.toml", "--max-seconds", "nan"], ["--max-seconds", "see scaling run --help"]),
    (["run", "tiny.toml", "--no-such-option"], ["--no-such-option", "see scaling run --help"]),
    (["fitt"], ["fitt", "see scaling --help"]),
    (["run", "tiny.toml", "x" * 20_000], ["xxx"]),
]


@pytest.mark.parametrize(("args", "words"), USAGE, ids=lambda value: " ".join(value)[:40])
def test_wrong_usage_exits_2_and_names_the_option(tmp_path, args, words):
    (tmp_path / "tiny.toml").write_text(dump_sweep(tiny()))
    done = scaling(*args, cwd=tmp_path, env={"NO_COLOR": "1", "COLUMNS": "200"})
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert max(map(len, done.stderr.splitlines())) < 900
    for word in words:
        assert word in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.toml"]


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
    found = scaling(verb[0], "x" * 300, *verb[1:])
    assert found.returncode == 74
    assert "File name too long" in found.stderr
    assert "Traceback" not in found.stderr
