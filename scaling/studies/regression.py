"""In-context linear regression: what a transformer answers, and what least squares and the best
predictor answer (Garg 2022).

From k examples (x, y) of a window, least squares and the Bayes-optimal predictor (ridge) answer on
the windows that the transformer was evaluated on. All errors are squared distances to the y in the
window, so none can fall below the noise.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from scaling.config import RegressionTask
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.config.sweep_file import load_run
from scaling.formatting import format_percent
from scaling.render.figure import Axis, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Table
from scaling.studies import runs
from scaling.studies.study import Claim, Study, left_out_note, record_table
from scaling.tasks import fixed_batches, open_task

Array = np.ndarray

MAX_EXCESS = 0.05  # over the Bayes-optimal predictor, as a share of the variance of y
MIN_USED = 0.9  # share of the fall of the Bayes-optimal predictor's error


class PredictorErrors(NamedTuple):
    """Mean squared errors after 0 .. m - 1 examples, arrays (m,): least squares, Bayes-optimal,
    answering 0.
    """

    least_squares: Array
    bayes: Array
    zero: Array


@dataclass(frozen=True)
class RegressionStudy:
    """Runs on one task, evaluated on the same windows: `curves` has a row for each run and step,
    the squared `error` (m,) after 0 .. m - 1 examples; `predictors` are those of these windows.
    `n_other` runs are of another task, or lack rows.
    """

    task: RegressionTask
    curves: pd.DataFrame
    predictors: PredictorErrors
    n_other: int

    @property
    def ends(self) -> Array:
        """The runs' errors at their ends (runs, m)."""
        return np.stack(runs.at_end(self.curves)["error"].tolist())

    def after_n(self, error: Array) -> float:
        """The mean of errors (m,) over the numbers of examples k >= n, the number of features."""
        return float(error[min(self.task.n_features, self.task.examples - 1) :].mean())

    def excess(self, error: Array) -> float:
        """Errors (m,) less the Bayes-optimal predictor's: the mean over k >= n as a share of the
        variance of y on these windows.
        """
        return self.after_n(error - self.predictors.bayes) / float(self.predictors.zero.mean())


def analyze(rows: pd.DataFrame) -> RegressionStudy | None:
    """The regression runs of the task that most runs have; None where there are none."""
    every = runs.metric_rows(runs.without_diverged(rows), "squared_error")
    every = every[every["task"] == "regression"]
    usual = runs.of_one_setting(runs.of_one_setting(every, "task"), "evals")
    if usual.empty:
        return None
    config = load_run(usual["config"].iloc[0], f"run {usual['run_id'].iloc[0]}")
    assert isinstance(config.task, RegressionTask)  # the rows say so
    errors = usual.pivot_table(index=["run_id", "seed", "step"], columns="at", values="value")
    lacking = errors.isna().any(axis=1).groupby("run_id").transform("any")
    errors = errors[~lacking].reindex(columns=range(config.task.examples)).dropna()
    if errors.empty:
        return None
    curves = errors.index.to_frame(index=False).assign(error=list(errors.to_numpy(float)))
    n_other = every["run_id"].nunique() - curves["run_id"].nunique()
    optimal = predictors(config.task, config.evals.tokens)
    return RegressionStudy(config.task, curves, optimal, n_other)


@functools.lru_cache(maxsize=16)
def predictors(config: RegressionTask, tokens: int) -> PredictorErrors:
    """The predictors' errors on the held-out windows of about `tokens` tokens, those of a run with
    these evaluations.
    """
    task = open_task(config)
    windows = np.concatenate(list(fixed_batches(task, EVAL_SEQUENCES, tokens)))
    x, y = task.examples(windows)  # type: ignore[attr-defined]
    seen = range(y.shape[1])
    answers = (
        np.stack([least_squares(x, y, k) for k in seen], axis=1),
        np.stack([bayes(x, y, k, config) for k in seen], axis=1),
        np.zeros_like(y),
    )
    return PredictorErrors(*(np.square(answer - y).mean(axis=0) for answer in answers))


def least_squares(x: Array, y: Array, seen: int) -> Array:
    """Answers (W,) to question `seen` from the examples before it, x (W, m, n), y (W, m): least
    norm (Garg 2022, 3.1).
    """
    w = np.einsum("wnk,wk->wn", np.linalg.pinv(x[:, :seen]), y[:, :seen])
    return np.asarray(np.einsum("wn,wn->w", x[:, seen], w))


