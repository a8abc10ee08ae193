"""Sampled answers have the probabilities that the model gives them when it reads them, however they
are drawn.
"""

import jax
import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import chisquare

from scaling.config import (
    ArithmeticTask,
    EvalConfig,
    Execution,
    ModularTask,
    OptimConfig,
    RunConfig,
)
from scaling.config.sweep_file import load_sweep
from scaling.errors import ScalingError
from scaling.execute.timing import timing_request
from scaling.tasks import open_task
from scaling.train import answer_sampling
from scaling.train.evaluate import Evaluator
from scaling.train.fingerprint import resolve_for_local_devices
from scaling.train.program import program_key
from scaling.train.step import TrainState, initial_state
from tests.train.model.variants import tiny_model

pytestmark = pytest.mark.slow

TASK = ArithmeticTask(kind="arithmetic", digits=1)
SAMPLES, PROBLEMS = 600, 12


def run(n_layers=1, **evals):
    """One digit plus one digit: 144 answers can be written, so each can be looked up."""
    evals = {"tokens": 400, "samples": SAMPLES, "problems": PROBLEMS} | evals
    model = tiny_model(n_layers=n_layers, vocab_size=12, pos="learned")
    return RunConfig(
        model=model,
        task=TASK,
        optim=OptimConfig(lr=1e-3),
        batch_size=4,
        n_steps=4,
        seed=3,
        evals=EvalConfig(**evals),
    )


def answerer(config, execution=None):
    execution = resolve_for_local_devices(config, execution or Execution())
    task = open_task(config.task)
    return answer_sampling.AnswerEvaluator(
        config, task, execution, task.batch("val", 0, 64)
    ), initial_state(program_key(config, execution), config.seed)


@pytest.fixture(scope="module")
def sharpened():
    """A model of random weights whose answers are neither even nor certain."""
    asked, state = answerer(run())
    return asked, jax.tree.map(lambda leaf: 1.5 * leaf, state.params)


def test_answer_frequencies_match_their_likelihoods(sharpened):
    """All 144 answers to one problem, 6,000 draws.

    Chi-square of the counts against exp(-NLL) read without a cache.
    """
    asked, params = sharpened
    problem = open_task(TASK).batch("val", 0, 1)
    windows = np.repeat(problem, 144, axis=0)
    windows[:, -2:] = np.stack(np.divmod(np.arange(144), 12), axis=1)
    chance = np.exp(-asked._answer_nll(params, windows))
    assert chance.sum() == pytest.approx(1.0, abs=1e-5)
    token_PSA, likelihood_PS = asked._generate(params, problem, 6000, seed=0)
    drawn = token_PSA[0] @ [12, 1]
    np.testing.assert_allclose(np.exp(likelihood_PS[0]), chance[drawn], rtol=1e-4)
    often = chance * 6000 > 5
    seen = np.bincount(drawn, minlength=144)
    counts, expected = (
        np.append(seen[often], seen[~often].sum()),
        np.append(chance[often], chance[~often].sum()) * 6000,
    )
    assert often.sum() > 20
    assert chisquare(counts, expected * 6000 / expected.sum()).pvalue > 0.001
    uniform = np.full(144, 6000 / 144)
    assert chisquare(seen, uniform).pvalue < 1e-6, "the model has no opinion to test"


def test_cache_memory_limit_keeps_the_number_and_distribution_of_draws(sharpened, monkeypatch):
    params = sharpened[1]
    monkeypatch.setattr(answer_sampling, "CACHE_BYTES", 2**17)
    asked, _ = answerer(run())
    assert 1 < asked._max_sequences < SAMPLES
    windows = open_task(TASK).batch("val", 0, 3)
    token_PSA, likelihood_PS = asked._generate(params, windows, SAMPLES, 0)
    assert token_PSA.shape == (3, SAMPLES, 2)
    read = np.concatenate([windows[:, None, :-2].repeat(SAMPLES, 1), token_PSA], axis=2).reshape(
        3 * SAMPLES, -1
    )
    np.testing.assert_allclose(
        -asked._answer_nll(params, read).reshape(3, -1), likelihood_PS, atol=1e-4
    )
    halves = token_PSA[:, : SAMPLES // 2], token_PSA[:, SAMPLES // 2 :]
    assert (halves[0] != halves[1]).any(axis=(1, 2)).all(), "two parts drew the same"


def test_scanned_layers_write_the_same_answers():
    """Their parameters lie stacked."""
    windows = open_task(TASK).batch("val", 0, 4)
    written = []
    for layers in ("unrolled", "scan"):
        asked, state = answerer(run(n_layers=2), Execution(layers=layers))
        written.append(asked._generate(state.params, windows, 5, 1)[0])
    np.testing.assert_array_equal(*written)


def test_final_rows_hold_the_sampled_answers(sharpened):
    config, params = run(), sharpened[1]
    execution = resolve_for_local_devices(config, Execution())
    found = Evaluator(config, open_task(TASK), execution).evaluate_at_end(
        TrainState(params, (), 0), config
    )
    told = {(one.metric, one.at): one.value for one in found}
    assert len(told) == len(found)
    correct = np.array([told["correct_samples", float(index)] for index in range(PROBLEMS)])
    chance = np.exp(-np.array([told["problem_nll", float(index)] for index in range(PROBLEMS)]))
    assert told["samples", None] == SAMPLES
    assert told["pass_at_k", 1.0] == pytest.approx(correct.mean() / SAMPLES)
    assert (
        told["majority_at_k", 1.0]
        == pytest.approx(told["best_of_k", 1.0])
        == pytest.approx(told["pass_at_k", 1.0])
    )
    assert told["exact_pass_at_k", 1e4] == pytest.approx(np.mean(1 - (1 - chance) ** 1e4))
    assert (
        abs(told["pass_at_k", 1.0] - chance.mean())
        < 3 * np.sqrt((chance * (1 - chance)).sum() / SAMPLES) / PROBLEMS
    )
    assert 0.0 < told["edit_distance", None] <= 2.0


def test_without_samples_only_the_greedy_answer_is_scored(sharpened):
    asked, _ = answerer(run(samples=None))
    assert [one.metric for one in asked.evaluate(sharpened[1], 0)] == ["edit_distance"]


def test_samples_of_a_task_without_answers_are_rejected_before_training(tmp_path):
    message = 'evals.samples = 8, but the task "modular" has no answers to verify'
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate(
            run(samples=8).model_dump() | {"task": ModularTask(kind="modular").model_dump()}
        )
    path = tmp_path / "sweep.toml"
    path.write_text(
        'name = "a"\n[design]\nkind = "grid"\nsizes = ["10k"]\ntokens = ["1M"]\n'
        '[base.task]\nkind = "modular"\n[evals]\nsamples = 8\n'
    )
    with pytest.raises(ScalingError, match=message):
        load_sweep(path)


def test_step_timing_samples_no_answers():
    """It trains the shape on other tokens, which have none."""
    asked = RunConfig.model_validate(
        timing_request(run(points=3), Execution())["run"], strict=False
    )
    assert (asked.evals.samples, asked.evals.points) == (None, 3)
