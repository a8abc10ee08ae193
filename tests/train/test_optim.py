"""Muon: orthogonal steps for the blocks' matrices, AdamW for the rest; AdamW is what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from scaling.config import (
    Execution,
    ModelConfig,
    MuP,
    OptimConfig,
    RunConfig,
    SyntheticTask,
)
from scaling.train import optim
from scaling.train.step import initial_state, program_key, train_program

pytestmark = pytest.mark.slow

MODEL = ModelConfig(
    n_layers=2, d_model=16, n_heads=2, n_kv_heads=2, d_head=8, d_ff=64, vocab_size=32
)


def run_of(name="muon", model=MODEL, **fields):
    return RunConfig(
        model=model,
        task=SyntheticTask(kind="synthetic", seq_len=16),
        optim=OptimConfig(name=name, lr=1e-2, warmup_steps=2, **fields),
        batch_size=4,
        n_steps=40,
    )


def one_update(name, params, gradient):
    """The step at learning rate 1 without clipping and decay."""
    h = optim.hyper(OptimConfig(name=name, lr=1.0, clip=False), 10)
    moments = optim.make_optimizer(h, 0.0, name=name, flat=False).init(params)
    lr = optim.learning_rate("constant", h, 0 * h.lr)
    optimizer = optim.make_optimizer(h, lr, name=name, flat=False)
    new, _, _ = optim.update(optimizer, h.clip, params, moments, gradient)
    return jax.tree.map(lambda new, old: new - old, new, params)


def test_muon_orthogonalises_the_matrices_of_blocks_alone():
    execution = Execution(layers="unrolled", kind="cpu")
    params = initial_state(program_key(run_of()), 0, execution).params
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), params)
    muon, adam = (one_update(name, params, gradient) for name in ("muon", "adamw"))
    step = np.asarray(muon["blocks"][0]["ffn"]["up"]["kernel"], np.float64)
    singular = np.linalg.svd(step, compute_uv=False) / (0.2 * max(step.shape) ** 0.5)
    assert (singular > 0.6).all()
    assert (singular < 1.3).all()
    assert np.sqrt(np.square(step).mean()) == pytest.approx(0.2, rel=0.3)
    for name in ("embedding", "unembedding"):
        np.testing.assert_allclose(muon[name], adam[name], rtol=1e-5)
    np.testing.assert_allclose(
        muon["blocks"][0]["ffn_norm"]["gain"], adam["blocks"][0]["ffn_norm"]["gain"], rtol=1e-5
    )


@pytest.mark.parametrize("layers", ["unrolled", "scan"])
def test_muon_learns_and_stacked_layers_take_the_same_steps(layers):
    run = run_of()
    key = program_key(run)
    tokens = np.random.default_rng(0).zipf(1.5, (40, 4, 17)).astype(np.int32) % 32
    losses = {}
    for each in ("unrolled", layers):
        execution = Execution(layers=each, kind="cpu")
        program = train_program(key, execution)
        state, hyper = initial_state(key, 0, execution), optim.hyper(run.optim, 40)
        losses[each] = np.asarray(program(state, hyper, tokens, 40)[1])
    assert losses[layers][-5:].mean() < losses[layers][0] - 0.5
    np.testing.assert_allclose(losses[layers], losses["unrolled"], atol=1e-3)


def test_the_name_of_the_default_optimiser_is_not_part_of_a_run_id():
    assert (
        run_of("adamw").run_id
        == RunConfig(**run_of("adamw").model_dump(exclude_defaults=True)).run_id
    )
    assert run_of("adamw").run_id != run_of("muon").run_id


def test_muon_has_no_factors_of_a_transfer():
    with pytest.raises(ValidationError, match="muon"):
        run_of(model=MODEL.model_copy(update={"transfer": MuP(base_width=16)}))
