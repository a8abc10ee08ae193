"""From a shipped sweep as if trained on known powers to the laws, findings and a section."""

import re
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


def exponents(findings):
    """By quantity: (value, lo, hi) of the exponent and Kaplan's."""
    number = r"(-?[\d.]+)"
    pattern = rf"{number} \[{number}, {number}\] \(Kaplan {number}\)"
    return {
        claim.quantity: tuple(map(float, re.search(pattern, claim.measured).groups()))
        for claim in findings.claims
    }


def test_kaplan_exponents_of_a_grid_are_recovered(grid):
    bare, with_head, tokens, compute, batch = exponents(kaplan.analyze(grid)).items()
    assert "without embeddings and head" in bare[0]
    assert bare[1] == (0.1, 0.1, 0.1, 0.076)
    assert "with head" in with_head[0]
    assert with_head[1][0] > 0.1  # head and embeddings flatten N where models are small
    assert tokens[0].startswith("L(D)")
    assert tokens[1] == (0.05, 0.05, 0.05, 0.095)
    assert 0.05 <= compute[1][0] <= 0.1  # along the edge both N and D grow
    assert batch[1] == (2.5, 2.5, 2.5, round(1 / ALPHA_B, 1))


def test_critical_batch_is_fitted_to_the_ends_of_runs(grid):
    fitted, _, points = kaplan.analyze(grid).figures[-1].traces
    assert len(points.x) == 25
    for trace in (fitted, points):
        np.testing.assert_allclose(trace.y, 500 * (trace.x / 3) ** -2.5)


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
    assert (law.exponent.value, law.level) == pytest.approx((-slope, level))
    reach = stats.t.ppf(0.975, 7) * np.sqrt(covariance[0, 0])
    assert law.exponent.hi - law.exponent.value == pytest.approx(reach)
    assert law.r2 == pytest.approx(np.corrcoef(np.log(x), np.log(y))[0, 1] ** 2)
    assert fit_power_law(x[:2].repeat(2), y[:4]) is None
    assert fit_power_law(x, np.ones(9)) is None


def test_limited_text_uses_the_best_loss_of_each_run(limited):
    findings = kaplan.analyze(limited)
    ((quantity, exponent),) = exponents(findings).items()
    assert quantity == f"L(D) as one power, R2 in logs ({kaplan.EARLY_STOPPED})"
    assert exponent == (0.08, 0.08, 0.08, 0.095)
    points = findings.figures[0].traces[-1]
    np.testing.assert_allclose(points.x, [8192, 16384, 32768, 65536, 131072])


def test_share_of_still_improving_runs_is_reported(limited):
    assert len(kaplan.analyze(limited).notes) == 1
    cut = limited[limited["step"] < limited.groupby("run_id")["step"].transform("max")]
    assert "stopped 100 % of the runs" in kaplan.STUDY.section(cut).notes[-1]


def test_kaplan_claims_need_straight_lines_and_growing_noise(grid):
    assert all(one.holds for one in kaplan.analyze(grid).claims)
    bent = grid.copy()
    chosen = (bent["metric"] == "loss") & (bent["step"] > 20)
    bent.loc[chosen, "value"] = 3 + np.abs(
        np.log(bent.loc[chosen, "n_params"] / 2e4)
    )  # a valley in N
    assert kaplan.analyze(bent).claims[0].holds is False
    shrinking = grid.copy()
    shrinking.loc[shrinking["metric"] == "noise_scale", "value"] **= -1
    assert kaplan.analyze(shrinking).claims[-1].holds is False


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
    assert [figure.name for figure in kaplan.STUDY.section(limited).figures] == ["kaplan-d-1"]


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
    assert all(np.isfinite(each).all() for each in exponents(kaplan.analyze(held)).values())
    assert kaplan.analyze(held.assign(value=np.nan)) is None
