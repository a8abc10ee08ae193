"""Variants are compared seed by seed, within runs that differ in nothing else, and no law is fitted
across them.
"""

import itertools
import json

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling import accounting
from scaling.config import ModelConfig, OptimConfig, RunConfig, TextTask
from scaling.points.comparability import supports_one_law
from scaling.store.rows import Measurement
from scaling.studies import paired, runs, variants
from scaling.studies.variants import ATTENTION, NORM, POSITION, claims, compare
from scaling.train.model.generate import empty_caches
from scaling.train.model.operations import Compute
from tests.studies.tables import table_of

SHAPE = dict(n_layers=2, d_model=32, n_heads=4, n_kv_heads=4, d_head=8, d_ff=128, vocab_size=256)
HEADS = {
    "MHA": dict(n_kv_heads=4),
    "GQA-2": dict(n_kv_heads=2, d_ff=144),
    "MQA": dict(n_kv_heads=1, d_ff=152),
}
POS = ("rope", "alibi", "none")


def run(seed=0, n_steps=100, lr=0.005, **model):
    return RunConfig(
        model=ModelConfig(**(SHAPE | model)),
        task=TextTask(kind="text"),
        optim=OptimConfig(lr=lr),
        batch_size=8,
        n_steps=n_steps,
        seed=seed,
    )


def measured(*runs_and_losses):
    """A results table: each run's final loss, and a lower one on the way that must not be taken."""
    return table_of(
        (one, [Measurement(50, "val", "loss", 0.5), Measurement(100, "val", "loss", loss)])
        for one, loss in runs_and_losses
    )


def swept(changes, noise=0.001, seeds=5, gap=0.02):
    """Each change at each seed: `gap` apart, seeds .05 apart whatever the change, and a little
    noise.
    """
    drawn = np.random.default_rng(0)
    each = itertools.product(enumerate(changes), range(seeds))
    return measured(
        *(
            (run(seed, **change), 1.9 + gap * place + 0.05 * seed + drawn.normal(0, noise))
            for (place, change), seed in each
        )
    )


def test_differences_are_paired_t_tests_and_narrower_than_unpaired():
    found = compare(swept(HEADS.values()), ATTENTION)
    assert [variant.name for variant in found.variants] == ["MHA", "GQA-2", "MQA"]
    pair = found.between("MQA", "MHA")
    by_seed = np.array(
        [found.get("MQA").losses[seed] - found.get("MHA").losses[seed] for seed in range(5)]
    )
    told = stats.ttest_1samp(by_seed, 0.0)
    assert (pair.better, pair.worse, pair.count) == ("MHA", "MQA", 5)
    np.testing.assert_allclose((pair.mean, pair.p), (by_seed.mean(), told.pvalue))
    np.testing.assert_allclose((pair.lo, pair.hi), told.confidence_interval(0.95))
    assert found.get("MHA").stderr == pytest.approx(stats.sem(list(found.get("MHA").losses)))
    assert pair.is_significant
    assert pair.stderr < 0.05 * pair.unpaired
    assert paired.pairing_gain(found.differences) < 0.05
    assert (
        "pairing by seed changes it by a factor of 0.0"
        in paired.pairs_table("attention", found.differences).caption
    )


def test_significance_is_holm_adjusted_over_all_pairs():
    """Holm: the smallest p against 5 % / 3, the next against 5 % / 2."""
    pairs = [
        paired.Difference(str(place), "x", 5, 0.1, p=p)
        for place, p in enumerate((0.030, 0.004, 0.027))
    ]
    assert [pair.is_significant for pair in paired.mark_significant(pairs)] == [
        False,
        True,
        False,
    ]
    pairs = [
        paired.Difference(str(place), "x", 5, 0.1, p=p)
        for place, p in enumerate((0.030, 0.004, 0.024))
    ]
    assert [pair.is_significant for pair in paired.mark_significant(pairs)] == [True, True, True]
    alike = compare(swept([{"pos": pos} for pos in POS], noise=0.02, gap=0.0), POSITION)
    assert len(alike.not_significant) == 3
    assert variants.significance_note(alike) == "No pair differs significantly."


def test_one_seed_gives_a_difference_without_significance():
    found = compare(swept([{"pos": pos} for pos in POS], seeds=1), POSITION)
    assert not any(pair.is_significant for pair in found.differences)
    assert found.variants[0].stderr is None
    assert paired.pairing_gain(found.differences) is None
    assert {finding.holds for finding in claims(found, POSITION)} == {None}


def test_only_runs_that_differ_in_the_variant_alone_are_compared():
    other_rate = [(run(seed, lr=0.01, pos="none"), 9.0) for seed in range(3)]
    table = pd.concat([swept([{"pos": "rope"}, {"pos": "alibi"}], seeds=3), measured(*other_rate)])
    assert {variant.name for variant in compare(table, POSITION).variants} == {"RoPE", "ALiBi"}
    assert compare(measured(*other_rate), POSITION) is None
    assert compare(table, NORM) is None
    assert compare(table, ATTENTION) is None


