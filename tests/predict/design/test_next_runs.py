"""The next runs: within the budget, shared prefixes counted as they are trained, a sweep file that
plans; and what a plan may expect.
"""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import design as benchmark
from benchmarks.simulated_sweeps import SURFACES
from scaling.config.sweep_file import load_sweep
from scaling.errors import ScalingError
from scaling.fit.estimate import estimate, refit
from scaling.fit.frontier.frontier import Cost
from scaling.fit.laws.laws import LAWS
from scaling.fit.pipeline import FitOptions
from scaling.plan import plan
from scaling.predict.design import Runs, candidates, designed, expected, next_runs
from scaling.predict.design.law_model import NOISE, RHO, LinearizedLaw, inflation, standard_errors
from tests.documents import dump, fit
from tests.fit.test_pipeline import simulated

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
TRUTH = SURFACES[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next")
    dump(
        fit([simulated(folder / "runs.csv")], FitOptions(bootstrap=300, holdout="none")),
        folder / "fits" / "chinchilla.json",
    )
    return folder


@pytest.fixture
def trained(tmp_path):
    """A results folder of the demo: its sweep and its fit."""
    shutil.copytree(REFERENCE / "fits", tmp_path / "demo" / "fits")
    shutil.copy(REFERENCE / "sweep.toml", tmp_path / "demo" / "sweep.toml")
    return tmp_path / "demo"


def belief_of(surface):
    law = LAWS[surface.law]
    return LinearizedLaw(law, np.asarray(law.theta(surface.values), float), Cost())


@pytest.mark.slow
def test_proposal_spends_the_budget_and_narrows_the_target(folder):
    found = next_runs(folder, "3e21", "1e23")
    sd = found.sd_log_n_star
    assert 0.9 * 3e21 < found.spent <= 3e21
    assert sd.after < 0.9 * sd.before
    assert found.sd_log_loss.after < 0.95 * found.sd_log_loss.before
    assert next_runs(folder, "3e22", "1e23").sd_log_n_star.after < sd.after
    for run in found.runs:
        np.testing.assert_allclose(run.flops, 6 * run.n_params * run.tokens, rtol=1e-9)
    assert len({(run.n_params, run.tokens) for run in found.runs}) == len(found.runs) > 1


@pytest.mark.slow
def test_expected_sd_agrees_with_the_bootstrap(folder):
    document = json.loads((folder / "fits" / "chinchilla.json").read_text())
    draws = {name: np.array(values) for name, values in document["bootstrap"]["draws"].items()}
    alpha, beta = draws["alpha"], draws["beta"]
    log_n = np.log(alpha * draws["A"] / (beta * draws["B"])) / (alpha + beta) + beta / (
        alpha + beta
    ) * np.log(1e23 / 6)
    np.testing.assert_allclose(
        next_runs(folder, "1e21", "1e23").sd_log_n_star.before, np.std(log_n), rtol=0.35
    )


def test_large_budget_buys_a_run_near_the_target(folder):
    found = next_runs(folder, "1e22", "1e24")
    assert 0.35e22 <= max(run.flops for run in found.runs) <= 1e22
    limited = next_runs(folder, "1e22", "1e24", "2e21")
    assert 1.4e21 <= max(run.flops for run in limited.runs) <= 2e21


def test_next_rejects_bad_requests(folder, tmp_path):
    for source, budget, target, words in (
        (tmp_path, 1e21, 1e23, "holds no fit"),
        (folder, "lots", 1e23, "'lots'"),
        (folder, 1e21, -1, "--target"),
        (folder, 1e9, 1e23, "--budget"),
    ):
        with pytest.raises(ScalingError, match=words):
            next_runs(source, budget, target)
    options = FitOptions(approach="isoflop", bootstrap=20, holdout="none")
    dump(fit([simulated(tmp_path / "runs.csv")], options), tmp_path / "isoflop.json")
    with pytest.raises(ScalingError, match=r"isoflop\.json: no parametric law"):
        next_runs(tmp_path / "isoflop.json", 1e21, 1e23)
    with pytest.raises(ScalingError, match=r"no sweep\.toml"):
        next_runs(folder, 1e21, 1e23, out=tmp_path / "next.toml")


def test_proposal_becomes_a_sweep_that_plans_at_the_cost_it_named(trained, tmp_path):
    proposal = next_runs(trained, "5e12", "1e13", out=tmp_path / "next.toml")
    sweep = load_sweep(tmp_path / "next.toml")
    made = plan(sweep, sweep.base.task, 256)
    assert sweep.name == "demo-next"
    assert not made.infeasible
    assert not made.merged
    assert len(made.runs) == len(proposal.runs)
    np.testing.assert_allclose(
        made.shared_flops, proposal.spent, rtol=5e-3
    )  # cooldowns are whole steps
    np.testing.assert_allclose(made.flops, proposal.flops_alone, rtol=1e-9)
    asked = Counter((run.n_params, run.tokens) for run in proposal.runs)
    assert Counter((item.n_params["with_head"], item.run.tokens) for item in made.runs) == asked
    assert 0 not in {
        item.run.seed for item in made.runs
    }  # seed 0 is trained: it would repeat its noise
    with pytest.raises(ScalingError, match="exists already"):
        next_runs(trained, "5e12", "1e13", out=tmp_path / "next.toml")


def test_without_shared_prefixes_every_run_costs_its_full_flops(trained):
    text = (trained / "sweep.toml").read_text()
    (trained / "sweep.toml").write_text(text + '\n[base.optim]\nschedule = "cosine"\n')
    found = next_runs(trained, "5e12", "1e13")
    assert found.spent == pytest.approx(found.flops_alone)


def test_shared_prefixes_buy_more_runs_for_the_same_flops():
    cells, law = benchmark.pilot(TRUTH), belief_of(TRUTH)
    runs, pool = cells.runs(shared=False), candidates(cells.n, cells.d, Cost())
    separate = replace(pool, prefix=np.arange(len(pool.n)))
    alone = designed(law, runs, 0.005, separate, 1e21, 1e22)
    shared = designed(law, runs, 0.005, pool, 1e21, 1e22, cooldown=0.2)
    assert shared.spent <= 1e21 < shared.runs.flops.sum()
    assert alone.spent == pytest.approx(alone.runs.flops.sum())
    assert len(shared.runs.n) > len(alone.runs.n)


def test_many_branches_of_one_prefix_are_no_substitute_for_other_sizes():
    """What they have in common is unknown, so more of them say little more."""
    cells, law = benchmark.pilot(TRUTH), belief_of(TRUTH)
    pool = candidates(cells.n, cells.d, Cost())
    chosen = designed(law, cells.runs(shared=True), 0.005, pool, 1e21, 1e22, cooldown=0.2).runs
    assert max(Counter(chosen.prefix.tolist()).values()) <= len(chosen.n) / 2


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [False, True])
def test_delta_method_agrees_with_fits_of_simulated_runs(is_shared):
    cells = benchmark.pilot(TRUTH)
    held, random = belief_of(TRUTH), np.random.default_rng(0)
    prefix = cells.prefix if is_shared else np.arange(len(cells.n))
    runs = cells.runs(is_shared)
    said = standard_errors(held.rows(runs), held.gradients(1e20), 0.002, prefix)
    asked = []
    exact = np.exp(held.law.log_predict(held.theta, {"N": cells.n, "D": cells.d}))
    first = estimate(held.law, benchmark.points(cells, exact), "mse-log")
    for _ in range(200):
        common, own = random.standard_normal((2, len(cells.n)))
        noise = np.sqrt(RHO) * common[prefix] + np.sqrt(1 - RHO) * own
        loss = exact * np.exp(0.002 * noise)
        found = LinearizedLaw(
            held.law, refit(first, benchmark.points(cells, loss), first.values).theta, Cost()
        ).optimum()
        asked.append([np.log(found.n_star(1e20)), np.log(found.loss(1e20)), found.a])
    np.testing.assert_allclose(
        np.std(asked, 0), said, rtol=0.2
    )  # 200 fits know a standard deviation to 5 %


