"""Budgets: exact ones in windows, approximate ones at gaps of log C or by a nominal column."""

import numpy as np
import pytest

from scaling.fit.frontier.budgets import at_one_budget, budgets
from scaling.fit.frontier.isoflop import isoflop
from scaling.points.points import Points
from scaling.warning import WarningCode

TRUE_A = 0.30 / 0.64


def jittered(jitter, seed=0, levels=5, sizes=7):
    """Runs of L = 1.70 + 420/N^0.34 + 650/D^0.30 at budgets that are met within `jitter` only."""
    rng = np.random.default_rng(seed)
    nominal = np.repeat(np.geomspace(1e18, 1e20, levels), sizes)
    c = nominal * np.exp(jitter * rng.uniform(-1, 1, len(nominal)))
    centre = 0.0585 * nominal**TRUE_A * np.exp(0.05)
    n = centre * np.tile(np.geomspace(0.2, 5, sizes), levels)
    d = c / (6 * n)
    loss = 1.70 + 420 / n**0.34 + 650 / d**0.30
    return Points(loss=loss, n=n, d=d, c=c), nominal


@pytest.mark.parametrize("jitter", [0.06, 0.12, 0.2])
def test_approximate_budgets_are_grouped_at_gaps_and_brought_to_one_c(jitter):
    points, _ = jittered(jitter)
    groups = budgets(points.n, points.c)
    assert [len(index) for index in groups] == [7] * 5
    estimate = isoflop(points, resamples=0)
    assert estimate.n_points == 35
    assert float(estimate.frontier.a) == pytest.approx(TRUE_A, abs=0.01)
    assert WarningCode.APPROXIMATE_BUDGETS in [warning.code for warning in estimate.warnings]


def test_a_nominal_column_groups_budgets_that_overlap():
    points, nominal = jittered(0.7)
    assert len(budgets(points.n, points.c)) != 5
    groups = budgets(points.n, points.c, nominal)
    assert [len(index) for index in groups] == [7] * 5


def test_losses_at_one_budget_are_those_of_the_law():
    points, _ = jittered(0.12)
    moved = at_one_budget(points, budgets(points.n, points.c))
    truth = 1.70 + 420 / moved.n**0.34 + 650 / moved.d**0.30
    np.testing.assert_allclose(moved.c, 6 * moved.n * moved.d)
    np.testing.assert_allclose(moved.loss, truth, rtol=2e-3)


def test_a_continuum_has_no_budgets():
    n = np.geomspace(1e7, 1e9, 40)
    rng = np.random.default_rng(1)
    assert budgets(rng.permutation(n), np.geomspace(1e18, 1e20, 40)) == []


def test_runs_outside_budgets_are_counted():
    points, _ = jittered(0.0)
    extra = Points(
        loss=np.append(points.loss, 3.0),
        n=np.append(points.n, 1e8),
        d=np.append(points.d, 1e9),
        c=np.append(points.c, 6e17),
    )
    estimate = isoflop(extra, resamples=0)
    assert estimate.n_points == 35
    unused = next(w for w in estimate.warnings if w.code is WarningCode.RUNS_UNUSED)
    assert unused.data == {"used": 35, "runs": 36}
