"""In-context linear regression: what a transformer answers, and what least squares and the best
predictor answer (Garg 2022).

From k examples (x, y) of a window, least squares and the Bayes-optimal predictor (ridge) answer on
the windows that the transformer was evaluated on. All errors are squared distances to the y in the
window, so none can fall below the noise.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd

from scaling.config import RegressionTask
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.config.sweep_file import load_run
from scaling.render.figure import Axis, Figure, Line, Markers, ReferenceLine
from scaling.studies import runs
from scaling.studies.study import Claim, Findings, Study
from scaling.tasks import fixed_batches, open_task

Array = np.ndarray

MAX_EXCESS = 0.05  # over the Bayes-optimal predictor, as a share of the variance of y


class PredictorErrors(NamedTuple):
    """Mean squared errors after 0 .. m - 1 examples, arrays (m,): least squares, Bayes-optimal,
    answering 0.
    """

    least_squares: Array
    bayes: Array
    zero: Array


def analyze(rows: pd.DataFrame) -> Findings | None:
    """The squared errors at the ends of the regression runs of the task that most runs have,
    evaluated on the same windows; None where there are none.
    """
    every = runs.metric_rows(runs.without_diverged(rows), "squared_error")
    every = every[every["task"] == "regression"]
    usual = runs.of_one_setting(runs.of_one_setting(every, "task"), "evals")
    if usual.empty:
        return None
    config = load_run(usual["config"].iloc[0], f"run {usual['run_id'].iloc[0]}")
    assert isinstance(config.task, RegressionTask)  # the rows say so
    errors = usual.pivot_table(index=["run_id", "step"], columns="at", values="value")
    lacking = errors.isna().any(axis=1).groupby("run_id").transform("any")
    errors = errors[~lacking].reindex(columns=range(config.task.examples)).dropna()
    if errors.empty:
        return None
    ends = errors.groupby("run_id").tail(1).to_numpy(float)  # (runs, examples)
    optimal = predictors(config.task, config.evals.tokens)
    return Findings(
        [_claim(config.task, ends.mean(axis=0), optimal)],
        [_figure(config.task, ends, optimal)],
        n_left_out=every["run_id"].nunique() - len(ends),
    )


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


def _claim(task: RegressionTask, error: Array, optimal: PredictorErrors) -> Claim:
    """How near the runs come to the best predictor from as many examples as features on, as a share
    of the variance of y on these windows.
    """
    first = min(task.n_features, task.examples - 1)
    excess, ordinary = (
        float((each - optimal.bayes)[first:].mean()) / float(optimal.zero.mean())
        for each in (error, optimal.least_squares)
    )
    return Claim(
        "squared error above the Bayes-optimal predictor's, mean over k >= n, "
        f"{task.n_features} features",
        f"below {100 * MAX_EXCESS:.0f} % of the variance of y",
        f"{100 * excess:.1f} % (least squares {100 * ordinary:.1f} %)",
        excess < MAX_EXCESS,
    )


def _figure(task: RegressionTask, ends: Array, optimal: PredictorErrors) -> Figure:
    """Squared error by number of examples."""
    seen, error = np.arange(task.examples), ends.mean(axis=0)
    lo, hi = (ends.min(axis=0), ends.max(axis=0)) if len(ends) > 1 else (None, None)
    traces = (
        Line(seen, optimal.least_squares, "least squares", 1, "dash"),
        Line(seen, optimal.bayes, "Bayes-optimal (ridge)", "ink", "dash"),
        ReferenceLine(y=noise_variance(task), label="noise"),
        Line(seen, error, "", 0, "solid", 1.2),
        Markers(seen, error, "transformer", 0, lo=lo, hi=hi),
    )
    caption = (
        f"Mean squared error of the next y, {task.n_features} features, noise of standard "
        f"deviation {task.noise:g}: mean and range of {len(ends)} runs."
    )
    axes = Axis("examples seen k"), Axis("squared error", log=True)
    return Figure("regression", "Error by number of examples", caption, *axes, traces)


STUDY = Study("regression", "In-context linear regression", analyze)
