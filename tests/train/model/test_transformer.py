"""Parameters are drawn as their docstring says, and the model knows how little it knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.train.model.forward import make_forward
from scaling.train.model.transformer import init, shapes
from tests.train.model.variants import SEQ_LEN, tiny_model

WIDE = {"d_model": 256, "d_head": 32, "d_ff": 1024, "vocab_size": 512}


def drawn(seed=0, **changes):
    return init(tiny_model(**changes), SEQ_LEN, jax.random.key(seed))


@pytest.mark.parametrize("tied", [False, True])
def test_initial_scales(tied):
    params = drawn(**WIDE, tie_embeddings=tied, n_layers=3)
    block = params["blocks"][1]
    widths = {
        "qkv": 256**-0.5,
        "out": (6 * 4 * 32) ** -0.5,
        "up": 256**-0.5,
        "down": (6 * 1024) ** -0.5,
    }
    kernels = {
        name: block["attention" if name in ("qkv", "out") else "ffn"][name]["kernel"]
        for name in widths
    }
    for name, std in widths.items():
        assert np.std(kernels[name]) == pytest.approx(std, rel=0.02), name
        assert abs(np.mean(kernels[name])) < 0.02 * std, name
    assert np.std(params["embedding"]) == pytest.approx(256**-0.5 if tied else 1.0, rel=0.02)
    assert (block["attention_norm"]["gain"] == 1.0).all()
    assert ("unembedding" in params) != tied


def test_no_two_matrices_start_alike_and_seeds_differ():
    """More than ten layers: the order of names must not mix up whose numbers are whose."""
    params, other = drawn(n_layers=12), drawn(seed=1, n_layers=12)
    same = jax.tree.map(
        lambda leaf, shape: leaf.shape == shape.shape,
        params,
        shapes(tiny_model(n_layers=12), SEQ_LEN),
    )
    assert all(jax.tree.leaves(same))
    first = [block["ffn"]["up"]["kernel"][0, 0].item() for block in params["blocks"].values()]
    assert len(set(first)) == 12
    assert params["embedding"][0, 0] != other["embedding"][0, 0]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_embeddings": True}, {"pos": "learned", "norm": "layernorm", "ffn": "swiglu"}],
)
def test_an_untrained_model_is_near_a_uniform_guess(changes):
    model = tiny_model(**WIDE, **changes)
    tokens_BT = np.random.default_rng(0).integers(0, 512, (4, SEQ_LEN), dtype=np.int32)
    logits_BTV = jax.jit(make_forward(model, SEQ_LEN))(drawn(**WIDE, **changes), tokens_BT)
    nll = -np.take_along_axis(
        jax.nn.log_softmax(logits_BTV[:, :-1]), tokens_BT[:, 1:, None], axis=-1
    ).mean()
    assert nll == pytest.approx(np.log(512), abs=1.0)
    assert logits_BTV.dtype == np.float32
