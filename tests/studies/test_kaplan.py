"""From a shipped sweep as if trained on known powers to the laws, findings and a section."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scaling import accounting
from scaling.fit.special.critical_batch import ALPHA_B
from scaling.store.rows import Measurement
from scaling.studies import kaplan
from scaling.studies.study import fit_power_law
from tests.studies.tables import runs_of, table_of

SWEEPS = Path(__file__).parents[2] / "sweeps"


def table(name, measured):
    """The shipped sweep as if trained: `measured(run, N without embeddings)` gives the rows."""
    return table_of(
        (
            (run, measured(run, accounting.n_params(run.model, 64, "nonembedding")))
            for run in runs_of(name, digest="d")
        ),
        name,
    )


def grid_rows(run, n):
    """L = 9 N^-.1 D^-.05 and noise of 500 tokens / (L / 3)^2.5, and an evaluation within the
    warm-up that follows neither.
    """
    loss = 9 * n**-0.1 * run.tokens**-0.05
    noise = [
        Measurement(step, "train", "noise_scale", value)
        for step, value in ((20, 9e9), (run.n_steps, 500 * (loss / 3) ** -2.5))
    ]
    return [
        Measurement(20, "val", "loss", 5.0),
        Measurement(run.n_steps, "val", "loss", loss),
        *noise,
    ]


def limited_rows(run, _):
    """The best loss is 6 U^-.08 and comes in the middle."""
    best = 6 * run.task.unique_tokens**-0.08
    return [
        Measurement(step, "val", "loss", best * factor)
        for step, factor in ((9, 1.5), (run.n_steps // 2, 1.0), (run.n_steps, 1.2))
    ]


@pytest.fixture(scope="module")
def grid():
    return table("kaplan", grid_rows)


@pytest.fixture(scope="module")
def limited():
    return table("kaplan-d", limited_rows)


def test_kaplan_exponents_of_a_grid_are_recovered(grid):
    found = kaplan.analyze(grid)
    laws = {(law.letter, "with head" in law.counted): law for law in found.laws[:4]}
    assert set(laws) == {("N", False), ("N", True), ("D", False), ("C", False)}
    assert laws["N", False].exponent == pytest.approx((0.1, 0.1, 0.1))
    assert laws["D", False].exponent == pytest.approx((0.05, 0.05, 0.05))
    assert laws["N", True].exponent[0] > 0.1  # head and embeddings flatten N where models are small
    assert 0.05 <= laws["C", False].exponent[0] <= 0.1  # along the edge both N and D grow
    assert [law.published for law in found.laws] == [0.076, 0.076, 0.095, 0.050, 1 / ALPHA_B]


def test_critical_batch_is_fitted_to_the_ends_of_runs(grid):
    batch = kaplan.analyze(grid).laws[-1]
    assert (batch.name, len(batch.line.x)) == ("B(L)", 25)
    assert batch.exponent == pytest.approx((2.5, 2.5, 2.5))
    loss, noise = batch.line.x, batch.line.predict(batch.line.x)
    np.testing.assert_allclose(noise, 500 * (loss / 3) ** -2.5)


def test_lower_edge_keeps_points_that_no_cheaper_run_beats():
    c, loss = [4.0, 1.0, 2.0, 3.0, 2.0], [2.0, 5.0, 4.0, 4.5, 4.2]
    edge = kaplan.lower_edge(pd.DataFrame({"c": c, "loss": loss}))
    assert edge[["c", "loss"]].to_numpy().tolist() == [[1.0, 5.0], [2.0, 4.0], [4.0, 2.0]]


def test_power_law_has_students_interval():
    """By hand: slope and standard error of a regression in logs."""
    x = np.geomspace(1, 1e3, 9)
    y = x**-0.2 * np.exp(np.random.default_rng(0).normal(0, 0.05, 9))
    law = fit_power_law(x, y)
    (slope, level), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    assert (law.slope.value, law.level) == pytest.approx((slope, level))
    reach = stats.t.ppf(0.975, 7) * np.sqrt(covariance[0, 0])
    assert law.slope.hi - law.slope.value == pytest.approx(reach)
    assert law.r2 == pytest.approx(np.corrcoef(np.log(x), np.log(y))[0, 1] ** 2)
    assert fit_power_law(x[:2].repeat(2), y[:4]) is None
    assert fit_power_law(x, np.ones(9)) is None


def test_limited_text_uses_the_best_loss_of_each_run(limited):
    found = kaplan.analyze(limited)
    (law,) = found.laws
    assert (law.letter, law.counted) == ("D", kaplan.EARLY_STOPPED)
    assert law.exponent == pytest.approx((0.08, 0.08, 0.08), abs=1e-6)
    np.testing.assert_allclose(law.line.x, [8192, 16384, 32768, 65536, 131072])


def test_share_of_still_improving_runs_is_reported(limited):
    assert kaplan.analyze(limited).share_improving == 0.0
    cut = limited[limited["step"] < limited.groupby("run_id")["step"].transform("max")]
    assert kaplan.analyze(cut).share_improving == 1.0
    assert "100%" in kaplan.STUDY.section(cut).notes[-1]


def test_kaplan_claims_need_straight_lines_and_growing_noise(grid):
    assert all(one.holds for one in kaplan.claims(kaplan.analyze(grid)))
    bent = grid.copy()
    chosen = (bent["metric"] == "loss") & (bent["step"] > 20)
    bent.loc[chosen, "value"] = 3 + np.abs(
        np.log(bent.loc[chosen, "n_params"] / 2e4)
    )  # a valley in N
    told = list(kaplan.claims(kaplan.analyze(bent)))
    assert told[0].holds is False
    shrinking = grid.copy()
    shrinking.loc[shrinking["metric"] == "noise_scale", "value"] **= -1
    assert list(kaplan.claims(kaplan.analyze(shrinking)))[-1].holds is False


def test_other_folders_have_no_section(grid):
    assert (
        kaplan.STUDY.section(grid[grid["metric"] != "noise_scale"]) is None
    )  # a grid that was not asked for noise
    assert kaplan.STUDY.section(grid.assign(task="synthetic")) is None
    assert (
        kaplan.STUDY.section(
            table("epochs", lambda run, n: [Measurement(run.n_steps, "val", "loss", 2.0)])
        )
        is None
    )  # limited beside fresh


def test_the_sections_show_every_law(grid, limited):
    found = kaplan.STUDY.section(grid)
    assert [figure.name for figure in found.figures] == [
        "kaplan-n-1",
        "kaplan-n-2",
        "kaplan-d-3",
        "kaplan-c-4",
        "kaplan-b-5",
    ]
    assert len(found.notes) == 1
    assert len(found.tables[1].rows) == 5
    assert [figure.name for figure in kaplan.STUDY.section(limited).figures] == ["kaplan-d-1"]
    assert "interval of these runs: none, of 1" in kaplan.STUDY.section(limited).notes[0]


def test_runs_on_several_corpora_have_no_laws(grid):
    mixed = grid.copy()
    first = mixed["run_id"] == mixed["run_id"].iloc[0]
    mixed.loc[first, "config"] = mixed.loc[first, "config"].str.replace(
        '"digest":"d"', '"digest":"e"'
    )
    assert mixed["config"].str.contains('"digest":"e"').any()
    assert kaplan.analyze(mixed) is None


def test_run_with_nan_loss_is_left_out(limited):
    held = limited.copy()
    held.loc[held["run_id"] == held["run_id"].iloc[0], "value"] = np.nan
    assert all(np.isfinite(law.exponent).all() for law in kaplan.analyze(held).laws)
    assert kaplan.analyze(held.assign(value=np.nan)) is None
