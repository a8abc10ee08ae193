"""Approach 2: certified exponents, its known bias, its intervals, and every reason to refuse."""

import csv
import json
from itertools import groupby

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.fit.frontier.budgets import budgets
from scaling.fit.frontier.frontier import Cost, fit_power
from scaling.fit.frontier.isoflop import grid_bias, isoflop
from scaling.fit.laws.laws import LAWS
from scaling.fit.result import MinimumFault
from scaling.points.points import Points

TRUTH = {"E": 2.69, "A": 1606.4, "B": 3210.7, "alpha": 0.34, "beta": 0.36}

CHINCHILLA = LAWS["chinchilla"]


def surface(n, d, e=1.69, a=406.4, b=410.7, alpha=0.34, beta=0.28):
    return e + a * n**-alpha + b * d**-beta


def grid(reach, exponents=(0.34, 0.28), off=lambda k: 1.0):
    """Fifteen sizes on a +-reach grid at five budgets, centred `off` times too high in tokens."""
    alpha, beta = exponents
    truth = LAWS["chinchilla"].frontier(
        {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": alpha, "beta": beta}, Cost()
    )
    c = np.repeat(np.logspace(17, 21, 5), 15)
    centre = np.array([float(truth.n_star(x)) for x in c]) / np.repeat(
        [off(k) for k in range(5)], 15
    )
    n = centre * np.tile(np.exp(np.linspace(-np.log(reach), np.log(reach), 15)), 5)
    d = c / (6 * n)
    return Points(surface(n, d, alpha=alpha, beta=beta), n, d, c), truth


@pytest.fixture
def cs336(shared_data):
    runs = json.loads((shared_data / "cs336" / "isoflops_curves.json").read_text())
    n, c, loss = (
        np.array([run[name] for run in runs], float)
        for name in ("parameters", "compute_budget", "final_loss")
    )
    return Points(loss, n, c / (6 * n), c)


def test_parabola_on_noise_free_runs(cs336):
    estimate = isoflop(cs336, resamples=200)
    assert len(estimate.minima) == 9
    assert abs(estimate.frontier.a - 0.5146) < 5e-5
    np.testing.assert_allclose(estimate.frontier.n_star(1e23), 9.11e10, rtol=1e-3)
    np.testing.assert_allclose(estimate.frontier.a + estimate.frontier.b, 1, atol=1e-9)
    assert (
        np.quantile(estimate.draws.a, 0.025)
        < estimate.frontier.a
        < np.quantile(estimate.draws.a, 0.975)
    )


def test_grid_bias_is_what_the_parabola_misses(cs336):
    estimate, truth = isoflop(cs336, resamples=0), LAWS["chinchilla"].frontier(TRUTH, Cost())
    off = 100 * float(estimate.frontier.n_star(3e21) / truth.n_star(3e21) - 1)
    said = grid_bias(cs336, CHINCHILLA, CHINCHILLA.theta(TRUTH), Cost())
    assert said.data["a"] == pytest.approx(float(estimate.frontier.a - truth.a), abs=1e-8)
    assert said.data["n_star"] == pytest.approx(off / 100, abs=1e-6)
    assert grid_bias(cs336, LAWS["kaplan"], np.zeros(4), Cost()) is None


@pytest.mark.parametrize(
    ("exponents", "reach", "off", "error"),
    [
        ((0.34, 0.28), 2, lambda k: 1.0, -0.33),
        ((0.34, 0.28), 16, lambda k: 1.0, -5.10),
        ((0.465, 0.155), 8, lambda k: 1.0, -13.91),
        ((0.34, 0.28), 4, lambda k: 3.0, 5.69),
        ((0.465, 0.155), 16, lambda k: 3.0 ** (k / 4), 14.00),
    ],
)
def test_certified_bias_of_grids(exponents, reach, off, error):
    points, truth = grid(reach, exponents, off)
    optimum = isoflop(points, resamples=0).frontier
    assert abs(100 * float(optimum.d_star(1e24) / truth.d_star(1e24) - 1) - error) < 0.02


@pytest.mark.slow
def test_akima_reaches_published_exponents(shared_data):
    with open(shared_data / "porian2024" / "isoflop_points.csv") as handle:
        runs = list(csv.DictReader(handle))
    with open(shared_data / "porian2024" / "optimal_pairs.csv") as handle:
        std = {
            (row["config"], f"{float(row['flops']):.3g}"): float(row["n_star_std"])
            for row in csv.DictReader(handle)
            if row["n_star"]
        }
    with open(shared_data / "porian2024" / "published_fits.csv") as handle:
        published = {row["config"]: float(row["n_exponent"]) for row in csv.DictReader(handle)}
    for config, group in groupby(runs, lambda row: row["config"]):
        n, d, c, loss = np.array(
            [[float(row[name]) for name in ("params", "tokens", "flops", "loss")] for row in group]
        ).T
        minima = [
            m
            for m in isoflop(Points(loss, n, d, c), "akima").minima
            if m.unavailable is None and (config, f"{m.flops:.3g}") in std
        ]
        weights = np.array([std[config, f"{m.flops:.3g}"] for m in minima])
        exponent, _ = fit_power(
            np.log([m.flops for m in minima]), np.log([m.n_star for m in minima]), weights
        )
        assert abs(exponent - published[config]) < 0.004, config


@pytest.mark.parametrize("method", ["parabola", "akima"])
def test_methods_agree_on_a_smooth_narrow_curve(method):
    points, truth = grid(2)
    optimum = isoflop(points, method, resamples=0).frontier
    np.testing.assert_allclose(optimum.n_star(1e21), truth.n_star(1e21), rtol=0.02)


def test_unknown_method_is_rejected():
    with pytest.raises(ScalingError, match="parabola"):
        isoflop(grid(2)[0], "parabla")


def test_unavailable_approach_has_a_reason():
    points, _ = grid(4)
    lowest = points.c < 2e17
    edge = points.take(~lowest | (points.n < np.sort(points.n[lowest])[5]))
    assert isoflop(edge, resamples=0).minima[0].unavailable is MinimumFault.ABOVE_SIZES
    upside_down = Points(
        np.where(lowest, 20 - points.loss, points.loss), points.n, points.d, points.c
    )
    assert isoflop(upside_down, resamples=0).minima[0].unavailable is MinimumFault.NOT_CONVEX
    two = isoflop(points.take(points.c < 2e18), resamples=100)
    assert two.frontier is None
    assert "2 usable budgets" in two.unavailable
    assert (
        isoflop(Points(points.loss, points.n, points.d)).unavailable == "the table lacks N, D or C"
    )


def test_budgets_of_read_off_data(shared_data):
    with open(shared_data / "epoch_chinchilla" / "svg_extracted_data.csv") as handle:
        rows = list(csv.DictReader(handle))
    n, c = (
        np.array([float(row[name]) for row in rows]) for name in ("Model Size", "Training FLOP")
    )
    centres = [float(np.exp(np.log(c[index]).mean())) for index in budgets(n, c)]
    for budget in (
        5.5e18,
        9.3e18,
        2.8e19,
        5.7e19,
        9.6e19,
        2.9e20,
        5.6e20,
        9.8e20,
        2.9e21,
    ):  # Hoffmann 2022, figure 3
        assert min(abs(np.log(centre / budget)) for centre in centres) < 0.03
    assert len(centres) <= 10


def test_a_continuum_holds_no_budgets():
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(1e6), np.log(1e9), 400))
    c = np.exp(rng.uniform(np.log(1e17), np.log(1e18), 400))
    assert len(budgets(n, c)) < 3
    assert "usable budgets" in isoflop(Points(surface(n, c / n), n, c / n, c)).unavailable


@pytest.mark.slow
def test_intervals_cover_the_expected_exponent():
    """Nominal 90 %: over simulated sweeps of 5 budgets with 7 sizes, the interval holds the
    noise-free answer 80 to 98 % of the time.
    """
    points, _ = grid(4)
    points = points.take(np.arange(75) % 2 == 0)
    expected = isoflop(points, resamples=0).frontier.a
    rng, covered = np.random.default_rng(1), 0
    for trial in range(100):
        noisy = Points(
            points.loss * np.exp(rng.normal(0, 0.002, len(points))), points.n, points.d, points.c
        )
        draws = isoflop(noisy, resamples=200, seed=trial).draws.a
        covered += np.quantile(draws, 0.05) <= expected <= np.quantile(draws, 0.95)
    assert 80 <= covered <= 98
