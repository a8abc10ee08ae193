"""The predictors against direct solutions; from rows to an excess, findings and a section."""

from pathlib import Path

import numpy as np
import pytest

from scaling.config import RegressionTask
from scaling.store.rows import Measurement
from scaling.studies import regression
from scaling.studies.regression import STUDY
from scaling.tasks import open_task
from tests.studies.tables import runs_of, table_of

FILE = Path(__file__).parents[2] / "sweeps" / "regression.toml"
CONFIG = RegressionTask(kind="regression", n_features=3, n_levels=400, noise=0.5, examples=8)


def table(factor, tokens=4096):
    """The shipped sweep as if trained: errors `factor` times the best predictor's at the end,
    without examples all along at first.
    """

    def measured(run):
        errors = regression.predictors(run.task, tokens)
        for step, by_examples in ((10, errors.zero), (run.n_steps, factor * errors.bayes)):
            for seen, value in enumerate(by_examples):
                yield Measurement(step, "val", "squared_error", float(value), at=float(seen))

    evals = [
        (run, run.evals.model_copy(update={"tokens": tokens})) for run in runs_of("regression")
    ]
    runs = [run.model_copy(update={"evals": changed}) for run, changed in evals]
    return table_of(((run, measured(run)) for run in runs), "regression")


@pytest.fixture(scope="module")
def examples():
    task = open_task(CONFIG)
    return task.examples(task.batch("val", 0, 1500))


@pytest.mark.parametrize("seen", [0, 1, 2, 5])
def test_least_squares_is_the_solution_of_least_norm(examples, seen):
    x, y = (part[:40] for part in examples)
    right = [
        x[i, seen] @ np.linalg.lstsq(x[i, :seen], y[i, :seen], rcond=None)[0] if seen else 0.0
        for i in range(40)
    ]
    np.testing.assert_allclose(regression.least_squares(x, y, seen), right, atol=1e-9)


@pytest.mark.parametrize("seen", [0, 1, 4])
def test_bayes_is_the_mean_of_a_gaussian_process(examples, seen):
    """The same posterior from the covariance of the values of y: k(x, x') =
    x.x' / n, plus noise.
    """
    x, y = (part[:40] for part in examples)
    noise, right = 0.5**2 + (6 / 399) ** 2 / 12, []
    for i in range(40):
        past = x[i, :seen]
        covariance = past @ past.T / 3 + noise * np.eye(seen)
        right.append((past @ x[i, seen] / 3) @ np.linalg.solve(covariance, y[i, :seen]))
    np.testing.assert_allclose(regression.bayes(x, y, seen, CONFIG), right, atol=1e-9)


def test_bayes_penalty_has_the_lowest_error(examples):
    x, y = examples
    best = np.square(regression.bayes(x, y, 3, CONFIG) - y[:, 3]).mean()
    for noise in (0.1, 2.0):  # a penalty 25 times too small, 16 times too large
        other = regression.bayes(x, y, 3, CONFIG.model_copy(update={"noise": noise}))
        assert np.square(other - y[:, 3]).mean() > best
    assert np.square(regression.least_squares(x, y, 3) - y[:, 3]).mean() > best


def test_predictors_use_the_windows_of_the_evaluation():
    held = regression.predictors(CONFIG, 8192)
    task = open_task(CONFIG)
    count = 8192 // task.seq_len
    _, y = task.examples(task.batch("val", 0, count - count % 32))
    assert held.zero.shape == (8,)
    np.testing.assert_allclose(held.zero, np.square(y).mean(axis=0), rtol=0.05)


def test_regression_claims_of_the_best_and_of_an_ignorant_run():
    findings = regression.analyze(table(1.0))
    (claim,) = findings.claims
    assert claim.holds
    assert claim.measured.startswith("0.0 % (least squares ")
    assert findings.figures[0].caption.endswith("mean and range of 2 runs.")
    poor = table(1.0)
    poor = poor[poor["step"] == 10]  # where they answered nothing yet
    assert regression.analyze(poor).claims[0].holds is False


def test_the_excess_is_a_share_of_the_variance():
    task = runs_of("regression")[0].task
    errors = regression.predictors(task, 4096)
    (claim,) = regression.analyze(table(1.5)).claims
    share = 0.5 * errors.bayes[task.n_features :].mean() / errors.zero.mean()
    assert claim.measured.startswith(f"{100 * share:.1f} % ")


def test_the_section_shows_all_three_predictors():
    found = STUDY.section(table(1.0))
    labels = [getattr(trace, "label", "") for trace in found.figures[0].traces]
    assert {"transformer", "least squares", "Bayes-optimal (ridge)"} <= set(labels)
    assert len(found.figures) == 1
    assert STUDY.section(table(1.0).assign(task="text")) is None


def test_a_run_whose_rows_lack_their_examples_is_left_out():
    held = table(1.0)
    first = held["run_id"] == held["run_id"].iloc[0]
    findings = regression.analyze(held.assign(at=held["at"].where(~first)))
    assert findings.n_left_out == 1
    assert findings.figures[0].caption.endswith("mean and range of 1 runs.")
    assert STUDY.section(held.assign(at=np.nan)) is None
    assert STUDY.section(held.assign(value=np.nan)) is None
