"""The loop closes: a fit writes the runs that test it, they are trained (here: simulated), and the
report says what came of it.
"""

import json

import pytest

from scaling import load
from scaling.config.sweep_file import dump_sweep, load_sweep
from scaling.execute.environment import default_workers
from scaling.formatting import format_seconds
from scaling.predict.verification import (
    NEAR,
    check_forecasts,
    cost_of_test,
    sentence,
    write_verification_sweep,
)
from tests.command_line import scaling
from tests.documents import dump
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow

HOFFMANN = "published:hoffmann2022"
SWEEP = tiny(
    name="loop",
    design={
        "kind": "isoflop",
        "budgets": ["1e18", "3e18", "1e19", "3e19", "1e20"],
        "sizes": ["30M", "60M", "120M", "240M", "480M", "1B"],
        "tokens_per_param_range": [2, 900],
    },
    base={"task": {"kind": "synthetic", "seq_len": 2049, "n_symbols": 1024, "n_facts": 2**20}},
    recipe={},
)


def done(*args):
    found = scaling(*args)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A simulated sweep, fitted: its folder."""
    folder = tmp_path_factory.mktemp("loop")
    (folder / "loop.toml").write_text(dump_sweep(SWEEP))
    done("run", folder / "loop.toml", "--simulate", HOFFMANN, "--out", folder / "loop")
    done("fit", folder / "loop", "--bootstrap", 200)
    return folder


def test_predict_emits_a_sweep_that_verifies_it(fitted):
    fit, out = fitted / "loop/fits/chinchilla.json", fitted / "next.toml"
    said = json.loads(done("predict", fit, "--flops", "8e20", "--emit", out, "--json"))
    sweep = load_sweep(out)
    assert [each.role for each in sweep.forecasts] == ["half", "optimum", "twice"]
    assert sweep.forecasts[1].size == pytest.approx(said["n_params"]["value"], rel=0.3)
    assert all(each.lo < each.loss < each.hi for each in sweep.forecasts)
    planned = json.loads(done("plan", out, "--no-probe", "--json"))
    assert not planned["infeasible"]
    assert len(planned["runs"]) == 4  # the optimum with two seeds
    assert {round(run["flops"] / 8e20, 3) for run in planned["runs"]} == {1.0}

    # four runs fit no law: each command leads to the report
    next_commands = [
        done(*command).splitlines()[-1]
        for command in (
            ("run", out, "--simulate", HOFFMANN, "--out", fitted / "next"),
            ("status", fitted / "next"),
        )
    ]
    assert next_commands == [f"next: scaling report {fitted / 'next'}"] * 2
    assert "next:" not in done("report", fitted / "next")
    page = (fitted / "next/report/report.md").read_text()
    assert "Prediction against measurement" in page
    assert (
        "4 of 4 runs lie in their 95 % intervals" in page
        or "3 of 4 runs lie in their 95 % intervals" in page
    )
    assert "the law said" in page
    assert "8.0 times the largest budget that the law had seen" in page

    from scaling.store import run_files

    found = check_forecasts(sweep, run_files.load(fitted / "next"))
    assert [len(each.losses) for each in found] == [1, 2, 1]
    assert all(abs(each.error) < 0.01 for each in found)
    assert all(abs(each.n_params / each.forecast.size - 1) < NEAR for each in found)
    assert sentence(found) in page.replace("\\", "")


def test_a_published_law_is_tested_on_the_data_of_a_sweep(fitted):
    out = fitted / "published.toml"
    done("predict", HOFFMANN, "--flops", "1e19", "--emit", out, "--base", fitted / "loop.toml")
    assert [each.lo for each in load_sweep(out).forecasts] == [None] * 3  # it has no draws
    assert not json.loads(done("plan", out, "--no-probe", "--json"))["infeasible"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["loop/fits/chinchilla.json", "--loss", "2.5", "--emit", "x.toml"],
            "--emit writes the runs of one budget",
        ),
        (
            ["loop/fits/chinchilla.json", "--flops", "8e20", "--base", "loop.toml"],
            "--emit writes the runs of one budget",
        ),
        (
            ["loop/fits/chinchilla.json", "--flops", "8e20", "--emit", "loop.toml"],
            "exists already",
        ),
        ([HOFFMANN, "--flops", "8e20", "--emit", "x.toml"], "a published law has no sweep here"),
        ([HOFFMANN, "--flops", "8e20", "--emit", "x.toml", "--base", "none.toml"], "no such file"),
    ],
)
def test_prediction_that_cannot_be_emitted_writes_nothing(fitted, args, words):
    places = [fitted / arg if arg.endswith((".json", ".toml")) else arg for arg in args]
    found = scaling("predict", *places)
    assert found.returncode == 2
    assert words in found.stderr
    assert not (fitted / "x.toml").exists()


def test_runs_of_a_forecast_without_an_interval_are_not_counted_as_inside():
    from scaling.config import Forecast
    from scaling.predict.verification import CheckedForecast

    bare = CheckedForecast(Forecast(size=1e6, tokens=1e7, flops=6e13, loss=2.0), 1e6, 1e7, (2.5,))
    assert bare.inside is None
    assert "It came without an interval." in sentence([bare])


@pytest.mark.parametrize(
    ("counted", "flops"), [("6nd", "6nd"), (None, "exact"), ("as given", "exact")]
)
def test_the_budget_is_counted_as_the_fit_counts_it(fitted, counted, flops):
    from scaling import accounting

    fit = json.loads((fitted / "loop/fits/chinchilla.json").read_text())
    told = {"params": "with_head"} | ({"flops": counted} if counted else {})
    path, out = fitted / "loop" / "fits" / f"{counted}.json", fitted / f"{counted}.toml"
    dump(fit | {"source": fit["source"] | {"convention": told}}, path)
    sweep = write_verification_sweep(str(path), 8e20, 1e9, out)
    path.unlink()
    assert sweep.design.flops == flops
    model = planned_models(out)
    for cell in sweep.design.cells:
        assert accounting.train_flops(
            model[cell.size], 2049, 1, flops
        ) * cell.tokens == pytest.approx(8e20, rel=1e-6)


def planned_models(path):
    from scaling.plan import plan

    sweep = load_sweep(path)
    return {
        float(item.n_params["with_head"]): item.run.model
        for item in plan(sweep, sweep.base.task, 1024).runs
    }


def test_the_cost_of_a_test_is_said_relative_to_the_sweep(fitted):
    fit = fitted / "loop/fits/chinchilla.json"
    said = scaling("predict", fit, "--flops", "8e20", "--emit", fitted / "cost.toml", code=0).stderr
    spent = json.loads(done("plan", fitted / "loop.toml", "--no-probe", "--json"))["flops"]
    cost, ratio = said.partition("the test costs ")[2].split(" FLOPs, ")
    assert float(cost) == 4 * 8e20
    assert float(ratio.split()[0]) == pytest.approx(4 * 8e20 / spent, rel=0.05)
    assert float(ratio.partition("times the ")[2].split()[0]) == pytest.approx(spent, rel=0.01)


def test_the_time_of_a_test_follows_the_pace_of_the_runs_of_the_sweep(fitted):
    fit = fitted / "loop/fits/chinchilla.json"
    sweep = write_verification_sweep(str(fit), 8e20, 1e9, fitted / "time.toml")
    rows = load(fitted / "loop")
    paces = rows[rows["metric"] == "tokens_per_second"]
    largest = paces[paces["n_params"] == paces["n_params"].max()]
    flops_per_second = (largest["value"] * largest["flops"] / largest["tokens"]).median()
    cost = cost_of_test(sweep, 8e20, [str(fitted / "loop")])
    assert cost.seconds == pytest.approx([8e20 / flops_per_second] * 4, rel=1e-6)
    assert cost.wall_seconds(1) == pytest.approx(sum(cost.seconds))
    assert cost.wall_seconds(8) == pytest.approx(max(cost.seconds))
    assert cost_of_test(sweep, 8e20, []).seconds == ()
    target = fitted / "timed.toml"
    emitted = scaling("predict", fit, "--flops", "8e20", "--emit", target, code=0)
    duration = format_seconds(cost.wall_seconds(default_workers()))
    assert f"; about {duration} of training here with" in emitted.stderr
    assert " ".join(emitted.stdout.split()).count(f"# about {duration} of training here") == 1
