"""Counts equal the real arrays and the real products; conventions equal the published tables."""

import math

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.accounting import (
    DEVICES,
    attention_flops,
    attention_forms,
    decode_tokens_per_second,
    kv_cache_bytes,
    n_params,
    parameter_groups,
    train_flops,
)
from scaling.train.model.forward import make_forward
from scaling.train.model.transformer import init, shapes
from tests.models import small_model
from tests.train.model.variants import ALL, COVERING, MIXTURES, SEQ_LEN, label, tiny_model

LLAMA = {"n_layers": 32, "d_ff": 14336, "ffn": "swiglu", "qk_norm": False}


def group(path):
    """The group that accounting puts a parameter in, read from its name."""
    names = [str(getattr(part, "key", part)) for part in path]
    if any("norm" in name for name in names):
        return "norm"
    return next(
        name
        for name in names
        if name in {"embedding", "unembedding", "position", "attention", "ffn"}
    )


def counted(params):
    groups = dict.fromkeys(("embedding", "unembedding", "position", "attention", "ffn", "norm"), 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        groups[group(path)] += leaf.size
    return groups


@pytest.mark.slow
def test_parameters_of_every_variant_by_group():
    for model in [*ALL, *MIXTURES]:
        assert counted(shapes(model, SEQ_LEN)) == parameter_groups(model, SEQ_LEN), label(model)


@pytest.mark.parametrize("model", [*COVERING[:5], *MIXTURES], ids=label)
def test_drawn_parameters_have_the_counted_shapes(model):
    drawn = jax.eval_shape(lambda key: init(model, SEQ_LEN, key), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(drawn)) == n_params(model, SEQ_LEN, "total")
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), drawn) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes(model, SEQ_LEN)
    )


@pytest.mark.parametrize("model", MIXTURES, ids=label)
def test_active_parameters_are_those_of_a_tokens_experts(model):
    """Of each array of experts `top_k` matrices, of all others everything; a tied head counts."""
    leaves = jax.tree_util.tree_leaves_with_path(shapes(model, SEQ_LEN))
    active = sum(
        math.prod((model.top_k, *leaf.shape[1:]))
        if "expert" in jax.tree_util.keystr(path)
        else leaf.size
        for path, leaf in leaves
    )
    embedding = 0 if model.tie_embeddings else model.vocab_size * model.d_model
    assert n_params(model, SEQ_LEN, "active") == active - embedding
    inactive = (model.n_experts - model.top_k) * (3 if model.ffn == "swiglu" else 2)
    assert n_params(model, SEQ_LEN, "with_head") - (active - embedding) == (
        inactive * model.n_layers * model.d_model * model.d_ff
    )
    assert train_flops(model, SEQ_LEN, 10, "6nd") == 60 * n_params(model, SEQ_LEN, "active")


def test_active_is_with_head_in_a_dense_model():
    assert n_params(tiny_model(), SEQ_LEN, "active") == n_params(tiny_model(), SEQ_LEN)


def test_mixtral_8x7b_has_its_published_counts():
    """46.7B in total and 12.9B for a token (Jiang 2024, section 2), embedding included."""
    mixtral = small_model(4096, 32, **LLAMA, vocab_size=32000, n_kv_heads=8, n_experts=8, top_k=2)
    assert n_params(mixtral, 8192, "total") == 46_702_792_704
    active = n_params(mixtral, 8192, "active") + 32000 * 4096
    assert active == 12_879_925_248


