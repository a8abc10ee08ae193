"""The choice of runs from a pool: what a posterior predicts, a run's worth, the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.scalebench import PoolDesign
from scaling.errors import ScalingError
from scaling.fit.laws.formula import parse_formula
from scaling.predict.design.pool import next_from_pool
from tests.command_line import scaling

FORMULA = "L = E + A/N^alpha + B/D^beta"


def loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 1.7 + 400 / n**0.34 + 1800 / d**0.37


@pytest.fixture
def design() -> PoolDesign:
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 7), np.geomspace(1e9, 1e11, 7)))
    target = {"N": np.array([7e9, 2e10]), "D": np.array([1e12, 4e11])}
    measured = loss(n, d) * np.exp(0.002 * np.random.default_rng(0).standard_normal(len(n)))
    return PoolDesign([parse_formula(FORMULA)], {"N": n, "D": d}, 6 * n * d, target, [measured])


def test_chosen_runs_predict_the_target_for_a_tenth_of_the_cost(design: PoolDesign) -> None:
    budget, rows = 0.1 * design.cost.sum(), []
    while picks := design.choose(rows, budget - design.cost[rows].sum(), 3):
        rows += [pick.row for pick in picks]
        design.fit(rows)
    assert design.cost[rows].sum() <= budget
    assert len(set(rows)) == len(rows)
    mean, sd = design.posteriors[0].predict(design.target)
    truth = loss(design.target["N"], design.target["D"])
    np.testing.assert_allclose(mean, truth, rtol=0.02)
    assert (np.abs(mean - truth) < 4 * sd).all()


def test_the_standard_error_of_the_target_falls_with_every_run(design: PoolDesign) -> None:
    rows = [row for row, *_ in design.choose([], np.inf, 8)]
    before = design.fit(rows)[0].predict(design.target)[1].mean()
    more = [row for row, *_ in design.choose(rows, np.inf, 12)]
    after = design.fit(rows + more)[0].predict(design.target)[1].mean()
    assert after < 0.7 * before


def test_a_run_next_to_the_target_is_worth_more_than_a_small_one(design: PoolDesign) -> None:
    rows = [row for row, *_ in design.choose([], np.inf, 10)]
    design.fit(rows)
    design.cost = np.ones_like(design.cost)  # when all cost the same
    (row, gain, _), *_ = design.choose(rows, np.inf, 1)
    assert design.pool["N"][row] * design.pool["D"][row] > 1e18
    assert gain > 0


def write(folder: Path, design: PoolDesign, known: int) -> tuple[Path, Path]:
    table = pd.DataFrame({"N": design.pool["N"], "D": design.pool["D"], "loss": design.losses[0]})
    table.loc[known:, "loss"] = np.nan
    pool, target = folder / "pool.csv", folder / "target.csv"
    table.to_csv(pool, index=False)
    pd.DataFrame(design.target).to_csv(target, index=False)
    return pool, target


def test_rows_without_a_loss_are_the_candidates(design: PoolDesign, tmp_path: Path) -> None:
    pool, target = write(tmp_path, design, 20)
    proposal = next_from_pool(pool, target, "6*N*D", "chinchilla", count=3)
    assert (proposal.trained, proposal.candidates, len(proposal.runs)) == (20, 29, 3)
    assert all(run.row > 20 for run in proposal.runs)
    run = proposal.runs[0]
    assert run.cost == pytest.approx(6 * run.inputs["N"] * run.inputs["D"])
    assert proposal.rms_sd_after < proposal.rms_sd


def test_a_pool_without_any_loss_gets_its_first_runs(design: PoolDesign, tmp_path: Path) -> None:
    pool, target = write(tmp_path, design, 0)
    proposal = next_from_pool(pool, target, "6*N*D", FORMULA, count=4)
    assert len(proposal.runs) == 4
    assert proposal.rms_sd is None
    assert proposal.predicted == [None, None]


def test_the_command_prints_one_document(design: PoolDesign, tmp_path: Path) -> None:
    pool, target = write(tmp_path, design, 20)
    arguments = ("next", "--pool", pool, "--target", target, "--formula", FORMULA)
    document = json.loads(scaling(*arguments, "--budget", "1e20", "--json", code=0).stdout)
    assert document["spent"] <= 1e20
    shown = scaling(*arguments, code=0).stdout
    assert "standard error of the target falls" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"cost": "6*N*tokens"}, "unknown column 'tokens'"),
        ({"cost": "N -"}, "--cost: position"),
        ({"cost": "0*N"}, "the cost of row 1"),
        ({"cost": "D/D + 4", "budget": 3}, "no candidate costs at most 3; the cheapest costs 5"),
        ({"law": "L(N, experts) = E + A*N^-a*experts^-b"}, "no column 'experts'"),
    ],
)
def test_what_a_pool_cannot_answer_is_refused(
    design: PoolDesign, tmp_path: Path, options: dict[str, Any], what: str
) -> None:
    pool, target = write(tmp_path, design, 20)
    with pytest.raises(ScalingError) as error:
        next_from_pool(pool, target, **{"cost": "6*N*D", "law": FORMULA, **options})
    assert what in str(error.value)
