"""What every command shares: an example in its help, and --json or --csv, one of them, alone on
stdout.
"""

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from scaling.cli.output import print_csv
from scaling.cli.train import _progress
from scaling.config.sweep_file import dump_sweep
from scaling.execute.events import Pace, RunProgress
from scaling.execute.lease import Lease
from scaling.execute.status import read_status
from scaling.execute.sweep_folder import SweepFolder
from tests.command_line import command, scaling
from tests.documents import dump
from tests.fit.test_law_weights import COUPLED, isoflop_runs
from tests.report.conftest import document, results_folder  # noqa: F401
from tests.sweep_files import tiny

README = Path(__file__).parents[2] / "README.md"
PLANNED = [
    "run_id",
    "n_params",
    "n_params_with_head",
    "n_params_nonembedding",
    "n_layers",
    "d_model",
    "tokens",
    "tokens_per_param",
    "flops",
    "batch_tokens",
    "lr",
    "n_steps",
    "seed",
    "seconds",
    "memory_bytes",
    "n_params_active",
]
STATES = [
    "run_id",
    "status",
    "n_params",
    "n_params_with_head",
    "tokens",
    "step",
    "loss",
    "loss_split",
    "attempts",
    "reason",
    "n_params_active",
]
TABLES = {"plan", "status", "fit", "predict", "next"}


def commands(group=None, before=""):
    """Every command with its click command, those of groups too."""
    for name, each in (group or command()).commands.items():
        if hasattr(each, "commands"):
            yield from commands(each, f"{before}{name} ")
        else:
            yield f"{before}{name}", each


VERBS = dict(commands())


def rows(done):
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_every_command_has_an_example_in_its_help_and_stands_in_the_readme():
    readme = README.read_text(encoding="utf-8")
    for verb, each in VERBS.items():
        examples = f"{each.epilog or ''} ".replace("\n", " ")
        assert f"Example: scaling {verb} " in examples, verb
        name = verb.split()[0]
        assert f"`{name}" in readme or f"scaling {name}" in readme, verb


def test_every_command_prints_json_and_one_with_a_table_csv():
    options = {
        verb: {name for parameter in each.params for name in parameter.opts}
        for verb, each in VERBS.items()
    }
    assert [verb for verb, names in options.items() if "--json" not in names] == []
    assert {verb for verb, names in options.items() if "--csv" in names} == TABLES


def test_help_has_no_accidental_markup():
    """`[[tuning]]` or `[recipe.transfer]` would vanish."""
    from rich.text import Text

    for each in VERBS.values():
        helps = (getattr(parameter, "help", "") for parameter in each.params)
        for text in filter(None, (each.help, each.epilog, *helps)):
            assert Text.from_markup(text).plain == text.replace("\\[", "[")


@pytest.mark.slow
def test_two_laws_are_compared_by_criteria_and_holdout(tmp_path):
    """Runs of a coupled law: by both it is the better one."""
    points = isoflop_runs("skaling", COUPLED, 0.002)
    columns = {"N": points.n, "D": points.d, "loss": points.loss}
    pd.DataFrame(columns).to_csv(tmp_path / "runs.csv", index=False)
    asked = ("fit", tmp_path / "runs.csv", "--law", "chinchilla", "--law", "skaling")
    first, second = json.loads(scaling(*asked, "--bootstrap", 20, "--json").stdout)["laws"]
    assert (first["law"], second["law"]) == ("chinchilla", "skaling")
    assert second["bic"] < first["bic"] - 10
    assert second["holdout_error_percent"] < first["holdout_error_percent"]
    assert first["runs"] == second["runs"] == 42
    text = scaling(*asked, "--bootstrap", 20).stdout
    assert "By BIC skaling describes these runs best" in text
    scaling(*asked, "--out", tmp_path / "fit.json", code=2)
    assert not (tmp_path / "fit.json").exists()
    scaling(*asked, "--bootstrap", 20, "--out", tmp_path / "laws.tex")
    latex = (tmp_path / "laws.tex").read_text(encoding="ascii")
    assert r"\toprule" in latex
    assert [line.split(" & ")[0] for line in latex.splitlines() if line.count(" & ") == 6][1:] == [
        "{}chinchilla",
        "{}skaling",
    ]


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_sweep(tiny()))
    return path


@pytest.fixture
def fit(document, tmp_path):  # noqa: F811
    dump(document, tmp_path / "fit.json")
    return tmp_path / "fit.json"


def test_a_plan_holds_every_run(sweep):
    planned = json.loads(scaling("plan", sweep, "--no-probe", "--json").stdout)["runs"]
    found = rows(scaling("plan", sweep, "--no-probe", "--csv"))
    assert [row["run_id"] for row in found] == [run["run_id"] for run in planned]
    assert [float(row["flops"]) for row in found] == [run["flops"] for run in planned]
    assert found[0]["seconds"] == ""
    assert list(found[0]) == PLANNED


def test_a_plan_for_a_device_says_whether_runs_fit(sweep):
    planned = rows(scaling("plan", sweep, "--no-probe", "--device", "h100", "--csv"))
    assert list(planned[0]) == [*PLANNED, "fits", "remedy", "device_memory_bytes"]


def test_prediction_csv_keeps_intervals_and_notes_go_to_stderr(fit):
    told = json.loads(scaling("predict", fit, "--flops", "1e14", "--json").stdout)
    done = scaling("predict", fit, "--flops", "1e14", "--csv")
    found = {row["quantity"]: row for row in rows(done)}
    assert {row["budget"] for row in rows(done)} == {"100000000000000.0"}
    assert list(found) == ["flops", "n_params", "tokens", "tokens_per_param", "loss"]
    assert [float(found["loss"][part]) for part in ("value", "lo", "hi")] == [
        told["loss"][part] for part in ("value", "lo", "hi")
    ]
    assert all(f"warning: {warning['message']}" in done.stderr for warning in told["warnings"])


