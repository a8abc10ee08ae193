"""`scaling fit` as a function: the document's keys, certified numbers, hold-out, and every bad
input rejected by name.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.dataset import Dataset
from scaling.fit.diagnostics.holdout import split
from scaling.fit.document import Estimate
from scaling.fit.frontier.approaches import agreement
from scaling.fit.frontier.estimate import FrontierEstimate
from scaling.fit.frontier.frontier import Frontier
from scaling.fit.pipeline import FitOptions
from scaling.points.points import Points
from tests.documents import dump, fit, load

LAW = {"E": 1.7, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def simulated(path, noise=0.002, seed=0, budgets=6, sizes=7):
    """An isoFLOP sweep of a known law, written as a CSV file."""
    rng = np.random.default_rng(seed)
    c = np.repeat(np.geomspace(1e18, 1e21, budgets), sizes)
    centre = 0.1 * c**0.5
    n = centre * np.tile(np.geomspace(0.25, 4, sizes), budgets)
    d = c / (6 * n)
    loss = (LAW["E"] + LAW["A"] * n ** -LAW["alpha"] + LAW["B"] * d ** -LAW["beta"]) * np.exp(
        rng.normal(0, noise, len(n))
    )
    path.write_text(
        "N,D,loss\n"
        + "".join(
            f"{a!r},{b!r},{y!r}\n"
            for a, b, y in zip(n.tolist(), d.tolist(), loss.tolist(), strict=True)
        )
    )
    return path


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return fit([simulated(tmp_path_factory.mktemp("run") / "runs.csv")], FitOptions(bootstrap=200))


@pytest.mark.slow
def test_document_has_its_keys_and_survives_the_file(document, tmp_path):
    keys = "schema law approach objective params derived status warnings n_points excluded"
    assert {*keys.split(), "holdout", "source", "version"} <= set(document)
    dump(document, tmp_path / "fit.json")
    assert load(tmp_path / "fit.json") == json.loads(json.dumps(document))
    assert "NaN" not in (tmp_path / "fit.json").read_text()


@pytest.mark.slow
def test_fit_recovers_the_law_within_its_intervals(document):
    for name in ("alpha", "beta", "E"):
        entry = document["params"][name]
        assert entry["lo"] <= entry["value"] <= entry["hi"]
        assert abs(entry["value"] - LAW[name]) < 4 * entry["se"]
    a = document["derived"]["a"]
    assert abs(a["value"] - 0.37 / 0.72) < 4 * a["se"]
    assert document["n_points"] == 42
    assert len(document["bootstrap"]["draws"]["alpha"]) == 200 - document["bootstrap"]["failed"]
    assert document["source"]["convention"]["flops"] == "6nd"
    assert document["cost"] == {"c0": 6.0, "p": 1.0}


def test_three_approaches_stand_side_by_side(document):
    for approach in document["approaches"].values():
        assert abs(approach["a"]["value"] - 0.514) < 0.08
        assert approach["a"]["lo"] <= approach["a"]["value"] <= approach["a"]["hi"]
    assert len(document["approaches"]["isoflop"]["minima"]) == 6
    assert "grid_bias" in {w["code"] for w in document["approaches"]["isoflop"]["warnings"]}
    assert document["approaches_agree"]["verdict"] == "agree"


def test_largest_budget_is_held_out(document):
    holdout = document["holdout"]
    assert (holdout["n_train"], holdout["n_test"]) == (35, 7)
    np.testing.assert_allclose(holdout["budget"], 1e21, rtol=1e-6)
    assert holdout["mean_abs_rel_error"] < 0.01
    assert holdout["by"] == "combination"
    assert holdout["covered"] >= 4 / 7


@pytest.mark.parametrize("approach", ["isoflop", "envelope"])
def test_other_approaches_can_head_the_document(tmp_path, approach):
    got = fit(
        [simulated(tmp_path / "runs.csv")],
        FitOptions(approach=approach, bootstrap=100, holdout="none"),
    )
    assert got["derived"]["a"] == got["approaches"][approach]["a"]
    assert set(got["params"]) == {"a", "n_coef", "b", "d_coef", "E", "K", "gamma"}
    assert got["holdout"] is None


@pytest.mark.slow
def test_certified_chinchilla(shared_data):
    options = FitOptions(columns="N=Model Size,C=Training FLOP,L=loss", drop_highest=5, bootstrap=0)
    got = fit([shared_data / "epoch_chinchilla" / "svg_extracted_data.csv"], options)
    np.testing.assert_allclose(got["objective"]["value"], 1.0182740178e-3, rtol=1e-8)
    for name, value in {
        "E": 1.817218,
        "A": 477.826,
        "B": 2143.417,
        "alpha": 0.347310,
        "beta": 0.367172,
    }.items():
        np.testing.assert_allclose(got["params"][name]["value"], value, rtol=2e-5)
    np.testing.assert_allclose(got["derived"]["a"]["value"], 0.51390, atol=5e-6)
    assert got["excluded"] == [{"reason": "among the 5 highest losses", "count": 5}]
    assert "bootstrap" not in got
    assert got["params"]["A"]["lo"] is None


def test_hold_out_needs_something_left():
    c = np.repeat([1e18, 1e19, 1e20, 1e21], 5)
    n = np.tile(np.geomspace(1e8, 2e9, 5), 4)
    points = Points(np.ones(20), n, c / n, c)
    out, budget = split(Dataset(points))
    assert out.sum() == 5
    assert round(budget / 1e21, 6) == 1
    assert split(Dataset(points), 2) is None
    assert split(Dataset(points.take(points.c < 1e20))) is None
    scattered = Points(
        np.ones(60), np.geomspace(1e6, 1e9, 60), np.ones(60), np.geomspace(1e15, 1e18, 60)
    )
    assert split(Dataset(scattered))[0].sum() == 9  # the top 15 % of the range of log C


def test_interval_holds_its_value():
    estimate = Estimate.of(5.0, np.array([1.0, 2.0, 3.0, np.nan]), 0.9)
    assert estimate.lo <= 5.0 <= estimate.hi
    empty = {"value": 5.0, "se": None, "lo": None, "hi": None}
    assert Estimate.of(5.0, None, 0.9).to_dict() == empty


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"law": "chinchila"}, "did you mean chinchilla?"),
        ({"objective": "hubr"}, "huber"),
        ({"approach": "isoflops"}, "did you mean isoflop?"),
        ({"params": "all"}, "with_head"),
        ({"ci": 1.0}, "--ci"),
        ({"ci": float("nan")}, "--ci"),
        ({"bootstrap": -1}, "--bootstrap"),
        ({"bootstrap": 200_000}, "--bootstrap"),
        ({"delta": 0.0}, "--delta"),
        ({"seed": -1}, "--seed"),
        ({"holdout": "some"}, "--holdout"),
        ({"holdout": "0"}, "--holdout"),
        ({"fix": "E=nan"}, "--fix"),
        ({"fix": "ln A=inf"}, "--fix"),
        ({"formula": "L = E + A/N^alpha", "start": "alpha=nan"}, "--start"),
        ({"delta": 0.1, "objective": "mse-log"}, "--delta: the objective mse-log has no delta"),
    ],
)
def test_options_are_checked_before_a_file_is_opened(options, words):
    with pytest.raises(ScalingError) as caught:
        FitOptions(**options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("few.csv", "N,D,loss\n1e6,1e7,3\n2e6,1e7,2.9\n"),
        ("same_n.csv", "N,D,loss\n" + "".join(f"1e6,{n}e7,{4 - n / 10}\n" for n in range(1, 9))),
        ("same_d.csv", "N,D,loss\n" + "".join(f"{n}e6,1e7,{4 - n / 10}\n" for n in range(1, 9))),
        ("one_point.csv", "N,D,loss\n" + "1e6,1e7,3\n" * 8),
        ("no_d.csv", "N,loss\n" + "".join(f"{n}e6,{4 - n / 10}\n" for n in range(1, 9))),
    ],
)
def test_unidentifiable_tables_are_rejected_by_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ScalingError) as caught:
        fit([tmp_path / name], FitOptions())
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fix": "A=-3,alpha=0.3"}, "--fix: A = -3 is not between 0 and inf"),
        ({"fix": "A=0,alpha=0.3"}, "--fix: A = 0"),
        ({"fix": "alpha=0"}, "--fix: alpha = 0 is not between 0.001 and 4"),
        ({"fix": "E=9"}, "--fix: E = 9 is not between 0 and 2."),
        ({"law": "skaling", "fix": "k=0"}, "--fix: k = 0"),
        ({"cluster": "loss_of"}, "--cluster: all runs are one group of 'loss_of'"),
        ({"params": "total"}, "--params is for results folders"),
        ({"flops": "kaplan"}, "--flops is for results folders"),
        ({"columns": "L=same"}, "all 42 losses are 2.5"),
    ],
)
def test_what_no_fit_can_follow_is_rejected(tmp_path, options, words):
    runs = pd.read_csv(simulated(tmp_path / "runs.csv")).assign(loss_of="val", same=2.5)
    with pytest.raises(ScalingError) as caught:
        fit([runs], FitOptions(**options))
    assert words in str(caught.value)


def test_a_chance_level_above_most_accuracies_may_be_fixed():
    loss = np.linspace(1.8, 4.5, 25)
    accuracy = 0.25 + 0.7 / (1 + np.exp(6 * (loss - 2.2)))
    table = pd.DataFrame({"task_loss": loss, "accuracy": accuracy})
    columns = "X=task_loss,Y=accuracy"
    options = FitOptions(law="sigmoid", columns=columns, fix="lo=0.26", bootstrap=0)
    assert np.median(accuracy) < 0.26 == fit([table], options)["params"]["lo"]["value"]


@pytest.mark.parametrize(
    ("law", "columns", "words"),
    [
        ("chinchilla", ["N", "D", "loss"], "or fit --law kaplan-d"),
        ("sigmoid", ["N", "loss"], "no column is known as loss on the task (X) or accuracy (Y)"),
    ],
)
def test_the_remedy_is_of_what_the_table_lacks(law, columns, words):
    table = pd.DataFrame({"N": 1e6, "D": np.geomspace(1e7, 1e9, 8), "loss": np.linspace(4, 3, 8)})
    with pytest.raises(ScalingError, match=re.escape(words)):
        fit([table[columns]], FitOptions(law=law))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoints": "all"}, "--checkpoints is for foreign tables"),
        ({"eval_set": "none"}, "known: none"),
        ({"cluster": "config"}, "known: at, batch_tokens, commit, d_ff"),
        ({"cluster": "sweep"}, "all runs are one group of 'sweep'"),
    ],
)
def test_options_that_a_results_folder_cannot_follow_are_rejected(options, words):
    with pytest.raises(ScalingError) as caught:
        fit([Path(__file__).parents[2] / "results" / "honest"], FitOptions(**options))
    assert words in str(caught.value)


def test_a_table_under_two_names_is_read_once(tmp_path):
    path, other = simulated(tmp_path / "runs.csv"), simulated(tmp_path / "copy.csv")
    for again in (path, other):
        with pytest.raises(ScalingError, match=rf"{again.name}: holds what .*runs.csv holds"):
            fit([path, again], FitOptions())


def test_intervals_that_few_draws_or_groups_make_are_warned_about(tmp_path):
    runs = pd.read_csv(simulated(tmp_path / "runs.csv")).assign(machine=["a", "b", "c"] * 14)
    options = FitOptions(law="chinchilla", bootstrap=5, cluster="machine", holdout="none")
    said = [each["message"] for each in fit([runs], options)["warnings"]]
    assert "5 resamples are too few for intervals of 95 %" in said
    assert any(each.startswith("'machine' has 3 groups") for each in said)
    isoflop = replace(options, approach="isoflop", cluster=None)
    assert "few_resamples" in {each["code"] for each in fit([runs], isoflop)["warnings"]}
    few = replace(options, bootstrap=20, cluster=None)
    assert not {"few_resamples", "few_prefixes"} & {
        each["code"] for each in fit([runs], few)["warnings"]
    }


def test_nothing_has_an_interval_where_every_parameter_is_fixed(tmp_path):
    fixed = ",".join(f"{name}={value}" for name, value in LAW.items())
    got = fit([simulated(tmp_path / "runs.csv")], FitOptions(fix=fixed, bootstrap=20))
    assert got["derived"]["a"]["value"] == pytest.approx(0.37 / 0.72)
    assert [got["derived"]["a"][end] for end in ("se", "lo", "hi")] == [None] * 3


def test_an_absurd_loss_is_left_out_of_a_combined_law_alone(tmp_path):
    runs = pd.read_csv(simulated(tmp_path / "runs.csv"))
    runs.loc[7, "loss"] = 1e6
    repeated = runs.assign(unique_tokens=runs["D"] / np.where(runs.index % 3, 1, 4))
    for table, law in ((runs, "auto"), (runs, "chinchilla"), (repeated, "auto")):
        got = fit([table], FitOptions(law=law, bootstrap=0, holdout="none"))
        (said,) = [each["message"] for each in got["warnings"] if each["code"] == "far_off_law"]
        is_combined = table is runs and law == "auto"
        assert ("combination" in got) is is_combined
        assert ("excluded from the combined law" in said) is is_combined
        assert "row 8 (loss 1e+06)" in said


def test_a_size_of_zero_is_not_compared():
    flat = Frontier(a=0.5, log_n=-np.inf, b=0.5, log_d=0.0)
    steep = Frontier(a=0.5, log_n=-1.0, b=0.5, log_d=0.0)
    one = np.array([1e18])
    both = {"parametric": FrontierEstimate(flat), "isoflop": FrontierEstimate(steep)}
    points = Points(loss=one, n=one, d=one, c=one)
    assert agreement(both, points, 0.95).verdict == "not-comparable"


def test_too_few_budgets_make_the_isoflop_approach_unavailable(tmp_path):
    path = simulated(tmp_path / "two.csv", budgets=2)
    with pytest.raises(ScalingError, match=r"two.csv: approach isoflop: 2 usable budgets"):
        fit([path], FitOptions(approach="isoflop", bootstrap=0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("params"), "'params' is missing"),
        (lambda d: d.update(schema=99), "schema 99"),
        (lambda d: d.update(warnings="none"), "warnings"),
        (lambda d: d["params"].update(A=3.0), "params.A"),
        (lambda d: d["params"]["A"].update(value="3"), "params.A"),
        (lambda d: d["bootstrap"]["draws"]["A"].pop(), "equally long"),
        (lambda d: d["data"].update(loss=["x"] * 42), "data.loss.0"),
    ],
)
def test_corrupt_documents_are_rejected(document, tmp_path, change, words):
    damaged = json.loads(json.dumps(document))
    change(damaged)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(damaged))
    with pytest.raises(ScalingError) as caught:
        load(path)
    assert words in str(caught.value)
    assert "bad.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 100_000, '{"schema": "x"}'])
def test_file_that_is_no_fit_is_rejected(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ScalingError, match=r"bad\.json"):
        load(tmp_path / "bad.json")
