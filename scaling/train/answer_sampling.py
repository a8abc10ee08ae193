"""Answers of a trained model to held-out problems, greedy and sampled, verified and counted."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.store.rows import MetricValue
from scaling.tasks import Task, answer_metrics
from scaling.tasks.base import mean_value
from scaling.train.model.forward import unstack
from scaling.train.model.generate import draws
from scaling.train.program import ProgramKey, program_key
from scaling.train.step import score_program

CACHE_BYTES = 8 * 2**20  # of keys and values at once: small models then decode from a core's cache
MAX_EXACT_K = 10_000
SAMPLED_K_POINTS = 16
MAX_SEQUENCES = 2**14


@functools.lru_cache(maxsize=64)
def answer_program(key: ProgramKey, n_new: int, samples: int | None) -> Any:
    """`generate(params, prompt_BT, seed, part) -> tokens (B, samples, n_new), log-likelihoods`.

    Log-likelihoods are (B, samples), in nats; greedy if `samples` is None. The draws are those of
    number `part` of `seed`.
    """

    def generate(params: Any, prompt_BT: Array, seed: Array, part: Array) -> tuple[Array, Array]:
        if key.execution.layers == "scan":
            params = unstack(params, key.model.n_layers)
        rng = None if samples is None else jax.random.fold_in(jax.random.key(seed), part)
        with key.sharder.in_mesh():
            answers = draws(key.model, params, prompt_BT, n_new, samples or 1, rng, key.compute)
            return key.sharder.replicate(answers)  # type: ignore[no-any-return]

    return jax.jit(generate)


class AnswerEvaluator:
    """Generates answers: greedy for all held-out windows, sampled for `evals.problems` of them."""

    def __init__(
        self, run: RunConfig, task: Task, execution: Execution, windows_WT1: np.ndarray
    ) -> None:
        self._key, self._task, self._evals = program_key(run, execution), task, run.evals
        self._windows_WT1 = windows_WT1
        cache_bytes = accounting.kv_cache_bytes(
            run.model, run.task.seq_len, 1, accounting.BYTES[run.precision]
        )
        fitting = CACHE_BYTES * execution.mesh.n_devices // cache_bytes
        self._max_sequences = min(max(1, fitting), MAX_SEQUENCES)

    def evaluate(self, params: Any, seed: int) -> list[MetricValue]:
        """`edit_distance` of greedy answers in tokens, and `evaluate_samples` if configured."""
        right_WA = self._windows_WT1[:, self._task.prompt_tokens :]
        answer_WA = self._generate(params, self._windows_WT1, None, seed)[0][:, 0]
        distance = answer_metrics.edit_distance(answer_WA, right_WA)
        values = [mean_value("edit_distance", distance)]
        if self._evals.samples:
            values += self.evaluate_samples(params, self._evals.samples, seed)
        return values

    def evaluate_samples(self, params: Any, samples: int, seed: int) -> list[MetricValue]:
        """Metrics of `samples` draws per problem.

        Per problem (`at`, from 0): `problem_nll`, the NLL of the right answer in nats, and
        `correct_samples`. Means over problems at each k: `pass_at_k`, `exact_pass_at_k` (from the
        likelihoods, to k = 10^4), `majority_at_k`, `best_of_k`. And `mode_is_right`, the share of
        problems whose right answer is likelier than any wrong one that was drawn.
        """
        windows = self._task.batch("val", 0, min(self._evals.problems, self._task.n_windows("val")))
        nll_P = self._answer_nll(params, windows)
        token_PSA, likelihood_PS = self._generate(params, windows, samples, seed)
        labels_PS = answer_metrics.label_answers(token_PSA, windows[:, self._task.prompt_tokens :])
        correct_P = (labels_PS == 0).sum(axis=1)
        values = [MetricValue("samples", float(samples))]
        for problem, (nll, correct) in enumerate(zip(nll_P, correct_P, strict=True)):
            for name, value in (("problem_nll", nll), ("correct_samples", correct)):
                values.append(MetricValue(name, float(value), at=float(problem)))
        wrong_P = np.where(labels_PS == 0, -np.inf, likelihood_PS).max(axis=1)
        values.append(mean_value("mode_is_right", -nll_P > wrong_P))
        exact_k = answer_metrics.ks(MAX_EXACT_K)
        exact_KP = answer_metrics.exact_pass_at_k(nll_P, exact_k).T
        for k, exact_P in zip(exact_k, exact_KP, strict=True):
            values.append(mean_value("exact_pass_at_k", exact_P, float(k)))
        sampled_k = answer_metrics.ks(samples, SAMPLED_K_POINTS)
        n_P = np.full(len(nll_P), samples)
        passed_KP = answer_metrics.pass_at_k(n_P, correct_P, sampled_k).T
        for k, passed_P in zip(sampled_k.tolist(), passed_KP, strict=True):
            majority_P = answer_metrics.majority_at_k(labels_PS, k)
            best_P = answer_metrics.best_of_k(labels_PS, likelihood_PS, k)
            at_k = {"pass_at_k": passed_P, "majority_at_k": majority_P, "best_of_k": best_P}
            values += [mean_value(name, values_P, float(k)) for name, values_P in at_k.items()]
        return values

    def _answer_nll(self, params: Any, windows: np.ndarray) -> np.ndarray:
        """NLL of each right answer in nats (P,), without a cache."""
        count = -(-len(windows) // EVAL_SEQUENCES)
        padded = np.resize(windows, (count, EVAL_SEQUENCES, windows.shape[1]))
        value_V = jnp.zeros(self._key.model.vocab_size)
        tokens = self._key.sharder.put_tokens(padded)
        scores, _ = score_program(self._key)(params, tokens, value_V)
        nll_WA = np.asarray(scores.nll, np.float64).reshape(count * EVAL_SEQUENCES, -1)
        return np.asarray(nll_WA.sum(axis=1)[: len(windows)])

    def _generate(
        self, params: Any, windows: np.ndarray, samples: int | None, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answers (P, samples, A) and log-likelihoods (P, samples), as many at once as fit."""
        prompts = windows[:, : self._task.prompt_tokens]
        n_new, n_samples = windows.shape[1] - prompts.shape[1], samples or 1
        per_round = min(n_samples, self._max_sequences)
        size = min(len(prompts), max(1, self._max_sequences // per_round))
        program = answer_program(self._key, n_new, samples and per_round)
        batches, parts = [], itertools.count()
        for first in range(0, len(prompts), size):
            batch = prompts.take(range(first, first + size), axis=0, mode="wrap")
            rounds = [
                program(params, batch, np.uint32(seed), np.uint32(next(parts)))
                for _ in range(0, n_samples, per_round)
            ]
            batches.append([np.concatenate(arrays, axis=1) for arrays in zip(*rounds, strict=True)])
        token_PSA, likelihood_PS = (
            np.concatenate(arrays)[: len(prompts), :n_samples]
            for arrays in zip(*batches, strict=True)
        )
        return token_PSA, likelihood_PS.astype(np.float64)
