"""Every CPU kernel and its gradient equal the plain reference that stands next to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.train.model import cpu_kernels as kernels
from scaling.train.model.loss import LMHead, head_loss, logits_NV
from scaling.train.model.operations import FLOAT32
from scaling.train.model.positions import alibi_slopes_H
from tests.train.model.variants import run_once

pytestmark = pytest.mark.slow


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def assert_same_values_and_gradients(kernel, reference, *args, rtol=1e-4, atol=1e-5):
    """Of functions of float arrays, through a random weighting of their result."""
    results = []
    for function in (kernel, reference):
        shape = jax.eval_shape(function, *args).shape
        weights = normal(*shape, seed=9)

        def total(*args, f=function, w=weights):
            result = f(*args)
            return (result * w).sum(), result

        argnums = tuple(range(len(args)))
        grads, result = run_once(jax.grad(total, argnums, has_aux=True), *args)
        results.append((result, *grads))
    for ours, plain in zip(*results, strict=True):
        scale = float(jnp.abs(plain).max())
        np.testing.assert_allclose(ours, plain, rtol=rtol, atol=atol * max(1.0, scale))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_matmul(transposed, dtype, tolerance):
    w = normal(7, 5, seed=1) if transposed else normal(5, 7, seed=1)
    assert_same_values_and_gradients(
        lambda x, w: kernels.matmul(x, w, dtype, transposed),
        lambda x, w: kernels.matmul_reference(x, w, dtype, transposed),
        normal(9, 5),
        w,
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize(
    ("kernel", "reference"),
    [
        (kernels.rms_normalize, kernels.rms_normalize_reference),
        (kernels.row_mean, lambda x: x.mean(axis=-1, keepdims=True)),
        (kernels.row_sum, lambda x: x.sum(axis=-1, keepdims=True)),
    ],
)
def test_norms_and_sums(kernel, reference):
    assert_same_values_and_gradients(kernel, reference, normal(6, 16))


@pytest.mark.parametrize("length", [5, 64, 67])  # one block of queries, two, two unequal ones
@pytest.mark.parametrize("slopes", [None, alibi_slopes_H])
@pytest.mark.parametrize(("groups", "per_group"), [(1, 4), (2, 2), (4, 1)])
def test_causal_attention(length, slopes, groups, per_group):
    q = normal(2, groups, per_group, length, 8)
    k, v = (normal(2, groups, length, 8, seed=seed) for seed in (1, 2))
    assert_same_values_and_gradients(
        lambda *args: kernels.causal_attention(*args, slopes),
        lambda *args: kernels.causal_attention_reference(*args, slopes),
        q,
        k,
        v,
    )


def head_loss_reference(x_NM, weight, target_N, z_loss, head):
    """`head_loss` from the logits of all tokens."""
    scores_NV = logits_NV(x_NM, weight, head)
    log_z_N = jax.nn.logsumexp(scores_NV, axis=1)
    nll_N = log_z_N - jnp.take_along_axis(scores_NV, target_N[:, None], axis=1)[:, 0]
    return nll_N.mean() + z_loss * jnp.square(log_z_N).mean(), nll_N.mean()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk", [None, 4, 5])
def test_loss_in_chunks(tied, chunk):
    weight, target = normal(*((11, 6) if tied else (6, 11)), seed=1), jnp.arange(12) % 11
    head = LMHead(FLOAT32, tied, chunk)
    results = [
        jax.value_and_grad(
            lambda x, w, f=f: f(x, w, target, jnp.float32(1e-2), head), (0, 1), has_aux=True
        )(normal(12, 6), weight)
        for f in (head_loss, head_loss_reference)
    ]
    for ours, plain in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)
