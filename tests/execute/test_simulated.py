"""The simulated trainer: the law's losses in a real run's rows, the same bits always, and the law
found again by a fit.
"""

import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError

from scaling import accounting
from scaling.config import RunConfig, Sweep
from scaling.errors import ScalingError
from scaling.execute.simulated import SEED_NOISE, load_simulated_law, simulatable_laws, simulate
from scaling.fit.estimate import estimate
from scaling.fit.frontier.frontier import Cost
from scaling.fit.frontier.isoflop import isoflop
from scaling.fit.laws.laws import LAWS
from scaling.fit.laws.published import published
from scaling.plan import plan
from scaling.points.points import Points
from scaling.points.run_tables import check_same_origin
from scaling.store.rows import DIVERGED, Provenance, measurement_steps, rows
from tests.sweep_files import tiny

HOFFMANN, BESIROGLU = "published:hoffmann2022", "published:besiroglu2024"
BUDGETS = [float(f"{c:.3g}") for c in np.geomspace(1e18, 1e21, 7)]
ISOFLOP = {
    "name": "rehearsal",
    "design": {
        "kind": "isoflop",
        "params": "total",
        "flops": "6nd",
        "budgets": BUDGETS,
        "tokens_per_param_range": [1, 2000],
        "sizes": [float(f"{n:.4g}") for n in np.geomspace(2e7, 5e10, 24)],
    },
    "base": {"task": {"kind": "synthetic", "seq_len": 1024}},
    "seeds": [0, 1],
}


def simulated(law=BESIROGLU, **changes):
    """The runs of a simulated sweep, the tiny one by default."""
    sweep = tiny(**changes)
    return [item.run for item in plan(sweep, sweep.base.task, 256, law).runs]


def final(outcome):
    return next(
        item.value
        for item in reversed(outcome.measured)
        if (item.split, item.metric) == ("val", "loss")
    )


def scaled_rate(run, times):
    return run.model_copy(
        update={"optim": run.optim.model_copy(update={"lr": times * 0.16 / run.model.d_model})}
    )


