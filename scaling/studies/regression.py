"""In-context linear regression: what a transformer answers, and what least squares and the best
predictor answer (Garg 2022).

From k examples (x, y) of a window, least squares and the Bayes-optimal predictor (ridge) answer on
the windows that the transformer was evaluated on. All errors are squared distances to the y in the
window, so none can fall below the noise.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from scaling.config import RegressionTask
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.config.sweep_file import load_run
from scaling.render.figure import Axis, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Table
from scaling.studies import runs
from scaling.studies.study import Claim, Study, record_table
from scaling.tasks import fixed_batches, open_task

MAX_EXCESS = 0.05  # over the Bayes-optimal predictor, as a share of the variance of y
MAX_OVER_LEAST_SQUARES = 0.15  # relative
MIN_USED = 0.9  # share of the fall of the Bayes-optimal predictor's error


class PredictorErrors(NamedTuple):
    """Mean squared errors after 0 .. m - 1 examples, arrays (m,): least squares, Bayes-optimal,
    answering 0.
    """

    least_squares: np.ndarray
    bayes: np.ndarray
    zero: np.ndarray


class RegressionRun(NamedTuple):
    """The squared error (s, m) of one run at its measured steps (s,) after 0 .. m - 1 examples."""

    seed: int
    step: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class RegressionStudy:
    """Runs on one task, evaluated on the same windows, with the predictors' errors on these."""

    task: RegressionTask
    runs: tuple[RegressionRun, ...]
    predictors: PredictorErrors

    @property
    def determined(self) -> slice:
        """The numbers of examples k >= n, the number of features."""
        return slice(min(self.task.n_features, self.task.examples - 1), None)

    @property
    def variance(self) -> float:
        """The variance of y on these windows, over all k."""
        return float(self.predictors.zero.mean())

    def error(self) -> np.ndarray:
        """The runs' mean squared error at their ends, (m,)."""
        return np.asarray(np.mean([run.error[-1] for run in self.runs], axis=0))

    def excess(self, error: np.ndarray) -> np.ndarray:
        """Errors (..., m) less the Bayes-optimal predictor's: the mean over k >= n as a share of
        the variance of y, (...).
        """
        above = (error - self.predictors.bayes)[..., self.determined]
        return np.asarray(above.mean(axis=-1) / self.variance)


def analyze(rows: pd.DataFrame) -> list[RegressionStudy] | None:
    """The regression runs of a results table, one study for each task and set of windows; None
    where there are none.
    """
    task_rows = runs.without_diverged(rows[rows["task"] == "regression"])
    errors = runs.metric_rows(task_rows, "squared_error")
    by_task: dict[tuple[RegressionTask, int], list[RegressionRun]] = {}
    for run_id, of_run in errors.groupby("run_id"):
        config = load_run(of_run["config"].iloc[0], f"run {run_id}")
        assert isinstance(config.task, RegressionTask)  # the rows say so
        by_step = of_run.pivot_table(index="step", columns="at", values="value")
        if by_step.shape[1] != config.task.examples or by_step.isna().to_numpy().any():
            continue  # rows are missing, or hold no number
        run = RegressionRun(config.seed, by_step.index.to_numpy(), by_step.to_numpy(float))
        by_task.setdefault((config.task, config.evals.tokens), []).append(run)
    return [
        RegressionStudy(task, tuple(of_task), predictors(task, tokens))
        for (task, tokens), of_task in by_task.items()
    ] or None


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


def least_squares(x: np.ndarray, y: np.ndarray, seen: int) -> np.ndarray:
    """Answers (W,) to question `seen` from the examples before it, x (W, m, n), y (W, m): least
    norm (Garg 2022, 3.1).
    """
    w = np.einsum("wnk,wk->wn", np.linalg.pinv(x[:, :seen]), y[:, :seen])
    return np.asarray(np.einsum("wn,wn->w", x[:, seen], w))


def bayes(x: np.ndarray, y: np.ndarray, seen: int, config: RegressionTask) -> np.ndarray:
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