def test_noise_of_branches_is_that_of_their_covariance():
    random = np.random.default_rng(1)
    rows, prefix = random.standard_normal((9, 3)), np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    gradients = random.standard_normal((3, 2))
    noise = (1 - RHO) * np.eye(9) + RHO * (prefix[:, None] == prefix)
    estimator = np.linalg.pinv(rows)
    exact = gradients.T @ estimator @ noise @ estimator.T @ gradients
    said = standard_errors(rows, gradients, 0.1, prefix)
    np.testing.assert_allclose(said, 0.1 * np.sqrt(np.diag(exact)), rtol=1e-6)


def test_expected_sd_accounts_for_robust_objectives():
    assert inflation("mse-log", 1e-3, 0.005) == 1
    np.testing.assert_allclose(inflation("lad-log", 1e-3, 0.005), np.sqrt(np.pi / 2))
    np.testing.assert_allclose(
        inflation("huber-log", 1.345, 1.0), np.sqrt(1 / 0.95), rtol=1e-3
    )  # Huber's own constant


def test_expectation_of_a_plan_holds_in_simulation():
    cells, random = benchmark.isoflop(TRUTH, 1e20, 2, 5, 7), np.random.default_rng(2)
    held = belief_of(TRUTH)
    runs = Runs(cells.n, cells.d, 6 * cells.n * cells.d, cells.prefix)
    said = expected(runs, 1e21, "published:besiroglu2024", 0.003, is_isoflop=True)
    assert not said.warnings
    exact = np.exp(held.law.log_predict(held.theta, {"N": cells.n, "D": cells.d}))
    first = estimate(held.law, benchmark.points(cells, exact * np.exp(random.normal(0, 0.003, 35))))
    found = [
        refit(
            first,
            benchmark.points(cells, exact * np.exp(random.normal(0, 0.003, 35))),
            first.values,
        )
        for _ in range(60)
    ]
    optima = [LinearizedLaw(each.law, each.theta, Cost()).optimum() for each in found]
    np.testing.assert_allclose(
        np.std([np.log(each.n_star(1e21)) for each in optima]), said.sd_log_n_star, rtol=0.35
    )
    np.testing.assert_allclose(np.std([each.a for each in optima]), said.sd_a, rtol=0.35)
    assert said.a.lo < 0.5126 < said.a.hi