@pytest.mark.slow
def test_csv_of_a_fit_is_its_parameters(tmp_path):
    table = tmp_path / "runs.csv"
    lines = [
        f"{n},{d},{1.7 + 400 / n**0.34 + 400 / d**0.28}"
        for n in (1e6, 3e6, 1e7, 3e7)
        for d in (2e7, 1e8, 5e8)
    ]
    table.write_text("N,D,loss\n" + "\n".join(lines) + "\n")
    found = {
        row["parameter"]: row for row in rows(scaling("fit", table, "--bootstrap", "0", "--csv"))
    }
    assert {"E", "A", "B", "alpha", "beta", "a", "b"} <= set(found)
    assert float(found["alpha"]["value"]) == pytest.approx(0.34, abs=0.01)


def test_csv_of_status_is_its_runs(sweep, tmp_path):
    out = tmp_path / "out"
    scaling("run", sweep, "--out", out, "--simulate", "published:hoffmann2022", code=0)
    found = rows(scaling("status", out, "--csv"))
    assert {row["status"] for row in found} == {"done"}
    assert list(found[0]) == STATES
    assert len(found) == 4


def test_a_cell_is_never_a_formula(capsys):
    print_csv([{"=name": "=1+1", "list": ["a", 1], "deep": {"er": None, "yes": True}}])
    assert capsys.readouterr().out == '\'=name,list,deep.er,deep.yes\n\'=1+1,"[""a"", 1]",,true\n'


@pytest.mark.slow
def test_a_log_gets_plain_lines_even_where_colours_are_forced(sweep, tmp_path):
    """FORCE_COLOR makes rich take a pipe for a terminal; a live table would fill a log with control
    codes.
    """
    words = ["run", str(sweep), "--out", "out", "--simulate", "published:hoffmann2022"]
    done = subprocess.run(
        [sys.executable, "-m", "scaling", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "FORCE_COLOR": "1"},
        cwd=tmp_path,
        check=True,
    )
    assert not {"\r", "\x1b"} & set(done.stdout + done.stderr)
    assert len([line for line in done.stdout.splitlines() if line.startswith("[")]) == 4


PROGRESS = RunProgress(
    step=1,
    n_steps=9,
    loss=2.0,
    tokens_per_second=1000.0,
    flops_per_second=2e9,
    flops=1.0,
    mfu=0.4,
)


def test_status_says_the_pace_of_runs_in_training(sweep, tmp_path):
    out = tmp_path / "out"
    scaling("run", sweep, "--out", out, "--simulate", "published:hoffmann2022", code=0)
    with Lease(out) as lease:
        lease.publish_progress([PROGRESS, PROGRESS.model_copy(update={"mfu": None})], 3.0)
        status = read_status(SweepFolder(out))
        text = scaling("status", out, code=0).stdout
    assert status.pace == Pace(tokens_per_second=2000.0, flops_per_second=4e9, mfu=0.4)
    assert "(2k tokens/s, 4.0 GFLOP/s, MFU 0.40)" in " ".join(text.split())
    assert read_status(SweepFolder(out)).pace is None


def test_status_counts_a_branch_as_missing_while_its_shared_prefix_is_trained(sweep, tmp_path):
    out = tmp_path / "out"
    simulated = ["--simulate", "published:hoffmann2022"]
    scaling("run", sweep, "--out", out, *simulated, "--max-runs", 1, code=0)
    left = [run for run in read_status(SweepFolder(out)).runs if run.status == "missing"]
    branch, *_, prefix = (run.run_id for run in sorted(left, key=lambda run: run.tokens))
    in_training = {"run_id": prefix, "run_ids": (prefix, branch), "step": 3}
    progress = PROGRESS.model_copy(update=in_training)
    with Lease(out) as lease:
        lease.claim([prefix, branch])
        lease.publish_progress([progress], 3.0)
        status = read_status(SweepFolder(out))
    runs = {run.run_id: run for run in status.runs}
    assert (status.counts.running, status.counts.missing) == (1, 2)
    assert (runs[prefix].step, runs[branch].step) == (3, None)
    assert runs[branch].reason == f"branches off {prefix}, which is in training"


def test_one_run_prints_a_line_at_intervals(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(
        "scaling.cli.train.time", SimpleNamespace(monotonic=lambda: next(clock, math.inf))
    )
    show = _progress()
    for step in (1, 2, 3):
        show(
            RunProgress(
                step=step,
                n_steps=9,
                loss=2.0,
                tokens_per_second=1000.0,
                flops_per_second=1.0,
                flops=1.0,
            )
        )
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["1/9", "3/9"]


def test_choices_of_fit_in_help_are_those_that_it_accepts():
    """The command lists them itself, so that --help imports no numerics."""
    from dataclasses import fields
    from typing import get_args

    from scaling.cli.fit import FitArguments
    from scaling.config import FlopsConvention, NConvention
    from scaling.fit import fit_options
    from scaling.fit.frontier.isoflop import METHODS

    accepted = {
        "approach": fit_options.APPROACHES,
        "minimum": METHODS,
        "objective": fit_options.OBJECTIVES,
        "resample": fit_options.RESAMPLE_KINDS,
        "params": get_args(NConvention),
        "flops": get_args(FlopsConvention),
    }
    offered = {item.name: item.default for item in fields(FitArguments)}
    for name, words in accepted.items():
        assert offered[name].autocompletion("") == list(words), name