def product_flops(jaxpr):
    """2 x the multiplications of every dot_general in a program; row sums, written as products with
    one column, are no products.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general" and equation.outvars[0].aval.shape[-1] > 1:
            (contracted, _), _ = equation.params["dimension_numbers"]
            lhs = equation.invars[0].aval.shape
            total += (
                2
                * math.prod(equation.outvars[0].aval.shape)
                * math.prod(lhs[i] for i in contracted)
            )
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            total += product_flops(inner) if hasattr(inner, "eqns") else 0
    return total


def unmasked_forward_flops(model, seq_len):
    """The exact count with all T^2 pairs of queries and keys instead of the T (T + 1) / 2 that the
    mask leaves.
    """
    masked = seq_len * (seq_len - 1) // 2
    return (
        train_flops(model, seq_len, seq_len) / 3
        + model.n_layers * 4 * model.n_heads * model.d_head * masked
    )


@pytest.mark.parametrize("model", COVERING, ids=label)
def test_exact_flops_are_those_of_the_program(model):
    batch = 3
    program = jax.make_jaxpr(make_forward(model, SEQ_LEN))(
        shapes(model, SEQ_LEN), jax.ShapeDtypeStruct((batch, SEQ_LEN), "int32")
    )
    rows = batch * SEQ_LEN * model.top_k
    size = -(-rows // (2 * model.n_experts))
    blocks = (rows + model.n_experts * (size - 1)) // size
    padding = blocks * size - rows if model.n_experts > 1 else 0
    width = (3 if model.ffn == "swiglu" else 2) * model.d_ff * model.d_model
    assert product_flops(program.jaxpr) == (
        batch * unmasked_forward_flops(model, SEQ_LEN) + 2 * padding * width * model.n_layers
    )


def test_exact_flops_are_near_those_of_the_compiler():
    """XLA's own analysis of the unrolled program counts elementwise work too."""
    model, seq_len = tiny_model(d_model=128, d_head=32, n_kv_heads=4, d_ff=512, vocab_size=256), 32
    lowered = jax.jit(make_forward(model, seq_len)).lower(
        shapes(model, seq_len), jax.ShapeDtypeStruct((4, seq_len), "int32")
    )
    flops = lowered.cost_analysis()["flops"]
    assert flops == pytest.approx(4 * unmasked_forward_flops(model, seq_len), rel=0.15)


GPT3 = small_model(12288, 96, n_layers=96, vocab_size=50257, qk_norm=False, pos="learned")


def test_kaplan_counts_of_gpt3():
    """12 n_layers d_model^2 weights and 3.14e23 FLOPs for 300B tokens (Brown 2020, table D.1);
    gains are 2 n_layers + 1 vectors.
    """
    blocks = 12 * 96 * 12288**2
    assert n_params(GPT3, 2048, "nonembedding") == blocks + (2 * 96 + 1) * 12288
    assert n_params(GPT3, 2048, "with_head") == n_params(GPT3, 2048, "nonembedding") + 50257 * 12288
    assert (
        n_params(GPT3, 2048, "total") == n_params(GPT3, 2048, "with_head") + (50257 + 2048) * 12288
    )
    assert train_flops(GPT3, 2048, 300 * 10**9, "kaplan") == pytest.approx(
        6.0 * blocks * 300e9, rel=1e-4
    )
    assert train_flops(GPT3, 2048, 300 * 10**9, "6nd") == pytest.approx(3.14e23, rel=0.01)


# parameters as printed, and half a unit of their last digit; layers, width, ffn, heads, head width;
# C / 6ND
HOFFMANN_TABLE_A4 = [
    (73e6, 0.5e6, 10, 640, 2560, 10, 64, 1.03),
    (305e6, 0.5e6, 20, 1024, 4096, 16, 64, 1.10),
    (552e6, 0.5e6, 24, 1280, 5120, 10, 128, 1.08),
    (1.1e9, 0.05e9, 26, 1792, 7168, 14, 128, 1.04),
    (1.6e9, 0.05e9, 28, 2048, 8192, 16, 128, 1.03),
    (6.8e9, 0.05e9, 40, 3584, 14336, 28, 128, 0.99),
]


