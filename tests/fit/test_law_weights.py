"""The combination of laws: exact data, weights, intervals, what it says when it knows little."""

import numpy as np
import pytest

from scaling.fit.combination import Candidate, Combination
from scaling.fit.diagnostics.holdout import coverage_warnings
from scaling.fit.frontier.frontier import Cost
from scaling.fit.law_weights import CANDIDATE_LAWS, origin_warnings, weigh_laws
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points
from scaling.warning import WarningCode

CHINCHILLA = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
COUPLED = {"E": 1.1, "A": 60.0, "B": 90.0, "alpha": 0.5, "beta": 0.45, "k": 0.45}


def isoflop_runs(
    law: str, values: dict[str, float], noise: float = 0.0, top: float = 20.5
) -> Points:
    """Six budgets of seven sizes around the optimum of a law."""
    random = np.random.default_rng(0)
    best = LAWS[law].frontier(values, Cost())
    flops = np.repeat(10 ** np.linspace(18, top, 6), 7)
    n = best.n_star(flops) * np.tile(10 ** np.linspace(-0.6, 0.6, 7), 6)
    d = flops / (6 * n)
    log_loss = LAWS[law].log_predict(LAWS[law].theta(values), {"N": n, "D": d})
    return Points(loss=np.exp(log_loss + random.normal(0, noise, 42)), n=n, d=d, c=flops)


def two(first: float, second: float) -> Combination:
    """Two candidates with constant losses and equal weights."""
    candidates = tuple(
        Candidate(
            name=name,
            polynomial=(0.0, 0.0, float(np.log(loss)), 0.0, 0.0, 0.0, 0.0, 0.0),
            weights={"loss": 0.5},
        )
        for name, loss in (("one", first), ("two", second))
    )
    return Combination(candidates=candidates, growth={}, largest=6e19, noise=0.0, origins=0)


@pytest.mark.parametrize(("law", "values"), [("chinchilla", CHINCHILLA), ("skaling", COUPLED)])
def test_exact_losses_give_the_optimum_of_their_law(law, values):
    combination = weigh_laws(isoflop_runs(law, values))
    truth = LAWS[law].frontier(values, Cost())
    size, loss = (combination.optima(1e23, quantity) for quantity in ("n_star", "loss_star"))
    assert np.exp(size.mean) == pytest.approx(truth.n_star(1e23), rel=1e-3)
    assert np.exp(loss.mean) == pytest.approx(truth.loss(1e23), rel=1e-4)


def test_exact_losses_leave_no_error_to_grow_and_the_interval_is_narrow():
    points = isoflop_runs("chinchilla", CHINCHILLA)
    _, lo, hi = weigh_laws(points).optima(1e23, "n_star").ends(0.95)
    assert hi / lo < 1.05
    real = weigh_laws(isoflop_runs("chinchilla", CHINCHILLA, 0.004))
    assert real.optima(1e23, "n_star").distance > 0.05


def test_the_error_grows_with_the_decades_beyond_the_largest_budget():
    combination = two(2.0, 2.0).model_copy(update={"growth": {"loss": 0.01}})
    at = 6e19 / 6e9
    assert combination.losses(1e9, at / 10).distance == 0.0
    assert combination.losses(1e9, 10 * at).distance == pytest.approx(0.01)
    value, _, hi = combination.losses(1e9, 100 * at).ends(0.9)
    assert np.log(hi / value) == pytest.approx(1.8124611 * 0.02)


def test_weights_sum_to_one_and_follow_the_error():
    combination = weigh_laws(isoflop_runs("skaling", COUPLED, 0.002))
    for quantity in ("loss", "n_star", "loss_star"):
        weights = [one.weights.get(quantity, 0.0) for one in combination.candidates]
        assert sum(weights) == pytest.approx(1.0)
    by_name = {one.name: one for one in combination.candidates}
    assert set(CANDIDATE_LAWS) <= set(by_name)
    assert by_name["skaling"].errors["loss"] < by_name["kaplan"].errors["loss"]
    assert by_name["skaling"].weights["loss"] > by_name["kaplan"].weights["loss"]


def test_the_answer_is_the_weighted_mean_of_logs_and_the_interval_their_spread():
    combination = two(2.0, 2.2)
    loss = combination.losses(1e9, 1e10)
    value, _, hi = loss.ends(0.9)
    assert value == pytest.approx(np.sqrt(2.0 * 2.2))
    assert loss.spread == pytest.approx(np.log(1.1) / 2)
    assert np.log(hi / value) == pytest.approx(1.8124611 * np.log(1.1) / 2)
    assert combination.each(loss) == pytest.approx({"one": 2.0, "two": 2.2})


