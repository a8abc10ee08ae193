"""Transfer over widths and depths.

Nothing changes at the base shape, and beyond it every number is that of the tables.
"""

import jax
import numpy as np
import optax
import pytest

from scaling.config import Execution, MuP, OptimConfig
from scaling.train import optim
from scaling.train.model import mup
from scaling.train.model.forward import make_forward, stack
from scaling.train.model.transformer import init, shapes
from scaling.train.program import ProgramKey
from tests.train.model.variants import SEQ_LEN, run_once, tiny_model

pytestmark = pytest.mark.slow

AT_BASE = MuP(base_width=24, base_head=8, base_depth=2)
WIDER = MuP(base_width=8, base_head=2, base_depth=1)  # m = 3, heads 4 times as wide, l = 2
TOKENS_BT = np.random.default_rng(0).integers(0, 17, (2, SEQ_LEN), dtype=np.int32)


def same_bits(a, b):
    return all(
        jax.tree.leaves(jax.tree.map(lambda x, y: (np.asarray(x) == np.asarray(y)).all(), a, b))
    )


def updated(model, params, gradient, *, flat=True):
    """Parameters after one update at step 0."""
    h = optim.hyper(OptimConfig(lr=0.1, weight_decay=0.5, clip=False, eps=0.05), 10)
    lr = optim.learning_rate("constant", h, 0 * h.lr)
    execution = Execution(kind="cpu" if flat else "gpu")  # flat moments are a CPU's
    optimizer = optim.make_optimizer(ProgramKey(model, SEQ_LEN, execution), h, lr)
    return optim.update(optimizer, h.clip, params, optimizer.init(params), gradient)[0]


@pytest.mark.parametrize(
    "variant", [{}, {"tie_embeddings": True, "pos": "learned", "bias": True, "norm": "layernorm"}]
)
def test_mup_at_the_base_width_changes_nothing(variant):
    plain, model = tiny_model(**variant), tiny_model(**variant, transfer=AT_BASE)
    params, expected = (init(each, SEQ_LEN, jax.random.key(0)) for each in (model, plain))
    assert same_bits(params, expected)
    logits = [run_once(make_forward(each, SEQ_LEN), params, TOKENS_BT) for each in (model, plain)]
    assert same_bits(*logits)
    gradient = jax.tree.map(lambda leaf: 0.01 * leaf + 0.02, params)
    assert same_bits(updated(model, params, gradient), updated(plain, params, gradient))


def test_initial_scales_are_those_of_the_base_where_width_must_not_matter():
    wide = {"d_model": 256, "d_head": 32, "d_ff": 1024, "vocab_size": 512, "n_layers": 4}
    at = MuP(base_width=64, base_depth=2)
    params = init(tiny_model(**wide, transfer=at), SEQ_LEN, jax.random.key(0))
    block = params["blocks"][1]
    expected = {
        "qkv": 256**-0.5,
        "out": (2 * 2 * 128) ** -0.5,
        "up": 256**-0.5,
        "down": (2 * 2 * 1024) ** -0.5,
    }
    for name, std in expected.items():
        kernel = block["attention" if name in ("qkv", "out") else "ffn"][name]["kernel"]
        assert np.std(kernel) == pytest.approx(std, rel=0.02), name
    assert np.std(params["unembedding"]) == pytest.approx(64**-0.5, rel=0.02)
    assert np.std(params["embedding"]) == pytest.approx(1.0, rel=0.02)
    for changes in ({"tie_embeddings": True}, {"pos": "learned"}):
        shared = init(tiny_model(**wide, **changes, transfer=at), SEQ_LEN, jax.random.key(0))
        assert np.std(shared["embedding"]) == pytest.approx(64**-0.5, rel=0.02)


@pytest.mark.parametrize("tied", [False, True])
def test_mup_logits_scale_with_inverse_width(tied):
    plain, model = (
        tiny_model(tie_embeddings=tied),
        tiny_model(tie_embeddings=tied, transfer=MuP(base_width=8)),
    )
    params = init(plain, SEQ_LEN, jax.random.key(0))
    expected, found = run_once(
        lambda params: (
            make_forward(plain, SEQ_LEN)(params, TOKENS_BT),
            make_forward(model, SEQ_LEN)(params, TOKENS_BT),
        ),
        params,
    )
    np.testing.assert_allclose(found, expected / 3, rtol=1e-4, atol=1e-5)


def test_factors_of_attention_and_branches():
    model = tiny_model(transfer=WIDER)
    assert mup.attention_scale(model) == pytest.approx(np.sqrt(2) / 8)
    assert mup.depth_multiplier(model) == 0.5
    assert mup.attention_scale(tiny_model()) == 8**-0.5
    unlimited = tiny_model(transfer=MuP(base_width=8))
    assert (mup.attention_scale(unlimited), mup.depth_multiplier(unlimited)) == (8**-0.5, 1.0)


@pytest.mark.parametrize(("flat", "stacked"), [(True, False), (False, True)])
def test_each_array_has_its_learning_rate_decay_and_eps(flat, stacked):
    """Dey 2025, table 1.

    Against AdamW with these three numbers for every kind of array, m = 3 and l = 2.
    """
    model = tiny_model(transfer=WIDER, bias=True)
    rng = np.random.default_rng(0)
    params, gradient = (
        jax.tree.map(
            lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes(model, SEQ_LEN)
        )
        for _ in "pg"
    )
    expected = jax.tree_util.tree_map_with_path(by_hand, params, gradient)
    if stacked:
        params, gradient, expected = stack(params), stack(gradient), stack(expected)
    found = updated(model, params, gradient, flat=flat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), found, expected)


def by_hand(path, leaf, gradient):
    names = [key.key for key in path]
    matrix, inside = names[-1] in ("kernel", "embedding", "unembedding"), names[0] == "blocks"
    m = 3.0 if names[-1] == "kernel" else 1.0
    rule = optax.adamw(
        0.1 / m,
        b1=0.9,
        b2=0.98,
        eps=0.05 / (6.0 if inside else 3.0),
        weight_decay=0.5 * m if matrix else 0.0,
    )
    return leaf + rule.update(gradient, rule.init(leaf), leaf)[0]


def test_mup_model_compiles_its_own_program():
    assert ProgramKey(tiny_model(), 8, Execution()) != ProgramKey(
        tiny_model(transfer=WIDER), 8, Execution()
    )
