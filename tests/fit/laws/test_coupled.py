"""The coupled law L = E + (A/N^alpha + B/D^beta)^k: values, fit, frontier, and what the data do not
identify.
"""

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.fit.estimate import estimate
from scaling.fit.frontier.frontier import Cost
from scaling.fit.laws.laws import LAWS
from scaling.fit.profile import profile
from scaling.points.points import Points

TRUE = {
    "skaling": {"E": 1.0, "A": 50.0, "B": 200.0, "alpha": 0.5, "beta": 0.55, "k": 0.4},
    "skaling-tied": {"E": 1.0, "A": 50.0, "B": 100.0, "alpha": 0.5, "k": 0.45},
}


def runs(law: str, noise: float = 0.0, count: int = 60) -> Points:
    random = np.random.default_rng(0)
    n, d = 10 ** random.uniform(7, 10, count), 10 ** random.uniform(9, 11.5, count)
    v = TRUE[law]
    beta = v.get("beta", v["alpha"])
    loss = v["E"] + (v["A"] / n ** v["alpha"] + v["B"] / d**beta) ** v["k"]
    return Points(loss=loss * np.exp(random.normal(0, noise, count)), n=n, d=d, c=6 * n * d)


@pytest.mark.parametrize("law", TRUE)
def test_exact_losses_give_back_the_parameters(law: str) -> None:
    fit = estimate(LAWS[law], runs(law))
    assert fit.status == "ok"
    assert fit.values == pytest.approx(TRUE[law], rel=1e-6)


def test_k_of_one_is_chinchilla() -> None:
    points = runs("skaling")
    values = {**TRUE["skaling"], "k": 1.0}
    logs = [
        LAWS[law].log_predict(LAWS[law].theta(values), points.inputs("ND"))
        for law in ("skaling", "chinchilla")
    ]
    np.testing.assert_allclose(*logs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("law", TRUE)
def test_frontier_is_the_minimum_at_fixed_compute(law: str) -> None:
    optimum = LAWS[law].frontier(TRUE[law], Cost())
    flops = 1e22
    n = optimum.n_star(flops) * np.exp(np.linspace(-0.5, 0.5, 2001))
    theta = LAWS[law].theta(TRUE[law])
    loss = np.exp(LAWS[law].log_predict(theta, {"N": n, "D": flops / (6 * n)}))
    assert n[loss.argmin()] == pytest.approx(float(optimum.n_star(flops)), rel=1e-3)
    assert optimum.loss(flops) == pytest.approx(loss.min(), rel=1e-9)


def test_noisy_runs_do_not_identify_k_and_the_profile_says_so() -> None:
    points = runs("skaling", noise=0.005)
    profiles = profile(estimate(LAWS["skaling"], points))
    assert not profiles["k"].identified
    assert profiles["k"].lo is None or profiles["k"].lo < TRUE["skaling"]["k"]
    assert profiles["k"].hi is None or profiles["k"].hi > TRUE["skaling"]["k"]


def test_profile_holds_a_reported_exponent_and_not_its_product_with_k() -> None:
    points = runs("skaling-tied", noise=0.005)
    each = profile(estimate(LAWS["skaling-tied"], points))["alpha"]
    assert each.identified
    assert each.lo < TRUE["skaling-tied"]["alpha"] < each.hi


def test_fixing_k_is_allowed_and_fixing_alpha_without_k_is_not() -> None:
    points = runs("skaling")
    fixed = estimate(LAWS["skaling"], points, fixed={"k": 0.4})
    assert fixed.values["alpha"] == pytest.approx(0.5, rel=1e-6)
    with pytest.raises(ScalingError, match="k is free"):
        estimate(LAWS["skaling"], points, fixed={"alpha": 0.5})
