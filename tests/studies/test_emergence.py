"""Addition ladders whose digits are known: what is sharp by the metric, and what by the model."""

import numpy as np
import pandas as pd
import pytest

from scaling.config import ArithmeticTask, ModelConfig, OptimConfig, RunConfig
from scaling.store.rows import Measurement
from scaling.studies import emergence, sharpness
from scaling.studies.emergence import STUDY
from tests.studies.tables import table_of

WIDTHS = (8, 12, 16, 24, 32, 48)
DIGITS = 4  # so an answer has five


def run_of(width, seed=0, **task):
    model = ModelConfig(
        n_layers=2,
        d_model=width,
        n_heads=1,
        n_kv_heads=1,
        d_head=width,
        d_ff=4 * width,
        vocab_size=12,
    )
    task = ArithmeticTask(kind="arithmetic", digits=DIGITS, **task)
    return RunConfig(
        model=model, task=task, optim=OptimConfig(lr=0.01), batch_size=8, n_steps=100, seed=seed
    )


def measured(step, accuracy, exact=None, end=False):
    """A checkpoint whose digits have `accuracy` (5,) and NLL -ln accuracy; they are independent
    unless `exact` says otherwise.
    """
    accuracy = np.asarray(accuracy, float)
    found = {
        "exact_match": accuracy.prod() if exact is None else exact,
        "token_accuracy": accuracy.mean(),
        "brier": np.mean(2 * (1 - accuracy) ** 2),
        "answer_nll": -np.log(accuracy).sum(),
    }
    rows = [Measurement(step, "val", name, float(value)) for name, value in found.items()]
    rows += [
        Measurement(step, "val", "accuracy_at_position", float(value), at=place + 1.0)
        for place, value in enumerate(accuracy)
    ]
    return rows + (
        [Measurement(step, "val", "edit_distance", float((1 - accuracy).sum()))] if end else []
    )


def ladder(digit, seeds=lambda width: 1, exact=None, end=True, **task):
    """A table of runs; `digit` says the accuracies (5,) of a width, a seed and the share of
    training that is over.
    """
    runs = []
    for width in WIDTHS:
        for seed in range(seeds(width)):
            rows = []
            for step in (10, 50, 100):
                accuracy = digit(width, seed, step / 100)
                matches = None if exact is None else exact(accuracy)
                rows += measured(step, accuracy, matches, end and step == 100)
            runs.append((run_of(width, seed, **task), rows))
    return table_of(runs, "ladder")


def smooth(width, seed=0, over=1.0):
    """Every digit improves evenly in ln N; the digits differ, and the last is easy."""
    way = 0.7 * np.log(width / 8) / np.log(6) + 0.25 * over
    return np.append(
        np.clip(0.02 * seed + way + np.array([0.0, 0.02, 0.03, -0.03]), 0.02, 0.999), 0.999
    )


def sudden(width, seed=0, over=1.0):
    """Nothing below width 16, all above; at 16 a seed has learned or it has not."""
    learned = width > 16 or (width == 16 and seed % 2 == 1)
    return np.full(5, 0.995 if learned and over == 1.0 else 0.1)


def at_16(width):
    return 5 if width == 16 else 2


def test_a_smooth_improvement_is_a_metric_effect():
    found = emergence.analyze(ladder(smooth))
    exact, nll = found.trends["exact_match"], found.trends["token_accuracy"]
    assert exact.sharpness > nll.sharpness
    even = 1 / np.log2(exact.n[-1] / exact.n[0])
    assert (
        even < nll.sharpness < 1.3 * even
    )  # N grows a little less than with the square of the width
    assert exact.halfway > nll.halfway
    assert not found.trends["token_accuracy"].sharpness > sharpness.TRANSITION_SHARE


@pytest.mark.slow
def test_a_sudden_model_is_a_transition_not_a_metric_effect():
    found = emergence.analyze(ladder(sudden, at_16))
    assert found.transition.verdict is True
    assert found.metric_effect.verdict is False
    assert (found.n_settled, found.n_digits) == (75, 75)
    n = found.trends["nll"].n
    assert found.trends["nll"].sharpness == pytest.approx(
        1 / np.log2(n[3] / n[2])
    )  # three of five fail at 16: all of it from 16 to 24
    told = STUDY.section(ladder(sudden, at_16)).notes
    assert "a transition of the model itself" in told[2]
    assert "adds little" in told[1]


