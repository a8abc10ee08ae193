"""The rules that turn a size into hyper-parameters: published values to their digits, ranges, and
what is measured.
"""

import math

import pytest
from pydantic import ValidationError

from scaling.accounting import n_params
from scaling.config import MuP, PowerRule, Recipe
from scaling.plan import plan
from scaling.recipe import (
    PUBLISHED,
    batch_size,
    learning_rate,
    model_for,
    optim_for,
    range_warnings,
)
from scaling.recipe.hyperparams import weight_decay
from scaling.recipe.shapes import head_width
from scaling.warning import WarningCode
from tests.models import small_model
from tests.sweep_files import tiny

MODEL = small_model()
GIVEN = {"lr_given": False, "batch_given": True}


@pytest.mark.parametrize(
    ("name", "n", "d", "lr", "batch"),
    [
        ("porian", 108e6, 2e9, 0.0047, 160 * 2048),
        (
            "porian",
            901e6,
            2e9,
            0.0047 * (901 / 108) ** (-1 / 3),
            160 * 2048 * (901 / 108) ** (2 / 3),
        ),
        ("step-law", 1e9, 1e11, 1.79 * 1e9**-0.713 * 1e11**0.307, 0.58 * 1e11**0.571),
        ("deepseek", 1e9, 1e19 / 6e9, 0.3118 * 1e19**-0.125, 0.2920 * 1e19**0.3271),
    ],
)
def test_published_rules_give_their_papers_numbers(name, n, d, lr, batch):
    rule = PUBLISHED[name]
    assert rule.lr(n, d) == pytest.approx(lr, rel=1e-12)
    assert rule.batch_tokens(n, d) == pytest.approx(batch, rel=1e-12)
    assert rule.outside(n, d) == ""
    assert learning_rate(MODEL, n, d, 512, Recipe(lr_rule=name)) == rule.lr(n, d)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rules_warn_below_their_range(name):
    assert PUBLISHED[name].outside(30e3, 1e6)
    (told,) = range_warnings(30e3, 1e6, Recipe(lr_rule=name), **GIVEN)
    assert told.startswith(f"recipe.lr_rule = {name}: ")
    assert range_warnings(30e3, 1e6, Recipe(lr_rule=name), lr_given=True, batch_given=True) == []
    if name != "deepseek":  # its rate depends on compute alone, gently
        assert PUBLISHED[name].lr(30e3, 1e6) > 5 * learning_rate(MODEL, 30e3, 1e6, 512, Recipe())


def test_measured_rule_warns_about_small_models_and_the_default_does_not():
    assert range_warnings(30e3, 1e6, Recipe(), **GIVEN) == []
    assert (
        "batch_rule = porian: N = 30k lies outside 5M"
        in range_warnings(30e3, 1e6, Recipe(), lr_given=True, batch_given=False)[0]
    )
    measured = Recipe(lr_rule=PowerRule(coef=10.0, n_power=-0.7, n_range=(1e4, 1e5)))
    assert range_warnings(3e4, 1e6, measured, **GIVEN) == []
    assert (
        "lies outside 10k to 100k, where it was tuned"
        in range_warnings(3e5, 1e6, measured, **GIVEN)[0]
    )
    assert learning_rate(MODEL, 3e4, 1e6, 512, measured) == pytest.approx(10.0 * 3e4**-0.7)


def test_transferred_model_has_the_learning_rate_of_its_base():
    assert learning_rate(MODEL, 1e5, 1e6, 512, Recipe(lr_width=0.16)) == 0.16 / 32
    transferred = Recipe(lr_width=0.16, transfer=MuP(base_width=16))
    assert learning_rate(MODEL, 1e5, 1e6, 512, transferred) == 0.16 / 16
    model = model_for(3e4, transferred, vocab_size=256, seq_len=64)
    assert model.transfer == MuP(base_width=16)
    assert not model.gains


def b2(n, batch_tokens, recipe):
    return optim_for(MODEL, n, 1000, batch_tokens, recipe, {}).b2


