"""The gradient noise scale.

Equal to the plain formula, right where the truth is known, and invisible to the run that asks for
it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.config import EvalConfig, Execution
from scaling.errors import ScalingError
from scaling.tasks import open_task
from scaling.train.gradient_noise import FIRST_SEQUENCE, GradientNoiseScale, estimate, group_size
from scaling.train.model.forward import make_forward
from scaling.train.program import program_key
from scaling.train.step import initial_state
from tests.train.test_trainer import SETTLED, numbers, one_run, stop_after, train

pytestmark = pytest.mark.slow

NOISE = {"points": 3, "tokens": 3000, "noise_scale": True, "noise_sequences": 12}


def noisy_run(**changes):
    return one_run("10k").model_copy(update={"evals": EvalConfig(**NOISE | changes)})


def sequence_gradients(run, params, tokens_CT1):
    """Gradients of the plain objective for each sequence, (C, P)."""
    logits = make_forward(run.model, run.task.seq_len)

    def objective(params, tokens_T1):
        scores_TV = logits(params, tokens_T1[None, :-1])[0]
        nll = -jnp.take_along_axis(jax.nn.log_softmax(scores_TV), tokens_T1[1:, None], axis=-1)
        return (
            nll.mean() + run.optim.z_loss * jnp.square(jax.nn.logsumexp(scores_TV, axis=-1)).mean()
        )

    found = jax.jit(jax.vmap(jax.grad(objective), in_axes=(None, 0)))(params, tokens_CT1)
    return np.concatenate(
        [np.reshape(leaf, (len(tokens_CT1), -1)) for leaf in jax.tree.leaves(found)], axis=1
    ).astype(np.float64)


def test_noise_scale_equals_the_plain_formula():
    run = noisy_run()
    task, params = open_task(run.task), initial_state(program_key(run, SETTLED), 0).params
    found = {
        one.metric: one.value
        for one in GradientNoiseScale(run, task, SETTLED).measure(params, run.optim.z_loss)
    }
    g_CP = sequence_gradients(run, params, task.batch("train", FIRST_SEQUENCE // 12, 12))
    variance = g_CP.var(axis=0, ddof=1).sum()
    square = (g_CP.mean(axis=0) ** 2).sum() - variance / len(g_CP)
    assert found["gradient_square"] == pytest.approx(square, rel=1e-3)
    assert found["gradient_variance"] == pytest.approx(variance * 30, rel=1e-3)
    assert found["noise_scale"] == pytest.approx(variance * 30 / square, rel=1e-3)


def draws(signal, count, dimensions, rng):
    """What the program returns for gradients drawn from N(signal / sqrt(P), 1)."""
    g_CP = rng.normal(signal / np.sqrt(dimensions), 1.0, (count, dimensions))
    before_CP = np.cumsum(g_CP, axis=0) - g_CP
    alongs_C = (g_CP * before_CP).sum(axis=1) / np.maximum(np.arange(count), 1)
    return (g_CP**2).sum(axis=1), alongs_C, (g_CP.mean(axis=0) ** 2).sum()


@pytest.mark.parametrize(("signal", "widest"), [(5.0, 1.2), (0.2, 1.8)])
def test_noise_scale_estimates_are_unbiased_with_calibrated_errors(signal, widest):
    """100 dimensions of unit noise, 64 groups: |G|^2 well measured, or dominated by noise."""
    rng = np.random.default_rng(0)
    found = [estimate(*draws(signal, 64, 100, rng), group_tokens=10) for _ in range(400)]
    for name, truth in {"gradient_square": signal**2, "gradient_variance": 1000.0}.items():
        values, errors = np.array(
            [next((one.value, one.stderr) for one in each if one.metric == name) for each in found]
        ).T
        assert values.mean() == pytest.approx(truth, abs=4 * values.std() / 20), name
        assert 0.85 < errors.mean() / values.std() < widest, name


def test_noise_scale_without_signal_is_absent():
    assert [one.metric for one in estimate(np.ones(4), np.zeros(4), 0.2, 10)] == [
        "gradient_square",
        "gradient_variance",
    ]
    assert all(one.stderr is None for one in estimate(np.ones(2), np.zeros(2), 0.9, 10))


@pytest.mark.parametrize(
    ("arguments", "size"),
    [((256, 4), 4), ((256, 1), 1), ((2, 1), 1), ((30, 4), 3), ((64, 8, 8), 8), ((48, 16, 8), 16)],
)
def test_groups_divide_the_sequences(arguments, size):
    assert group_size(*arguments) == size


def test_a_mesh_that_cannot_divide_them_is_rejected():
    with pytest.raises(
        ScalingError, match="noise_sequences = 12 cannot be divided among 8 devices"
    ) as caught:
        group_size(12, 8, 8)
    assert caught.value.remedy == "a multiple of 8, at least 16"


def test_measuring_noise_scale_adds_rows_and_changes_nothing_else(tmp_path):
    """Also after an interruption, and for slices of a batch."""
    run = noisy_run()
    task = open_task(run.task)
    whole = numbers(train(run, task, tmp_path / "whole.npz"))
    silent = numbers(train(noisy_run(noise_scale=False), task, tmp_path / "silent.npz"))
    noise = [
        row for row in whole if row[2] in ("noise_scale", "gradient_square", "gradient_variance")
    ]
    assert {row[1] for row in noise} == {"train"}
    assert [row for row in whole if row not in noise] == silent
    assert {row[0] for row in noise if row[2] == "gradient_variance"} == {
        row[0] for row in silent if row[2] == "bpb" or row[1] == "val"
    }
    path = tmp_path / "parts.npz"
    assert train(run, task, path, should_stop=stop_after(2)).kind == "stopped"
    assert numbers(train(run, task, path)) == whole


def test_the_mean_does_not_depend_on_how_it_is_computed():
    run = noisy_run()
    task, params = open_task(run.task), initial_state(program_key(run, SETTLED), 0).params
    sliced = Execution(
        layers="unrolled", attention="own", micro_batch=2, loss_chunk=8, remat="block"
    )
    plain, other = (
        GradientNoiseScale(run, task, execution).measure(params, 1e-4)
        for execution in (SETTLED, sliced)
    )
    assert [one.value for one in other] == pytest.approx([one.value for one in plain], rel=1e-3)
