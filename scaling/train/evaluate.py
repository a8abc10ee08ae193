"""Evaluation along a run: held-out loss, loss of averaged weights, task metrics, gradient noise."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from scaling.config import RunConfig
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.store.rows import MetricValue
from scaling.tasks import Scores, Task, eval_set_task, fixed_batches, open_task
from scaling.tasks.base import mean_value
from scaling.tasks.corpus.token_store import Split
from scaling.train.answer_sampling import AnswerEvaluator
from scaling.train.gradient_noise import GradientNoiseScale
from scaling.train.sharding import Sharder
from scaling.train.step import (
    TrainState,
    balance_program,
    eval_program,
    program_key,
    score_program,
)


class Evaluator:
    """Evaluates states of runs with one `ProgramKey`, always on the same held-out windows."""

    def __init__(self, run: RunConfig, task: Task, sharder: Sharder) -> None:
        self._task, self._program = task, eval_program(program_key(run), sharder.execution)
        windows_MBT1 = _fixed_windows(run, task, "val")
        windows_WT1 = windows_MBT1.reshape(-1, windows_MBT1.shape[-1])
        self._held_out = sharder.put_tokens(windows_MBT1)
        self._sets = []  # split, windows, bytes per token
        for eval_set in run.evals.sets:
            other = open_task(eval_set_task(run.task, eval_set))
            windows = sharder.put_tokens(_fixed_windows(run, other, "val"))
            self._sets.append((f"val:{eval_set.name}", windows, other.bytes_per_token))
        self._balance = (
            balance_program(program_key(run), sharder.execution)
            if run.model.n_experts > 1
            else None
        )
        self._noise = GradientNoiseScale(run, task, sharder) if run.evals.noise_scale else None
        self._token_metrics = (
            _TokenMetrics(run, task, sharder, windows_MBT1)
            if task.scored_splits or run.evals.by_position
            else None
        )
        self._answers = (
            AnswerEvaluator(run, task, sharder, windows_WT1) if run.task.answerable else None
        )

    def loss(
        self, params: Any, name: str = "loss", windows: Any = None, split: str = "val"
    ) -> MetricValue:
        """Held-out loss in nats per predicted token with its standard error over windows."""
        windows = self._held_out if windows is None else windows
        nll = np.asarray(self._program(params, windows), np.float64).ravel()
        return mean_value(name, nll)._replace(split=split)

    def evaluate(self, state: TrainState) -> list[MetricValue]:
        """Loss, bits per byte (of text), loss of the averaged weights, and the task's metrics."""
        values = []
        held_out = ("val", self._held_out, self._task.bytes_per_token)
        for split, windows, bytes_per_token in (held_out, *self._sets):
            loss = self.loss(state.params, windows=windows, split=split)
            values.append(loss)
            if bytes_per_token:
                scale = 1.0 / (math.log(2.0) * bytes_per_token)
                stderr = loss.stderr * scale if loss.stderr else None
                values.append(MetricValue("bpb", loss.value * scale, stderr, split=split))
        values += self._averaged_loss(state)
        if self._balance:  # 1 where the experts have equal shares
            balance_M = np.asarray(self._balance(state.params, self._held_out), np.float64)
            values.append(mean_value("load_balance", balance_M))
        return values + (self._token_metrics.evaluate(state.params) if self._token_metrics else [])

    def gradient_noise(self, state: TrainState, run: RunConfig) -> list[MetricValue]:
        """Gradient noise scale of `run`'s objective on training sequences, if configured."""
        return self._noise.measure(state.params, run.optim.z_loss) if self._noise else []

    def evaluate_without_cooldown(self, state: TrainState) -> list[MetricValue]:
        """Loss at the constant learning rate, and of the averaged weights, at a shorter budget."""
        return [self.loss(state.params, "constant_loss"), *self._averaged_loss(state)]

    def evaluate_at_end(self, state: TrainState, run: RunConfig) -> list[MetricValue]:
        """Answers that the model generates, if the task can verify them."""
        return self._answers.evaluate(state.params, run.seed) if self._answers else []

    def _averaged_loss(self, state: TrainState) -> list[MetricValue]:
        return [self.loss(state.average, "averaged_loss")] if state.average != () else []


def _fixed_windows(run: RunConfig, task: Task, split: Split) -> np.ndarray:
    """(M, B, T + 1), the same at every call."""
    return np.stack(list(fixed_batches(task, EVAL_SEQUENCES, run.evals.tokens, split)))


class _TokenMetrics:
    """Metrics of single tokens: those of the task on its `scored_splits`, and loss by position."""

    def __init__(self, run: RunConfig, task: Task, sharder: Sharder, val: np.ndarray) -> None:
        self._run, self._task = run, task
        self._program = score_program(program_key(run), sharder.execution)
        values = getattr(task, "level_values", np.zeros(run.model.vocab_size))
        self._value_V = jnp.asarray(values, jnp.float32)
        self._windows: dict[Split, np.ndarray] = {"val": val}
        for split in task.scored_splits:
            if split != "val":
                self._windows[split] = _fixed_windows(run, task, split)
        self._tokens = {split: sharder.put_tokens(w) for split, w in self._windows.items()}

    def evaluate(self, params: Any) -> list[MetricValue]:
        """All metrics, each with the split it was measured on."""
        values: list[MetricValue] = []
        for split, tokens in self._tokens.items():
            parts = self._program(params, tokens, self._value_V)
            scores = Scores(*(np.asarray(part).reshape(-1, part.shape[-1]) for part in parts))
            windows = self._windows[split].reshape(-1, tokens.shape[-1])
            if split in self._task.scored_splits:
                metrics = self._task.metrics(windows, scores)
                values += [value._replace(split=split) for value in metrics]
            if split == "val" and self._run.evals.by_position:
                task = self._run.task
                positions = task.target_positions or range(task.seq_len)
                for position, nll_W in zip(positions, scores.nll.T, strict=True):
                    # nats; `at` counts the tokens before the predicted one
                    values.append(mean_value("loss_at_position", nll_W, position + 1.0))
        return values
