"""The analytic twin: its formula by counting, and its limit exponents."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.capacity_model import excess, limits
from scaling.config import SyntheticTask
from scaling.config.sweep_file import load_sweep
from scaling.plan import plan
from scaling.tasks import open_task

SWEEP = Path(__file__).parents[2] / "sweeps" / "synthetic.toml"


@functools.cache
def language(zipf=0.5, n_facts=2**20, **fields):
    return open_task(
        SyntheticTask(kind="synthetic", n_facts=n_facts, zipf=zipf, seq_len=60, **fields)
    )


def test_capacity_formula_equals_a_plain_sum():
    task = open_task(SyntheticTask(kind="synthetic", n_facts=7, n_symbols=8, seq_len=6))
    p = task.probabilities
    for m, n in ((0, 5), (3, 0), (3, 20), (7, 20), (99, 20)):
        unknown = sum(p[k] if k >= m else p[k] * (1 - p[k]) ** n for k in range(7))
        assert excess(task, np.array([m]), np.array([n]))[0] == pytest.approx(
            math.log(8) * unknown / task.period
        )
    assert excess(task, np.array([0, 7]), np.array([10, 10**9])).tolist() == pytest.approx(
        [math.log(8) / task.period, 0.0]
    )


def test_simulated_learner_has_the_loss_of_the_capacity_model():
    task = open_task(SyntheticTask(kind="synthetic", n_facts=64, n_symbols=8, seq_len=60))
    held, facts, lost = 20, 40, []
    for index in range(300):
        windows = task.batch("train", index, 3)[:, :-1].reshape(-1, task.period)
        keys = windows[:, :-1] @ 8 ** np.arange(task.key_len - 1, -1, -1)
        learned = np.intersect1d(keys[:facts], np.arange(held))
        lost.append(1.0 - task.probabilities[learned].sum())
    measured = math.log(8) / task.period * np.mean(lost)
    chance = math.log(8) / task.period * np.std(lost) / math.sqrt(len(lost))
    assert abs(measured - excess(task, np.array([held]), np.array([facts]))[0]) < 4 * chance


@pytest.mark.parametrize("zipf", [0.5, 0.8, 1.0])
def test_the_limits_are_zipf_in_memory_and_zipf_over_one_plus_zipf_in_data(zipf):
    task = language(zipf, n_facts=2**22)
    told, endless = limits(task), np.full(2, 1e12)
    assert (told["alpha"], told["beta"]) == (zipf, pytest.approx(zipf / (1 + zipf)))
    m, n = np.array([500.0, 1000.0]), np.array([5e3, 1e4])
    by_memory, by_data = excess(task, m, np.full(2, 1e15)), excess(task, endless, n)
    for lost, power, law in (
        (by_memory, zipf, told["A"] * m**-zipf),
        (by_data, told["beta"], told["B"] * (n * task.period) ** -told["beta"]),
    ):
        assert math.log2(lost[0] / lost[1]) == pytest.approx(power, rel=0.02)
        np.testing.assert_allclose(lost, law, rtol=0.02)


def test_fact_missing_for_two_reasons_is_counted_once():
    task = language()
    m, n = np.array([300.0]), np.array([3e3])
    both = excess(task, m, n)[0]
    by_memory, by_data = (
        excess(task, *pair)[0] for pair in ((m, np.array([1e15])), (np.array([1e12]), n))
    )
    assert max(by_memory, by_data) < both < by_memory + by_data


def test_too_few_facts_bend_the_law():
    few, many = (
        -np.diff(np.log(excess(language(n_facts=k), np.full(2, 1e12), np.array([1e5, 2e5]))))
        / math.log(2)
        for k in (2**12, 2**22)
    )
    assert few[0] > 1.5 * many[0]


def test_the_shipped_sweep_keeps_its_facts_beyond_reach():
    sweep = load_sweep(SWEEP)
    task = open_task(sweep.base.task)
    seen = max(sweep.design.tokens) / task.period
    different = float((1.0 - np.exp(seen * np.log1p(-task.probabilities))).sum())
    assert different < sweep.base.task.n_facts / 100
    assert f"{task.entropy:.4f} nats a token" in SWEEP.read_text()
    assert len(plan(sweep, sweep.base.task, task.vocab_size).runs) == 7 * 5 * 2
