"""Laws and objectives: gradients against differences, units, and every law recovered from its own
surface.
"""

import numpy as np
import pytest

from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import FARSEER_2025, LAWS
from scaling.fit.laws.objectives import OBJECTIVES
from scaling.points.points import Points

TRUTH = {
    "chinchilla": {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
    "chinchilla-tied": {"E": 1.8, "A": 300.0, "B": 900.0, "alpha": 0.33},
    "skaling": {"E": 1.1, "A": 60.0, "B": 90.0, "alpha": 0.5, "beta": 0.45, "k": 0.45},
    "skaling-tied": {"E": 1.1, "A": 60.0, "B": 90.0, "alpha": 0.5, "k": 0.45},
    "kaplan": {"alpha_N": 0.076, "alpha_D": 0.103, "N_c": 6.4e13, "D_c": 1.8e13},
    "kaplan-n": {"alpha_N": 0.076, "N_c": 8.8e13},
    "kaplan-d": {"alpha_D": 0.095, "D_c": 5.4e13},
    "kaplan-c": {"alpha_C": 0.05, "C_c": 3.1e8 * 8.64e19},
    "kaplan-ns": {"alpha_N": 0.077, "alpha_S": 0.76, "N_c": 6.5e13, "S_c": 2.1e3},
    "power": {"E": 1.5, "A": 30.0, "alpha": 0.08},
    "data-constrained": {
        "E": 1.87,
        "A": 521.0,
        "B": 1488.0,
        "alpha": 0.353,
        "beta": 0.353,
        "R_D": 15.4,
        "R_N": 5.3,
    },
    "overtraining": {"E": 1.8, "A": 200.0, "B": 190.0, "eta": 0.14},
    "bnsl": {"E": 1.2, "b": 900.0, "c0": 0.14, "c1": 0.25, "d": 3e18, "f": 0.4},
    "bnsl-n": {"E": 1.2, "b": 9.0, "c0": 0.08, "c1": 0.3, "d": 2e8, "f": 0.3},
    "bnsl-d": {"E": 0.4, "b": 40.0, "c0": 0.12, "c1": -0.09, "d": 3e9, "f": 0.2},
    "optimum": {"K": 0.09, "a": 0.497},
    "sigmoid": {"lo": 0.25, "span": 0.6, "k": 5.0, "X_0": 2.1},
    "farseer": FARSEER_2025,
}
TRADING = ("data-constrained", "farseer")


def surface(law, seed=0, noise=0.0, count=7):
    """A grid of runs around D = 20 N with the losses of a law; U is a tenth to all of D."""
    rng = np.random.default_rng(seed)
    n, ratio = (
        grid.ravel()
        for grid in np.meshgrid(np.geomspace(1e7, 3e9, count), np.geomspace(2, 300, count))
    )
    d = n * ratio
    others = {
        "X": rng.uniform(1.0, 4.0, len(n)),
        "U": d / rng.choice([1.0, 2.0, 8.0, 40.0], len(n)),
        "S": np.geomspace(1e3, 1e5, count)[rng.integers(0, count, len(n))],
    }
    points = Points(loss=np.ones(len(n)), n=n, d=d, c=6 * n * d, others=others)
    loss = np.exp(
        law.log_predict(law.theta(TRUTH[law.name]), points.inputs(law.inputs))
        + noise * rng.standard_normal(len(n))
    )
    return Points(loss=loss, n=n, d=d, c=6 * n * d, others=others)


@pytest.mark.parametrize("name", LAWS)
def test_every_law_has_a_truth_here_and_its_parameters_survive_the_round_trip(name):
    law = LAWS[name]
    theta = law.theta(TRUTH[name])
    assert {key: pytest.approx(value, rel=1e-9) for key, value in TRUTH[name].items()} == {
        k: float(v) for k, v in law.values(theta).items()
    }


@pytest.mark.parametrize("name", LAWS)
def test_gradients_equal_central_differences(name):
    law = LAWS[name]
    x, theta = surface(law).inputs(law.inputs), law.theta(TRUTH[name])
    exact = law.jacobian(theta, x)
    for j in range(len(theta)):
        step = np.zeros_like(theta)
        step[j] = 1e-6 * max(1.0, abs(theta[j]))
        rough = (law.log_predict(theta + step, x) - law.log_predict(theta - step, x)) / (
            2 * step[j]
        )
        np.testing.assert_allclose(exact[:, j], rough, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.startswith("bnsl"))
        for name in LAWS
        if name not in TRADING
    ],
)
def test_every_law_is_recovered_from_its_noiseless_surface(name):
    fitted = estimate(LAWS[name], surface(LAWS[name]))
    assert fitted.values == {
        key: pytest.approx(value, rel=1e-4) for key, value in TRUTH[name].items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", TRADING)
def test_a_surface_is_fitted_to_the_noise_floor_though_its_parameters_trade(name):
    law = LAWS[name]
    points = surface(law)
    fitted = estimate(law, points)
    residual = law.log_predict(fitted.theta, points.inputs(law.inputs)) - np.log(points.loss)
    assert np.abs(residual).max() < 2e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["chinchilla", "kaplan", "power"])
def test_every_objective_fits_noisy_surfaces(name, objective):
    law = LAWS[name]
    fitted = estimate(law, surface(law, noise=0.01), objective)
    assert fitted.starts.agree >= 2
    exponents = [param.name for param in law.params if param.grid]
    for key in exponents:
        assert fitted.values[key] == pytest.approx(TRUTH[name][key], rel=0.25)