def bayes(x: Array, y: Array, seen: int, config: RegressionTask) -> Array:
    """The posterior mean under w ~ N(0, 1 / n): ridge with penalty n times the noise variance,
    rounding of y included.
    """
    n = config.n_features
    past_x, past_y = x[:, :seen], y[:, :seen]
    gram = np.einsum("wki,wkj->wij", past_x, past_x) + n * noise_variance(config) * np.eye(n)
    w = np.linalg.solve(gram, np.einsum("wki,wk->wi", past_x, past_y)[..., None])[..., 0]
    return np.asarray(np.einsum("wn,wn->w", x[:, seen], w))


def noise_variance(config: RegressionTask) -> float:
    """The variance of y about w.x: the noise, and that of rounding y to levels."""
    from scaling.tasks.regression import REACH

    return config.noise**2 + (2 * REACH / (config.n_levels - 1)) ** 2 / 12


def claims(study: RegressionStudy) -> Iterator[Claim]:
    """How near the runs come to the best predictor, and how much they learn from examples."""
    error, best, ordinary = study.ends.mean(axis=0), *study.predictors[1::-1]
    features, excess = f"{study.task.n_features} features", study.excess(error)
    quantity = f"squared error above the Bayes-optimal predictor's, mean over k >= n, {features}"
    expected = f"below {MAX_EXCESS:.0%} of the variance of y"
    measured = f"{excess:.1%} (least squares {study.excess(ordinary):.1%})"
    yield Claim(quantity, expected, measured, excess < MAX_EXCESS)
    used = float((error[0] - error[-1]) / (best[0] - best[-1]))
    quantity = f"fall of the squared error from no example to {len(error) - 1}, {features}"
    expected = f"at least {MIN_USED:.0%} of the Bayes-optimal predictor's"
    yield Claim(quantity, expected, f"{used:.0%}", used >= MIN_USED)


def figures(study: RegressionStudy) -> Iterator[Figure]:
    """Squared error by number of examples."""
    seen, ends = np.arange(study.task.examples), study.ends
    error, (ordinary, best, _) = ends.mean(axis=0), study.predictors
    lo, hi = (ends.min(axis=0), ends.max(axis=0)) if len(ends) > 1 else (None, None)
    traces: list[Trace] = [
        Line(seen, ordinary, "least squares", 1, "dash"),
        Line(seen, best, "Bayes-optimal (ridge)", "ink", "dash"),
        ReferenceLine(y=noise_variance(study.task), label="noise"),
        Line(seen, error, "", 0, "solid", 1.2),
        Markers(seen, error, "transformer", 0, lo=lo, hi=hi),
    ]
    caption = (
        f"Mean squared error of the next y, {study.task.n_features} features, noise of "
        f"standard deviation {study.task.noise:g}: mean and range of {len(ends)} runs."
    )
    axes = Axis("examples seen k"), Axis("squared error", log=True)
    yield Figure("regression", "Error by number of examples", caption, *axes, traces)


def table(study: RegressionStudy) -> Table | None:
    """All errors by number of examples."""
    names = ("examples seen", "transformer", "least squares", "Bayes-optimal")
    errors = (study.ends.mean(axis=0), *study.predictors[:2])
    records = pd.DataFrame(dict(zip(names[1:], errors, strict=True))).reset_index(names=names[0])
    title = f"Squared errors, {study.task.n_features} features"
    return record_table("regression", title, records.to_dict("records"))


def notes(study: RegressionStudy) -> list[str]:
    """How near the transformer comes to the best predictor; which runs are left out."""
    excess = study.excess(study.ends.mean(axis=0))
    is_smaller = excess < study.excess(study.predictors.least_squares)
    return [
        "From as many examples as features on, the transformer's squared error lies "
        f"{format_percent(excess)} of the variance of y above that of the Bayes-optimal predictor, "
        f"{'less' if is_smaller else 'no less'} than least squares, which follows the noise.",
        *left_out_note(study.n_other),
    ]


TITLE = "In-context linear regression"
STUDY = Study("regression", TITLE, analyze, claims, figures, table, notes)
