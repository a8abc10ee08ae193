"""Laws fitted to losses whose floor and exponents are known exactly: the synthetic language's
analytic twin.
"""

import functools

import numpy as np
import pytest

from benchmarks.capacity_model import excess, limits
from scaling.config import SyntheticTask
from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.fit.profile import profile
from scaling.points.points import Points
from scaling.tasks import open_task

ENDLESS_FACTS, ENDLESS_DATA = 3e5, 1e8
MEMORY, FACTS = np.round(np.geomspace(30, 1000, 8)), np.round(np.geomspace(300, 1e5, 8))


@functools.cache
def language(zipf=0.5):
    return open_task(SyntheticTask(kind="synthetic", n_facts=2**20, zipf=zipf, seq_len=60))


def points(task, m, n):
    d = n * task.period
    return Points(loss=task.entropy + excess(task, m, n), n=m, d=d, c=6 * m * d)


def ladders():
    """Each input along a ladder while the other limits nothing."""
    return np.r_[MEMORY, np.full(8, ENDLESS_FACTS)], np.r_[np.full(8, ENDLESS_DATA), FACTS]


def grid(m=MEMORY, n=FACTS):
    return tuple(axis.ravel() for axis in np.meshgrid(m, n, indexing="ij"))


@pytest.mark.parametrize("zipf", [0.5, 0.8, 1.0])
def test_two_ladders_give_the_floor_and_both_exponents(zipf):
    task = language(zipf)
    fitted, exact = estimate(LAWS["chinchilla"], points(task, *ladders())), limits(task)
    assert fitted.status == "ok"
    assert fitted.values["E"] == pytest.approx(task.entropy, rel=0.004)
    for name in ("alpha", "beta"):
        assert fitted.values[name] == pytest.approx(exact[name], rel=0.02)
    for name in ("A", "B"):
        assert fitted.values[name] == pytest.approx(exact[name], rel=0.06)


@pytest.mark.parametrize("zipf", [0.5, 1.0])
def test_one_input_alone_gives_the_floor_and_its_exponent(zipf):
    task, exact = language(zipf), limits(language(zipf))
    for x, lost, name in (
        (MEMORY, excess(task, MEMORY, np.full(8, 1e9)), "alpha"),
        (FACTS * task.period, excess(task, np.full(8, 1e9), FACTS), "beta"),
    ):
        fitted = estimate(LAWS["power"], Points(loss=task.entropy + lost, c=x))
        assert fitted.status == "ok"
        assert fitted.values["E"] == pytest.approx(task.entropy, rel=0.002)
        assert fitted.values["alpha"] == pytest.approx(exact[name], rel=0.02)


@pytest.mark.parametrize("zipf", [0.5, 1.0])
def test_a_full_grid_keeps_the_floor_and_bends_the_exponents(zipf):
    """What is unknown for both reasons is lost once, and the law counts it twice: E holds to 1 %,
    alpha and beta come out too steep.
    """
    task, exact = language(zipf), limits(language(zipf))
    fitted = estimate(
        LAWS["chinchilla"],
        points(task, *grid(np.geomspace(10, 1e4, 9).round(), np.geomspace(1e3, 1e7, 9).round())),
    )
    assert fitted.values["E"] == pytest.approx(task.entropy, rel=0.01)
    for name in ("alpha", "beta"):
        assert fitted.values[name] > exact[name]


@pytest.mark.slow
def test_an_input_that_limits_nothing_is_named():
    task = language()
    by_memory = estimate(
        LAWS["chinchilla"], points(task, *grid(MEMORY[::2], np.geomspace(1e8, 1e9, 4)))
    )
    assert by_memory.status == "not-identified"
    assert ("at_bound", "beta") in {(w.code, w.data.get("param")) for w in by_memory.warnings}
    assert by_memory.values["E"] == pytest.approx(task.entropy, rel=0.005)
    zipf_1 = estimate(
        LAWS["chinchilla"],
        points(language(1.0), *grid(np.geomspace(1e5, 5e5, 5), np.geomspace(1e3, 1e5, 6))),
    )
    assert zipf_1.status == "not-identified"
    assert ("at_bound", "alpha") in {(w.code, w.data.get("param")) for w in zipf_1.warnings}


@pytest.mark.slow
def test_a_floor_out_of_reach_is_named():
    """A factor of two in data, with noise: many floors fit as well."""
    task = language()
    n = np.geomspace(300, 600, 8).round()
    noisy = (task.entropy + excess(task, np.full(8, 1e9), n)) * np.exp(
        np.random.default_rng(0).normal(0, 0.02, 8)
    )
    measured = Points(loss=noisy, c=n * task.period)
    fitted = profile(estimate(LAWS["power"], measured), 0.95)["E"]
    assert not fitted.identified
    assert fitted.lo is None or fitted.lo < 0.9 * task.entropy
