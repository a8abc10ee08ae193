"""Few runs: the answer of least squares, the same in every unit; zeros where a law allows them."""

import numpy as np
import pandas as pd
import pytest

from scaling.errors import ScalingError
from scaling.fit import pipeline
from scaling.fit.bootstrap import fit_law
from scaling.fit.dataset import Dataset
from scaling.fit.estimate import DELTA, estimate
from scaling.fit.fit_options import FitOptions
from scaling.fit.laws.laws import LAWS
from scaling.fit.profile import profile
from scaling.points.points import Points
from tests.documents import fit

SIZES = np.array([1e7, 3.16228e7, 1e8, 3.16228e8, 1e9])
LOSSES = np.array([3.41, 3.0787, 2.8519, 2.6002, 2.3625])
BUDGETS = np.array([1e18, 3e18, 1e19, 3e19, 1e20, 3e20])
OPTIMA = np.array([9.1e7, 1.9e8, 2.8e8, 6.2e8, 8.8e8, 1.95e9])


def line(x, y):
    """Slope and its standard error by ordinary least squares in logs."""
    design = np.stack([np.log(x) - np.log(x).mean(), np.ones(len(x))], 1)
    (slope, _), squares, *_ = np.linalg.lstsq(design, np.log(y), rcond=None)
    return slope, float(np.sqrt(squares[0] / (len(x) - 2) / (design[:, 0] @ design[:, 0])))


def fitted(law, points, **options):
    options = FitOptions(law=law, bootstrap=400, **options)
    return fit_law(Dataset(points), LAWS[law], options)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e3])
def test_five_sizes_give_the_exponent_of_least_squares_in_any_unit(unit):
    law_fit = fitted("kaplan-n", Points(LOSSES, n=SIZES * unit))
    slope, error = line(SIZES, LOSSES)
    alpha = law_fit.params(0.95)["alpha_N"]
    assert alpha.value == pytest.approx(-slope, abs=1e-6) == pytest.approx(0.0784, abs=5e-5)
    assert alpha.se == pytest.approx(error, rel=0.1) == pytest.approx(0.0018, rel=0.1)
    assert law_fit.status == "ok"
    assert all(each.identified for each in profile(law_fit).values())


@pytest.mark.parametrize("flops_unit", [1e-18, 1.0, 1e20])
@pytest.mark.parametrize("size_unit", [1e-9, 1.0, 1e6])
def test_six_optima_are_judged_at_their_centre(flops_unit, size_unit):
    points = Points(OPTIMA * size_unit, c=BUDGETS * flops_unit)
    law_fit = fitted("optimum", points)
    slope, error = line(BUDGETS, OPTIMA)
    a = law_fit.params(0.95)["a"]
    assert a.value == pytest.approx(slope, abs=1e-6)
    assert a.se == pytest.approx(error, rel=0.15)
    assert law_fit.status == "ok"
    assert all(each.identified for each in profile(law_fit).values())
    with_a = fitted("optimum", points, fix="a=0.5")
    k = np.exp(np.mean(np.log(OPTIMA) - 0.5 * np.log(BUDGETS))) * size_unit / flops_unit**0.5
    assert with_a.values["K"] == pytest.approx(k, rel=1e-6)
    assert (with_a.status, len(with_a.draws.theta)) == ("ok", 400)


@pytest.mark.parametrize(
    ("law", "letter", "params"),
    [
        ("kaplan-n", "N", {"alpha_N": 0.05, "N_c": 1e30}),
        ("kaplan-d", "D", {"alpha_D": 0.05, "D_c": 1e30}),
        ("kaplan-c", "C", {"alpha_C": 0.05, "C_c": 1e30}),
        ("power", "C", {"E": 2.0, "A": 1e4, "alpha": 0.2}),
    ],
)
@pytest.mark.parametrize(
    "runs", [4, *(pytest.param(runs, marks=pytest.mark.slow) for runs in (5, 8))]
)
def test_laws_of_one_variable_fit_few_noisy_runs(law, letter, params, runs):
    x, exponent = np.geomspace(1e18, 1e21, runs), next(name for name in params if "alpha" in name)
    clean, values = LAWS[law].log_predict(LAWS[law].theta(params), {letter: x}), []
    for seed in range(10):
        loss = np.exp(clean + 0.01 * np.random.default_rng(seed).standard_normal(runs))
        each = estimate(LAWS[law], Points(loss, **{letter.lower(): x}), delta=None)
        assert each.status == "ok"
        values.append(each.values[exponent])
    assert np.mean(values) == pytest.approx(params[exponent], rel=0.1)


def test_delta_widens_where_few_runs_lie_within_it_and_only_there():
    grid = np.meshgrid(np.geomspace(1e7, 1e9, 20), np.geomspace(1e9, 1e11, 20))
    n, d = (axis.ravel() for axis in grid)
    noise = np.random.default_rng(0).standard_normal(len(n))
    loss = (1.7 + 420 / n**0.34 + 650 / d**0.3) * np.exp(0.01 * noise)
    many, few = Points(loss, n, d, 6 * n * d), np.arange(0, 400, 13)
    assert estimate(LAWS["chinchilla"], many, delta=None).delta == DELTA
    wide = estimate(LAWS["chinchilla"], many.take(few), delta=None)
    assert wide.delta == pytest.approx(0.02, rel=0.5)
    assert estimate(LAWS["chinchilla"], many.take(few)).delta == DELTA
    assert estimate(LAWS["chinchilla"], many.take(few), delta=0.5).delta == 0.5


def accuracies():
    loss = np.linspace(1.8, 4.8, 25)
    return loss, np.round(0.8 / (1 + np.exp(6 * (loss - 2.6))), 2)