def test_the_interval_of_n_star_holds_the_noise_of_measured_minima():
    combination = weigh_laws(isoflop_runs("chinchilla", CHINCHILLA, 0.004))
    size = combination.optima(1e22, "n_star")
    value, _, hi = size.ends(0.5)
    assert 0.02 < size.noise < 0.2
    assert np.log(hi / value) >= 0.69 * size.noise


def test_intervals_grow_with_the_distance():
    combination = weigh_laws(isoflop_runs("chinchilla", CHINCHILLA, 0.004))
    _, lo, hi = combination.optima(np.array([1e20, 1e22, 1e24]), "loss_star").ends(0.9)
    assert (np.diff(np.log(hi / lo)) > 0).all()


@pytest.mark.slow
def test_a_later_budget_lies_in_the_interval_though_no_candidate_has_its_form():
    """A law with a bend that no candidate has: the coupled law less 1 % a decade beyond 1e19."""
    points = isoflop_runs("skaling", COUPLED, 0.001, top=22.0)
    bend = 1 - 0.01 * np.maximum(np.log10(points.c) - 19, 0)
    bent = Points(loss=points.loss * bend, n=points.n, d=points.d, c=points.c)
    early, late = bent.take(bent.c < 3e20), bent.take(bent.c > 3e21)
    combination = weigh_laws(early)
    _, lo, hi = combination.losses(late.n, late.d).ends(0.9)
    assert np.mean((lo <= late.loss) & (late.loss <= hi)) >= 0.6


def test_few_budgets_leave_equal_weights_and_no_origin():
    points = isoflop_runs("chinchilla", CHINCHILLA, 0.002)
    combination = weigh_laws(points.take(points.c < 4e18))
    assert combination.origins == 0
    (warning,) = origin_warnings(combination)
    assert warning.code is WarningCode.UNTESTED
    assert origin_warnings(weigh_laws(points)) == []
    weights = {
        one.name: one.weights["loss"] for one in combination.candidates if "loss" in one.weights
    }
    assert weights["chinchilla-tied"] == pytest.approx(weights["surface"])


def test_a_table_without_tokens_or_with_too_few_runs_has_no_combination():
    points = isoflop_runs("chinchilla", CHINCHILLA)
    assert weigh_laws(Points(loss=points.loss, n=points.n, c=points.c)) is None
    assert weigh_laws(points.take(np.arange(5))) is None


def test_too_few_held_out_runs_inside_is_a_warning_with_its_numbers():
    high, low = np.arange(20) < 10, np.arange(20) == 19
    (warning,) = coverage_warnings(high, low, 0.95)
    assert warning.code is WarningCode.HOLDOUT_COVERAGE
    assert warning.data == {"covered": 9 / 20, "expected": 0.95, "n_test": 20}


def test_misses_of_one_sign_are_a_warning_and_of_both_signs_are_none():
    high, none = np.arange(60) < 3, np.zeros(60, bool)
    (warning,) = coverage_warnings(high, none, 0.9)
    assert warning.code is WarningCode.HOLDOUT_ONE_SIDED
    assert warning.data == {"too_high": 3, "too_low": 0, "n_test": 60}
    assert coverage_warnings(high, np.arange(60) > 57, 0.9) == []


def test_a_minimum_that_all_candidates_missed_on_one_side_is_a_warning():
    points = isoflop_runs("chinchilla", CHINCHILLA, 0.001)
    jump = np.where(points.c > 1e20, 1.2, 1.0)  # the largest two budgets, of another kind
    jumped = Points(loss=points.loss * jump, n=points.n, d=points.d, c=points.c)
    (warning,) = origin_warnings(weigh_laws(jumped))
    assert warning.code is WarningCode.MISSED_BY_ALL
    assert warning.data["minima"] > 0
    assert origin_warnings(weigh_laws(points)) == []


def test_candidates_on_both_sides_of_a_minimum_are_no_miss_of_all():
    both = two(2.0, 2.0).model_copy(update={"growth": {"loss_star": 0.01}})
    both = both.model_copy(
        update={
            "candidates": tuple(
                one.model_copy(update={"weights": {"loss_star": 0.5}}) for one in both.candidates
            )
        }
    )
    decades = np.ones(3)
    errors = np.array([[0.1, 0.1], [0.1, -0.001], [0.001, 0.002]])  # missed, both sides, inside
    assert both.missed_by_all("loss_star", decades, errors, 0.95) == 1
