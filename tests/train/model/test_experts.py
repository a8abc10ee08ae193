"""Mixtures of experts against plain references: routing, products, gradients, the balance loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pydantic import ValidationError

from scaling.config import Execution, OptimConfig
from scaling.train.model import experts
from scaling.train.model.operations import FLOAT32, Compute
from scaling.train.model.transformer import (
    ACTIVATIONS,
    FeedForward,
    MixtureOfExperts,
    init,
    shapes,
)
from scaling.train.optim import hyper
from scaling.train.program import ProgramKey
from scaling.train.step import initial_state, make_grad_fn, train_program
from tests.train.model.variants import SEQ_LEN, run_once, tiny_model

N = 37  # tokens: no multiple of anything


def layer(model, kind=MixtureOfExperts, compute=FLOAT32):
    """A layer's function of its parameters and input, with parameters and an input."""
    graph, state = nnx.split(kind(model, compute))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), state)
    x_NM = rng.normal(0, 1, (N, model.d_model)).astype(np.float32)
    apply = jax.jit(lambda params, x_NM: nnx.merge(graph, params)(x_NM))
    return apply, params, x_NM


def plain(model, params, x_NM):
    """Every expert of every token, weighted by its probability where it is among the top k."""
    names = ("router", "expert_gate", "expert_up", "expert_down")
    router, *ups, down = (params[name].kernel.get_value() for name in names if name in params)
    p_NE = jax.nn.softmax(x_NM @ (router.T if router.shape[0] < model.d_model else router))
    least_N1 = jnp.sort(p_NE, axis=1)[:, -model.top_k, None]
    gate_NE = jnp.where(p_NE >= least_N1, p_NE, 0.0)
    inner = [jnp.einsum("nm,emf->enf", x_NM, up) for up in ups]
    return jnp.einsum("enf,efm,ne->nm", ACTIVATIONS[model.ffn](*inner), down, gate_NE)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("n_experts", "top_k", "ffn"),
    [(2, 1, "gelu"), (5, 2, "swiglu"), (4, 4, "relu2"), (64, 1, "gelu")],
)
def test_routed_products_and_their_gradients_equal_a_mixture_of_all_experts(
    n_experts, top_k, ffn, kind
):
    model = tiny_model(n_experts=n_experts, top_k=top_k, ffn=ffn)
    routed, params, x_NM = layer(model, compute=Compute(kind=kind))

    def program(params, x_NM):
        def loss(apply):
            return lambda params, x_NM: jnp.sum(jnp.sin(apply(params, x_NM)))

        of_plain = lambda params, x_NM: plain(model, params, x_NM)  # noqa: E731
        of_routed = lambda params, x_NM: routed(params, x_NM)[0]  # noqa: E731
        return [
            (apply(params, x_NM), jax.grad(loss(apply), (0, 1))(params, x_NM))
            for apply in (of_routed, of_plain)
        ]

    ours, expected = run_once(program, params, x_NM)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(np.abs(b).max())),
        ours,
        expected,
    )


def test_one_expert_is_the_dense_feed_forward():
    dense = tiny_model(ffn="swiglu")
    feed_forward, params, x_NM = layer(dense, FeedForward)
    up, down = params["up"].kernel.get_value(), params["down"].kernel.get_value()
    assert (up.shape, down.shape) == ((24, 80), (24, 40))  # (d_out, d_in) where it narrows
    gate_N1, expert_N1 = np.ones((N, 1), np.float32), np.zeros((N, 1), np.int32)
    kernels = [*jnp.split(up[None], 2, axis=2), down.T[None]]
    swiglu = ACTIVATIONS["swiglu"]
    y_NM = experts.apply_experts(jnp.asarray(x_NM), gate_N1, expert_N1, kernels, swiglu, FLOAT32)
    np.testing.assert_allclose(y_NM, feed_forward(params, x_NM)[0], rtol=0, atol=1e-5)
    assert shapes(dense, SEQ_LEN) == shapes(dense.model_copy(update={"n_experts": 1}), SEQ_LEN)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_no_token_is_dropped_where_one_expert_takes_all_of_them(kind):
    model = tiny_model(n_experts=8)
    routed, params, x_NM = layer(model, compute=Compute(kind=kind))
    x_NM = np.abs(x_NM)
    router = np.zeros_like(params["router"].kernel.get_value())
    router[3] = 1.0
    params["router"].kernel.set_value(router)
    y_NM, balance = routed(params, x_NM)
    np.testing.assert_allclose(y_NM, plain(model, params, x_NM), rtol=0, atol=1e-5)
    p_N = np.exp(x_NM.sum(axis=1)) / (np.exp(x_NM.sum(axis=1)) + 7)
    assert balance == pytest.approx(8 * p_N.mean(), rel=1e-5)  # f = 1 for the third, P its mean


