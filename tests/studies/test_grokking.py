"""From rows to dates, laws, findings and a section; and the network that adds without training."""

import math
from pathlib import Path

import numpy as np
import pytest

from scaling import studies
from scaling.config import ModularTask
from scaling.store.rows import Measurement
from scaling.studies import grokking
from scaling.studies.grokking import STUDY
from scaling.studies.power_law import fit_delay_law
from scaling.tasks import open_task
from tests.studies.tables import runs_of, table_of

SWEEPS = Path(__file__).parents[2] / "sweeps"
LEARNED = 60.0
POLE, POWER = 0.2, 1.1


def delay_of(run):
    """The delay that these rows are made with: a pole in the share, a power of the decay, a few
    percent between seeds.
    """
    noise = np.random.default_rng((run.seed, round(100 * run.task.train_fraction))).normal(0, 0.03)
    return (
        60
        * (run.task.train_fraction - POLE) ** -POWER
        / run.optim.weight_decay
        / (run.optim.lr / 0.01)
        * math.exp(noise)
    )


def table(name, delay=delay_of):
    """The shipped sweep as if trained: accuracies rise in a line over a fifth of the step at which
    they reach 1.
    """

    def measured(run):
        generalized = LEARNED + delay(run) if run.optim.weight_decay else math.inf
        for step in np.unique(np.geomspace(1, run.n_steps, 100).round().astype(int)).tolist():
            for split, full in (("train", LEARNED), ("val", generalized)):
                value = min(1.0, max(0.1, 1 + 5 * (step / full - 1))) if full < math.inf else 0.2
                yield Measurement(step, split, "accuracy", value)

    return table_of(((run, measured(run)) for run in runs_of(name)), name)


@pytest.fixture(scope="module")
def main():
    return table("grokking")


@pytest.fixture(scope="module")
def laws():
    return table("grokking-laws")


def test_first_step_at_a_level_is_interpolated():
    step = np.array([1.0, 10.0, 100.0])
    assert grokking.first_step_at(step, np.array([0.0, 0.98, 1.0])) == pytest.approx(
        10 * math.sqrt(10)
    )
    assert grokking.first_step_at(step, np.array([1.0, 0.0, 1.0])) == 1.0
    assert grokking.first_step_at(step, np.array([0.0, 0.5, 0.98])) is None


def test_delay_law_with_a_pole_is_recovered():
    x = np.repeat([0.6, 0.5, 0.4, 0.35, 0.3], 3)
    noise = np.random.default_rng(1).normal(0, 0.02, len(x))
    law = fit_delay_law(x, 60 * (x - 0.2) ** -1.1 * np.exp(noise), with_pole=True)
    assert law.pole[0] == pytest.approx(0.2, abs=0.03)
    assert law.b[0] == pytest.approx(1.1, abs=0.2)
    assert law.pole[1] < 0.2 < law.pole[2]
    assert law.b[1] < 1.1 < law.b[2]
    assert law.r2 > 0.98
    straight = fit_delay_law(
        np.array([0.5, 1.0, 2.0]), np.array([800.0, 400.0, 200.0]), with_pole=False
    )
    assert (straight.a[0], straight.b[0], straight.pole[0]) == pytest.approx((400.0, 1.0, 0.0))
    assert fit_delay_law(x[:9], np.ones(9), with_pole=True) is None
    assert fit_delay_law(np.array([0.5, 1.0]), np.ones(2), with_pole=False) is None


def test_grokking_sweep_gives_delay_and_control_claims(main):
    found = grokking.analyze(main)
    assert (len(found.baseline), len(found.control), found.n_unused) == (3, 1, 0)
    first = found.baseline.iloc[0]
    expected = LEARNED + 60 * 0.2**-1.1 / first["decay"]
    assert first["generalized"] == pytest.approx(expected, rel=0.12)
    late, control, closed = grokking.claims(found)
    assert late.holds is True
    assert float(late.measured.split()[0]) == pytest.approx(expected / LEARNED, rel=0.12)
    assert (control.holds, control.measured[:4]) == (True, "0.20")
    assert (closed.holds, "all 3,481 equations" in closed.quantity) == (True, True)


def test_runs_that_never_generalize_leave_claims_undecided(main):
    never = main.assign(value=np.where(main["split"] == "val", 0.3, main["value"]))
    late, control, *_ = grokking.claims(grokking.analyze(never))
    assert [late.holds, control.holds] == [None, None]
    assert "3 of 3 runs not there by step" in late.measured
    early = main.assign(value=1.0)
    assert np.isnan(grokking.analyze(early).baseline["delay"].iloc[0])
    late, control, *_ = grokking.claims(grokking.analyze(early))
    assert [late.holds, control.holds] == [False, False]


