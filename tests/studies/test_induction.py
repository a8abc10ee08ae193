"""From rows to drops, findings and a section."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.store.rows import DIVERGED, Measurement
from scaling.studies import induction
from tests.studies.tables import runs_of, table_of

FILE = Path(__file__).parents[2] / "sweeps" / "induction.toml"
STEPS = (1, 50, 100, 200, 260, 330, 400)
DEEP, SHALLOW = (4.3, 4.1, 3.8, 3.3, 1.6, 0.5, 0.2), (4.3, 4.1, 3.8, 3.4, 3.2, 3.1, 3.0)


def table(deep=DEEP, shallow=SHALLOW):
    """The shipped sweep as if trained: one curve for two layers, another for one, a little later
    for later seeds.
    """

    def measured(run):
        for step, value in zip(STEPS, shallow if run.model.n_layers == 1 else deep, strict=True):
            yield Measurement(step, "val", "copied_loss", value + 0.01 * run.seed)
            yield Measurement(step, "val", "fresh_loss", 4.2)

    return table_of(((run, measured(run)) for run in runs_of("induction")), "induction")


def test_induction_sweep_has_one_and_two_layers_that_differ_in_nothing_else():
    runs = runs_of("induction")
    assert sorted(run.model.n_layers for run in runs) == [1, 1, 1, 2, 2, 2]
    assert len({run.model.model_copy(update={"n_layers": 1}).canonical() for run in runs}) == 1
    assert len({(run.optim.canonical(), run.tokens, run.batch_size) for run in runs}) == 1


@pytest.mark.parametrize(
    ("step", "copied", "expected"),
    [
        ((100, 150), (4.0, 1.0), (3.0, 100, 150)),  # 50 is a third of 150
        ((100, 151), (4.0, 1.0), (0.0, 100, 151)),  # 51 is more
        (
            (10, 12, 14, 40),
            (4.0, 3.0, 2.5, 0.1),
            (1.5, 10, 14),
        ),  # the pair, not the neighbours; 40 is too far from all
        ((10, 12, 14), (1.0, 2.0, 3.0), (-1.0, 10, 12)),  # a rise is no drop
    ],
)
def test_a_drop_lies_within_a_third_of_the_steps_so_far(step, copied, expected):
    assert induction.largest_drop(np.array(step), np.array(copied)) == expected


def test_induction_claims_hold_for_a_drop_and_a_stall():
    found = induction.analyze(table()).claims
    assert [one.holds for one in found] == [True] * 4
    assert found[0].measured == "0.22 nats, the worst of 3 runs"
    assert "2.08 nats" in found[0].expected
    assert found[1].measured.startswith("1.7 nats")


def test_induction_claims_fail_for_a_bad_seed_or_a_slow_fall():
    slow = (4.3, 3.8, 3.3, 2.8, 2.3, 1.8, 1.3)
    assert [one.holds for one in induction.analyze(table(deep=slow)).claims] == [
        True,
        False,
        True,
        True,
    ]
    assert [one.holds for one in induction.analyze(table(shallow=DEEP)).claims] == [
        True,
        True,
        False,
        False,
    ]
    rows = table()
    bad = (rows["n_layers"] == 2) & (rows["seed"] == 1) & (rows["metric"] == "copied_loss")
    rows.loc[bad, "value"] = 3.5
    assert [one.holds for one in induction.analyze(rows).claims] == [
        False,
        False,
        True,
        True,
    ]


def test_diverged_run_is_left_out():
    rows = table()
    deep = rows[rows["n_layers"] == 2]
    gone = deep["run_id"].iloc[0]
    early = rows[(rows["run_id"] != gone) | (rows["step"] < 200)]
    told = deep.iloc[:1].assign(step=210, split="train", metric=DIVERGED, value=210.0)
    findings = induction.analyze(pd.concat([early, told]))
    assert [row[0] for row in findings.table.rows].count(2) == 2
    assert [one.holds for one in findings.claims] == [True] * 4


def test_claims_name_more_than_two_layers():
    rows = table()
    deeper = rows.assign(n_layers=np.where(rows["n_layers"] == 2, 3, rows["n_layers"]))
    assert induction.analyze(deeper).claims[0].quantity.endswith("two layers or more")


def test_claims_without_one_layer_runs_are_undecided():
    rows = table()
    found = induction.analyze(rows[rows["n_layers"] == 2]).claims
    assert [one.holds for one in found] == [True, True, None, None]


def test_induction_section_draws_every_run():
    found = induction.STUDY.section(table())
    lines = [trace for trace in found.figures[0].traces if hasattr(trace, "dash")]
    assert len(lines) == 12
    assert {line.label for line in lines} - {""} == {
        f"{n}, {what}" for n in ("1 layer", "2 layers") for what in ("copied", "fresh")
    }
    assert [each.name for each in found.tables] == ["expected-induction", "induction"]


def test_other_rows_have_no_section():
    rows = table()
    assert induction.STUDY.section(rows.assign(task="text")) is None


def test_rows_that_lack_a_metric_have_no_section():
    rows_ = table()
    assert induction.STUDY.section(rows_[rows_["metric"] != "fresh_loss"]) is None
