"""Training and serving: the published optimum, and the price of a smaller model."""

import json

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.fit.laws.published import PUBLISHED, published
from scaling.fit.pipeline import FitOptions
from scaling.predict.iso_loss import equal_loss, prices
from scaling.predict.law_source import load_law
from tests.documents import dump, fit, predict
from tests.fit.test_pipeline import simulated

DEVRIES = "published:devries2023"
# De Vries 2023: billions of parameters and tokens at the optimum, at half and at 0.3 of its size
TABLE = {
    2.21e19: (0.40, 9.22, 0.20, 22.28, 0.12, 63.20),
    1.62e20: (0.99, 27.20, 0.50, 65.70, 0.30, 186.35),
    2.46e22: (9.87, 415.53, 4.93, 1003.77, 2.96, 2847.27),
    1e23: (18.73, 889.63, 9.37, 2149.02, 5.62, 6095.86),
    1.71e24: (68.60, 4154.24, 34.30, 10035.16, 20.58, 28465.50),
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit of simulated runs with 200 draws."""
    folder = tmp_path_factory.mktemp("fits")
    dump(
        fit(
            [simulated(folder / "runs.csv")],
            FitOptions(law="chinchilla", bootstrap=200, holdout="none"),
        ),
        folder / "fit.json",
    )
    return str(folder / "fit.json")


def flops_of_13b():
    """The budget whose optimum has 13e9 parameters."""
    entry = published("devries2023").frontier()
    return float(np.exp((np.log(13e9) - entry.log_n) / entry.a))


@pytest.mark.parametrize("flops", TABLE)
def test_all_thirty_numbers_of_de_vries_to_their_digits(flops):
    rows = predict(DEVRIES, flops=flops, smaller="1,0.5,0.3")["smaller"]
    found = [value / 1e9 for row in rows for value in (row["n_params"], row["tokens"]["value"])]
    np.testing.assert_allclose(found, TABLE[flops], rtol=0, atol=0.00501)
    assert rows[0]["extra_compute_percent"]["value"] == pytest.approx(0, abs=1e-9)


def test_overhead_of_a_smaller_model_depends_on_exponents_alone():
    """De Vries: k_D = (1 - (k_N^-alpha - 1) beta / alpha)^(-1/beta), whatever the budget."""
    alpha, beta = PUBLISHED["devries2023"].values["alpha"], PUBLISHED["devries2023"].values["beta"]
    tokens = (1 - (0.5**-alpha - 1) * beta / alpha) ** (-1 / beta)
    for flops in (1e19, 1e25):
        row = predict(DEVRIES, flops=flops, smaller=0.5)["smaller"][0]
        assert row["extra_compute_percent"]["value"] == pytest.approx(
            100 * (0.5 * tokens - 1), rel=1e-9
        )


def test_a_smaller_model_of_ones_own_fit_has_an_interval_and_the_same_loss(fitted):
    found = predict(fitted, flops=1e21, smaller="0.7,0.5")
    for row in found["smaller"]:
        again = predict(fitted, n_params=row["n_params"], tokens=row["tokens"]["value"])
        assert again["loss"]["value"] == pytest.approx(found["loss"]["value"], rel=1e-9)
        assert again["flops"]["value"] == pytest.approx(row["flops"]["value"], rel=1e-9)
        assert (
            row["extra_compute_percent"]["lo"]
            < row["extra_compute_percent"]["value"]
            < row["extra_compute_percent"]["hi"]
        )
    json.dumps(found, allow_nan=False)


def test_draws_that_cannot_reach_the_loss_leave_the_interval_open(fitted):
    known = load_law(fitted)
    n, d = float(known.optimum.n_star(1e21)), float(known.optimum.d_star(1e21))
    critical = float(equal_loss(known.law, known.values, n, d).critical / n)
    row = prices(known, n, d, [critical * 1.0001], 1e21)[0]
    assert row.tokens.value > 10 * d
    assert row.tokens.lo is not None
    assert row.tokens.hi is None
    with pytest.raises(ScalingError, match="cannot reach this loss"):
        prices(known, n, d, [critical * 0.99], 1e21)


def test_kaplans_law_has_equal_losses_too():
    base = predict("published:kaplan2020", n_params="1B", tokens="22B", smaller=0.9)
    row = base["smaller"][0]
    again = predict("published:kaplan2020", n_params=row["n_params"], tokens=row["tokens"]["value"])
    assert again["loss"]["value"] == pytest.approx(base["loss"]["value"], rel=1e-9)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0.05", "the critical size is 1.82B"),
        ("x", "'x' is not a fraction"),
        ("1.5", "'1.5'"),
        ("0.5,", "''"),
    ],
)
def test_invalid_or_too_small_sizes_are_rejected(given, words):
    with pytest.raises(ScalingError) as caught:
        predict(DEVRIES, flops=1e23, smaller=given)
    assert words in str(caught.value)


@pytest.mark.parametrize("question", [{"smaller": 0.5}, {"inference_tokens": "1T"}])
def test_laws_without_equal_losses_are_rejected(question):
    with pytest.raises(ScalingError, match="does not say which N and D"):
        predict("published:porian2024", flops=1e18, **question)
    with pytest.raises(ScalingError, match="names no N and D"):
        predict("published:kaplan2020-n", n_params="1B", **question)


def test_no_demand_is_the_chinchilla_point():
    found = predict(DEVRIES, flops=flops_of_13b(), inference_tokens=0)["inference"]
    assert found["n_params"] == pytest.approx(13e9, rel=1e-6)
    assert found["saved_fraction"] == pytest.approx(0, abs=1e-9)


def test_two_trillion_served_tokens_halve_the_13b():
    found = predict(DEVRIES, flops=flops_of_13b(), inference_tokens="2T")["inference"]
    assert found["n_params"] == pytest.approx(6.97e9, rel=0.003)
    assert found["flops_saved"] == pytest.approx(1.70e22, rel=0.01)


@pytest.mark.parametrize("question", [{"inference_tokens": "1T"}, {"smaller": "0.5"}])
def test_law_without_an_optimum_has_no_serving_answer(question):
    """Kaplan's N*(C) at a loss of 1e9 nats is 0 parameters."""
    with pytest.raises(ScalingError, match="outside the law's range"):
        predict("published:kaplan2020", loss=1e9, **question)
