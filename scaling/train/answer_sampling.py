"""Answers of a trained model to held-out problems, greedy and sampled, verified and counted."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling import accounting
from scaling.config import Execution, RunConfig
from scaling.config.resolve_execution import EVAL_SEQUENCES
from scaling.store.rows import MetricValue
from scaling.tasks import Task, answer_metrics
from scaling.tasks.base import mean_value
from scaling.train.model.forward import unstack
from scaling.train.model.generate import draws
from scaling.train.model.operations import compute_of
from scaling.train.sharding import Sharder
from scaling.train.step import ProgramKey, program_key, score_program

CACHE_BYTES = 8 * 2**20  # of keys and values at once: small models then decode from a core's cache
MAX_EXACT_K = 10_000
SAMPLED_K_POINTS = 16
MAX_SEQUENCES = 2**14


@functools.lru_cache(maxsize=64)
def answer_program(key: ProgramKey, execution: Execution, n_new: int, samples: int | None) -> Any:
    """`generate(params, prompt_BT, seed, part) -> tokens (B, samples, n_new), log-likelihoods`.

    Log-likelihoods are (B, samples), in nats; greedy if `samples` is None. The draws are those of
    number `part` of `seed`.
    """
    sharder = Sharder(execution)

    def generate(
        params: Any, prompt_BT: jax.Array, seed: jax.Array, part: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if execution.layers == "scan":
            params = unstack(params, key.model.n_layers)
        rng = None if samples is None else jax.random.fold_in(jax.random.key(seed), part)
        with sharder.in_mesh():
            compute = compute_of(key.precision, execution)
            answers = draws(key.model, params, prompt_BT, n_new, samples or 1, rng, compute)
            return sharder.replicate(answers)  # type: ignore[no-any-return]

    return jax.jit(generate)


class AnswerEvaluator:
    """Generates answers: greedy for all held-out windows, sampled for `evals.problems` of them."""

    def __init__(
        self, run: RunConfig, task: Task, sharder: Sharder, windows_WT1: np.ndarray
    ) -> None:
        self._key, self._task, self._sharder = program_key(run), task, sharder
        self._windows_WT1 = windows_WT1
        self._samples, self._problems = run.evals.samples, run.evals.problems
        cache_bytes = accounting.kv_cache_bytes(
            run.model, run.task.seq_len, 1, accounting.BYTES[run.precision]
        )
        fitting = CACHE_BYTES * sharder.execution.mesh.n_devices // cache_bytes
        self._max_sequences = min(max(1, fitting), MAX_SEQUENCES)

    def evaluate(self, params: Any, seed: int) -> list[MetricValue]:
        """`edit_distance` of greedy answers in tokens, and `evaluate_samples` if configured."""
        right_WA = self._windows_WT1[:, self._task.prompt_tokens :]
        answer_WA = self._generate(params, self._windows_WT1, None, seed)[0][:, 0]
        distance = answer_metrics.edit_distance(answer_WA, right_WA)
        values = [mean_value("edit_distance", distance)]
        if self._samples:
            values += self.evaluate_samples(params, self._samples, seed)
        return values

    def evaluate_samples(self, params: Any, samples: int, seed: int) -> list[MetricValue]:
        """Metrics of `samples` draws per problem.

        Per problem (`at`, from 0): `problem_nll`, the NLL of the right answer in nats, and
        `correct_samples`. Means over problems at each k: `pass_at_k`, `exact_pass_at_k` (from the
        likelihoods, to k = 10^4), `majority_at_k`, `best_of_k`. And `mode_is_right`, the share of
        problems whose right answer is likelier than any wrong one that was drawn.
        """
        windows = self._task.batch("val", 0, min(self._problems, self._task.n_windows("val")))
        nll_P = self._answer_nll(params, windows)
        token_PSA, likelihood_PS = self._generate(params, windows, samples, seed)
        labels_PS = answer_metrics.label_answers(token_PSA, windows[:, self._task.prompt_tokens :])
        correct_P = (labels_PS == 0).sum(axis=1)
        values = [MetricValue("samples", float(samples))]
        for problem, (nll, correct) in enumerate(zip(nll_P, correct_P, strict=True)):
            values += [
                MetricValue("problem_nll", float(nll), at=float(problem)),
                MetricValue("correct_samples", float(correct), at=float(problem)),
            ]
        wrong_P = np.where(labels_PS == 0, -np.inf, likelihood_PS).max(axis=1)
        values.append(mean_value("mode_is_right", -nll_P > wrong_P))
        return values + list(_by_k(nll_P, correct_P, labels_PS, likelihood_PS))

    def _answer_nll(self, params: Any, windows: np.ndarray) -> np.ndarray:
        """NLL of each right answer in nats (P,), without a cache."""
        count = -(-len(windows) // EVAL_SEQUENCES)
        padded = np.resize(windows, (count * EVAL_SEQUENCES, windows.shape[1]))
        batches_MBT1 = padded.reshape(count, EVAL_SEQUENCES, -1)
        program = score_program(self._key, self._sharder.execution)
        value_V = jnp.zeros(self._key.model.vocab_size)
        scores = program(params, self._sharder.put_tokens(batches_MBT1), value_V)
        nll_WA = np.asarray(scores.nll, np.float64).reshape(len(padded), -1)
        return np.asarray(nll_WA.sum(axis=1)[: len(windows)])

    def _generate(
        self, params: Any, windows: np.ndarray, samples: int | None, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answers (P, samples, A) and log-likelihoods (P, samples), as many at once as fit."""
        prompts = windows[:, : self._task.prompt_tokens]
        n_new = windows.shape[1] - prompts.shape[1]
        n_samples = samples or 1
        per_round = min(n_samples, self._max_sequences)
        n_rounds = -(-n_samples // per_round)
        size = min(len(prompts), max(1, self._max_sequences // per_round))
        program = answer_program(
            self._key, self._sharder.execution, n_new, None if samples is None else per_round
        )
        batches = []
        for part, first in enumerate(range(0, len(prompts), size)):
            batch = prompts.take(range(first, first + size), axis=0, mode="wrap")
            rounds = [
                program(params, batch, np.uint32(seed), np.uint32(part * n_rounds + i))
                for i in range(n_rounds)
            ]
            joined = [np.concatenate(parts, axis=1) for parts in zip(*rounds, strict=True)]
            batches.append(joined)
        tokens, likelihoods = zip(*batches, strict=True)
        token_PSA = np.concatenate(tokens)[: len(prompts), :n_samples]
        likelihood_PS = np.concatenate(likelihoods)[: len(prompts), :n_samples]
        return token_PSA, likelihood_PS.astype(np.float64)


def _by_k(
    nll_P: np.ndarray, correct_P: np.ndarray, labels_PS: np.ndarray, likelihood_PS: np.ndarray
) -> Iterator[MetricValue]:
    """Means over problems at each k."""
    exact_k, n_samples = answer_metrics.ks(MAX_EXACT_K), labels_PS.shape[1]
    exact_KP = answer_metrics.exact_pass_at_k(nll_P, exact_k).T
    for k, exact_P in zip(exact_k, exact_KP, strict=True):
        yield mean_value("exact_pass_at_k", exact_P, float(k))
    sampled_k = answer_metrics.ks(n_samples, SAMPLED_K_POINTS)
    passed_KP = answer_metrics.pass_at_k(np.full(len(nll_P), n_samples), correct_P, sampled_k).T
    for k, passed_P in zip(sampled_k, passed_KP, strict=True):
        at_k = {
            "pass_at_k": passed_P,
            "majority_at_k": answer_metrics.majority_at_k(labels_PS, int(k)),
            "best_of_k": answer_metrics.best_of_k(labels_PS, likelihood_PS, int(k)),
        }
        for name, values_P in at_k.items():
            yield mean_value(name, values_P, float(k))
