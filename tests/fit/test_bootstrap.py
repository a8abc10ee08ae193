"""Bootstrap kinds and large tables: right where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulated_sweeps import DESIGNS, SURFACES, sweep, trials
from scaling.errors import ScalingError
from scaling.fit.bootstrap import LARGE, bootstrap
from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.fit.profile import profile
from scaling.points.points import Points

LAW = LAWS["chinchilla"]
CHINCHILLA = SURFACES[0]


def simulated(runs, seed=0):
    return sweep(CHINCHILLA, runs, np.random.default_rng(seed))


@pytest.mark.parametrize(("runs", "kind"), [(20, "residual"), (50, "residual"), (200, "pairs")])
def test_the_kind_follows_the_number_of_runs(runs, kind):
    points = simulated(runs)
    fitted = estimate(LAW, points)
    assert bootstrap(fitted, 20).kind == kind
    grouped = replace(points, group=np.repeat(np.arange(runs // 2), 2))
    assert bootstrap(estimate(LAW, grouped), 20).kind == "clusters"


@pytest.mark.parametrize("kind", ["residual", "pairs"])
def test_every_kind_agrees_on_many_runs(kind):
    points = simulated(200)
    fitted = estimate(LAW, points)
    spread = bootstrap(fitted, 300, kind=kind).theta.std(0)
    np.testing.assert_allclose(
        spread[3:], bootstrap(fitted, 300, seed=1, kind="pairs").theta.std(0)[3:], rtol=0.35
    )


def test_unknown_kind_is_rejected():
    points = simulated(20)
    with pytest.raises(ScalingError, match="pairs"):
        bootstrap(estimate(LAW, points), 20, kind="pair")
    with pytest.raises(ScalingError, match="no groups"):
        bootstrap(estimate(LAW, points), 20, kind="clusters")


@pytest.mark.slow
def test_intervals_of_few_runs_hold_the_truth_about_as_often_as_they_say():
    hits = list(trials(CHINCHILLA, 20, 40, 100, 0.9))
    assert 0.75 <= np.mean([hit["a"] for hit in hits]) <= 1.0
    assert set(DESIGNS) == {20, 50, 200}


def test_a_large_table_is_resampled_by_a_part_of_it():
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(1e7), np.log(1e10), LARGE + 5000))
    d = n * np.exp(rng.uniform(0, 5, len(n)))
    loss = np.exp(
        LAW.log_predict(LAW.theta(CHINCHILLA.values), {"N": n, "D": d})
        + 0.01 * rng.standard_normal(len(n))
    )
    points = Points(loss=loss, n=n, d=d, c=6 * n * d)
    fitted = estimate(LAW, points, "mse-log")
    draws = bootstrap(fitted, 100)
    assert "scaled to" in draws.kind
    rows = LAW.jacobian(fitted.theta, {"N": n, "D": d})
    exact = 0.01 * np.sqrt(np.diag(np.linalg.inv(rows.T @ rows)))
    np.testing.assert_allclose(draws.theta.std(0), exact, rtol=0.35)
    alpha = profile(fitted, 0.95)["alpha"]
    np.testing.assert_allclose((alpha.hi - alpha.lo) / 2, 1.96 * exact[3], rtol=0.2)
