"""Evaluation along a run: held-out loss, loss of averaged weights, task metrics, gradient noise."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from scaling.config import Execution, RunConfig
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.store.rows import MetricValue
from scaling.tasks import Scores, Task, eval_set_task, fixed_batches, open_task
from scaling.tasks.base import mean_value
from scaling.tasks.corpus.token_store import Split
from scaling.train.answer_sampling import AnswerEvaluator
from scaling.train.gradient_noise import GradientNoiseScale
from scaling.train.program import program_key
from scaling.train.step import TrainState, eval_program, score_program


class Evaluator:
    """Evaluates states of runs with one `ProgramKey`, always on the same held-out windows."""

    def __init__(self, run: RunConfig, task: Task, execution: Execution) -> None:
        self._run, self._task, self._key = run, task, program_key(run, execution)
        put_tokens, evals = self._key.sharder.put_tokens, run.evals
        val = _fixed_windows(run, task, "val")
        self._held_out = put_tokens(val)
        self._sets = [("val", self._held_out, task.bytes_per_token)]
        for eval_set in evals.sets:
            other = open_task(eval_set_task(run.task, eval_set))
            windows = put_tokens(_fixed_windows(run, other, "val"))
            self._sets.append((f"val:{eval_set.name}", windows, other.bytes_per_token))
        self._scored: dict[Split, tuple[np.ndarray, Any]] = {}  # windows, here and on the devices
        if task.scored_splits or evals.by_position:
            self._scored["val"] = val, self._held_out
        for split in set(task.scored_splits) - {"val"}:
            windows = _fixed_windows(run, task, split)
            self._scored[split] = windows, put_tokens(windows)
        self._noise = GradientNoiseScale(run, task, execution) if evals.noise_scale else None
        self._answers = None
        if run.task.answerable:
            windows_WT1 = val.reshape(-1, val.shape[-1])
            self._answers = AnswerEvaluator(run, task, execution, windows_WT1)

    def loss(
        self, params: Any, name: str = "loss", windows: Any = None, split: str = "val"
    ) -> MetricValue:
        """Held-out loss in nats per predicted token with its standard error over windows."""
        windows = self._held_out if windows is None else windows
        nll_MB, _ = eval_program(self._key)(params, windows)
        return mean_value(name, np.ravel(nll_MB))._replace(split=split)

    def evaluate(self, state: TrainState, run: RunConfig) -> list[MetricValue]:
        """Loss, bits per byte (of text), loss of the averaged weights, the task's metrics, and the
        gradient noise scale of `run`'s objective on training sequences, if configured.
        """
        values = []
        for split, windows, bytes_per_token in self._sets:
            loss = self.loss(state.params, windows=windows, split=split)
            values.append(loss)
            if bytes_per_token:
                scale = 1.0 / (math.log(2.0) * bytes_per_token)
                stderr = loss.stderr * scale if loss.stderr else None
                values.append(MetricValue("bpb", loss.value * scale, stderr, split=split))
        values += self._averaged_loss(state)
        if self._run.model.n_experts > 1:  # 1 where the experts have equal shares
            _, balance_M = eval_program(self._key)(state.params, self._held_out)
            values.append(mean_value("load_balance", balance_M))
        values += self._token_metrics(state.params)
        return values + (self._noise.measure(state.params, run.optim.z_loss) if self._noise else [])

    def evaluate_without_cooldown(self, state: TrainState) -> list[MetricValue]:
        """Loss at the constant learning rate, and of the averaged weights, at a shorter budget."""
        return [self.loss(state.params, "constant_loss"), *self._averaged_loss(state)]

    def evaluate_at_end(self, state: TrainState, run: RunConfig) -> list[MetricValue]:
        """Answers that the model generates, if the task can verify them."""
        return self._answers.evaluate(state.params, run.seed) if self._answers else []

    def _averaged_loss(self, state: TrainState) -> list[MetricValue]:
        return [self.loss(state.average, "averaged_loss")] if state.average != () else []

    def _token_metrics(self, params: Any) -> list[MetricValue]:
        """Metrics of the task on its `scored_splits`, and loss by position if configured."""
        values: list[MetricValue] = []
        task, values_V = self._run.task, np.zeros(self._run.model.vocab_size)
        value_V = jnp.asarray(getattr(self._task, "level_values", values_V), jnp.float32)
        for split, (windows, tokens) in self._scored.items():
            parts, _ = score_program(self._key)(params, tokens, value_V)
            scores = Scores(*(np.asarray(part).reshape(-1, part.shape[-1]) for part in parts))
            if split in self._task.scored_splits:
                metrics = self._task.metrics(windows.reshape(-1, windows.shape[-1]), scores)
                values += [value._replace(split=split) for value in metrics]
            if split == "val" and self._run.evals.by_position:
                positions = task.target_positions or range(task.seq_len)
                for position, nll_W in zip(positions, scores.nll.T, strict=True):
                    # nats; `at` counts the tokens before the predicted one
                    values.append(mean_value("loss_at_position", nll_W, position + 1.0))
        return values


def _fixed_windows(run: RunConfig, task: Task, split: Split) -> np.ndarray:
    """(M, B, T + 1), the same at every call."""
    return np.stack(list(fixed_batches(task, EVAL_SEQUENCES, run.evals.tokens, split)))