def test_balance_loss_of_two_experts_by_hand():
    """Logits (ln 3, 0), (ln 3, 0), (0, ln 4): f = 2/3, 1/3; P = 1.7 / 3, 1.3 / 3."""
    model = tiny_model(n_experts=2)
    routed, params, _ = layer(model)
    router = np.zeros_like(params["router"].kernel.get_value())
    router[0, 0] = router[1, 1] = 1.0
    params["router"].kernel.set_value(router)
    x_NM = np.zeros((3, 24), np.float32)
    x_NM[:2, 0], x_NM[2, 1] = np.log(3.0), np.log(4.0)
    assert routed(params, x_NM)[1] == pytest.approx(2 * (2 * 1.7 + 1 * 1.3) / 9, rel=1e-6)


@pytest.mark.slow
def test_the_router_is_float32_in_bfloat16_training():
    model = tiny_model(n_experts=4)
    routed, params, x_NM = layer(model, compute=Compute("bfloat16", "cpu"))
    exact, *_ = layer(model)
    assert routed(params, x_NM)[1] == exact(params, x_NM)[1]
    error = np.std(routed(params, x_NM)[0] - exact(params, x_NM)[0])
    assert 0.0 < error < 0.02 * np.std(exact(params, x_NM)[0])


@pytest.mark.slow
def test_objective_has_the_balance_loss_of_every_layer_and_the_reported_loss_has_not():
    model = tiny_model(n_experts=4, load_balance=0.5)
    params = init(model, SEQ_LEN, jax.random.key(0))
    tokens_BT1 = np.random.default_rng(0).integers(0, 17, (4, SEQ_LEN + 1)).astype(np.int32)

    def loss_and_router(model):
        key = ProgramKey(model, SEQ_LEN, Execution(layers="unrolled"))
        grads, loss = jax.jit(make_grad_fn(key))(params, tokens_BT1, np.float32(0.0))
        return float(loss), grads["blocks"][1]["ffn"]["router"]["kernel"]

    with_it = loss_and_router(model)
    without = loss_and_router(model.model_copy(update={"load_balance": 0.0}))
    assert with_it[0] == without[0]
    assert np.abs(with_it[1] - without[1]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["unrolled", "scan"])
def test_a_tiny_mixture_trains(layers):
    model = tiny_model(n_experts=4, top_k=2, ffn="swiglu")
    key = ProgramKey(model, SEQ_LEN, Execution(layers=layers))
    numbers = hyper(OptimConfig(lr=0.01, warmup_steps=5, weight_decay=0.1), 60)
    tokens_K = np.tile(np.arange(SEQ_LEN + 1), (60, 8, 1)) + np.arange(8)[:, None]
    state = initial_state(key, 0)
    _, losses_K, _ = train_program(key)(state, numbers, tokens_K % 17, 60)
    assert losses_K[0] > 2.5
    assert losses_K[-1] < 0.3  # the next token is the last one plus one


def test_options_that_make_no_mixture_are_rejected():
    with pytest.raises(ValidationError, match="top_k = 3 exceeds n_experts = 2"):
        tiny_model(n_experts=2, top_k=3)
    with pytest.raises(ValidationError, match="experts have no biases"):
        tiny_model(n_experts=2, bias=True)