def test_insignificant_pole_is_reported_as_unseen():
    found = grokking.analyze(table("grokking-laws", lambda run: 60 * run.task.train_fraction**-2))
    assert found.by_fraction.pole[:2] == (0.0, 0.0)
    assert found.by_fraction.b[0] == pytest.approx(2.0, abs=0.3)
    assert "no f_c seen" in grokking.describe_fraction_law(found.by_fraction)


def test_grokking_laws_sweep_recovers_both_delay_laws(laws):
    found = grokking.analyze(laws)
    assert found.n_unused == 0
    assert found.by_fraction.n_censored == found.by_decay.n_censored == 0
    assert found.by_fraction.pole[0] == pytest.approx(POLE, abs=0.04)
    assert found.by_decay.b[0] == pytest.approx(1.0, abs=0.1)
    assert {
        one.quantity: one.holds
        for one in grokking.claims(found)
        if one.quantity.startswith("delay")
    } == {
        "delay against the share f of equations trained on": True,
        "delay against weight decay": True,
        "delay x learning rate x weight decay": True,
    }
    expected = 60 * 0.2**-1.1 * 0.01
    for product in grokking.products(found):
        assert product == pytest.approx(expected, rel=0.12)


def test_the_section_has_its_figures_and_three_sentences(main, laws):
    first, second = STUDY.section(main), STUDY.section(laws)
    assert [figure.name for figure in first.figures] == ["grokking", "grokking-closed-form"]
    assert [figure.name for figure in second.figures] == [
        "grokking",
        "grokking-fraction",
        "grokking-decay",
        "grokking-closed-form",
    ]
    for one in (first, second):
        assert len(one.notes) == 3
        assert all(note.endswith(".") and ". " not in note for note in one.notes)
        assert one.tables[0].name == "expected-grokking"
    assert "without decay" in first.notes[1]
    assert "without decay" not in second.notes[1]
    assert STUDY.section(main[main["weight_decay"] == 0]) is None
    assert STUDY.section(main[main["metric"] == "loss"]) is None


def test_grokking_notes_follow_the_rows(main, laws):
    assert "no later than" in STUDY.section(main.assign(value=1.0)).notes[0]
    one = (main["split"] == "val") & (main["seed"] == 0)
    assert (
        "in 2 of 3 runs"
        in STUDY.section(main.assign(value=np.where(one, 0.3, main["value"]))).notes[0]
    )
    growing = STUDY.section(
        table(
            "grokking-laws", lambda run: 600 * run.task.train_fraction**2 * run.optim.weight_decay
        )
    )
    assert "longer where fewer" in STUDY.section(laws).notes[2]
    assert "longer where fewer" not in growing.notes[2]
    other = main.assign(
        config=main["config"].str.replace('"operation":"add"', '"operation":"multiply"')
    )
    assert "not trained" in STUDY.section(main).notes[2]
    assert "not trained" not in STUDY.section(other).notes[2]


def test_grokking_rows_give_no_other_study(main, laws):
    for held in (main, laws):
        assert [one.id for one in studies.sections(held)] == ["grokking"]


def test_commutative_overlap_counts_mirrored_equations():
    task = ModularTask(kind="modular", p=59)
    windows = {split: open_task(task).windows[split][:, :2].tolist() for split in ("train", "val")}
    known = {tuple(pair) for pair in windows["train"]}
    assert grokking.commutative_overlap(task) == pytest.approx(
        np.mean([(b, a) in known for a, b in windows["val"]])
    )
    assert grokking.commutative_overlap(task) == pytest.approx(0.4, abs=0.03)
    assert grokking.commutative_overlap(ModularTask(kind="modular", operation="subtract")) is None


@pytest.mark.parametrize(("p", "operation"), [(5, "add"), (23, "subtract"), (59, "add")])
def test_closed_form_network_is_exact_when_wide(p, operation):
    assert grokking.network_accuracy(p, 512, operation) == 1.0
    assert grokking.network_accuracy(p, 4, operation) < 0.9


def test_closed_form_logits_are_one_at_the_sum_and_zero_elsewhere():
    a, b = np.mgrid[0:7, 0:7]
    logits = grokking.network_logits(7, 20_000)
    np.testing.assert_allclose(logits, np.eye(7)[(a + b) % 7], atol=0.1)


@pytest.mark.parametrize("task", [{"operation": "multiply"}, {"p": 4096}])
def test_no_closed_form_for_multiplication_or_a_large_modulus(task):
    """p^3 logits of a large p would not fit in memory."""
    assert grokking.accuracy_by_width(ModularTask(kind="modular", **task)) is None
