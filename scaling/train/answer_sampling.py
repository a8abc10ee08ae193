"""What a trained model writes: greedy and sampled answers to held-out problems, verified and counted."""

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
from scaling.tasks import Verifiable, answer_metrics
from scaling.tasks.scores import mean_reading
from scaling.train.model.forward import unstacked
from scaling.train.model.generate import draws
from scaling.train.sharding import Sharder
from scaling.train.step import ProgramKey, score_program, shape_of

CACHE_BYTES = (
    8 * 2**20
)  # of keys and values that are held at once: small models then decode out of a core's cache
EXACT_TO = 10_000
SAMPLED_POINTS = 16
LARGEST_SEQUENCES = 2**14


@functools.lru_cache(maxsize=64)
def answer_program(shape: ProgramKey, how: Execution, n_new: int, samples: int | None) -> Any:
    """`write(params, prompt_BT, seed, part) -> tokens (B, samples, n_new), log-likelihoods (B, samples)`; greedy where `samples` is None.

    The draws are those of `part` (a number) of `seed`.
    """
    place = Sharder(how)

    def write(
        params: Any, prompt_BT: jax.Array, seed: jax.Array, part: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if how.layers == "scan":
            params = unstacked(params, shape.model.n_layers)
        key = None if samples is None else jax.random.fold_in(jax.random.key(seed), part)
        with place.traced():
            token_BSI, likelihood_BS = draws(
                shape.model, params, prompt_BT, n_new, samples or 1, key, shape.precision
            )
            return place.whole((token_BSI, likelihood_BS))

    return jax.jit(write)


class AnswerEvaluator:
    """Asks models of one shape for answers: to the windows `held_out` (W, T + 1) greedily, to `evals.problems` problems by sampling."""

    def __init__(
        self, run: RunConfig, task: Verifiable, place: Sharder, held_out: np.ndarray
    ) -> None:
        self._shape, self._task, self._place, self._held_out = shape_of(run), task, place, held_out
        self._samples, self._problems = run.evals.samples, run.evals.problems
        width = accounting.BYTES[run.precision]
        room = (
            CACHE_BYTES
            * place.how.mesh.n_devices
            // accounting.kv_cache_bytes(run.model, run.task.seq_len, 1, width)
        )
        self._at_once = min(max(1, room), LARGEST_SEQUENCES)

    def readings(self, params: Any, seed: int) -> list[MetricValue]:
        """`edit_distance` of greedy answers in tokens, and where samples are asked for all that `sampled` says."""
        right_WA = self._task.answers(self._held_out)
        written_WA = self._write(params, self._held_out, None, seed)[0][:, 0]
        found = [mean_reading("edit_distance", answer_metrics.edit_distance(written_WA, right_WA))]
        return found + (self.sampled(params, self._samples, seed) if self._samples else [])

    def sampled(self, params: Any, samples: int, seed: int) -> list[MetricValue]:
        """Of each problem (`at`, from 0) `problem_nll`, the NLL of the right answer in nats, and `correct_samples` of `samples` draws;
        at each k, as means over problems, `pass_at_k`, `exact_pass_at_k` (from the likelihoods, to k = 10^4), `majority_at_k`, `best_of_k`;
        and `mode_is_right`, the share of problems whose right answer is likelier than any wrong one that was drawn.
        """
        windows = self._task.batch("val", 0, min(self._problems, self._task.n_windows("val")))
        nll_P = self._nll(params, windows)
        token_PSA, likelihood_PS = self._write(params, windows, samples, seed)
        labels_PS = answer_metrics.numbered(token_PSA, self._task.answers(windows))
        correct_P = (labels_PS == 0).sum(axis=1)
        found = [MetricValue("samples", float(samples))]
        for place, (nll, correct) in enumerate(zip(nll_P, correct_P, strict=True)):
            found += [
                MetricValue("problem_nll", float(nll), at=float(place)),
                MetricValue("correct_samples", float(correct), at=float(place)),
            ]
        wrong_P = np.where(labels_PS == 0, -np.inf, likelihood_PS).max(axis=1)
        found.append(mean_reading("mode_is_right", -nll_P > wrong_P))
        return found + list(_by_k(nll_P, correct_P, labels_PS, likelihood_PS))

    def _nll(self, params: Any, windows: np.ndarray) -> np.ndarray:
        """The NLL of each right answer in nats (P,), read by the model without a cache."""
        count = -(-len(windows) // EVAL_SEQUENCES)
        padded = np.resize(windows, (count * EVAL_SEQUENCES, windows.shape[1])).reshape(
            count, EVAL_SEQUENCES, -1
        )
        worthless = jnp.zeros(self._shape.model.vocab_size)
        scores = score_program(self._shape, self._place.how)(
            params, self._place.tokens(padded), worthless
        )
        nll_WA = np.asarray(scores.nll, np.float64).reshape(len(padded) * EVAL_SEQUENCES, -1)
        return np.asarray(nll_WA.sum(axis=1)[: len(windows)])

    def _write(
        self, params: Any, windows: np.ndarray, samples: int | None, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answers (P, samples, A) and their log-likelihoods (P, samples), as many at once as the caches' room allows."""
        prompts, n_new = self._task.prompts(windows), self._task.answers(windows).shape[1]
        wanted = samples or 1
        each = min(wanted, self._at_once)
        rounds, size = -(-wanted // each), min(len(prompts), max(1, self._at_once // each))
        program = answer_program(
            self._shape, self._place.how, n_new, None if samples is None else each
        )
        tokens, likelihoods = [], []
        for part, first in enumerate(range(0, len(prompts), size)):
            chosen = prompts.take(range(first, first + size), axis=0, mode="wrap")
            parts = [
                program(params, chosen, np.uint32(seed), np.uint32(part * rounds + number))
                for number in range(rounds)
            ]
            tokens.append(np.concatenate([np.asarray(one[0]) for one in parts], axis=1)[:, :wanted])
            likelihoods.append(
                np.concatenate([np.asarray(one[1]) for one in parts], axis=1)[:, :wanted]
            )
        return np.concatenate(tokens)[: len(prompts)], np.concatenate(likelihoods)[
            : len(prompts)
        ].astype(np.float64)


def _by_k(
    nll_P: np.ndarray, correct_P: np.ndarray, labels_PS: np.ndarray, likelihood_PS: np.ndarray
) -> Iterator[MetricValue]:
    """Means over problems at each k."""
    reach, drawn = answer_metrics.ks(EXACT_TO), labels_PS.shape[1]
    for k, exact_P in zip(reach, answer_metrics.exact_pass_at_k(nll_P, reach).T, strict=True):
        yield mean_reading("exact_pass_at_k", exact_P, float(k))
    tried = answer_metrics.ks(drawn, SAMPLED_POINTS)
    for k, passed_P in zip(
        tried, answer_metrics.pass_at_k(np.full(len(nll_P), drawn), correct_P, tried).T, strict=True
    ):
        yield mean_reading("pass_at_k", passed_P, float(k))
        yield mean_reading(
            "majority_at_k", answer_metrics.majority_at_k(labels_PS, int(k)), float(k)
        )
        yield mean_reading(
            "best_of_k", answer_metrics.best_of_k(labels_PS, likelihood_PS, int(k)), float(k)
        )
