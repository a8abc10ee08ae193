"""Addition ladders whose digits are known: what is sharp by the metric, and what by the model."""

import numpy as np
import pandas as pd
import pytest

from scaling.config import ArithmeticTask, OptimConfig, RunConfig
from scaling.store.rows import Measurement
from scaling.studies import emergence, runs
from scaling.studies.emergence import STUDY
from scaling.studies.study import Interval
from tests.models import small_model
from tests.studies.tables import table_of

WIDTHS = (8, 12, 16, 24, 32, 48)
TRANSITION = emergence.DECISIONS[1][0]
DIGITS = 4  # so an answer has five


def run_of(width, seed=0, **task):
    model = small_model(width, vocab_size=12)
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
    measured_runs = []
    for width in WIDTHS:
        for seed in range(seeds(width)):
            rows = []
            for step in (10, 50, 100):
                accuracy = digit(width, seed, step / 100)
                matches = None if exact is None else exact(accuracy)
                rows += measured(step, accuracy, matches, end and step == 100)
            measured_runs.append((run_of(width, seed, **task), rows))
    return table_of(measured_runs, "ladder")


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


def ends(rows):
    """The checkpoints at the ends of runs."""
    return runs.at_end(emergence.checkpoints(rows))


def test_a_smooth_improvement_is_a_metric_effect():
    medians = ends(ladder(smooth)).groupby("n").median(numeric_only=True)
    n = medians.index.to_numpy()
    even = 1 / np.log2(n.max() / n.min())
    exact, accuracy = (
        emergence.sharpness(np.log2(n), medians[metric].to_numpy())
        for metric in ("exact_match", "token_accuracy")
    )
    assert exact > accuracy
    assert even < accuracy < 1.3 * even  # N grows a little less than with the square of the width
    assert accuracy < dict(emergence.DECISIONS)[TRANSITION]


def answers(rows):
    """Of the metric effect and the transition: the last word of what was measured."""
    return [claim.measured.rpartition(": ")[2] for claim in emergence.analyze(rows).claims[-2:]]


@pytest.mark.slow
def test_a_sudden_model_is_a_transition_not_a_metric_effect():
    rows = ladder(sudden, at_16)
    assert answers(rows) == ["no", "yes"]
    n = np.sort(rows["n_params"].unique())
    _, transition = emergence.decisions(ends(rows))
    # three of five fail at 16: all of it from 16 to 24
    assert transition.value == pytest.approx(1 / np.log2(n[3] / n[2]))


@pytest.mark.slow
def test_jump_of_exact_match_alone_is_a_metric_effect():
    """Log-likelihood that falls evenly and an exact match that jumps: the metric's effect, and no
    transition.
    """
    table = ladder(smooth, lambda width: 2, exact=lambda accuracy: float(accuracy[:4].mean() > 0.6))
    even = table["metric"] == "answer_nll"
    table.loc[even, "value"] = 8.0 - np.log(table.loc[even, "n_params"])
    assert answers(table) == ["yes", "no"]


def test_one_seed_per_size_leaves_decisions_open():
    claims = emergence.analyze(ladder(sudden)).claims[-2:]
    assert [claim.holds for claim in claims] == [None, None]
    assert all("one seed" in claim.measured for claim in claims)


@pytest.mark.slow
def test_disagreeing_seeds_leave_decisions_open():
    """Each size has seeds that learned and seeds that did not, the more of them the larger it
    is.
    """
    lucky = ladder(
        lambda width, seed, over: np.full(
            5, 0.99 if seed < WIDTHS.index(width) and over == 1.0 else 0.1
        ),
        lambda width: 5,
    )
    decisions = emergence.decisions(ends(lucky))
    for decision in decisions:
        assert decision.lo <= decision.value <= decision.hi
    assert emergence.decisions(ends(lucky)) == decisions  # the same resamples every time


@pytest.mark.parametrize(
    ("interval", "holds"),
    [((0.6, 0.4, 0.9), None), ((0.6, 0.5, 0.9), True), ((0.4, 0.3, 0.49), True)],
)
def test_a_decision_is_settled_where_its_interval_is_on_one_side(interval, holds, monkeypatch):
    two = [Interval(1.0, 1.0, 1.0), Interval(*interval)]
    monkeypatch.setattr(emergence, "decisions", lambda final: two)
    assert emergence.analyze(ladder(smooth)).claims[-1].holds is holds


def test_the_product_law_holds_for_independent_digits_and_the_mean_misses():
    rows = ladder(
        lambda width, seed, over: np.append(np.full(2, 0.999), np.full(3, 0.3 + 0.6 * (width > 16)))
    )
    final = ends(rows)
    assert (final["product"] - final["exact_match"]).abs().max() < 1e-12
    assert (final["power"] - final["exact_match"]).abs().max() > 0.03
    assert emergence.analyze(rows).claims[0].holds


def test_the_product_law_fails_where_digits_fail_together():
    """All digits right in half of the answers, all wrong in the others."""
    findings = emergence.analyze(ladder(smooth, exact=lambda accuracy: float(accuracy.mean())))
    assert not findings.claims[0].holds


def test_along_training_exact_match_is_one_curve_where_it_follows_log_likelihood():
    curve = emergence.analyze(ladder(smooth)).claims[1]
    share, _, said = curve.measured.partition("%")
    assert curve.holds
    assert float(share) > 99
    assert said.endswith(f" {3 * len(WIDTHS)} checkpoints")
    noise = np.random.default_rng(0)
    random = emergence.analyze(ladder(smooth, exact=lambda accuracy: noise.random()))
    assert random.claims[1].holds is False


def test_unmeasured_metrics_and_other_tasks_are_left_out():
    lines = [
        [trace.label for trace in STUDY.section(ladder(smooth, end=end)).figures[0].traces]
        for end in (True, False)
    ]
    assert ["edit distance" in labels for labels in lines] == [True, False]
    assert emergence.analyze(ladder(smooth, length_power=2.0)) is None
    assert STUDY.section(ladder(lambda *_: np.full(5, 0.5))) is None  # exact match does not change
    two = ladder(smooth)
    assert STUDY.section(two[two["d_model"] <= 12]) is None
    assert STUDY.section(two[two["task"] == "text"]) is None


def test_the_section_has_its_figure_and_tables():
    section = STUDY.section(ladder(sudden, at_16))
    assert [figure.name for figure in section.figures] == ["emergence"]
    assert [table.name for table in section.tables] == ["expected-emergence", "emergence"]
    assert {row[-1] for row in section.tables[0].rows} == {"yes"}
    assert [row[1] for row in section.tables[1].rows] == [2, 2, 5, 2, 2, 2]
    at_threshold = section.tables[1].rows[2][2]
    assert at_threshold[1:] == pytest.approx((0.1**5, 0.995**5))


def test_runs_that_differ_in_more_than_the_seed_are_excluded():
    alike = ladder(smooth, seeds=lambda width: 3)
    longest = run_of(16, 7).model_copy(update={"n_steps": 200})
    longer = table_of([(longest, measured(200, np.full(5, 0.999), end=True))], "ladder")
    other = ladder(smooth, reverse=False)
    mixed = pd.concat([alike, longer, other], ignore_index=True)
    findings, alone = emergence.analyze(mixed), emergence.analyze(alike)
    assert findings.n_left_out == 1 + other["run_id"].nunique()
    assert findings.claims == alone.claims
    assert STUDY.section(mixed).notes == [
        f"Runs of another setting, or that lack rows, are not in these figures: {1 + 6}."
    ]
    assert STUDY.section(alike).notes == []
