"""Tails of distributions, against scipy's."""

import pytest
from scipy import special

from scaling.fit.significance import f_tail, incomplete_beta, student


@pytest.mark.parametrize("freedom", [1, 2.5, 10, 238, 5000, 19_990])
@pytest.mark.parametrize("ci", [0.01, 0.5, 0.95, 1 - 1e-5, 1 - 1e-12])
def test_the_quantile_of_students_t(ci, freedom):
    assert student(ci, freedom) == pytest.approx(-special.stdtrit(freedom, (1 - ci) / 2), rel=1e-10)


@pytest.mark.parametrize("degrees", [(1, 3), (5, 235), (40, 7)])
@pytest.mark.parametrize("ratio", [1e-3, 1.0, 3.5, 80.0])
def test_the_tail_of_f(degrees, ratio):
    assert f_tail(*degrees, ratio) == pytest.approx(special.fdtrc(*degrees, ratio), rel=1e-11)


def test_the_ends_of_the_incomplete_beta_function_are_0_and_1():
    assert [incomplete_beta(2.0, 3.0, x, 1 - x) for x in (0.0, 1.0)] == [0.0, 1.0]
    misses, runs = 3, 40  # so few of 40 runs inside 95 % intervals
    inside = special.bdtr(runs - misses, runs, 0.95)
    assert incomplete_beta(misses, runs - misses + 1, 0.05, 0.95) == pytest.approx(
        inside, rel=1e-11
    )