@pytest.mark.slow
def test_the_same_run_gives_the_same_bits_always():
    run = simulated()[0]
    again = RunConfig.model_validate_json(run.model_dump_json())
    assert simulate(run) == simulate(again)
    code = (
        "import sys; from scaling.config import RunConfig; from scaling.execute.simulated import "
        "simulate\n"
        "print(repr(simulate(RunConfig.model_validate_json(sys.argv[1])))); assert 'jax' not in "
        "sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, run.model_dump_json()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == repr(simulate(run))


def test_rows_are_those_of_a_real_run():
    run = simulated()[0]
    outcome = simulate(run)
    assert outcome.kind == "done"
    assert [item.step for item in outcome.measured if item.split == "val"] == measurement_steps(run)
    assert {(item.split, item.metric) for item in outcome.measured} == {
        ("val", "loss"),
        ("train", "loss"),
        ("train", "tokens_per_second"),
    }
    assert all(item.stderr for item in outcome.measured if item.split == "val")
    seconds = [item.seconds for item in outcome.measured]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(
        accounting.train_flops(run.model, run.task.seq_len, run.tokens) / 4e14
    )
    table = rows("tiny", run, outcome.measured, Provenance("simulated", None, "0"))
    assert table.num_rows == len(outcome.measured)
    assert all(
        RunConfig.model_validate_json(text).simulated == BESIROGLU
        for text in table.column("config").to_pylist()
    )


@pytest.mark.parametrize("name", simulatable_laws())
def test_losses_follow_the_law_in_its_own_counting_up_to_the_noise_of_seeds(name):
    entry = published(name.removeprefix("published:"))
    off = []
    for run in simulated(
        name, seeds=list(range(100)), design={"kind": "grid", "sizes": ["6k"], "tokens": ["40k"]}
    ):
        inputs = {
            "N": np.array([accounting.n_params(run.model, 30, entry.params)]),
            "D": np.array([run.tokens]),
        }
        law = LAWS[entry.law]
        off.append(
            math.log(final(simulate(scaled_rate(run, 1.0))))
            - float(law.log_predict(law.theta(entry.values), inputs)[0])
        )
    assert abs(statistics.mean(off)) < 4 * SEED_NOISE / math.sqrt(len(off))
    assert statistics.stdev(off) == pytest.approx(SEED_NOISE, rel=0.3)


def test_a_run_that_diverges_before_its_first_measurement_has_one_row():
    ended = [
        simulate(scaled_rate(run.model_copy(update={"seed": seed}), 100.0))
        for run in simulated()
        for seed in range(20)
    ]
    assert {outcome.kind for outcome in ended} == {"diverged"}
    first = next(outcome for outcome in ended if len(outcome.measured) == 1)
    assert first.measured[0].metric == DIVERGED


def test_learning_rates_off_the_best_cost_and_too_high_ones_diverge():
    run = simulated()[0]
    excess = {
        times: statistics.mean(
            final(simulate(scaled_rate(run.model_copy(update={"seed": seed}), times)))
            for seed in range(40)
        )
        for times in (0.25, 0.5, 1.0, 2.0, 4.0)
    }
    noise = 5 * SEED_NOISE * excess[1.0] / math.sqrt(40)
    for times, octaves in ((0.25, 2), (0.5, 1), (2.0, 1), (4.0, 2)):
        assert excess[times] - excess[1.0] == pytest.approx(0.04 * octaves**2, abs=noise)
    kinds = {times: simulate(scaled_rate(run, times)).kind for times in (7.9, 16.1, 1000.0)}
    assert kinds == {7.9: "done", 16.1: "diverged", 1000.0: "diverged"}


def test_the_rate_of_the_base_is_the_best_at_every_width_under_transfer():
    run = simulated(recipe={"n_layers": 2, "width_multiple": 4, "transfer": {"base_width": 8}})[-1]
    assert run.model.d_model > 8
    rates = {
        times: run.model_copy(
            update={"optim": run.optim.model_copy(update={"lr": times * run.optim.lr})}
        )
        for times in (0.25, 1.0, 4.0)
    }
    loss = {
        times: statistics.mean(
            final(simulate(each.model_copy(update={"seed": seed}))) for seed in range(40)
        )
        for times, each in rates.items()
    }
    assert loss[1.0] < min(loss[0.25], loss[4.0]) - 0.1


def test_a_diverged_run_says_where_and_measures_nothing_after():
    outcome = simulate(scaled_rate(simulated()[0], 20.0))
    *before, last = outcome.measured
    assert (last.split, last.metric, last.value) == ("train", DIVERGED, last.step)
    assert all(item.step < last.step for item in before)
    assert outcome.reason.startswith(f"diverged at step {last.step} of ")
    assert "at learning rate" in outcome.reason


def test_budgets_of_the_largest_runs_are_simulated():
    sweep = tiny(
        design={"kind": "isoflop", "sizes": ["70B", "1e13"], "budgets": ["1e24", "1e26"]},
        base={"task": {"kind": "synthetic", "seq_len": 2048}},
        recipe={},
    )
    for item in plan(sweep, sweep.base.task, 50_000, HOFFMANN).runs:
        assert 1.69 < final(simulate(item.run)) < 2.6
        assert rows(
            "tiny", item.run, simulate(item.run).measured, Provenance("simulated", None, "0")
        ).num_rows


@pytest.mark.parametrize(
    "name",
    [
        "published:kaplan2020-c",  # of C alone
        "published:kaplan2020-ns",
        "published:muennighoff2023",
        "published:porian2024",  # gives no loss
        "published:chinchila",
        "hoffmann2022",
    ],
)
def test_laws_that_need_more_than_a_sweep_gives_are_rejected_with_the_usable_names(name):
    with pytest.raises(ScalingError, match="unknown law to simulate") as caught:
        load_simulated_law(name)
    assert all(usable in caught.value.remedy for usable in simulatable_laws())


def test_a_real_run_is_not_simulated():
    with pytest.raises(ScalingError, match="is a real run"):
        simulate(simulated(None)[0])


@pytest.mark.parametrize(
    "name", ["hoffmann2022", "published:", "published:A B", "published:x\n", "published:../x"]
)
def test_unknown_law_name_is_no_configuration(name):
    plain = simulated()[0].model_dump()
    with pytest.raises(ValidationError):
        RunConfig.model_validate(plain | {"simulated": name})


@pytest.mark.parametrize("name", [HOFFMANN, BESIROGLU])
def test_fit_recovers_the_simulated_law(name):
    sweep = Sweep.model_validate(ISOFLOP)
    made = plan(sweep, sweep.base.task, 32_000, name).runs
    n, d = (
        np.array(values, float)
        for values in zip(
            *((item.n_params["total"], item.run.tokens) for item in made), strict=True
        )
    )
    loss = np.array([final(simulate(item.run)) for item in made])
    points = Points(loss=loss, n=n, d=d, c=6 * n * d)
    entry = published(name.removeprefix("published:"))
    values = estimate(LAWS[entry.law], points).values
    for exponent in ("alpha", "beta"):
        assert float(values[exponent]) == pytest.approx(entry.values[exponent], abs=0.04)
    truth = float(entry.frontier().a)
    assert float(LAWS[entry.law].frontier(values, Cost()).a) == pytest.approx(truth, abs=0.03)
    road = isoflop(points)
    assert road.frontier is not None
    assert float(road.frontier.a) == pytest.approx(truth, abs=0.08)


def test_simulated_and_real_runs_do_not_mix():
    real, one, other = simulated(None), simulated(BESIROGLU), simulated(HOFFMANN)
    for alike in (real, one, []):
        check_same_origin(alike)
    with pytest.raises(
        ScalingError, match="4 trained, 4 simulated from published:besiroglu2024"
    ) as caught:
        check_same_origin([*one, *real])
    assert "folder of its own" in caught.value.remedy
    with pytest.raises(
        ScalingError,
        match="3 simulated from published:besiroglu2024, 4 simulated from published:hoffmann2022",
    ):
        check_same_origin(iter([*one[:3], *other]))
