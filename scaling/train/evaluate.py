"""What is measured along a run: held-out loss of the weights and of their average, what the task asks of single tokens, and the
noise of the gradient where it is asked for.
"""

from __future__ import annotations

import math
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from scaling.config import RunConfig
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.store.rows import MetricValue
from scaling.tasks import Scores, Task, Verifiable, fixed_batches
from scaling.tasks.corpus.token_store import Split
from scaling.train.answer_sampling import AnswerEvaluator
from scaling.train.gradient_noise import GradientNoiseScale
from scaling.train.sharding import Sharder
from scaling.train.step import TrainState, eval_program, score_program, shape_of


class Evaluator:
    """Measures any state of runs of one shape on the same windows (M, B, T + 1), those held out if nothing else is said."""

    def __init__(self, run: RunConfig, task: Task, place: Sharder) -> None:
        self._run, self._task, self._place = run, task, place
        self._program = eval_program(shape_of(run), place.how)
        self._windows = self._fixed("val")
        self._held_out = place.tokens(self._windows)
        self._meter = GradientNoiseScale(run, task, place) if run.evals.noise_scale else None
        self._scorer = (
            _TokenMetrics(run, task, place, self._windows)
            if task.examined or run.evals.by_position
            else None
        )
        self._answerer = _answerer(run, task, place, self._windows) if run.task.answerable else None

    def _fixed(self, split: Split) -> np.ndarray:
        return np.stack(
            list(fixed_batches(self._task, split, EVAL_SEQUENCES, self._run.evals.tokens))
        )

    def loss(self, params: Any, name: str = "loss") -> list[MetricValue]:
        """Held-out loss in nats per predicted token with its standard error over windows."""
        nll = np.asarray(self._program(params, self._held_out), np.float64).ravel()
        return [
            MetricValue(
                name,
                float(nll.mean()),
                float(nll.std(ddof=1) / math.sqrt(nll.size)) if nll.size > 1 else None,
            )
        ]

    def examine(self, state: TrainState) -> list[MetricValue]:
        """The loss, bits per byte where bytes are known, the loss of the averaged weights where there are some, and the task's metrics."""
        found = self.loss(state.params)
        if self._task.bytes_per_token:
            scale = 1.0 / (math.log(2.0) * self._task.bytes_per_token)
            first = found[0]
            found.append(
                MetricValue(
                    "bpb", first.value * scale, first.stderr * scale if first.stderr else None
                )
            )
        return (
            found
            + self._averaged(state)
            + (self._scorer.readings(state.params) if self._scorer else [])
        )

    def noise(self, state: TrainState, run: RunConfig) -> list[MetricValue]:
        """The gradient noise scale of `run`'s objective on training sequences, where it is asked for."""
        return self._meter.measure(state.params, run.optim.z_loss) if self._meter else []

    def read_out(self, state: TrainState) -> list[MetricValue]:
        """What a trunk says at the budget of a branch, without cooling down: its loss at the constant rate, and of the average."""
        return self.loss(state.params, "constant_loss") + self._averaged(state)

    def conclude(self, state: TrainState, run: RunConfig) -> list[MetricValue]:
        """What is measured once, at the end of `run`: the answers that the model writes, where the task can verify them."""
        return self._answerer.readings(state.params, run.seed) if self._answerer else []

    def _averaged(self, state: TrainState) -> list[MetricValue]:
        return self.loss(state.average, "averaged_loss") if state.average != () else []


def _answerer(run: RunConfig, task: Task, place: Sharder, held_out: np.ndarray) -> AnswerEvaluator:
    return AnswerEvaluator(
        run, cast(Verifiable, task), place, held_out.reshape(-1, held_out.shape[-1])
    )


class _TokenMetrics:
    """Looks at single tokens: the metrics of the task on its `examined` splits, and the loss by position."""

    def __init__(self, run: RunConfig, task: Task, place: Sharder, held_out: np.ndarray) -> None:
        self._run, self._task = run, task
        self._program = score_program(shape_of(run), place.how)
        worth = getattr(task, "worth", None)
        self._worth = (
            jnp.zeros(run.model.vocab_size) if worth is None else jnp.asarray(worth, jnp.float32)
        )
        self._windows: dict[Split, np.ndarray] = {"val": held_out}
        for split in task.examined:
            if split not in self._windows:
                self._windows[split] = np.stack(
                    list(fixed_batches(task, split, EVAL_SEQUENCES, run.evals.tokens))
                )
        self._placed = {split: place.tokens(windows) for split, windows in self._windows.items()}

    def readings(self, params: Any) -> list[MetricValue]:
        """All metrics, each with the split it was measured on."""
        found: list[MetricValue] = []
        for split, placed in self._placed.items():
            told = self._program(params, placed, self._worth)
            scores = Scores(*(np.asarray(part).reshape(-1, part.shape[-1]) for part in told))
            windows = self._windows[split].reshape(-1, placed.shape[-1])
            if split in self._task.examined:
                found += [one._replace(split=split) for one in self._task.metrics(windows, scores)]
            if split == "val" and self._run.evals.by_position:
                found += _by_position(self._run, scores.nll)
        return found


def _by_position(run: RunConfig, nll_WP: np.ndarray) -> list[MetricValue]:
    """`loss_at_position`, nats: `at` counts the tokens that stand before the predicted one."""
    nll_WP = nll_WP.astype(np.float64)
    places = run.task.target_positions or range(run.task.seq_len)
    stderr = (
        nll_WP.std(axis=0, ddof=1) / math.sqrt(len(nll_WP))
        if len(nll_WP) > 1
        else [None] * nll_WP.shape[1]
    )
    return [
        MetricValue(
            "loss_at_position",
            float(value),
            None if error is None else float(error),
            float(place + 1),
        )
        for place, value, error in zip(places, nll_WP.mean(axis=0), stderr, strict=True)
    ]