@pytest.mark.parametrize(
    ("n", "half_unit", "layers", "d", "f", "heads", "d_head", "ratio"), HOFFMANN_TABLE_A4
)
def test_chinchilla_flops_give_the_published_ratios(
    n, half_unit, layers, d, f, heads, d_head, ratio
):
    """Hoffmann 2022, table A4 at T = 2048; its ratios leave out the two vocabulary products that
    its formulas list.
    """
    shape = {"n_layers": layers, "d_head": d_head, "d_ff": f, "vocab_size": 32_000}
    model = small_model(d, heads, **shape, qk_norm=False)
    vocabulary = 3 * 2 * 2 * model.vocab_size * d
    blocks = train_flops(model, 2048, 1, "chinchilla") - vocabulary
    low, high = blocks / (6 * (n + half_unit)), blocks / (6 * (n - half_unit))
    assert low - 0.006 <= ratio <= high + 0.006


@pytest.mark.parametrize(("n_kv_heads", "gib"), [(32, 4.0), (8, 1.0), (1, 0.125)])
def test_cache_of_llama3_8b(n_kv_heads, gib):
    """8192 tokens in bfloat16: MHA, GQA-8 and MQA."""
    llama = small_model(4096, 32, **LLAMA, vocab_size=128256, n_kv_heads=n_kv_heads)
    assert kv_cache_bytes(llama, 8192) == gib * 2**30
    if n_kv_heads == 8:
        assert n_params(llama, 8192, "total") == 8_030_261_248


def test_a_smaller_cache_decodes_faster_until_arithmetic_binds():
    speeds = [
        decode_tokens_per_second(
            GPT3.model_copy(update={"n_kv_heads": g}), 2048, 64, DEVICES["h100"]
        )
        for g in (96, 8, 1)
    ]
    assert speeds == sorted(speeds)
    assert speeds[-1] <= DEVICES["h100"].flops_per_second / (
        2 * n_params(GPT3.model_copy(update={"n_kv_heads": 1}), 2048)
    )


def test_a_step_reads_weights_once_and_every_cache_and_is_bound_by_the_slower():
    device = DEVICES["a100"]
    n, cache = n_params(GPT3, 2048), kv_cache_bytes(GPT3, 2048)
    for batch in (8, 4096):
        arithmetic = batch * (2 * n + attention_flops(GPT3, 2048)) / 312e12
        reading = (2 * n + batch * cache) / 2.039e12
        step = batch / decode_tokens_per_second(GPT3, 2048, batch, device)
        assert step == pytest.approx(max(arithmetic, reading))


@pytest.mark.parametrize(
    ("n_kv_heads", "names"),
    [(96, ("MHA", "GQA-24", "MQA")), (8, ("MHA", "GQA-8", "MQA")), (1, ("MHA", "GQA-24", "MQA"))],
)
def test_gqa_keeps_the_grouping_of_the_model_or_takes_a_quarter(n_kv_heads, names):
    forms = attention_forms(GPT3.model_copy(update={"n_kv_heads": n_kv_heads}))
    assert tuple(forms) == names
    assert [form.n_kv_heads for form in forms.values()] == [
        96,
        int(names[1].removeprefix("GQA-")),
        1,
    ]


@given(st.sampled_from(ALL), st.integers(2, 4096), st.integers(1, 10**13))
def test_conventions_are_consistent(model, seq_len, tokens):
    assert (
        n_params(model, seq_len, "nonembedding")
        < n_params(model, seq_len, "with_head")
        <= n_params(model, seq_len, "total")
    )
    groups = parameter_groups(model, seq_len)
    assert sum(groups.values()) == n_params(model, seq_len, "total")
    exact = train_flops(model, seq_len, tokens, "exact")
    assert exact < train_flops(model, seq_len, tokens, "chinchilla")
    if not model.bias:
        matrices = groups["attention"] + groups["ffn"] + model.vocab_size * model.d_model
        pairs = 12 * model.n_layers * model.n_heads * model.d_head * (seq_len + 1) / 2
        assert exact == pytest.approx((6 * matrices + pairs) * tokens)
