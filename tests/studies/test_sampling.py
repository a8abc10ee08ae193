"""The study of test-time sampling on rows whose truth is known."""

import itertools

import numpy as np
import pandas as pd
import pytest

from scaling import accounting
from scaling.config import ArithmeticTask, EvalConfig, OptimConfig, RunConfig
from scaling.formatting import format_count
from scaling.store.rows import Measurement
from scaling.studies import sampling
from scaling.studies.sampling import STUDY, answer_costs, common_target
from scaling.tasks import answer_metrics
from tests.models import small_model
from tests.studies.tables import table_of

SAMPLES, PROBLEMS = 128, 300
TASK = ArithmeticTask(kind="arithmetic", digits=3)


def run(width, n_steps):
    return RunConfig(
        model=small_model(width, n_layers=1, vocab_size=12),
        task=TASK,
        optim=OptimConfig(lr=1e-3),
        batch_size=8,
        n_steps=n_steps,
        evals=EvalConfig(samples=SAMPLES),
    )


def measured(config, power, seed, moved=0.0):
    """A model whose success rates are Beta(power, 4): wrong answers are many, or one that is twice
    as likely as the right one.
    """
    rng = np.random.default_rng(seed)
    chance = rng.beta(power, 4.0, PROBLEMS)
    correct = rng.binomial(SAMPLES, np.clip(chance + moved, 0.0, 1.0))
    told = [("samples", None, SAMPLES, None), ("mode_is_right", None, 0.4, None)]
    told += [("problem_nll", place, -np.log(p), None) for place, p in enumerate(chance)]
    told += [("correct_samples", place, c, None) for place, c in enumerate(correct)]
    passed = answer_metrics.pass_at_k(
        np.full(PROBLEMS, SAMPLES), correct, np.array([1, 8, SAMPLES])
    ).mean(axis=0)
    for k, value in zip((1, 8, SAMPLES), passed, strict=True):
        told += [
            ("pass_at_k", k, value, 0.01),
            ("majority_at_k", k, 0.39, 0.01),
            ("best_of_k", k, 0.4, 0.01),
        ]
    found = [
        Measurement(
            config.n_steps, "val", name, float(value), stderr, None if at is None else float(at)
        )
        for name, at, value, stderr in told
    ]
    return table_of([(config, found)])


def table(**changes):
    powers = {(16, 100): 0.15, (16, 400): 0.3, (32, 100): 0.25, (32, 400): 0.6}
    return pd.concat(
        [
            measured(run(*shape), power, seed, **changes)
            for seed, (shape, power) in enumerate(powers.items())
        ]
    )


@pytest.fixture(scope="module")
def models():
    return sampling.sampled_models(table())


def test_sampled_models_are_read_from_rows(models):
    sizes = list(zip(models["N"], models["D"], strict=True))
    assert sizes == sorted(sizes)
    assert set(models["nll"].map(len)) == {PROBLEMS}
    longest = [trace.label for trace in sampling.STUDY.section(table()).figures[0].traces]
    shown = [f"N {format_count(n)}" for n in sorted(set(models["N"]))]
    assert [label for label in longest if label.startswith("N ")] == shown
    first = models.iloc[0]
    assert first["exact"][0] == pytest.approx(np.exp(-first["nll"]).mean())
    assert sampling.sampled_models(table().query("metric == 'pass_at_k'")).empty


def decoder_claim(models):
    return next(one for one in sampling.claims(models) if one.quantity.startswith("sampled pass@1"))


def test_biased_decoder_fails_the_pass_at_1_check(models):
    assert decoder_claim(models).holds
    assert not decoder_claim(sampling.sampled_models(table(moved=0.02))).holds