def test_accuracies_of_zero_are_fitted():
    loss, accuracy = accuracies()
    assert (accuracy == 0).sum() > 5
    stage = fitted("sigmoid", Points(accuracy, others={"X": loss}))
    assert stage.objective == "mse"
    for name, value in {"lo": 0.0, "span": 0.8, "k": 6.0, "X_0": 2.6}.items():
        assert stage.values[name] == pytest.approx(value, rel=0.02, abs=2e-3)
        interval = stage.params(0.95)[name]
        assert interval.lo <= stage.values[name] <= interval.hi
    with pytest.raises(ScalingError, match="loss is not finite and positive"):
        fitted("sigmoid", Points(accuracy, others={"X": loss}), objective="huber-log")
    with pytest.raises(ScalingError, match="loss is not finite and positive"):
        fitted("kaplan-n", Points(accuracy, n=loss))


def test_the_second_stage_takes_zeros_and_a_weight_of_zero():
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(2e7, 2e9, 5), np.geomspace(4e8, 4e10, 5)))
    loss = 1.7 + 420 / n**0.34 + 650 / d**0.3
    accuracy = np.round(0.8 / (1 + np.exp(6 * (loss - 2.6))), 2)
    weight = np.where(np.arange(25) == 3, 0.0, 1.0)
    loss[3] = 9.0
    table = pd.DataFrame({"n": n, "d": d, "loss": loss, "accuracy": accuracy, "w": weight})
    columns = "N=n,D=d,L=loss,Y=accuracy,W=w"
    document = fit([table], FitOptions(law="two-stage", columns=columns, bootstrap=20))
    assert document["n_points"] == 24
    assert document["excluded"] == [{"reason": "weight 0", "count": 1}]
    assert document["params"]["alpha"]["value"] == pytest.approx(0.34, rel=1e-3)
    assert document["accuracy"]["params"]["X_0"]["value"] == pytest.approx(2.6, rel=0.01)


def test_the_status_names_what_is_open_and_its_standard_error_is_left_out():
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e8, 4), np.geomspace(1e9, 1e10, 4)))
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(16))
    table = pd.DataFrame({"N": n, "D": d, "loss": (1.7 + 420 / n**0.34 + 650 / d**0.3) * noise})
    result = pipeline.fit([table], FitOptions(law="chinchilla", bootstrap=50, holdout="none"))
    assert result.status_text == "not identified: E"
    assert {name for name, each in result.params.items() if each.se is None} == {"E"}


def test_information_criteria_prefer_the_law_that_made_the_runs():
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e10, 8), np.geomspace(1e9, 1e12, 8)))
    noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(64))
    points = Points((1.7 + 420 / n**0.4 + 650 / d**0.25) * noise, n, d, 6 * n * d)
    fits = {law: fitted(law, points) for law in ("chinchilla", "chinchilla-tied", "kaplan")}
    goodness = {law: each.goodness() for law, each in fits.items()}
    for name in ("aic", "bic"):
        criteria = {law: getattr(each, name) for law, each in goodness.items()}
        assert min(criteria, key=criteria.get) == "chinchilla"
    residuals = fits["chinchilla"].residuals
    squares = float(residuals @ residuals)
    likelihood = -32 * (np.log(2 * np.pi * squares / 64) + 1)
    assert goodness["chinchilla"].aic == pytest.approx(2 * 6 - 2 * likelihood)
    assert goodness["chinchilla"].rmse_percent == pytest.approx(0.2, rel=0.2)
    assert goodness["chinchilla"].r2_excess > 0.999
    assert goodness["chinchilla"].correlation["A"]["alpha"] > 0.95
    assert goodness["chinchilla"].correlation["alpha"]["alpha"] == pytest.approx(1)


def test_only_the_ratio_of_weights_matters():
    weight, answers = np.array([1.0, 2.0, 1.0, 3.0, 1.0]), []
    for scale in (1.0, 1e4):
        law_fit = fitted("kaplan-n", Points(LOSSES, n=SIZES, weight=weight * scale))
        interval = profile(law_fit)["alpha_N"]
        answers.append((law_fit.values["alpha_N"], law_fit.noise.sd, interval.lo, interval.hi))
    assert answers[0] == pytest.approx(answers[1], rel=1e-6)
    centred = np.log(SIZES) - np.average(np.log(SIZES), weights=weight)
    slope = np.average(centred * np.log(LOSSES), weights=weight) / np.average(
        centred**2, weights=weight
    )
    assert answers[0][0] == pytest.approx(-slope, abs=1e-5)


@pytest.mark.parametrize("law", ["chinchilla", "kaplan", "skaling"])
def test_units_of_loss_and_inputs_change_neither_exponents_nor_verdicts(law):
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    noise = np.exp(0.003 * np.random.default_rng(1).standard_normal(36))
    loss, fits = (1.7 + 420 / n**0.34 + 650 / d**0.3) * noise, []
    for unit, loss_unit in ((1.0, 1.0), (1e-6, 1e-3), (1e3, 1e3)):
        points = Points(loss * loss_unit, n=n * unit, d=d * unit, c=6 * n * d * unit**2)
        fits.append(estimate(LAWS[law], points, delta=None))
    exponents = [
        [value for name, value in each.values.items() if "a" in name or name == "k"]
        for each in fits
    ]
    verdicts = [{name: one.identified for name, one in profile(each).items()} for each in fits]
    for other, verdict in zip(exponents[1:], verdicts[1:], strict=True):
        assert other == pytest.approx(exponents[0], rel=1e-6)
        assert verdict == verdicts[0]
    assert {each.status for each in fits} == {"ok"}
