"""The loss by position is fitted as L(T) = E + A T^-g, with an interval that
holds what was put in.
"""

import json

import numpy as np
import pandas as pd
import pytest

from scaling.studies import context

TOKENS = np.arange(1.0, 65.0)
TRUE = dict(E=1.3, A=1.6, g=0.6)
SHAPE = dict(n_layers=2, d_model=32, n_heads=2, n_kv_heads=2)
SAME = dict(
    norm="rmsnorm",
    pos="rope",
    **SHAPE,
    lr=3e-3,
    batch_tokens=512,
    config=json.dumps({"model": {**SHAPE, "d_head": 16, "d_ff": 128, "vocab_size": 256}}),
)


def windows(n_params=40_000, seeds=2, noise=0.01, law=TRUE, task="text", last=100, points=TOKENS):
    """Rows of the loss at each position, at the end of the run and (too high) at half of it."""
    drawn = np.random.default_rng(n_params)
    shared = drawn.normal(0, noise, len(points))
    tables = []
    for seed in range(seeds):
        loss = law["E"] + law["A"] * points ** -law["g"] + shared
        for step, above in ((last // 2, 0.5), (last, 0.0)):
            table = pd.DataFrame(
                {"at": points, "value": loss + above, "stderr": noise, "step": step, "seed": seed}
            )
            tables.append(
                table.assign(
                    run_id=f"{n_params}-{seed}",
                    task=task,
                    n_params=n_params,
                    seq_len=64,
                    tokens=step * 512,
                    flops=1.0,
                    split="val",
                    metric=context.METRIC,
                    **SAME,
                )
            )
    return pd.concat(tables, ignore_index=True)


def test_the_law_of_each_size_is_recovered_within_its_interval():
    rows = pd.concat([windows(90_000, law=TRUE | {"E": 1.1, "A": 1.9}), windows()])
    small, large = context.position_curves(rows)
    assert (small.n_params, large.n_params, small.unavailable) == (40_000, 90_000, "")
    for curve, true in ((small, TRUE), (large, TRUE | {"E": 1.1, "A": 1.9})):
        for name, value in true.items():
            assert curve.params[name].lo < value < curve.params[name].hi
        assert curve.params["g"].hi - curve.params["g"].lo < 0.15
        assert 0.5 < curve.chi2 < 1.6
    assert [claim.holds for claim in context.analyze(rows).claims] == [True, True, True]


def test_variants_of_a_size_are_not_pooled_as_seeds():
    config = SAME["config"].replace('"n_layers"', '"pos": "alibi", "n_layers"')
    other = windows(seeds=1).assign(pos="alibi", run_id="other", config=config)
    assert context.analyze(pd.concat([windows(seeds=1), other])) is None
    assert len(context.position_curves(pd.concat([windows(), windows().assign(lr=1e-3)]))) == 2


def test_positions_weigh_as_their_variance_over_windows():
    table = windows(noise=0.004)
    wild = table["at"] > 32
    table.loc[wild, "value"] += 0.3 * (-1.0) ** table["at"][wild]
    table.loc[wild, "stderr"] = 3.0
    (curve,) = context.position_curves(table)
    assert curve.params["g"].value == pytest.approx(TRUE["g"], abs=0.05)


def test_errors_that_neighbours_share_widen_the_interval():
    """Errors of .01 nats that drift from position to position say less about g than errors drawn
    anew at each.
    """
    drawn = np.random.default_rng(5).normal(0, 0.01, len(TOKENS))
    drift = drawn.copy()
    for place in range(1, len(drift)):
        drift[place] = 0.9 * drift[place - 1] + np.sqrt(1 - 0.9**2) * drawn[place]
    fitted = TRUE["E"] + TRUE["A"] * TOKENS ** -TRUE["g"]
    wide, narrow = (
        context.position_curves(at_end(fitted + errors))[0].params["g"] for errors in (drift, drawn)
    )
    assert wide.hi - wide.lo > 1.3 * (narrow.hi - narrow.lo)
    assert wide.lo < TRUE["g"] < wide.hi


def at_end(loss):
    """The rows of one run whose loss at the positions is given."""
    table = windows(seeds=1)
    return table[table["step"] == 100].assign(value=loss)


def test_too_few_positions_leave_the_curve_unfitted():
    (claim,) = context.analyze(windows(points=TOKENS[:5])).claims
    assert claim.holds is None
    assert claim.measured == "not fitted: 5 positions are fewer than 8"


def test_context_section_has_its_figure_and_claims_for_text_only():
    two = pd.concat([windows(), windows(90_000, law=TRUE | {"A": 2.0})])
    section = context.STUDY.section(two)
    assert [table.name for table in section.tables] == ["expected-context"]
    gains = section.tables[0].rows[-1][2]
    small, large = (float(gain) for gain in gains.removesuffix(" nats").split(", "))
    assert large > small > 0
    assert len(section.figures[0].traces) == 4
    assert context.STUDY.section(windows(task="induction")) is None


def test_rows_without_a_number_or_a_position_are_left_out():
    held = windows()
    assert context.analyze(held.assign(value=np.nan)) is None
    assert context.STUDY.section(held.assign(at=np.nan)) is None
    (curve,) = context.position_curves(held.assign(value=held["value"].where(held["seed"] == 0)))
    first = held[(held["seed"] == 0) & (held["step"] == 100)]
    np.testing.assert_allclose(curve.loss, first["value"])
