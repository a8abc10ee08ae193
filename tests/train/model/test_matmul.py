"""Products in half precision: the numbers of the plain formula, however operands are laid out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.config import Execution, OptimConfig
from scaling.train import optim
from scaling.train.model.cpu_kernels import matmul
from scaling.train.model.forward import make_forward
from scaling.train.model.loss import LMHead, head_loss, token_nll
from scaling.train.model.operations import FLOAT32
from scaling.train.program import ProgramKey
from scaling.train.step import initial_state, train_program
from tests.train.model.variants import COVERING, SEQ_LEN

pytestmark = pytest.mark.slow


def operands(transposed, seed=0):
    x_key, w_key, g_key = jax.random.split(jax.random.key(seed), 3)
    w_IO = jax.random.normal(w_key, (24, 40))
    return (
        jax.random.normal(x_key, (32, 24)),
        w_IO.T if transposed else w_IO,
        jax.random.normal(g_key, (32, 40)),
    )


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_product_and_gradients(dtype, transposed):
    """Products of operands rounded to the compute dtype are exact in float32 up to the order of
    sums.
    """
    x, w, g = operands(transposed)

    def rounded(array):
        return np.asarray(array.astype(dtype), np.float64)

    y, pull = jax.vjp(lambda x, w: matmul(x, w, dtype, transposed), x, w)
    dx, dw = pull(g)
    w_IO = rounded(w).T if transposed else rounded(w)
    np.testing.assert_allclose(y, rounded(x) @ w_IO, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, rounded(g) @ w_IO.T, rtol=1e-5, atol=1e-5)
    expected = rounded(x).T @ rounded(g)
    np.testing.assert_allclose(dw, expected.T if transposed else expected, rtol=1e-5, atol=1e-5)
    assert y.dtype == dx.dtype == dw.dtype == np.float32


def test_a_pack_multiplies_in_half_precision_too():
    both = [operands(True, seed) for seed in (0, 1)]
    x, w, g = (jnp.stack(leaves) for leaves in zip(*both, strict=True))

    def gradients(x, w, g):
        return jax.vjp(lambda x, w: matmul(x, w, "bfloat16", True), x, w)[1](g)

    for index, found in enumerate(zip(*jax.jit(jax.vmap(gradients))(x, w, g), strict=True)):
        for one, other in zip(found, gradients(*both[index]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [None, 8, 5])
@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_in_chunks_equals_the_plain_formula_with_its_gradient(tied, chunk):
    """Also where a chunk does not divide the tokens: then the next smaller divisor is used."""
    x_NM, w_MV, _ = operands(False)
    target_N = jnp.arange(32) * 7 % 40
    weight, execution = (
        (w_MV.T, LMHead(FLOAT32, True, chunk)) if tied else (w_MV, LMHead(FLOAT32, False, chunk))
    )

    def plain(x_NM, weight, z_loss):
        logits_NV = x_NM @ (weight.T if tied else weight)
        partition_N = jax.nn.logsumexp(logits_NV, axis=-1)
        return (partition_N - logits_NV[jnp.arange(32), target_N]).mean() + z_loss * jnp.square(
            partition_N
        ).mean()

    def ours(x_NM, weight, z_loss):
        return 3.0 * head_loss(x_NM, weight, target_N, z_loss, execution)[0]

    value, found = jax.value_and_grad(ours, argnums=(0, 1, 2))(x_NM, weight, 0.1)
    expected_value, expected = jax.value_and_grad(plain, argnums=(0, 1, 2))(x_NM, weight, 0.1)
    np.testing.assert_allclose(value / 3.0, expected_value, rtol=1e-5)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one / 3.0, other, rtol=2e-4, atol=1e-5)
    nll_N = token_nll(x_NM, weight, target_N, execution)
    np.testing.assert_allclose(
        nll_N.mean(), head_loss(x_NM, weight, target_N, 0.1, execution)[1], rtol=1e-6
    )
    np.testing.assert_allclose(
        nll_N[3], token_nll(x_NM[3:4], weight, target_N[3:4], LMHead(FLOAT32, tied))[0], rtol=1e-5
    )


HALF = [(model, (None, 16)[i % 2]) for i, model in enumerate(COVERING[:8])]


@pytest.mark.parametrize(
    ("model", "chunk"),
    [*HALF[:2], *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in HALF[2:])],
)
def test_variants_take_a_step_in_half_precision(model, chunk):
    """Compiled as in training.

    A bfloat16 product that the backend can neither convert nor run fails only when it is reached.
    """
    execution = Execution(layers="unrolled", loss_chunk=chunk)
    shape = ProgramKey(model, SEQ_LEN, execution, "bfloat16", "wsd")
    tokens_KBT1 = np.random.default_rng(0).integers(
        0, model.vocab_size, (2, 4, SEQ_LEN + 1), dtype=np.int32
    )
    _, losses, _ = train_program(shape)(
        initial_state(shape, 0), optim.hyper(OptimConfig(lr=1e-3), 100), tokens_KBT1, 2
    )
    losses_K = np.asarray(losses)
    exact = make_forward(model, SEQ_LEN)(initial_state(shape, 0).params, tokens_KBT1[0, :, :-1])
    nll = -np.take_along_axis(
        jax.nn.log_softmax(exact), tokens_KBT1[0, :, 1:, None], axis=-1
    ).mean()
    assert losses_K[0] == pytest.approx(float(nll), rel=0.02)
    assert np.isfinite(losses_K[1])