@pytest.mark.slow
def test_jump_of_exact_match_alone_is_a_metric_effect(monkeypatch):
    """Log-likelihood that falls evenly and an exact match that jumps: the metric's effect, and no
    transition.
    """
    table = ladder(smooth, lambda width: 2, exact=lambda accuracy: float(accuracy[:4].mean() > 0.6))
    even = table["metric"] == "answer_nll"
    table.loc[even, "value"] = 8.0 - np.log(table.loc[even, "n_params"])
    found = emergence.analyze(table)
    assert found.metric_effect.verdict is True
    assert found.transition.verdict is False
    assert found.n_settled < found.n_digits
    told = STUDY.section(table).notes
    assert len(told) == 3
    assert "the metric adds to the jump" in told[1]
    assert "improves smoothly" in told[2]
    assert "half-learned" in told[2]


def test_one_seed_per_size_leaves_verdicts_undecided():
    found = emergence.analyze(ladder(sudden))
    assert found.metric_effect.verdict is found.transition.verdict is None
    told = [one for one in emergence.claims(found) if "one seed" in one.measured]
    assert [one.holds for one in told] == [None, None]


@pytest.mark.slow
def test_disagreeing_seeds_leave_verdicts_undecided():
    """Each size has seeds that learned and seeds that did not, the more of them
    the larger it is.
    """
    lucky = ladder(
        lambda width, seed, over: np.full(
            5, 0.99 if seed < WIDTHS.index(width) and over == 1.0 else 0.1
        ),
        lambda width: 5,
    )
    found = emergence.analyze(lucky)
    for one in (found.metric_effect, found.transition):
        assert one.lo <= one.value <= one.hi
    assert sharpness.Decision(0.6, 0.4, 0.9, 0.5).verdict is None
    assert sharpness.Decision(0.6, 0.5, 0.9, 0.5).verdict is True
    assert sharpness.Decision(0.4, 0.3, 0.49, 0.5).verdict is False
    assert (
        emergence.analyze(lucky).metric_effect == found.metric_effect
    )  # the same resamples every time


def test_the_product_law_holds_for_independent_digits_and_the_mean_misses():
    found = emergence.analyze(
        ladder(
            lambda width, seed, over: np.append(
                np.full(2, 0.999), np.full(3, 0.3 + 0.6 * (width > 16))
            )
        )
    )
    ends = found.final
    assert (ends["product"] - ends["exact_match"]).abs().max() < 1e-12
    assert (ends["power"] - ends["exact_match"]).abs().max() > 0.03
    told = {one.quantity: one for one in emergence.claims(found)}
    assert told["product of per-position accuracies minus exact match"].holds
    assert told["(mean token accuracy)^digits minus exact match"].holds


def test_the_product_law_fails_where_digits_fail_together():
    """All digits right in half of the answers, all wrong in the others."""
    found = emergence.analyze(ladder(smooth, exact=lambda accuracy: float(accuracy.mean())))
    told = {one.quantity: one for one in emergence.claims(found)}
    assert not told["product of per-position accuracies minus exact match"].holds


def test_sigmoid_or_power_law_has_the_lower_aic_where_it_is_true():
    n = np.geomspace(1e3, 6e4, 12)
    for true, first in ((1 / (1 + (8e3 / n) ** 3.0), 0), (2e-4 * n**0.75, 1)):
        ends = pd.DataFrame({"n": n, "exact_match": true})
        found = emergence.fit_curves(ends)
        assert found[first].rss < 1e-8
        assert found[first].aic < found[1 - first].aic - 20
    zeros = emergence.fit_curves(pd.DataFrame({"n": n, "exact_match": np.where(n > 8e3, 1.0, 0.0)}))
    assert zeros[0].rss < 1e-3 < zeros[1].rss


