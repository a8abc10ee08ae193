"""Commands that answer at once, import little, and end without a traceback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.config.sweep_file import dump_sweep
from tests.command_line import scaling
from tests.sweep_files import tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_heavy_import_before_it_is_needed():
    code = """
import sys, scaling.cli, scaling.fit, scaling.report
sys.argv = ["scaling", "--help"]
try:
    scaling.cli.main()
except SystemExit:
    pass
heavy = {"jax", "flax", "optax", "pandas", "scipy", "matplotlib", "pyarrow"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


NO_COMMAND_OF_THE_DEMO = {
    *(
        "jax",
        "flax",
        "optax",
        "torch",
        "ray",
        "wandb",
        "mlflow",
        "scaling.train",
        "scaling.trackers",
    ),
    *("scaling.hf_export", "scaling.export", "scaling.execute.ray", "scaling.execute.slurm"),
    *("scaling.execute.simulated", "scaling.execute.tracking", "scaling.execute.first_sweep"),
    *("scaling.tuning.tune", "scaling.tuning.field_tuning", "scaling.fit.special.table_laws"),
    *("scaling.points.user_table", "scaling.points.tracker_logs", "scaling.predict.design"),
    *("scaling.studies.grokking", "scaling.studies.emergence", "scaling.studies.sampling"),
    *("scaling.studies.variants", "scaling.studies.kaplan", "scaling.tasks.synthetic"),
    *("scaling.cli.tune", "scaling.cli.results"),
}
FIT = "fit FOLDER --bootstrap 0 --holdout none --out OUT.json"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "also"),
    [
        ("run DEMO --out FOLDER", {"scaling.report", "scaling.fit", "scipy", "matplotlib"}),
        (FIT, {"matplotlib", "scaling.studies", "scaling.plan", "scaling.execute"}),
        ("predict FIT --flops 1e14", {"pandas", "pyarrow", "scaling.plan", "scaling.studies"}),
        ("report FOLDER", {"scaling.execute.coordinator", "scaling.execute.local"}),
    ],
)
def test_commands_of_the_demo_import_only_what_they_use(command, also, tmp_path):
    folder = tmp_path / "demo"
    shutil.copytree(ROOT / "results" / "reference", folder)
    paths = {"DEMO": ROOT / "sweeps" / "demo.toml", "FOLDER": folder, "OUT.json": tmp_path / "f"}
    paths["FIT"] = folder / "fits" / "chinchilla.json"
    words = [str(paths.get(word, word)) for word in command.split()]
    code = f"""
import sys
from scaling.cli import main
sys.argv = ["scaling", *{words!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stderr.strip().splitlines()[-1].split()
    unwanted = NO_COMMAND_OF_THE_DEMO | also
    assert {name for name in unwanted if name in loaded} == set(), command
    assert f"scaling.cli.{words[0]}" in loaded


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


def test_a_tilde_is_the_home_folder_and_no_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    scaling("init", "~/first.toml", "--budget", "1e13", "--data", "stdlib", code=0)
    assert (tmp_path / "home" / "first.toml").exists()
    assert not (tmp_path / "~").exists()
    law = "published:hoffmann2022"
    scaling("run", "~/first.toml", "--out=~/out", "--simulate", law, "--max-runs", "1", code=0)
    assert (tmp_path / "home" / "out" / "plan.json").exists()


def test_a_working_folder_that_was_removed_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = scaling("doctor", code=74).stderr
    assert said == "error: the working folder was removed\n  change to another folder\n"
    assert "choose another folder" in scaling("init", "--yes", code=74).stderr
