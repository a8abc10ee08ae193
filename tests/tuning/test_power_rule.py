"""Optima of several sizes as one rule, against rules that are known."""

import numpy as np
import pytest

from scaling.tuning.optimum import power_rule

SIZES = np.array([1e4, 1e5, 1e6])


def test_an_exact_rule_is_recovered_exactly():
    found = power_rule(SIZES, np.log(3.0 * SIZES**-0.4), [0.1, 0.2, 0.1])
    assert (found.coef, found.n_power) == (pytest.approx(3.0), pytest.approx(-0.4))
    assert found.at(1e7) == pytest.approx(3.0 * 1e7**-0.4)
    assert (found.n_range, found.sizes) == ((1e4, 1e6), 3)


def test_the_error_of_the_power_is_that_of_repeated_experiments():
    draws, se = np.random.default_rng(1), np.array([0.1, 0.2, 0.05])
    found = [power_rule(SIZES, np.log(SIZES**-0.4) + draws.normal(0, se), se) for _ in range(2000)]
    exact = power_rule(SIZES, np.log(SIZES**-0.4), se).n_power_se
    assert np.std([each.n_power for each in found]) == pytest.approx(exact, rel=0.1)
    assert all(each.n_power_se >= exact * 0.999 for each in found)


def test_scatter_beyond_the_errors_widens_the_error():
    bent = np.log(SIZES**-0.4) + np.array([0.5, -0.5, 0.5])
    assert (
        power_rule(SIZES, bent, [0.1] * 3).n_power_se
        > 5 * power_rule(SIZES, np.log(SIZES**-0.4), [0.1] * 3).n_power_se
    )


def test_two_sizes_give_a_rule_with_the_error_of_both():
    found = power_rule([1e4, 1e6], [0.0, -2.0], [0.1, 0.1])
    assert found.n_power_se == pytest.approx(np.hypot(0.1, 0.1) / np.log(100))


def test_a_precise_optimum_weighs_more():
    found = power_rule(SIZES, [0.0, 0.0, 1.0], [0.01, 0.01, 10.0])
    assert found.n_power == pytest.approx(0.0, abs=0.01)