def claims(studies: Sequence[RegressionStudy]) -> list[Claim]:
    """How near the runs come to the best predictor and to least squares, and how much they learn
    from examples.
    """
    made = []
    for study in studies:
        error, best = study.error(), study.predictors.bayes
        ordinary = study.predictors.least_squares
        features = f"{study.task.n_features} features"
        excess = float(study.excess(error))
        over = float(error[study.determined].mean() / ordinary[study.determined].mean() - 1)
        used = float((error[0] - error[-1]) / (best[0] - best[-1]))
        made += [
            Claim(
                "squared error above the Bayes-optimal predictor's, mean over k >= n examples, "
                + features,
                f"below {MAX_EXCESS:.0%} of the variance of y",
                f"{excess:.1%} (least squares {float(study.excess(ordinary)):.1%})",
                excess < MAX_EXCESS,
            ),
            Claim(
                f"squared error over that of least squares, mean over k >= n examples, {features}",
                f"at most {MAX_OVER_LEAST_SQUARES:.0%} more",
                f"{over:+.1%}",
                over <= MAX_OVER_LEAST_SQUARES,
            ),
            Claim(
                f"fall of the squared error from no example to {len(error) - 1}, {features}",
                f"at least {MIN_USED:.0%} of the Bayes-optimal predictor's",
                f"{used:.0%}",
                used >= MIN_USED,
            ),
        ]
    return made


def figures(studies: Sequence[RegressionStudy]) -> Iterator[Figure]:
    """Squared error by number of examples, and its excess over the best predictor's along
    training.
    """
    for suffix, study in _numbered(studies):
        seen = np.arange(study.task.examples)
        ends = np.array([run.error[-1] for run in study.runs])
        spread = {"lo": ends.min(axis=0), "hi": ends.max(axis=0)} if len(ends) > 1 else {}
        traces: list[Trace] = [
            Line(seen, study.predictors.least_squares, "least squares", 1, "dash"),
            Line(seen, study.predictors.bayes, "Bayes-optimal (ridge)", "ink", "dash"),
            ReferenceLine(y=noise_variance(study.task), label="noise"),
            Line(seen, study.error(), "", 0, "solid", 1.2),
            Markers(seen, study.error(), "transformer", 0, **spread),
        ]
        several = f"Points: mean of {len(ends)} runs and their range. " if len(ends) > 1 else ""
        caption = (
            f"Mean squared error of the next y, {study.task.n_features} features, noise of "
            f"standard deviation {study.task.noise:g}. {several}Least squares takes the solution "
            "of least norm."
        )
        axes = Axis("examples seen k"), Axis("squared error", log=True)
        title = "Error by number of examples"
        yield Figure(f"regression{suffix}", title, caption, *axes, traces)
        ordinary = float(study.excess(study.predictors.least_squares))
        traces = [ReferenceLine(y=ordinary, label="least squares")]
        for index, run in enumerate(study.runs):
            label = "" if index else "transformer"
            excess = study.excess(run.error)
            traces.append(Line(run.step, excess, label, 0, note=f"seed {run.seed}"))
        caption = (
            "Squared error above the Bayes-optimal predictor's, mean over k >= n, as a share of "
            "the variance of y. One line per seed."
        )
        axes = Axis("step", log=True, unit="count"), Axis("excess / variance", log=True)
        title = "How the predictor is learned"
        yield Figure(f"regression-training{suffix}", title, caption, *axes, traces)


def tables(studies: Sequence[RegressionStudy]) -> Iterator[Table | None]:
    """All errors by number of examples."""
    for suffix, study in _numbered(studies):
        errors = zip(
            study.error(), study.predictors.least_squares, study.predictors.bayes, strict=True
        )
        names = ("transformer", "least squares", "Bayes-optimal")
        records = [
            {"examples seen": seen, **dict(zip(names, map(float, of_seen), strict=True))}
            for seen, of_seen in enumerate(errors)
        ]
        title = f"Squared errors, {study.task.n_features} features"
        yield record_table(f"regression{suffix}", title, records)


def _numbered(studies: Sequence[RegressionStudy]) -> Iterator[tuple[str, RegressionStudy]]:
    """Each study with the end of its file names."""
    return zip(("", *(f"-{index}" for index in range(2, len(studies) + 1))), studies, strict=True)


def notes(studies: Sequence[RegressionStudy]) -> list[str]:
    """Three sentences that say no more than these runs show."""
    shares = [float(study.excess(study.error())) for study in studies]
    ordinary = [float(study.excess(study.predictors.least_squares)) for study in studies]
    n_better = sum(ours < theirs for ours, theirs in zip(shares, ordinary, strict=True))
    listed = ", ".join(f"{100 * share:.2g} %" for share in shares)
    return [
        "Every window is a new linear function, so its weights can be learned only from the "
        "examples in the window, and not by training.",
        "From as many examples as features on, the transformer's squared error lies "
        f"{listed} of the variance of y above that of the Bayes-optimal predictor, which knows how "
        "weights and noise are distributed.",
        "Least squares knows neither and follows the noise while examples are few; the "
        "transformer's mean excess is smaller than that of least squares in "
        f"{n_better} of {len(studies)} tasks.",
    ]


TITLE = "In-context linear regression"
STUDY = Study("regression", TITLE, analyze, claims, figures, tables, notes)
