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
from scaling.studies import runs, variants
from scaling.studies.variants import (
    ATTENTION,
    NORM,
    POSITION,
    comparable_runs,
    compare,
    paired_differences,
)
from scaling.train.model.generate import empty_caches
from scaling.train.model.operations import Compute
from tests.models import small_model
from tests.studies.tables import table_of

SHAPE = small_model(32, 4).model_dump()
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


def losses_of(table, kind):
    """The final losses of the compared runs: a column for each variant, a row for each seed."""
    runs_compared, _ = comparable_runs(table, kind)
    return runs_compared.pivot(index="seed", columns="variant", values="loss")


def test_differences_are_paired_t_tests_and_narrower_than_unpaired():
    losses = losses_of(swept(HEADS.values()), ATTENTION)
    assert set(losses) == {"MHA", "GQA-2", "MQA"}
    pairs = {(pair.first, pair.second): pair for pair in paired_differences(losses, last="MHA")}
    pair = pairs["MQA", "MHA"]
    by_hand = stats.ttest_rel(losses["MQA"], losses["MHA"])
    assert (pair.seeds, pair.interval.value) == (5, (losses["MQA"] - losses["MHA"]).mean())
    np.testing.assert_allclose(pair.interval[1:], by_hand.confidence_interval(0.95))
    p = [stats.ttest_rel(losses[a], losses[b]).pvalue for a, b in itertools.combinations(losses, 2)]
    assert pair.p == pytest.approx(by_hand.pvalue * (3 - sorted(p).index(by_hand.pvalue)))
    assert pair.p < 0.05
    unpaired = np.sqrt((losses[["MHA", "MQA"]].var() / 5).sum())
    assert pair.interval.hi - pair.interval.lo < 0.2 * unpaired


def test_significance_is_holm_adjusted_over_all_pairs():
    """One pair of three differs by more than its seeds do; alone, p = 0.03 would be significant,
    of three it is not.
    """
    noise = np.array([0.0, 1.0, -1.0, 2.0, -2.0])
    losses = pd.DataFrame({"a": np.zeros(5), "b": 1.2 + 0.6 * noise, "c": 2.0 + noise[::-1]})
    alone = paired_differences(losses[["a", "b"]], last="a")
    together = {pair.first + pair.second: pair for pair in paired_differences(losses, last="a")}
    assert alone[0].p < 0.05 < together["ba"].p
    p = sorted(stats.ttest_1samp(losses[x] - losses[y], 0).pvalue for x, y in ("ba", "ca", "bc"))
    adjusted = np.maximum.accumulate(np.minimum(np.array(p) * [3, 2, 1], 1.0))
    assert sorted(pair.p for pair in together.values()) == pytest.approx(adjusted)


def test_pairs_that_do_not_differ_are_named():
    alike = swept([{"pos": pos} for pos in POS], noise=0.02, gap=0.0)
    (note,) = variants.POSITION_STUDY.section(alike).notes
    assert note.startswith("0 of 3 pairs differ significantly")
    assert note.count(" and ") == 3


def test_one_seed_gives_a_difference_without_significance():
    findings = compare(swept([{"pos": pos} for pos in POS], seeds=1), POSITION)
    assert [claim.holds for claim in findings.claims] == [None, None]
    assert all("seeds: 1, no interval" in claim.measured for claim in findings.claims)
    assert findings.notes[0].startswith("0 of 3 pairs")
    assert {row[5] for row in findings.table.formatted()} == {"nan"}  # the standard error


def test_only_runs_that_differ_in_the_variant_alone_are_compared():
    other_rate = [(run(seed, lr=0.01, pos="none"), 9.0) for seed in range(3)]
    table = pd.concat([swept([{"pos": "rope"}, {"pos": "alibi"}], seeds=3), measured(*other_rate)])
    assert set(losses_of(table, POSITION)) == {"RoPE", "ALiBi"}
    assert compare(measured(*other_rate), POSITION) is None
    assert compare(table, NORM) is None
    assert compare(table, ATTENTION) is None


def test_runs_without_a_final_loss_are_counted_and_left_out():
    table = swept([{"pos": "rope"}, {"pos": "alibi"}])
    gone = (table["seed"] == 2) & (table["pos"] == "alibi") & (table["step"] == 100)
    findings = compare(table[~gone], POSITION)
    assert findings.n_left_out == 1
    assert ", 4 seeds: " in findings.claims[0].measured
    assert variants.POSITION_STUDY.section(table[~gone]).notes[-1].endswith(": 1.")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "share"), [("MHA", 1.0), ("GQA-2", 0.5), ("MQA", 0.25)])
def test_reported_cache_bytes_equal_those_of_real_arrays(name, share, precision):
    table = compare(swept(HEADS.values(), seeds=2), ATTENTION).table
    names = [column.name for column in table.columns]
    form, cache = names.index("variant"), names.index("cache bytes per token")
    reported = {row[form]: row[cache] for row in table.rows}
    model, length, batch = run(**HEADS[name]).model, 10, 3
    caches = empty_caches(model, batch, length, Compute(precision))
    real = sum(leaf.nbytes for leaf in jax.tree.leaves(caches))
    width = accounting.BYTES[precision]
    assert real == accounting.kv_cache_bytes(model, length, batch, width)
    assert real == reported[name] * length * batch * width // accounting.BYTES["bfloat16"]
    assert reported[name] == share * reported["MHA"]


def test_attention_claims_report_parameter_balance_and_loss_difference():
    equal, *costs = compare(swept(HEADS.values()), ATTENTION).claims
    assert (equal.measured, equal.holds) == ("0.00 % apart", True)
    cost = {claim.quantity: claim.measured for claim in costs}["loss of MQA minus MHA, nats"]
    assert float(cost.split()[0]) == pytest.approx(0.04, abs=0.003)
    assert cost.endswith("5 seeds: significant")
    unequal = compare(swept([dict(n_kv_heads=4), dict(n_kv_heads=1)]), ATTENTION)
    assert unequal.claims[0].holds is False


def test_attention_with_lower_loss_than_mha_has_a_negative_difference():
    table = swept([HEADS["MQA"], HEADS["MHA"]])
    (_, cost) = compare(table, ATTENTION).claims
    assert cost.quantity == "loss of MQA minus MHA, nats"
    assert cost.measured.startswith("-0.02")
    section = variants.ATTENTION_STUDY.section(table)
    assert section.notes == [
        "1 of 1 pairs differ significantly (by seed, 5 % after Holm's correction)."
    ]
    assert [row[0] for row in section.tables[1].rows] == ["MQA", "MHA"]


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
    (claim,) = found.claims
    assert (claim.holds, claim.measured) == (None, "+0.1000, no seed in common")


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
