"""Muon: orthogonal steps for the blocks' matrices, AdamW for the rest; AdamW is what it was."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from scaling.config import (
    Execution,
    MuP,
    OptimConfig,
    RunConfig,
    SyntheticTask,
)
from scaling.train import optim
from scaling.train.program import ProgramKey, program_key
from scaling.train.step import initial_state, train_program
from tests.models import small_model

pytestmark = pytest.mark.slow

CPU = Execution(layers="unrolled", kind="cpu")

MODEL = small_model(16, 2, vocab_size=32)


def run_of(name="muon", model=MODEL, **fields):
    return RunConfig(
        model=model,
        task=SyntheticTask(kind="synthetic", seq_len=16),
        optim=OptimConfig(name=name, lr=1e-2, warmup_steps=2, **fields),
        batch_size=4,
        n_steps=40,
    )


def one_update(name, params, gradient, model=None):
    """The step at learning rate 1 without clipping and decay."""
    h = optim.hyper(OptimConfig(name=name, lr=1.0, clip=False), 10)
    lr = optim.learning_rate("constant", h, 0 * h.lr)
    key = ProgramKey(model or MODEL, 16, Execution(kind="gpu"), optimizer=name)
    optimizer = optim.make_optimizer(key, h, lr)
    moments = optimizer.init(params)
    new, _, _ = optim.update(optimizer, h.clip, params, moments, gradient)
    return jax.tree.map(lambda new, old: new - old, new, params)


def test_muon_orthogonalises_the_matrices_of_blocks_alone():
    params = initial_state(program_key(run_of(), CPU), 0).params
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
    tokens = np.random.default_rng(0).zipf(1.5, (40, 4, 17)).astype(np.int32) % 32
    losses = {}
    for each in ("unrolled", layers):
        execution = Execution(layers=each, kind="cpu")
        key = program_key(run, execution)
        program = train_program(key)
        state, hyper = initial_state(key, 0), optim.hyper(run.optim, 40)
        losses[each] = np.asarray(program(state, hyper, tokens, 40)[1])
    assert losses[layers][-5:].mean() < losses[layers][0] - 0.5
    np.testing.assert_allclose(losses[layers], losses["unrolled"], atol=1e-3)


def test_the_name_of_the_default_optimiser_is_not_part_of_a_run_id():
    assert (
        run_of("adamw").run_id
        == RunConfig(**run_of("adamw").model_dump(exclude_defaults=True)).run_id
    )
    assert run_of("adamw").run_id != run_of("muon").run_id


def test_muon_orthogonalises_queries_keys_values_and_both_sides_of_swiglu_one_by_one():
    model = MODEL.model_copy(update={"n_kv_heads": 1, "ffn": "swiglu", "d_ff": 24})
    params = initial_state(program_key(run_of(model=model), CPU), 0).params
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), params)
    block = one_update("muon", params, gradient, model)["blocks"][0]
    qkv_MX, up_MF = block["attention"]["qkv"]["kernel"], block["ffn"]["up"]["kernel"]
    assert (qkv_MX.shape, up_MF.shape) == ((16, 16 + 2 * 8), (16, 48))
    for part in (qkv_MX[:, :16], qkv_MX[:, 16:24], qkv_MX[:, 24:], up_MF[:, :24], up_MF[:, 24:]):
        singular = np.linalg.svd(part, compute_uv=False) / (0.2 * max(part.shape) ** 0.5)
        assert (singular > 0.6).all()
        assert (singular < 1.3).all()


def test_muon_steps_shrink_with_the_root_of_the_width_under_a_transfer():
    params = initial_state(program_key(run_of(), CPU), 0).params
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), params)
    plain, quarter = (
        one_update("muon", params, gradient, MODEL.model_copy(update={"transfer": transfer}))
        for transfer in (None, MuP(base_width=4))
    )
    names = "blocks", 0, "ffn", "up", "kernel"
    ratio = jax.tree.map(lambda small, large: np.median(small / large), quarter, plain)
    assert functools.reduce(lambda tree, name: tree[name], names, ratio) == pytest.approx(0.5)
    assert ratio["embedding"] == pytest.approx(1.0, abs=1e-3)


def test_a_cooldown_in_steps_starts_where_it_says_and_not_after_the_run():
    optim_10 = OptimConfig(lr=1.0, cooldown_steps=10, cooldown_frac=0.5)
    h = optim.hyper(optim_10, 100)
    rates = [float(optim.learning_rate("wsd", h, jnp.int32(step))) for step in (88, 89, 90, 99)]
    assert rates[:2] == [1.0, 1.0]
    assert 0.0 < rates[3] < rates[2] < 1.0
    assert run_of(cooldown_steps=10).stable_steps == 30
    with pytest.raises(ValidationError, match="cooldown_steps = 41 exceeds n_steps = 40"):
        run_of(cooldown_steps=41)
