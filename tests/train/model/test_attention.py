"""Attention with its own backward pass equals the plain formula, and positions do what their papers
say.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.config import Execution
from scaling.train.model import positions
from scaling.train.model.attention import attend, attend_fused
from scaling.train.model.forward import make_backbone
from scaling.train.model.operations import Compute, normalize
from scaling.train.model.transformer import init
from scaling.train.program import ProgramKey
from tests.models import small_model
from tests.train.model.variants import run_once


def plain_attention(q_BTHK, k_BSGK, v_BSGK, slopes):
    """softmax(Q K^T / sqrt(d_head) + bias) V with every score computed and keys repeated (Vaswani
    2017, eq. 1).
    """
    T, H, K = q_BTHK.shape[1:]
    k_BSHK, v_BSHK = (jnp.repeat(x, H // x.shape[2], axis=2) for x in (k_BSGK, v_BSGK))
    distance_TS = jnp.arange(T)[:, None] - jnp.arange(T)
    scores_BHTS = jnp.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK) / np.sqrt(K)
    if slopes:
        scores_BHTS -= slopes(H)[:, None, None] * distance_TS
    weights_BHTS = jax.nn.softmax(jnp.where(distance_TS >= 0, scores_BHTS, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bshk->bthk", weights_BHTS, v_BSHK)


@pytest.mark.parametrize(
    ("length", "n_heads", "n_kv_heads", "alibi"),
    [(5, 2, 2, False), (66, 4, 2, True), (67, 3, 1, False), (514, 1, 1, True)],
)
def test_attention_and_its_gradients_equal_the_plain_formula(length, n_heads, n_kv_heads, alibi):
    """Lengths on both sides of the bounds where queries are cut into blocks, also where blocks are
    not equal.
    """
    slopes = positions.alibi_slopes_H if alibi else None
    shapes = [
        (2, length, n_heads, 8),
        (2, length, n_kv_heads, 8),
        (2, length, n_kv_heads, 8),
        (2, length, n_heads, 8),
    ]
    *operands, weight = (
        jax.random.normal(key, shape)
        for key, shape in zip(jax.random.split(jax.random.key(0), 4), shapes, strict=True)
    )

    def value_and_gradients(attention):
        return jax.value_and_grad(
            lambda *qkv: (attention(*qkv, slopes) * weight).sum(), argnums=(0, 1, 2)
        )

    ours, theirs = run_once(
        lambda *qkv: (
            value_and_gradients(attend)(*qkv),
            value_and_gradients(plain_attention)(*qkv),
        ),
        *operands,
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(4, 4), (4, 2), (3, 1)])
def test_the_fused_kernel_computes_the_same(n_heads, n_kv_heads):
    shapes = [(2, 24, heads, 8) for heads in (n_heads, n_kv_heads, n_kv_heads)]
    q, k, v = (
        jax.random.normal(key, shape)
        for key, shape in zip(jax.random.split(jax.random.key(0), 3), shapes, strict=True)
    )
    fused, own = run_once(lambda *qkv: (attend_fused(*qkv), attend(*qkv)), q, k, v)
    np.testing.assert_allclose(fused, own, atol=1e-5)


def test_queries_may_have_any_offset_among_the_keys():
    q_BTHK, k_BSGK, v_BSGK = (
        jax.random.normal(key, (1, 9, 2, 4)) for key in jax.random.split(jax.random.key(1), 3)
    )

    def both(q_BTHK, k_BSGK, v_BSGK):
        return attend(q_BTHK, k_BSGK, v_BSGK, positions.alibi_slopes_H)[:, 4:6], attend(
            q_BTHK[:, 4:6], k_BSGK, v_BSGK, positions.alibi_slopes_H, start=4
        )

    whole, part = run_once(both, q_BTHK, k_BSGK, v_BSGK)
    np.testing.assert_allclose(part, whole, atol=1e-6)


def test_rotated_products_depend_on_distance_alone():
    """Su 2021, eq. 16; and a rotation keeps lengths."""
    cos_TK, sin_TK = positions.rotation_TK(32, 8)
    q_K, k_K = jax.random.normal(jax.random.key(0), (2, 8))
    q_BTHK, k_BTHK = (
        positions.rotate(jnp.broadcast_to(x, (1, 32, 1, 8)), cos_TK, sin_TK) for x in (q_K, k_K)
    )
    products_TS = jnp.einsum("bthk,bshk->ts", q_BTHK, k_BTHK)
    for offset in (0, 1, 5, -7):
        np.testing.assert_allclose(
            np.diagonal(products_TS, offset), np.diagonal(products_TS, offset)[0], rtol=0, atol=1e-5
        )
    assert np.ptp(products_TS[0]) > 0.1
    np.testing.assert_allclose(jnp.linalg.norm(q_BTHK, axis=-1), jnp.linalg.norm(q_K), rtol=1e-5)


def test_sinusoids_are_the_published_table():
    """Vaswani 2017, section 3.5.

    Pairs sin, cos of position / 10000^(2i/d); our columns hold all sines, then all cosines.
    """
    table_TM = positions.sinusoids_TM(50, 6)
    for i in range(3):
        angle = 37 / 10000 ** (2 * i / 6)
        np.testing.assert_allclose(
            table_TM[37, [i, 3 + i]], [np.sin(angle), np.cos(angle)], atol=1e-6
        )


def test_alibi_slopes_are_the_published_ones():
    """Press 2022, section 3.

    1/2 .. 1/256 for 8 heads; other counts take every second slope of the next power of two.
    """
    np.testing.assert_array_equal(positions.alibi_slopes_H(8), 0.5 ** np.arange(1, 9))
    np.testing.assert_allclose(
        positions.alibi_slopes_H(12),
        [*0.5 ** np.arange(1, 9), *0.5 ** np.arange(0.5, 4.5)],
        rtol=1e-6,
    )
    np.testing.assert_array_equal(positions.alibi_slopes_H(1), [0.5**8])


@pytest.mark.slow
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_normalised_rows_and_their_gradient(kind, centred):
    x_NM, w_NM = jax.random.normal(jax.random.key(0), (2, 7, 24)) * 3.0 + 0.5

    def plain(x_NM):
        x_NM = x_NM - x_NM.mean(axis=-1, keepdims=True) if centred else x_NM
        return x_NM / jnp.sqrt((x_NM**2).mean(axis=-1, keepdims=True) + 1e-6)

    def ours(x_NM):
        return normalize(x_NM, Compute(kind=kind), centred)

    np.testing.assert_allclose(ours(x_NM), plain(x_NM), rtol=1e-4, atol=1e-5)
    ours, theirs = (jax.grad(lambda x, f=f: (f(x) * w_NM).sum())(x_NM) for f in (ours, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize("model", [{}, {"pos": "alibi", "n_kv_heads": 1}], ids=str)
def test_attention_within_documents_is_that_of_each_document_alone(kind, model):
    """A window of two documents: 0 ends one. Positions are relative, so each may start anywhere."""
    cfg = small_model(16, 2, d_ff=32, vocab_size=16, **model)
    execution = Execution(layers="unrolled", attention="own", kind=kind)
    params = init(cfg, 12, jax.random.key(0))
    tokens = np.array([[3, 5, 7, 9, 0, 2, 4, 6, 8, 1, 3, 5]], np.int32)

    def hidden(tokens_BT, separator):
        key = ProgramKey(cfg, 12, execution, document_separator=separator)
        return jax.jit(make_backbone(key))(params, tokens_BT)[0]

    packed = hidden(tokens, 0)
    np.testing.assert_allclose(packed[:5], hidden(tokens[:, :5], None), atol=1e-5)
    np.testing.assert_allclose(packed[5:], hidden(tokens[:, 5:], None), atol=1e-5)
    assert np.abs(packed[5:] - hidden(tokens, None)[5:]).max() > 1e-3