def test_a_power_law_of_coverage_is_recovered():
    """Success rates with density p^(b-1) near 0 give -log pass@k ~ k^-b (Schaeffer 2025, section
    3).
    """
    chance = (np.arange(20_000) + 0.5) / 20_000
    exact = answer_metrics.exact_pass_at_k(-np.log(0.5 * chance ** (1 / 0.3)), sampling.K).mean(0)
    tail = sampling.K > 300
    law = np.polyfit(np.log(sampling.K[tail]), np.log(-np.log(exact[tail])), 1)
    assert -law[0] == pytest.approx(0.3, abs=0.03)
    assert sampling.coverage_law(exact)[0] == pytest.approx(0.3, abs=0.1)
    solved = answer_metrics.exact_pass_at_k(np.zeros(5), sampling.K).mean(0)
    assert np.isnan(sampling.coverage_law(solved)).all()


def test_samples_needed_are_the_fewest(models):
    nll = models["nll"].iloc[0]
    k = answer_metrics.samples_needed(nll, 0.5, 10_000)
    reached = [
        float(answer_metrics.exact_pass_at_k(nll, np.array([tried])).mean()) for tried in (k - 1, k)
    ]
    assert reached[0] < 0.5 <= reached[1]
    assert answer_metrics.samples_needed(np.full(3, 50.0), 0.5, 10_000) is None
    assert answer_metrics.samples_needed(np.zeros(3), 0.5, 10_000) == 1


def test_common_target_is_reached_by_two_thirds_of_the_models():
    assert common_target([np.zeros(10), np.full(10, 1.0), np.full(10, 50.0)]) == 0.95
    assert common_target([np.zeros(10), np.full(10, 50.0), np.full(10, 50.0)]) is None


def test_answer_flops_leave_out_the_last_token():
    config = run(16, 100)
    prompt, answer = answer_costs(config)
    assert prompt + answer == pytest.approx(accounting.train_flops(config.model, 11, 11) / 3)
    weights = (
        accounting.n_params(config.model, 11, "with_head") - 5 * 16
    )  # gains are in no matrix product
    assert answer == pytest.approx(2 * 3 * weights + 4 * 16 * (9 + 10 + 11))


def test_the_joint_optimum_is_the_cheapest_of_all():
    grid = list(itertools.product((1, 2, 4), (1, 3, 9)))
    samples = [-(-512 // (n * d)) for n, d in grid]
    ways = pd.DataFrame(
        [
            (n, d, k, 6.0 * n * d * 1e3, 2.0 * n + k * 5.0 * n)
            for (n, d), k in zip(grid, samples, strict=True)
        ],
        columns=["N", "D", "k", "training", "query"],
    )
    queries = (1.0, 1e2, 1e4, 1e8)
    chosen = [sampling.cheapest(ways, count) for count in queries]
    for count, best in zip(queries, chosen, strict=True):
        total = (ways["training"] + count * ways["query"]).min()
        assert best["training"] + count * best["query"] == total
    assert [best["k"] for best in chosen] == sorted((best["k"] for best in chosen), reverse=True)
    assert chosen[0]["training"] < chosen[-1]["training"]


def test_models_below_the_target_are_left_out(models):
    reached = sampling.models_that_reach(models, 0.95)
    assert 0 < len(reached) < len(models)
    assert set(reached["k"]) == {
        answer_metrics.samples_needed(nll, 0.95, 10_000) for nll in models["nll"]
    } - {None}


def test_sampling_section_has_all_parts_and_is_absent_without_samples():
    found = STUDY.section(table())
    assert [figure.name for figure in found.figures] == ["sampling"]
    assert [shown.name for shown in found.tables] == ["expected-sampling", "sampling"]
    assert len(found.tables[1].rows) == 4
    assert [claim[0].split()[0] for claim in found.tables[0].rows] == [
        "R2",
        "sampled",
        "majority",
        "cheapest",
    ]
    assert STUDY.section(table().query("metric == 'pass_at_k'")) is None


@pytest.mark.parametrize("metric", ["pass_at_k", "mode_is_right", "correct_samples"])
def test_a_model_whose_rows_lack_a_metric_is_left_out(metric):
    held = table()
    gone = (held["metric"] == metric) & (held["run_id"] == held["run_id"].iloc[0])
    assert len(sampling.sampled_models(held[~gone])) == 3
    assert STUDY.section(held[held["metric"] != metric]) is None
