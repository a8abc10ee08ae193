"""Every pair of the model's choices.

Nothing is seen before its time, and decoding through the cache changes nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.train.model.forward import make_forward
from scaling.train.model.generate import decode, empty_caches
from scaling.train.model.transformer import shapes
from tests.train.model.variants import CHOICES, COVERING, SEQ_LEN, label, run_once, tiny_model

pytestmark = pytest.mark.slow

PROMPT = 5
# an output token that is never an input: its logit depends on a tied embedding through the inputs
# alone
UNUSED = 16
TOKENS_BT = (
    np.random.default_rng(0)
    .permuted(np.tile(np.arange(UNUSED), (3, 1)), axis=1)[:, :SEQ_LEN]
    .astype(np.int32)
)


def scrambled(model):
    """Parameters without a zero or one, so that every gain, bias and position takes part."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(float(len(leaf.shape) == 1), 0.3, leaf.shape).astype(np.float32),
        shapes(model, SEQ_LEN),
    )


def nll(logits_BTV):
    return -jnp.take_along_axis(
        jax.nn.log_softmax(logits_BTV[:, :-1]), TOKENS_BT[:, 1:, None], axis=-1
    ).mean()


def decoded(model, params):
    """Logits of the tokens from PROMPT on, one decoding step each, at a traced position."""
    prompt = jnp.asarray(TOKENS_BT[:, :PROMPT])
    _, caches = decode(model, params, prompt, empty_caches(model, len(prompt), SEQ_LEN), 0)

    def step(caches, at):
        token_B1 = jnp.asarray(TOKENS_BT)[:, at][:, None]
        logits_B1V, caches = decode(model, params, token_B1, caches, at)
        return caches, logits_B1V[:, 0]

    return jax.lax.scan(step, caches, jnp.arange(PROMPT, SEQ_LEN))[1].swapaxes(0, 1)


@pytest.fixture(scope="module", params=COVERING, ids=label)
def seen(request):
    """All that the tests below ask of one variant, computed by one program."""
    model = request.param
    logits = make_forward(model, SEQ_LEN)

    def program(params):
        def of_embedding(embedding_VM):
            return logits(params | {"embedding": embedding_VM}, TOKENS_BT[:1])[0, :, UNUSED]

        return {
            "logits": logits(params, TOKENS_BT),
            "bfloat16": make_forward(model, SEQ_LEN, "bfloat16")(params, TOKENS_BT),
            "decoded": decoded(model, params),
            "influence": jax.jacrev(of_embedding)(params["embedding"])[:, TOKENS_BT[0]],
            "gradient": jax.grad(lambda params: nll(logits(params, TOKENS_BT)))(params),
        }

    return run_once(program, scrambled(model))


def test_no_token_sees_the_future(seen):
    """d logits_t / d embedding_s is exactly zero for s > t, and nonzero for every s <= t."""
    influence_TS = np.abs(seen["influence"]).max(axis=-1)
    future = np.triu(np.ones_like(influence_TS, bool), k=1)
    assert influence_TS[future].max() == 0.0
    assert influence_TS[~future].min() > 0.0


def test_decoding_through_the_cache_equals_the_whole_forward(seen):
    np.testing.assert_allclose(
        seen["decoded"], seen["logits"][:, PROMPT:], rtol=0, atol=1e-5 * np.std(seen["logits"])
    )


def test_every_parameter_has_a_finite_gradient(seen):
    for path, leaf in jax.tree_util.tree_leaves_with_path(seen["gradient"]):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0.0, path


def test_bfloat16_products_stay_close_to_float32(seen):
    assert seen["bfloat16"].dtype == np.float32
    error = np.std(seen["bfloat16"] - seen["logits"]) / np.std(seen["logits"])
    assert 0.0 < error < 0.03


@pytest.mark.parametrize("pos", CHOICES["pos"])
def test_only_a_model_without_positions_ignores_the_order_of_the_past(pos):
    model = tiny_model(pos=pos, n_layers=1)
    swapped_BT = TOKENS_BT.copy()
    swapped_BT[:, [2, 7]] = TOKENS_BT[:, [7, 2]]
    logits_BTV = run_once(
        lambda params: make_forward(model, SEQ_LEN)(
            params, np.concatenate([TOKENS_BT, swapped_BT])
        ),
        scrambled(model),
    )
    difference = np.ptp(logits_BTV[:, -1].reshape(2, 3, -1), axis=0).max()
    assert (difference < 1e-5) == (pos == "none")


@pytest.mark.parametrize("n_kv_heads", [1, 2])
def test_gqa_equals_mha_with_repeated_heads(n_kv_heads):
    """GQA and MQA are MHA whose key and value columns repeat (Ainslie 2023, section 2.1)."""
    shared, full = tiny_model(n_kv_heads=n_kv_heads, bias=True), tiny_model(n_kv_heads=4, bias=True)

    def repeat(columns):
        q, k, v = jnp.split(columns, np.cumsum([4, n_kv_heads]) * 8, axis=-1)
        wide = (
            jnp.repeat(x.reshape(*x.shape[:-1], n_kv_heads, 8), 4 // n_kv_heads, axis=-2)
            for x in (k, v)
        )
        return jnp.concatenate([q, *(x.reshape(*x.shape[:-2], 32) for x in wide)], axis=-1)

    def widen(path, leaf):
        return repeat(leaf) if "qkv" in jax.tree_util.keystr(path) else leaf

    def both(params):
        widened = jax.tree_util.tree_map_with_path(widen, params)
        return make_forward(shared, SEQ_LEN)(params, TOKENS_BT), make_forward(full, SEQ_LEN)(
            widened, TOKENS_BT
        )

    expected, repeated = run_once(both, scrambled(shared))
    np.testing.assert_allclose(repeated, expected, rtol=0, atol=1e-5 * np.std(expected))
