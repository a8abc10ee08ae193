"""Every variant of the model, and a small set of them in which each pair of choices occurs together
at least once.
"""

import itertools
from typing import get_args

import jax

from scaling.config import ModelConfig, MuP
from tests.models import small_model

CHOICES = {
    **{
        name: get_args(ModelConfig.model_fields[name].annotation)  # a new word is tested too
        for name in ("norm", "pos", "ffn")
    },
    "n_kv_heads": (4, 2, 1),
    "qk_norm": (True, False),
    "tie_embeddings": (False, True),
    "bias": (False, True),
    "gains": (True, False),
}
SEQ_LEN = 12
TRANSFER = MuP(base_width=16, base_head=4, base_depth=1)


def tiny_model(**changes):
    """A model whose widths all differ, so that no two axes can be confused."""
    base = {"n_kv_heads": 2, "d_head": 8, "d_ff": 40, "vocab_size": 17}
    return small_model(**{"d_model": 24, "n_heads": 4} | base | changes)


ALL = [
    tiny_model(n_layers=1, **dict(zip(CHOICES, values, strict=True)))
    for values in itertools.product(*CHOICES.values())
]


def pairs(model):
    """The pairs of choices that a model shows together."""
    chosen = [(name, getattr(model, name)) for name in CHOICES]
    return set(itertools.combinations(chosen, 2))


def covering():
    """Models chosen one after another, each the one that shows most of the pairs not yet seen.

    Two in three are not at their base shape.
    """
    missing, chosen = set().union(*map(pairs, ALL)), []
    while missing:
        best = max(ALL, key=lambda model: len(pairs(model) & missing))
        missing -= pairs(best)
        chosen.append(
            best.model_copy(
                update={
                    "n_layers": 1 + len(chosen) % 2,
                    "transfer": TRANSFER if len(chosen) % 3 else None,
                }
            )
        )
    return chosen


MIXTURES = [
    tiny_model(n_experts=4, top_k=2, ffn="swiglu", transfer=TRANSFER),
    tiny_model(n_experts=3, n_layers=1, tie_embeddings=True, norm="layernorm"),
    tiny_model(n_experts=32, top_k=32, ffn="relu2", gains=False),
]
COVERING = [*covering(), *MIXTURES]


def label(model):
    """The choices of a model in one word, as a test id."""
    experts = [f"{model.n_experts}experts"] if model.n_experts > 1 else []
    return "-".join([*(str(getattr(model, name)) for name in CHOICES), *experts])


def run_once(program, *arguments):
    """Compile without optimising, which takes a fifth of the time, and run."""
    quick = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    return jax.jit(program).lower(*arguments).compile(compiler_options=quick)(*arguments)
