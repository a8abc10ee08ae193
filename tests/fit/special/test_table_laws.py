"""Coverage, annealing, two-stage accuracy and the critical batch: recovered from simulated tables,
rejected where they cannot be known.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit.fit_options import TABLE_LAWS, FitOptions
from scaling.fit.laws.laws import LAWS
from scaling.fit.special.annealing import NAMES, Curve, fit_annealing, goodness, predict_curve
from scaling.fit.special.critical_batch import critical_batch, least_steps
from scaling.fit.special.pass_at_k import beta_binomial, expected_coverage, fit_coverage
from scaling.fit.special.table_laws import SPECIAL
from scaling.tasks.answer_metrics import pass_at_k
from tests.documents import dump, fit, predict
from tests.fit.test_pipeline import simulated

SCHEDULE = {"L0": 2.7, "A": 0.6, "alpha": 0.45, "B": 450.0, "C": 2.0, "beta": 0.6, "gamma": 0.65}


def schedules():
    """A constant, a cosine and a two-stage schedule of the multi-power law, without noise."""
    step = np.arange(1000.0, 20001.0, 100.0)
    share = (step - step[0]) / np.ptp(step)
    rates = {
        "constant": 3e-4 + 0 * step,
        "cosine": 3e-5 + 2.7e-4 * (1 + np.cos(np.pi * share)) / 2,
        "two": np.where(share < 0.5, 3e-4, 6e-5),
    }
    return [Curve(name, step, lr, predict_curve(SCHEDULE, step, lr)) for name, lr in rates.items()]


def test_pass_at_k_is_the_chance_that_one_of_k_is_right():
    got = pass_at_k(np.array([4, 4, 4]), np.array([0, 1, 4]), np.array([1, 2, 4, 5]))
    np.testing.assert_allclose(
        got, [[0, 0, 0, np.nan], [0.25, 0.5, 1, np.nan], [1, 1, 1, np.nan]], atol=1e-12
    )


def test_beta_binomial_and_the_line_are_recovered():
    rng = np.random.default_rng(0)
    rates = rng.beta(0.3, 12.0, 400)
    n = np.full(400, 10_000)
    right = rng.binomial(n, rates)
    np.testing.assert_allclose(beta_binomial(n, right), (0.3, 12.0), rtol=0.2)
    with pytest.raises(ScalingError, match="the same success rate"):
        beta_binomial(n, np.zeros(400, int))
    fitted = fit_coverage("m", n, right, 200)
    assert abs(fitted.beta_binomial.b / fitted.b.value - 1) < 0.05
    assert fitted.b.lo < fitted.b.value < fitted.b.hi
    expected = [0.3 / 12.3, 1 - 12.0 / 12.3 * 13.0 / 13.3]
    np.testing.assert_allclose(expected_coverage(0.3, 12.0, np.array([1, 2])), expected)


@pytest.mark.slow
def test_schedules_are_recovered_and_a_new_one_is_predicted():
    constant, cosine, two = schedules()
    values, objective, _ = fit_annealing([constant, cosine, two])
    assert objective < 1e-8
    step = cosine.step
    lr = np.where(step < 15000, 3e-4, 3e-4 - 2.7e-4 * (step - 15000) / 5000)
    new = Curve("wsd", step, lr, predict_curve(SCHEDULE, step, lr))
    assert goodness([new], values).mae < 1e-3


@pytest.mark.parametrize("first", [0, 1000])
def test_a_learning_rate_of_zero_at_the_start_and_end_is_fitted(first):
    step = np.linspace(first, 24000, 41)
    share = step / 24000
    warmup = 3e-4 * np.minimum(1, share / 0.05)
    cosine, wsd = (1 + np.cos(np.pi * share)) / 2, np.minimum(1, (1 - share) / 0.3)
    curves = []
    for name, lr in (("cosine", warmup * cosine), ("wsd", warmup * wsd)):
        loss = np.minimum(predict_curve(SCHEDULE, step, lr), 10.8)
        curves.append(Curve(name, step, lr, loss))
    assert curves[0].lr[-1] == 0
    values, *_ = fit_annealing(curves)
    for name in ("L0", "A", "alpha"):
        assert values[name] == pytest.approx(SCHEDULE[name], rel=1e-3)
    assert goodness(curves, values).mae < 1e-3


@pytest.mark.parametrize("names", [["constant"], ["constant", "constant"]])
def test_uninformative_curves_are_rejected(names):
    by_name = {curve.name: curve for curve in schedules()}
    with pytest.raises(ScalingError, match=r"at least 2 curves|no curve decays"):
        fit_annealing([by_name[name] for name in names])


@pytest.mark.slow
def test_annealing_as_a_command(tmp_path):
    for curve in schedules():
        rows = "".join(
            f"{s!r},{lr!r},{loss!r}\n"
            for s, lr, loss in zip(
                curve.step.tolist(), curve.lr.tolist(), curve.loss.tolist(), strict=True
            )
        )
        (tmp_path / f"{curve.name}.csv").write_text("step,lr,loss\n" + rows)
    got = fit([tmp_path], FitOptions(law="lr-annealing", holdout="two"))
    assert set(got["params"]) == set(NAMES)
    assert [row["name"] for row in got["schedules"] if row["held_out"]] == ["two"]
    with pytest.raises(ScalingError, match="no curve is named 'tow'"):
        fit([tmp_path], FitOptions(law="lr-annealing", holdout="tow"))


@pytest.mark.parametrize("law", ["coverage", "lr-annealing"])
def test_a_results_folder_is_no_table_of_counts_or_curves(law):
    folder = Path(__file__).parents[3] / "results" / "honest"
    with pytest.raises(ScalingError, match=r"results/honest: rows of this program hold no \w+ and"):
        fit([folder], FitOptions(law=law))


def test_too_few_curves_to_hold_one_out_are_warned_about():
    tables = [
        pd.DataFrame({"step": each.step, "lr": each.lr, "loss": each.loss, "run": each.name})
        for each in schedules()[-2:]
    ]
    for holdout, warned in ((None, True), ("5", True), ("none", False)):
        options = FitOptions(law="lr-annealing", holdout=holdout)
        codes = [each["code"] for each in fit(tables, options)["warnings"]]
        assert ("no_holdout" in codes) is warned, holdout


def test_options_that_table_laws_cannot_follow_are_rejected(tmp_path):
    assert set(SPECIAL) == set(TABLE_LAWS)
    path = tmp_path / "counts.csv"
    path.write_text("problem,n,c\n1,10,1\n")
    with pytest.raises(ScalingError, match="--columns, --fix means nothing to the law coverage"):
        fit([path], FitOptions(law="coverage", columns="L=c", fix="a=1"))


def test_coverage_as_a_command(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text(
        "model,problem,n,c\n" + "".join(f"a,{i},1000,{i}\nb,{i},1000,{3 * i}\n" for i in range(30))
    )
    got = fit([path], FitOptions(law="coverage", bootstrap=50))
    assert set(got["params"]) == {"a[a]", "b[a]", "a[b]", "b[b]"}
    assert not got["warnings"]
    few = fit([path], FitOptions(law="coverage", bootstrap=3))["warnings"]
    assert [each["message"] for each in few] == ["3 resamples are too few for intervals of 95 %"]
    assert (
        fit([path], FitOptions(law="coverage", where="model == 'a'", bootstrap=50))["params"]["b"]
        == got["params"]["b[a]"]
    )
    path.write_text("problem,n,c\n1,10,11\n")
    with pytest.raises(ScalingError, match="11 right of 10"):
        fit([path], FitOptions(law="coverage"))


def test_two_stages_predict_accuracy(tmp_path):
    path = simulated(tmp_path / "runs.csv")
    header, *rows = path.read_text().splitlines()
    rng = np.random.default_rng(1)
    loss = np.array([float(row.split(",")[2]) for row in rows])
    accuracy = 0.25 + 0.6 / (1 + np.exp(5 * (loss - 2.5))) + rng.normal(0, 0.005, len(rows))
    lines = [f"{row},{value!r}" for row, value in zip(rows, accuracy.tolist(), strict=True)]
    path.write_text("\n".join([header + ",acc", *lines]) + "\n")
    got = fit(
        [path],
        FitOptions(law="two-stage", columns="N=N,D=D,L=loss,Y=acc", bootstrap=100, holdout="none"),
    )
    assert got["accuracy"]["r2"] > 0.99
    for name, value in {"lo": 0.25, "span": 0.6, "k": 5.0, "X_0": 2.5}.items():
        entry = got["accuracy"]["params"][name]
        assert abs(entry["value"] - value) < 5 * entry["se"] + 1e-3
    dump(got, tmp_path / "fit.json")
    fitted = predict(str(tmp_path / "fit.json"), flops=1e22)
    truth = 0.25 + 0.6 / (1 + np.exp(5 * (fitted["loss"]["value"] - 2.5)))
    assert fitted["accuracy"]["lo"] <= fitted["accuracy"]["value"] <= fitted["accuracy"]["hi"]
    assert abs(fitted["accuracy"]["value"] - truth) < 0.02


def test_kaplan_ns_is_recovered_through_the_critical_batch(tmp_path):
    rng = np.random.default_rng(0)
    n, least = (
        np.exp(rng.uniform(np.log(1e6), np.log(1e9), 80)),
        np.exp(rng.uniform(np.log(3e3), np.log(2e5), 80)),
    )
    truth = {"alpha_N": 0.077, "alpha_S": 0.76, "N_c": 6.5e13, "S_c": 2.1e3}
    loss = np.exp(
        LAWS["kaplan-ns"].log_predict(LAWS["kaplan-ns"].theta(truth), {"N": n, "S": least})
    )
    batch = rng.choice([2.0**16, 2.0**18, 2.0**20], 80)
    steps = least * (1 + critical_batch(loss) / batch)
    np.testing.assert_allclose(least_steps(steps, batch, loss), least)
    path = tmp_path / "runs.csv"
    columns = [values.tolist() for values in (n, steps, batch, loss)]
    path.write_text(
        "n,steps,batch,loss\n"
        + "".join(",".join(map(repr, row)) + "\n" for row in zip(*columns, strict=True))
    )
    got = fit(
        [path],
        FitOptions(
            law="kaplan-ns", columns="N=n,S=steps,B=batch,L=loss", bootstrap=0, holdout="none"
        ),
    )
    assert {name: got["params"][name]["value"] for name in truth} == {
        name: pytest.approx(value, rel=1e-4) for name, value in truth.items()
    }
    assert any("B_crit" in note for note in got["source"]["notes"])
