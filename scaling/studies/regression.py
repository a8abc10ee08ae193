"""In-context linear regression: what a transformer answers, against the predictors that a statistician would use (Garg 2022).

From k examples (x, y) of a window least squares and the Bayes-optimal predictor (ridge) answer on the very windows that the
transformer was examined on; all errors are squared distances to the y that was told, so none can fall below the noise.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.config import RegressionTask
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.config.sweep_file import load_run
from scaling.studies import runs
from scaling.studies.findings import Claim
from scaling.tasks import open_task, val_batches

NEAR_BAYES = 0.05  # of the variance of y
NEAR_ORDINARY = 0.15  # of the error of least squares
USED = 0.9  # of what examples tell


@dataclass(frozen=True)
class Predictors:
    """Mean squared errors after 0 .. m - 1 examples, arrays (m,): of least squares, of the Bayes-optimal predictor, of answering 0."""

    least_squares: np.ndarray
    bayes: np.ndarray
    zero: np.ndarray


@dataclass(frozen=True)
class Run:
    """The squared error (s, m) of one run at its measured steps (s,) after 0 .. m - 1 examples."""

    run_id: str
    seed: int
    step: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class Study:
    """Runs on one task, examined on the same windows, with the predictors' errors on these."""

    task: RegressionTask
    runs: tuple[Run, ...]
    predictors: Predictors

    @property
    def enough(self) -> slice:
        """From as many examples as there are features on: what k >= n means."""
        return slice(min(self.task.n_features, self.task.examples - 1), None)

    @property
    def variance(self) -> float:
        """The variance of y on these windows, over all k."""
        return float(self.predictors.zero.mean())

    def error(self) -> np.ndarray:
        """The runs' mean squared error at their ends, (m,)."""
        return np.asarray(np.mean([run.error[-1] for run in self.runs], axis=0))

    def excess(self, error: np.ndarray) -> np.ndarray:
        """How far errors (..., m) lie above the Bayes-optimal predictor's, the mean over k >= n as a share of the variance of y, (...)."""
        return np.asarray(
            (error - self.predictors.bayes)[..., self.enough].mean(axis=-1) / self.variance
        )


def studies(table: pd.DataFrame) -> list[Study]:
    """The regression runs of a results table, one study for each task and set of windows."""
    errors = runs.trail(runs.ended(table[table["task"] == "regression"]), "squared_error")
    found: dict[tuple[RegressionTask, int], list[Run]] = {}
    for run_id, held in errors.groupby("run_id"):
        config = load_run(held["config"].iloc[0], f"run {run_id}")
        assert isinstance(config.task, RegressionTask)  # the rows say so
        by_step = held.pivot_table(index="step", columns="at", values="value")
        if by_step.shape[1] != config.task.examples or by_step.isna().to_numpy().any():
            continue  # rows are lacking, or hold no number
        run = Run(str(run_id), config.seed, by_step.index.to_numpy(), by_step.to_numpy(float))
        found.setdefault((config.task, config.evals.tokens), []).append(run)
    return [
        Study(task, tuple(runs), predictors(task, tokens)) for (task, tokens), runs in found.items()
    ]


@functools.lru_cache(maxsize=16)
def predictors(config: RegressionTask, tokens: int) -> Predictors:
    """The predictors' errors on the held-out windows of about `tokens` tokens, the ones that a run with these evaluations sees."""
    task = open_task(config)
    windows = np.concatenate(list(val_batches(task, EVAL_SEQUENCES, tokens)))
    x, y = task.examples(windows)  # type: ignore[attr-defined]
    found = {
        "least_squares": np.stack(
            [least_squares(x, y, seen) for seen in range(y.shape[1])], axis=1
        ),
        "bayes": np.stack([bayes(x, y, seen, config) for seen in range(y.shape[1])], axis=1),
        "zero": np.zeros_like(y),
    }
    return Predictors(
        **{name: np.square(answer - y).mean(axis=0) for name, answer in found.items()}
    )


def least_squares(x: np.ndarray, y: np.ndarray, seen: int) -> np.ndarray:
    """Answers (W,) to question `seen` from the examples before it, x (W, m, n) and y (W, m): the solution of least norm (Garg 2022, 3.1)."""
    w = np.einsum("wnk,wk->wn", np.linalg.pinv(x[:, :seen]), y[:, :seen])
    return np.asarray(np.einsum("wn,wn->w", x[:, seen], w))


def bayes(x: np.ndarray, y: np.ndarray, seen: int, config: RegressionTask) -> np.ndarray:
    """The posterior mean under w ~ N(0, 1 / n): ridge with a penalty of n times the variance of the noise, that of rounding y included."""
    n = config.n_features
    penalty = n * noise_variance(config)
    past, told = x[:, :seen], y[:, :seen]
    gram = np.einsum("wki,wkj->wij", past, past) + penalty * np.eye(n)
    w = np.linalg.solve(gram, np.einsum("wki,wk->wi", past, told)[..., None])[..., 0]
    return np.asarray(np.einsum("wn,wn->w", x[:, seen], w))


def noise_variance(config: RegressionTask) -> float:
    """Of y about w.x: the noise, and a twelfth of the squared distance of two levels."""
    from scaling.tasks.regression import REACH

    return config.noise**2 + (2 * REACH / (config.n_levels - 1)) ** 2 / 12


def findings(found: Study) -> list[Claim]:
    """How near the runs come to the best predictor and to least squares, and how much of what examples tell they use."""
    error, held, of = found.error(), found.predictors, f"{found.task.n_features} features"
    excess, theirs = float(found.excess(error)), float(found.excess(held.least_squares))
    over = float(error[found.enough].mean() / held.least_squares[found.enough].mean() - 1)
    used = float((error[0] - error[-1]) / (held.bayes[0] - held.bayes[-1]))
    return [
        Claim(
            f"squared error above the Bayes-optimal predictor's, mean over k >= n examples, {of}",
            f"below {NEAR_BAYES:.0%} of the variance of y",
            f"{excess:.1%} (least squares {theirs:.1%})",
            excess < NEAR_BAYES,
        ),
        Claim(
            f"squared error over that of least squares, mean over k >= n examples, {of}",
            f"at most {NEAR_ORDINARY:.0%} more",
            f"{over:+.1%}",
            over <= NEAR_ORDINARY,
        ),
        Claim(
            f"fall of the squared error from no example to {len(error) - 1}, {of}",
            f"at least {USED:.0%} of the Bayes-optimal predictor's",
            f"{used:.0%}",
            used >= USED,
        ),
    ]
