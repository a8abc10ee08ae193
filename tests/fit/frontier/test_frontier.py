"""The closed forms against brute-force minimisation, and powers against published fits."""

import csv

import numpy as np
import pytest

from scaling.errors import ScalingError
from scaling.fit.frontier.frontier import Cost, fit_cost, fit_power
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points

CHINCHILLA = {"E": 1.7, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
KAPLAN = {"alpha_N": 0.076, "alpha_D": 0.103, "N_c": 6.4e13, "D_c": 1.8e13}


def chinchilla_loss(n, d):
    v = CHINCHILLA
    return v["E"] + v["A"] * n ** -v["alpha"] + v["B"] * d ** -v["beta"]


def kaplan_loss(n, d):
    v = KAPLAN
    return ((v["N_c"] / n) ** (v["alpha_N"] / v["alpha_D"]) + v["D_c"] / d) ** v["alpha_D"]


@pytest.mark.parametrize("cost", [Cost(), Cost(c0=11.4, p=0.93)])
@pytest.mark.parametrize(
    ("law", "values", "loss"),
    [("chinchilla", CHINCHILLA, chinchilla_loss), ("kaplan", KAPLAN, kaplan_loss)],
)
def test_optimum_is_the_cheapest_point(law, values, loss, cost):
    optimum = LAWS[law].frontier(values, cost)
    for flops in (1e15, 1e20, 1e25):
        n = float(optimum.n_star(flops)) * np.exp(np.linspace(-0.01, 0.01, 2001))
        losses = loss(n, cost.tokens(n, flops))
        np.testing.assert_allclose(n[losses.argmin()], optimum.n_star(flops), rtol=1e-3)
        np.testing.assert_allclose(losses.min(), optimum.loss(flops), rtol=1e-9)
        np.testing.assert_allclose(
            cost.flops(optimum.n_star(flops), optimum.d_star(flops)), flops, rtol=1e-9
        )
        np.testing.assert_allclose(
            optimum.flops_of("L", float(optimum.loss(flops))), flops, rtol=1e-6
        )


def test_draws_are_one_call():
    draws = {name: value * np.linspace(0.99, 1.01, 7) for name, value in CHINCHILLA.items()}
    together = LAWS["chinchilla"].frontier(draws, Cost()).n_star(1e21)
    alone = [
        LAWS["chinchilla"]
        .frontier({name: values[i] for name, values in draws.items()}, Cost())
        .n_star(1e21)
        for i in range(7)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_a_loss_below_the_floor_costs_nothing_finite():
    assert np.isnan(LAWS["chinchilla"].frontier(CHINCHILLA, Cost()).flops_of("L", 1.7))


def test_a_law_without_frontier_is_rejected():
    with pytest.raises(ScalingError, match="no compute-optimal"):
        LAWS["power"].frontier(CHINCHILLA, Cost())


def test_cost_is_read_off_the_runs():
    n, d = np.array([1e4, 1e5, 1e6]), np.array([1e7, 3e7, 1e6])
    assert fit_cost(Points(np.ones(3), n, d, 6.0 * n * d)) == Cost()
    bent = fit_cost(Points(np.ones(3), n, d, 11.0 * n**0.95 * d))
    np.testing.assert_allclose((bent.c0, bent.p), (11.0, 0.95), rtol=1e-9)


def test_published_exponents_to_four_digits(shared_data):
    with open(shared_data / "porian2024" / "optimal_pairs.csv") as handle:
        pairs = [row for row in csv.DictReader(handle) if row["n_star"]]
    with open(shared_data / "porian2024" / "published_fits.csv") as handle:
        fits = list(csv.DictReader(handle))
    assert len(fits) == 15
    for fit in fits:
        chosen = [row for row in pairs if row["config"] == fit["config"]]
        c, n, std = (
            np.array([float(row[name]) for row in chosen])
            for name in ("flops", "n_star", "n_star_std")
        )
        exponent, log_k = fit_power(np.log(c), np.log(n), std)
        assert round(float(exponent), 4) == round(float(fit["n_exponent"]), 4)
        np.testing.assert_allclose(np.exp(log_k), float(fit["n_coef"]), rtol=1e-3)