def test_well_placed_grid_has_no_warning():
    cells = benchmark.isoflop(TRUTH, 1e12, 2, 5, 7)
    runs = Runs(
        cells.n * 30, cells.d / 30, 6 * cells.n * cells.d, cells.prefix
    )  # 30 times off by the published law
    assert expected(runs, is_isoflop=True).warnings == []
    off = expected(runs, law_from="published:besiroglu2024", is_isoflop=True).warnings
    assert len([warning for warning in off if warning.code == "off_centre"]) == 5
    assert expected(runs, is_isoflop=True).loss.value is None


def test_weak_grids_are_named():
    n = np.tile([1e6, 3e6, 9e6], 2)
    c = np.repeat([1e15, 1e16], 3)
    told = expected(Runs(n, c / (6 * n), c, np.arange(6)), is_isoflop=True)
    codes = [warning.code for warning in told.warnings]
    assert codes[:2] == ["few_budgets", "few_sizes"]
    assert "fewer than 4 sizes at 1e15, 1e16 FLOPs" in told.warnings[1].message
    ladder = expected(Runs(n, 20 * n, 120 * n**2, np.arange(6)))
    assert "cannot be separated" in ladder.unavailable or "distinct" in ladder.unavailable
    with pytest.raises(ScalingError, match="--noise"):
        expected(Runs(n, c / (6 * n), c, np.arange(6)), noise=-1.0)


@pytest.mark.slow
def test_design_beats_the_grid_several_times_over():
    """A short version of benchmarks/design.py: a quarter of the grid's money, a smaller error of N*
    at ten times the largest budget.
    """
    cells, held = benchmark.isoflop(TRUTH, benchmark.LARGEST, 2, 5, 7), belief_of(TRUTH)
    cost, grid = (
        cells.cost(False),
        standard_errors(
            held.rows(cells.runs(False)),
            held.gradients(benchmark.TARGET),
            TRUTH.noise,
            np.arange(len(cells.n)),
        ),
    )
    pilots = [
        (shared, benchmark.by_pilot(TRUTH, shared, np.random.default_rng([6, k])))
        for shared in (False, True)
        for k in range(8)
    ]
    chosen, _ = benchmark.rmse(
        benchmark.by_design(TRUTH, first, cost / 4, shared, False, np.random.default_rng([7, k]))
        for k, (shared, first) in enumerate(pilots)
    )
    assert chosen[0] < grid[0]


def test_design_uses_the_noise_of_the_fit(folder, tmp_path):
    document = json.loads((folder / "fits" / "chinchilla.json").read_text())
    noise = {"sd": 0.02, "residual_sd": 0.01, "basis": "seeds"}
    dump(document | {"noise": noise}, tmp_path / "seeds.json")
    assert next_runs(tmp_path / "seeds.json", 1e21, 1e23).noise == 0.02
    older = {name: value for name, value in document.items() if name != "noise"}
    dump(older, tmp_path / "older.json")
    assert next_runs(tmp_path / "older.json", 1e21, 1e23).noise == NOISE


@pytest.mark.parametrize("noise", [1e-300, 10.0, 1e300])
def test_noise_outside_of_a_log_loss_is_rejected(noise):
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 3e6, 1e7, 3e7], [1e8, 3e8, 1e9]))
    with pytest.raises(ScalingError, match="must be from 1e-09 to 1"):
        expected(Runs(n, d, 6 * n * d, np.arange(len(n))), noise=noise)


def test_an_empty_name_of_a_law_is_not_taken_for_none():
    n, d = (grid.ravel() for grid in np.meshgrid([1e6, 3e6, 1e7, 3e7], [1e8, 3e8, 1e9]))
    with pytest.raises(ScalingError):
        expected(Runs(n, d, 6 * n * d, np.arange(len(n))), law_from="")