def test_runs_without_a_final_loss_are_counted_and_left_out():
    table = swept([{"pos": "rope"}, {"pos": "alibi"}])
    gone = (table["seed"] == 2) & (table["pos"] == "alibi") & (table["step"] == 100)
    found = compare(table[~gone], POSITION)
    assert found.n_unfinished == 1
    assert found.between("RoPE", "ALiBi").count == 4
    assert (
        "Runs without a final loss, left out: 1."
        in variants.POSITION_STUDY.section(table[~gone]).notes
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "share"), [("MHA", 1.0), ("GQA-2", 0.5), ("MQA", 0.25)])
def test_reported_cache_bytes_equal_those_of_real_arrays(name, share, precision):
    found = compare(swept(HEADS.values(), seeds=2), ATTENTION)
    variant, length, batch = found.get(name), 10, 3
    held = sum(
        leaf.nbytes
        for leaf in jax.tree.leaves(empty_caches(variant.model, batch, length, Compute(precision)))
    )
    width = accounting.BYTES[precision]
    assert held == accounting.kv_cache_bytes(variant.model, length, batch, width)
    assert held == variant.cache_bytes * length * batch * width // variants.CACHE_BYTES_PER_VALUE
    assert variant.cache_bytes == share * found.get("MHA").cache_bytes


def test_attention_claims_report_parameter_balance_and_loss_difference():
    told = {
        one.quantity: one for one in claims(compare(swept(HEADS.values()), ATTENTION), ATTENTION)
    }
    equal = told["parameters of the forms, largest over smallest"]
    assert (equal.measured, equal.holds) == ("0.00 % apart", True)
    cache = told["KV cache of MQA per token, bfloat16"]
    assert (cache.expected, cache.measured, cache.holds) == (
        "25 % of 256 bytes (1 of 4 heads)",
        "64 bytes, 25 %",
        True,
    )
    cost = told["loss of MQA minus MHA, nats"].measured
    assert float(cost.split()[0]) == pytest.approx(0.04, abs=0.003)
    assert cost.endswith("5 seeds: significant")
    unequal = next(
        claims(compare(swept([dict(n_kv_heads=4), dict(n_kv_heads=1)]), ATTENTION), ATTENTION)
    )
    assert unequal.holds is False


def test_attention_with_lower_loss_than_mha_has_a_negative_difference():
    table = swept([HEADS["MQA"], HEADS["MHA"]])
    found = list(claims(compare(table, ATTENTION), ATTENTION))
    assert next(one for one in found if one.quantity.startswith("loss of MQA")).measured.startswith(
        "-0.02"
    )
    section = variants.ATTENTION_STUDY.section(table)
    assert len(section.notes) == 3
    assert "% of MHA's, and its loss is 0.02" in section.notes[1]
    assert section.notes[1].endswith("lower.")
    value, lo, hi = section.tables[1].rows[1][8]
    assert lo < value < hi < 0


def test_one_law_spans_sizes_but_not_variants():
    assert not supports_one_law(swept(HEADS.values(), seeds=1))
    assert not supports_one_law(swept([{"pos": "rope"}, {"pos": "none"}], seeds=1))
    for switch in ("qk_norm", "gains"):
        assert not supports_one_law(swept([{switch: True}, {switch: False}], seeds=1))
    sizes = [
        dict(d_model=8 * heads, n_heads=heads, n_kv_heads=heads, d_ff=32 * heads)
        for heads in (1, 2, 4)
    ]
    assert supports_one_law(swept(sizes, seeds=2))


def test_variant_with_two_models_is_not_compared():
    assert compare(swept([*HEADS.values(), dict(n_kv_heads=1, d_ff=128)]), ATTENTION) is None


def test_variants_without_a_common_seed_have_no_significance():
    found = compare(measured((run(0, pos="rope"), 1.9), (run(1, pos="none"), 2.0)), POSITION)
    (told,) = claims(found, POSITION)
    assert (told.holds, told.measured) == (None, "+0.1000, no seed in common")


def test_norms_are_named_by_what_they_leave_out():
    names = [
        variants.norm_name(SHAPE | {"norm": "layernorm", "qk_norm": qk, "gains": gains})
        for qk in (True, False)
        for gains in (True, False)
    ]
    assert names == [
        "LayerNorm",
        "LayerNorm without gains",
        "LayerNorm without QK-norm",
        "LayerNorm without QK-norm and gains",
    ]


def test_rows_that_were_written_before_a_field_existed_are_read_with_its_default():
    config = json.loads(run(norm="rmsnorm").model_dump_json())
    del config["model"]["gains"]
    older = pd.DataFrame({"run_id": ["a"], "config": [json.dumps(config)]})
    assert runs.configs(older) == {"a": run(norm="rmsnorm").model_dump(mode="json")}