def test_beta2_half_life_is_given_in_tokens():
    assert b2(1e5, 512, Recipe()) == 0.98  # the default of old runs, whose identities hold
    for batch in (128, 512, 1024):
        half_life = math.log(0.5) / math.log(b2(1e5, batch, Recipe(b2_half_life=2e4))) * batch
        assert half_life == pytest.approx(2e4, rel=0.02)
    assert b2(1e5, 2**20, Recipe()) == 0.9
    assert b2(4.0, 512, Recipe(b2_half_life=PowerRule(coef=1e4, n_power=0.5))) == pytest.approx(
        0.5 ** (512 / 2e4), abs=1e-4
    )


def test_weight_decay_timescale_is_a_share_of_the_run():
    assert weight_decay(0.01, 3e4, 1000, 512, Recipe()) == 0.0
    assert weight_decay(0.01, 3e4, 1000, 512, Recipe(decay_timescale=0.5)) == pytest.approx(
        1 / (0.5 * 0.01 * 1000)
    )
    optim = optim_for(MODEL, 3e4, 1000, 512, Recipe(decay_timescale=0.5), {"lr": 0.02})
    assert optim.weight_decay == pytest.approx(1 / (0.5 * 0.02 * 1000))  # of the rate that is used


def test_a_timescale_and_a_learning_rate_may_follow_the_batch_and_the_tokens():
    rule = PowerRule(coef=2.0, d_power=-0.5, batch_power=0.5)
    decay = weight_decay(0.01, 3e4, 1000, 512, Recipe(decay_timescale=rule))
    assert decay == pytest.approx(1 / (2.0 * 512_000**-0.5 * 512**0.5 * 0.01 * 1000))
    assert learning_rate(MODEL, 3e4, 1e6, 512, Recipe(lr_rule=rule)) == pytest.approx(
        2.0 * 1e6**-0.5 * 512**0.5
    )
    with pytest.raises(ValidationError, match="batch_rule cannot have a batch_power"):
        Recipe(batch_rule=rule)


def test_a_batch_rule_of_tokens_grows_with_the_horizon():
    recipe = Recipe(batch_rule="step-law")
    assert [batch_size(1e8, d, 64, recipe) * 64 for d in (1e9, 1e11)] == [
        2 ** round(math.log2(0.58 * d**0.571)) for d in (1e9, 1e11)
    ]
    made = plan(
        tiny(
            design={"kind": "grid", "sizes": ["6k"], "tokens": ["1M", "100M"]},
            base={"task": tiny().base.task.model_dump()},
            recipe={"n_layers": 1, "size_tolerance": 1.0, "batch_rule": "step-law"},
        ),
        tiny().base.task,
        256,
    )
    small, large = (item.run.batch_tokens for item in made.runs)
    assert large >= 8 * small
    (warning,) = made.warnings
    assert warning.code == WarningCode.OUTSIDE_RULE_RANGE
    assert "recipe.batch_rule = step-law: N = " in warning.message


@pytest.mark.parametrize("n_heads", [4, 8])
@pytest.mark.parametrize(("ffn", "apart"), [("gelu", 0), ("relu2", 0), ("swiglu", 0.002)])
def test_kv_to_ffn_keeps_parameters_equal_across_mha_gqa_mqa(n_heads, ffn, apart):
    def built(n_kv_heads, **changes):
        given = {"n_heads": n_heads, "n_kv_heads": n_kv_heads, "ffn": ffn, "pos": "none"}
        return model_for(
            100e3, Recipe(n_layers=2, **changes), vocab_size=256, seq_len=64, overrides=given
        )

    whole = built(n_heads, kv_to_ffn=True)
    assert whole == built(n_heads)
    for n_kv_heads in (n_heads // 2, 1):
        shared = built(n_kv_heads, kv_to_ffn=True)
        assert (shared.d_model, shared.n_kv_heads) == (whole.d_model, n_kv_heads)
        assert abs(n_params(shared, 64) / n_params(whole, 64) - 1) <= apart


@pytest.mark.parametrize("d_model", range(1, 600))
def test_head_width_is_the_smallest_divisor_that_reaches_the_target(d_model):
    target = 32 if d_model < 256 else 64
    widths = [width for width in range(target, d_model + 1) if d_model % width == 0]
    whole = [width for width in widths if width % 8 == 0 and width <= 2 * target]
    even = [width for width in widths if width % 2 == 0]
    assert head_width(d_model, Recipe()) == (whole or even or [d_model])[0]
