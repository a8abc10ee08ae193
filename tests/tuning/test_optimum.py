"""The parabola in log(value) against known ones: the optimum, its error, and when it gives way to
the best index.
"""

import math

import numpy as np
import pytest

from scaling.tuning.optimum import ASSUMED_NOISE, fit_optimum, means, parabola, regret

LOGS = {index: math.log(2.0) * index for index in range(-6, 7)}
CURVATURE = 0.04 * 2 / math.log(2.0) ** 2  # .04 nats an octave


def curve(log_value, at=0.3, loss=2.0, curvature=CURVATURE):
    return loss + 0.5 * curvature * (log_value - at) ** 2


def exact(indices, seeds=1, **kind):
    return {index: [curve(LOGS[index], **kind)] * seeds for index in indices}


def test_an_exact_parabola_is_recovered_exactly():
    found = fit_optimum(exact(range(-2, 3)), LOGS)
    assert found.log_value == pytest.approx(0.3)
    assert found.loss == pytest.approx(2.0)
    assert found.curvature == pytest.approx(CURVATURE)
    assert (found.noise_from, found.noise) == (
        "assumed",
        pytest.approx(ASSUMED_NOISE * 2, rel=0.01),
    )
    assert found.value == pytest.approx(math.exp(0.3))


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_standard_error_is_the_scatter_of_repeated_experiments(seeds):
    """Common shifts of a seed are no noise: they move no optimum."""
    draws, noise = np.random.default_rng(0), 0.01
    found = []
    for _ in range(600):
        shift = draws.normal(0, 0.1, seeds)
        losses = {
            index: list(curve(LOGS[index]) + shift + draws.normal(0, noise, seeds))
            for index in range(-2, 3)
        }
        found.append(fit_optimum(losses, LOGS))
    scatter = np.std([each.log_value for each in found if each.curvature])
    told = math.sqrt(np.mean([each.se_log**2 for each in found if each.curvature]))
    assert told == pytest.approx(scatter, rel=0.25 if seeds == 1 else 0.1)
    assert {each.noise_from for each in found} <= (
        {"seeds"} if seeds > 1 else {"assumed", "residuals"}
    )


def test_far_values_are_left_out_of_the_parabola():
    losses = exact(range(-2, 3)) | {4: [9.0], 3: [5.0]}
    assert fit_optimum(losses, LOGS).log_value == pytest.approx(0.3)


def test_a_curve_that_is_steeper_above_keeps_its_optimum_between_the_neighbours():
    losses = exact((-1, 0, 1), at=0.0) | {2: [7.0], -2: [curve(LOGS[-2], at=0.0)]}
    found = fit_optimum(losses, LOGS)
    assert found.curvature is not None
    assert abs(found.log_value) < math.log(2)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ({0: [2.0], 1: [2.1], 2: [math.inf]}, "fewer than three"),
        (
            {-2: [2.01], -1: [2.2], 0: [2.0], 1: [2.2], 2: [2.01]},
            "parabola is lowest beyond|not convex",
        ),
        ({-2: [2.00001], 0: [2.0], 2: [2.00001]} | {-1: [2.1], 1: [2.1]}, "not convex|beyond"),
        ({0: [2.0], 1: [2.1], 2: [2.15]}, "not convex"),
        ({0: [2.0], 1: [2.01], 2: [2.05]}, ""),
    ],
)
def test_without_a_parabola_the_best_value_is_taken_with_a_reason(losses, words):
    found = fit_optimum(losses, LOGS)
    if not words:
        assert found.curvature is not None
        assert not found.why
        return
    assert any(word in found.why for word in words.split("|")), found
    assert found.curvature is None
    assert found.log_value == LOGS[0]
    assert found.se_log == pytest.approx(math.log(2))


def test_no_optimum_where_all_runs_diverged():
    assert fit_optimum({0: [math.inf], 1: [2.0, math.inf]}, LOGS) is None


def test_value_with_a_diverged_seed_has_infinite_loss():
    assert means({0: [2.0, math.inf], 1: [2.0, 4.0]}) == {0: math.inf, 1: 3.0}


def test_seeds_that_agree_by_chance_do_not_shrink_the_error_to_zero():
    found = fit_optimum(exact(range(-1, 2), seeds=2), LOGS)
    assert found.noise_from == "seeds"
    assert found.noise == pytest.approx(ASSUMED_NOISE * 2 / math.sqrt(3), rel=0.01)


def test_more_noise_means_a_larger_error():
    t, y = np.array([-1.0, 0.0, 1.0]), np.array([2.1, 2.0, 2.1])
    (*_, large), (*_, small) = (parabola(t, y, np.ones(3), noise) for noise in (0.02, 0.01))
    assert large == pytest.approx(2 * small)


def test_regret_of_a_value_and_its_error():
    full = exact(range(-1, 2), at=0.0)
    short = {index: [3.0 + curve(LOGS[index], at=0.0)] for index in range(-1, 4)} | {4: [math.inf]}
    found = fit_optimum(full, LOGS)
    on_curve = regret(LOGS[1], found, full, short, LOGS)
    assert (on_curve.known_from, on_curve.excess) == ("fit", pytest.approx(0.04))
    assert on_curve.excess_relative == pytest.approx(0.02)
    further = regret(LOGS[3], found, full, short, LOGS)
    assert (further.known_from, further.excess) == ("short_runs", pytest.approx(0.36))
    assert further.excess_relative == pytest.approx(0.36 / 5)
    between = regret((LOGS[2] + LOGS[3]) / 2, found, full, short, LOGS)
    assert between.excess == pytest.approx((0.16 + 0.36) / 2)
    assert regret(LOGS[4], found, full, short, LOGS).known_from == "diverges"
    assert regret(LOGS[6], found, full, short, LOGS).known_from == "unknown"
    wide = exact(range(-1, 4), at=0.0)  # three steps from the best is beyond the parabola
    assert regret(LOGS[3], found, wide, {}, LOGS).known_from == "full_runs"
