"""Sampling draws from the model's distribution; its cache has the bytes of accounting."""

import jax
import numpy as np
import pytest

from scaling import accounting
from scaling.train.model.forward import make_forward
from scaling.train.model.generate import draws, empty_caches
from scaling.train.model.operations import Compute
from scaling.train.model.transformer import init
from tests.train.model.variants import tiny_model

pytestmark = pytest.mark.slow

MODEL = tiny_model(n_layers=1)
SEQ_LEN = 8


def generate(params, prompt_BT, n_new, key):
    """One continuation of each prompt; greedy if `key` is None."""
    program = jax.jit(lambda params, prompt: draws(MODEL, params, prompt, n_new, 1, key))
    return np.asarray(program(params, prompt_BT)[0])[:, 0]


@pytest.fixture(scope="module")
def params():
    return init(MODEL, SEQ_LEN, jax.random.key(0))


def test_greedy_continuation_is_the_argmax_of_the_forward_pass(params):
    prompt_BT = np.array([[3, 1, 4], [1, 5, 9]], np.int32)
    logits = jax.jit(make_forward(MODEL, SEQ_LEN))
    whole_BT = np.concatenate([prompt_BT, np.zeros((2, 5), np.int32)], axis=1)
    for t in range(3, 8):
        whole_BT[:, t] = np.argmax(logits(params, whole_BT)[:, t - 1], axis=-1)
    np.testing.assert_array_equal(generate(params, prompt_BT, 5, None), whole_BT[:, 3:])


def pearson(tokens, expected_V):
    """Pearson's chi^2 per degree of freedom, over tokens expected more than five times."""
    expected_V = len(tokens) * np.asarray(expected_V, np.float64)
    often = expected_V > 5
    observed_V = np.bincount(tokens, minlength=len(expected_V))
    return ((observed_V - expected_V)[often] ** 2 / expected_V[often]).sum() / often.sum()


def test_samples_have_the_probabilities_of_the_model(params):
    """The first new token (from the prompt), and the second (decoded) after the mode."""
    prompt_BT = np.tile(np.array([[2, 7]], np.int32), (4000, 1))
    first_B, second_B = generate(params, prompt_BT, 2, jax.random.key(1)).T
    mode = np.bincount(first_B).argmax()
    logits_TV = jax.jit(make_forward(MODEL, SEQ_LEN))(params, np.array([[2, 7, mode]], np.int32))[0]
    expected_TV = np.asarray(jax.nn.softmax(logits_TV))
    assert pearson(first_B, expected_TV[1]) < 2.5
    assert pearson(second_B[first_B == mode], expected_TV[2]) < 2.5
    assert pearson(second_B[first_B == mode], expected_TV[1]) > 5.0


def test_the_same_key_gives_the_same_tokens_and_another_key_others(params):
    prompt_BT = np.array([[0], [1]], np.int32)
    first, again, other = (
        generate(params, prompt_BT, 7, jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.dtype == np.int32


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cache_bytes_are_those_of_accounting(n_kv_heads, precision):
    model = tiny_model(n_kv_heads=n_kv_heads)
    caches = empty_caches(model, 3, 10, Compute(precision))
    n_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(caches))
    assert n_bytes == accounting.kv_cache_bytes(
        model, 10, batch=3, value_bytes=accounting.BYTES[precision]
    )
