"""From rows to dates, laws, claims and a section."""

import math
from pathlib import Path

import numpy as np
import pytest

from scaling import studies
from scaling.store.rows import Measurement
from scaling.studies import grokking
from scaling.studies.grokking import STUDY
from tests.studies.tables import runs_of, table_of

SWEEPS = Path(__file__).parents[2] / "sweeps"
LEARNED = 60.0
POLE, POWER = 0.2, 1.1


def delay_of(run, power=POWER, pole=POLE):
    """The delay that these rows are made with: a power of the share, a power of the decay, a few
    percent between seeds.
    """
    noise = np.random.default_rng((run.seed, round(100 * run.task.train_fraction))).normal(0, 0.03)
    return (
        60
        * (run.task.train_fraction - pole) ** -power
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
    assert np.isnan(grokking.first_step_at(step, np.array([0.0, 0.5, 0.98])))


def test_grokking_sweep_gives_delay_and_control_claims(main):
    findings = STUDY.analyze(main)
    late, control = findings.claims
    decay = max(run.optim.weight_decay for run in runs_of("grokking"))
    expected = (LEARNED + 60 * 0.2**-1.1 / decay) / LEARNED
    assert late.holds is True
    assert float(late.measured.split()[0]) == pytest.approx(expected, rel=0.12)
    assert "; 3 runs, " in late.measured
    assert (control.holds, control.measured[:4]) == (True, "0.20")
    assert findings.n_left_out == 0


def test_runs_that_never_generalize_leave_claims_undecided(main):
    never = main.assign(value=np.where(main["split"] == "val", 0.3, main["value"]))
    late, control, *_ = STUDY.analyze(never).claims
    assert [late.holds, control.holds] == [None, None]
    assert "3 of 3 runs not there by step" in late.measured
    early = STUDY.analyze(main.assign(value=1.0))
    late, control, *_ = early.claims
    assert [late.holds, control.holds] == [False, False]
    assert np.isnan([row[6] for row in early.table.rows]).all()  # no delay


def test_grokking_laws_sweep_recovers_both_delay_laws():
    findings = STUDY.analyze(table("grokking-laws", lambda run: delay_of(run, power=2.0, pole=0.0)))
    assert findings.n_left_out == 0
    *_, by_fraction, by_decay, product = findings.claims
    assert [claim.holds for claim in (by_fraction, by_decay, product)] == [True, True, True]
    for claim, exponent in ((by_fraction, 2.0), (by_decay, 1.0)):
        assert float(claim.measured.split()[2]) == pytest.approx(exponent, abs=0.1)
    lowest, _, highest = product.measured.split()[:3]
    expected = 60 * 0.4**-2.0 * 0.01
    assert 0.88 * expected < float(lowest) <= float(highest) < 1.12 * expected


def test_the_section_has_its_figure_and_tables(main, laws):
    for rows, n_runs in ((main, 4), (laws, laws["run_id"].nunique())):
        section = STUDY.section(rows)
        assert [figure.name for figure in section.figures] == ["grokking"]
        assert [table.name for table in section.tables] == ["expected-grokking", "grokking"]
        assert len(section.tables[1].rows) == n_runs
    assert STUDY.section(main[main["weight_decay"] == 0]) is None
    assert STUDY.section(main[main["metric"] == "loss"]) is None


def test_grokking_rows_give_no_other_study(main, laws):
    for held in (main, laws):
        assert [one.id for one in studies.sections(held)] == ["grokking"]