def test_sarles_coefficient():
    """1 for two points in any proportion; 5/9 and 1/3 for the even and the normal distribution; by
    hand for 0, 0, 1, 3.
    """
    for two in ([0, 0, 0, 1, 1], [0.2, 0.7, 0.7, 0.7, 0.7]):
        assert sharpness.sarle(np.array(two)) == pytest.approx(1.0)
    assert sharpness.sarle(np.linspace(0, 1, 20_001)) == pytest.approx(5 / 9, abs=1e-3)
    assert sharpness.sarle(np.random.default_rng(0).normal(size=20_000)) == pytest.approx(
        1 / 3, abs=0.02
    )
    assert sharpness.sarle(np.array([0, 0, 1, 3.0])) == pytest.approx(
        (1.5**2 / 1.5**3 + 1) * 1.5**2 / 4.5
    )
    for undecided in (np.ones(5), np.array([0, 1, 0.0])):
        assert np.isnan(sharpness.sarle(undecided))


@pytest.mark.slow
def test_threshold_is_the_most_seeded_size_nearest_one_half():
    seeds = emergence.analyze(ladder(sudden, at_16)).threshold
    assert len(seeds.values) == 5
    assert sorted(seeds.values) == pytest.approx([0.1**5] * 3 + [0.995**5] * 2)
    assert seeds.sarle > sharpness.UNIFORM_SARLE
    assert seeds.sarle == pytest.approx(1.0)
    assert seeds.chance < 0.01
    both = sharpness.threshold_seeds(
        pd.DataFrame(
            {
                "n": [1.0] * 5 + [2.0] * 5,
                "exact_match": [0.0, 0, 0, 0, 0.1, 0.2, 0.9, 0.4, 0.5, 0.6],
            }
        )
    )
    assert both.n == 2.0
    assert emergence.analyze(ladder(sudden)).threshold.values.size == 1


def test_along_training_exact_match_is_one_curve_where_it_follows_log_likelihood():
    found = emergence.analyze(ladder(smooth))
    assert found.likelihood_curve.r2 > 0.99
    assert len(found.likelihood_curve.x) == 3 * len(WIDTHS)
    noise = np.random.default_rng(0)
    assert (
        emergence.analyze(ladder(smooth, exact=lambda accuracy: noise.random())).likelihood_curve.r2
        < emergence.MIN_CURVE_R2
    )


def test_unmeasured_metrics_and_other_tasks_are_left_out():
    with_distance, without = (emergence.analyze(ladder(smooth, end=end)) for end in (True, False))
    assert "edit_distance" in with_distance.trends
    assert "edit_distance" not in without.trends
    first = next(emergence.claims(without))
    assert not first.holds
    assert first.measured.startswith("4: ")
    assert emergence.analyze(ladder(smooth, length_power=2.0)) is None
    assert STUDY.section(ladder(lambda *_: np.full(5, 0.5))) is None  # exact match does not change
    two = ladder(smooth)
    assert STUDY.section(two[two["d_model"] <= 12]) is None
    assert STUDY.section(two[two["task"] == "text"]) is None


def test_the_section_has_its_pictures_and_tables():
    found = STUDY.section(ladder(sudden, at_16))
    assert [figure.name for figure in found.figures] == [
        "emergence-metrics",
        "emergence-fits",
        "emergence-seeds",
        "emergence-product",
        "emergence-training",
    ]
    assert [table.name for table in found.tables] == [
        "expected-emergence",
        "emergence-metrics",
        "emergence-sizes",
    ]
    assert {row[-1] for row in found.tables[0].rows} == {"yes"}
    assert "cannot settle" in found.figures[2].caption
    assert len(found.figures[2].traces[0].x) == 5


def test_runs_that_differ_in_more_than_the_seed_are_excluded():
    alike = ladder(smooth, seeds=lambda width: 3)
    longest = run_of(16, 7).model_copy(update={"n_steps": 200})
    longer = table_of([(longest, measured(200, np.full(5, 0.999), end=True))], "ladder")
    other = ladder(smooth, reverse=False)
    mixed = pd.concat([alike, longer, other], ignore_index=True)
    found, alone = emergence.analyze(mixed), emergence.analyze(alike)
    assert found.n_excluded == 1 + other["run_id"].nunique()
    assert {str(one) for one in emergence.claims(found)} == {
        str(one) for one in emergence.claims(alone)
    }
    assert "more than the seed" in STUDY.section(mixed).notes[-1]
    assert len(STUDY.section(alike).notes) == 3
