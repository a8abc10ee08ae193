"""The planner's estimate against what XLA plans for the real training program, and losses in slices
against whole ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling import recipe
from scaling.config import EvalConfig, Execution, OptimConfig, Recipe, RunConfig, SyntheticTask
from scaling.config.resolve_execution import EVAL_SEQUENCES, dispatch_steps
from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.plan import memory
from scaling.tasks import open_task
from scaling.train import optim, step
from scaling.train.fingerprint import resolve_for_local_devices
from scaling.train.gradient_noise import noise_program
from scaling.train.program import program_key
from scaling.train.trainer import train

pytestmark = pytest.mark.slow


def run_of(
    size,
    *,
    vocab_size=256,
    seq_len=64,
    batch=16,
    n_steps=16,
    precision="float32",
    averaged=False,
    **model,
):
    kv_heads = model.pop("n_kv_heads", None)
    shape = recipe.model_for(
        size, Recipe(size_tolerance=1.0), vocab_size=vocab_size, seq_len=seq_len, overrides=model
    )
    shape = shape.model_copy(update={"n_kv_heads": kv_heads or shape.n_kv_heads})
    task = SyntheticTask(kind="synthetic", n_facts=64, n_symbols=vocab_size, seq_len=seq_len)
    evals = EvalConfig(points=2, tokens=4 * seq_len, averaged=averaged)
    optimiser = OptimConfig(lr=3e-3, warmup_steps=2)
    return RunConfig(
        model=shape,
        task=task,
        optim=optimiser,
        batch_size=batch,
        n_steps=n_steps,
        precision=precision,
        evals=evals,
    )


def xla_bytes(program, *arguments):
    plan = (
        program.lower(*arguments).compile({"xla_backend_optimization_level": 1}).memory_analysis()
    )
    return (
        plan.temp_size_in_bytes
        + plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
    )


def training_bytes(run, how):
    """What XLA plans for a dispatch of training steps, from shapes: nothing is computed."""
    shape = program_key(run, resolve_for_local_devices(run, how))
    state = jax.eval_shape(lambda: step.initial_state(shape, 0))
    tokens = jax.ShapeDtypeStruct(
        (dispatch_steps(run), run.batch_size, run.task.seq_len + 1), jnp.int32
    )
    return xla_bytes(
        step.train_program(shape),
        state,
        optim.hyper(run.optim, run.n_steps),
        tokens,
        jnp.int32(1),
    )


CASES = [
    ({}, {}),
    ({"averaged": True, "vocab_size": 4096}, {"micro_batch": 4}),
    ({"precision": "bfloat16"}, {}),
    ({"ffn": "swiglu", "n_kv_heads": 1, "norm": "layernorm", "bias": True}, {}),
    (
        {"tie_embeddings": True, "qk_norm": False, "pos": "learned", "ffn": "relu2"},
        {"remat": "block"},
    ),
    ({}, {"layers": "scan"}),
    pytest.param({"gains": False}, {}, marks=pytest.mark.exhaustive),
    pytest.param(
        {"gains": False, "precision": "bfloat16"}, {"layers": "scan"}, marks=pytest.mark.exhaustive
    ),
    pytest.param({"gains": False}, {"layers": "scan"}, marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize(
    ("run", "how"),
    CASES,
    ids=lambda case: "-".join(f"{name}={value}" for name, value in case.items()) or "plain",
)
def test_the_estimate_is_what_xla_plans(run, how):
    made, chosen = run_of(3e5, **run), Execution(**how)
    found = memory.estimate(made, chosen)
    assert found.total - found.evaluation == pytest.approx(training_bytes(made, chosen), rel=0.2)


def test_evaluation_memory_is_what_xla_plans():
    run = run_of(1e5, seq_len=256, batch=1)
    shape = program_key(run, resolve_for_local_devices(run, Execution()))
    params = jax.eval_shape(lambda: step.initial_state(shape, 0)).params
    windows = jax.ShapeDtypeStruct((1, EVAL_SEQUENCES, run.task.seq_len + 1), jnp.int32)
    wide = run.model_copy(update={"evals": EvalConfig(tokens=EVAL_SEQUENCES * run.task.seq_len)})
    found = memory.estimate(wide)
    assert found.evaluation > 0
    measured = xla_bytes(step.eval_program(shape), params, windows)
    assert found.temporary == pytest.approx(measured, rel=0.25)


def test_noise_scale_memory_is_what_xla_plans():
    """With one sequence a step its pass is that of a step, and the sum of the gradients comes on
    top.
    """
    run = run_of(1e5, seq_len=256, batch=1)
    run = run.model_copy(
        update={"evals": EvalConfig(tokens=256, noise_scale=True, noise_sequences=128)}
    )
    shape = program_key(run, resolve_for_local_devices(run, Execution()))
    params = jax.eval_shape(lambda: step.initial_state(shape, 0)).params
    groups = jax.ShapeDtypeStruct((128, 1, run.task.seq_len + 1), jnp.int32)
    found = memory.estimate(run)
    assert found.evaluation > 0
    measured = xla_bytes(noise_program(shape), params, groups, jnp.float32(0.0)) - 4 * groups.size
    assert found.parameters + found.temporary == pytest.approx(measured, rel=0.2)


def losses(run, how, path):
    outcome = train(RunGroup((run,)), open_task(run.task), lambda member: path / member.name, how)[
        run.run_id
    ]
    assert outcome.kind == "done"
    return np.array([[m.step, m.value] for m in outcome.measured if m.metric == "loss"])


@pytest.mark.parametrize("how", [{"micro_batch": 4}, {"micro_batch": 1, "remat": "block"}])
def test_losses_in_slices_are_those_of_whole_batches(tmp_path, how):
    run = run_of(2e4, batch=8, n_steps=12)
    (tmp_path / "whole").mkdir()
    (tmp_path / "slices").mkdir()
    whole = losses(run, Execution(), tmp_path / "whole")
    slices = losses(run, Execution(**how), tmp_path / "slices")
    np.testing.assert_allclose(slices, whole, atol=1e-5, rtol=0)


def test_a_micro_batch_that_does_not_divide_the_batch_is_rejected_before_training(tmp_path):
    run = run_of(2e4, batch=8)
    with pytest.raises(ScalingError, match="micro_batch = 3 does not divide batch_size = 8"):
        train(
            RunGroup((run,)),
            open_task(run.task),
            lambda member: tmp_path / member.name,
            Execution(micro_batch=3),
        )
