"""Branches and packs are execution only.

A branch has to the bit the rows of a run alone, a pack the same numbers to rounding.
"""

import itertools
import math
from dataclasses import replace

import jax
import numpy as np
import pytest

from scaling.config import Execution
from scaling.config.run_groups import RunGroup, extension_groups, group_runs, pack_groups
from scaling.plan import plan
from scaling.tasks import open_task
from scaling.train.program import program_key
from scaling.train.step import AVERAGE_POWER, initial_state, update_average
from scaling.train.trainer import Callbacks, train
from tests.sweep_files import TINY, tiny

pytestmark = pytest.mark.slow

BUDGETS = ["8k", "16k", "30k"]
PLAIN = Execution(layers="unrolled", kind="cpu")


def runs(tokens=BUDGETS, model=None, evals=None, **changes):
    optim = {"lr": 1e-2, "warmup_steps": 5} | changes.pop("optim", {})
    base = TINY["base"] | {"optim": optim, "model": model or {}}
    design = {"kind": "grid", "sizes": ["3k"], "tokens": tokens}
    sweep = tiny(base=base, design=design, evals=TINY["evals"] | (evals or {}), **changes)
    return [
        item.run
        for item in plan(sweep, sweep.base.task, open_task(sweep.base.task).vocab_size).runs
    ]


def numbers(outcome):
    """What must not depend on how a run was carried out.

    Everything but the clock and what a shared prefix says of its branches' budgets.
    """
    steps = {m.step for m in outcome.measured if m.split == "train"}
    own = [
        m
        for m in outcome.measured
        if m.step in steps and m.metric not in ("tokens_per_second", "constant_loss")
    ]
    return (
        outcome.kind,
        outcome.reason,
        [(m.step, m.split, m.metric, m.value, m.stderr) for m in own],
    )


def train_all(found, folder, **options):
    """Train families and the branches that they set free, until nothing is left.

    Outcomes by run_id.
    """
    task, outcomes, waiting = open_task(found[0].runs[0].task), {}, list(found)
    while waiting:
        group = waiting.pop(0)
        outcomes |= train(
            group,
            task,
            lambda each: folder / f"{each.name}.npz",
            callbacks=Callbacks(on_branch_saved=waiting.append),
            **options,
        )
    return outcomes


def stop_after(dispatches):
    count = itertools.count()
    return lambda: next(count) >= dispatches


def train_until(dispatches, group, folder):
    """The outcomes of a group that is stopped, and the branches that it has set free."""
    freed = []
    outcomes = train(
        group,
        open_task(group.runs[0].task),
        lambda each: folder / f"{each.name}.npz",
        should_stop=stop_after(dispatches),
        callbacks=Callbacks(on_branch_saved=freed.append),
    )
    return outcomes, freed


def all_numbers(outcomes):
    return {run_id: numbers(outcome) for run_id, outcome in outcomes.items()}


@pytest.fixture(scope="module", params=["wsd", "constant", "averaged"])
def trained(request, tmp_path_factory):
    """The same three budgets alone and as branches of one shared prefix."""
    wanted = (
        runs(evals={"averaged": True})
        if request.param == "averaged"
        else runs(optim={"schedule": request.param})
    )
    (group,) = group_runs(wanted)
    assert len(group.branches) == 2
    alone = train_all([RunGroup((run,)) for run in wanted], tmp_path_factory.mktemp("alone"))
    return group, alone, train_all([group], tmp_path_factory.mktemp("branches"))


def test_branch_is_bit_identical_to_a_run_alone(trained):
    group, alone, branched = trained
    assert set(alone) == set(branched) == {run.run_id for run in group.all_runs()}
    assert all_numbers(branched) == all_numbers(alone)


def test_shared_prefix_is_evaluated_at_the_budgets_of_its_branches(trained):
    """Of the constant schedule that is what the branch ends at.

    Of wsd it is another loss, without a cooldown.
    """
    group, alone, branched = trained
    measured = branched[group.runs[0].run_id].measured
    read = {m.step: m.value for m in measured if m.metric == "constant_loss"}
    shorter = {branch.runs[0].n_steps: branch.runs[0].run_id for branch in group.branches}
    assert set(read) == set(shorter)
    for step, value in read.items():
        final = next(
            m.value
            for m in alone[shorter[step]].measured
            if (m.split, m.metric, m.step) == ("val", "loss", step)
        )
        if group.runs[0].optim.schedule == "constant":
            assert value == pytest.approx(final, rel=1e-6)
        else:
            assert 1e-4 < abs(value - final) < 0.5
    averaged = {m.step for m in measured if m.metric == "averaged_loss"}
    assert set(shorter) <= averaged if group.runs[0].evals.averaged else averaged == set()


@pytest.mark.parametrize("dispatches", [1, 4, 8])
def test_stopped_shared_prefix_resumes_bit_identically(tmp_path, dispatches):
    wanted = runs()
    (group,) = group_runs(wanted)
    whole = train_all([group], tmp_path / "whole")
    stopped, left = train_until(dispatches, group, tmp_path)
    assert stopped[group.runs[0].run_id].kind == "stopped"
    remaining = group.without([run.run_id for branch in left for run in branch.runs])
    resumed = train_all([remaining, *left], tmp_path)
    assert all_numbers(resumed) == all_numbers(whole)


def test_branch_after_its_branch_point_is_trained_alone(tmp_path):
    wanted = runs()
    (group,) = group_runs(wanted)
    train_until(1, RunGroup(group.runs), tmp_path)
    _, freed = train_until(0, group, tmp_path)
    assert freed == list(group.branches)


def test_diverged_shared_prefix_marks_its_branches_diverged(tmp_path):
    wild = {"clip": False, "warmup_steps": 0, "lr": 10.0}
    wanted = runs(optim=wild, model={"qk_norm": False})
    (group,) = group_runs(wanted)
    alone = train_all([RunGroup((run,)) for run in wanted], tmp_path / "alone")
    together = train_all([group], tmp_path / "together")
    assert {outcome.kind for outcome in alone.values()} == {"diverged"}
    assert all_numbers(together) == all_numbers(alone)


def final_losses(outcomes):
    last = {
        run_id: max(
            (m.step, m.value) for m in out.measured if (m.split, m.metric) == ("val", "loss")
        )
        for run_id, out in outcomes.items()
    }
    return {run_id: value for run_id, (_, value) in last.items()}


def test_a_pack_gives_the_losses_of_its_runs_alone_and_resumes_to_the_bit(tmp_path):
    wanted = runs(
        tokens=["8k", "16k"], seeds=[0, 1], axes=[{"field": "optim.lr", "values": [3e-3, 1e-2]}]
    )
    alone = train_all(group_runs(wanted), tmp_path / "alone")
    (pack,) = pack_groups(group_runs(wanted), 4)
    together = train_all([pack], tmp_path / "pack")
    assert final_losses(together) == pytest.approx(final_losses(alone), rel=1e-4)
    assert len(set(final_losses(together).values())) == len(wanted)
    _, left = train_until(4, pack, tmp_path)
    remaining = pack.without([run.run_id for branch in left for run in branch.runs])
    resumed = train_all([remaining, *left], tmp_path)
    assert all_numbers(resumed) == all_numbers(together)


def test_one_run_of_a_pack_may_diverge_without_the_others(tmp_path):
    axes = [{"field": "optim.lr", "values": [1e-2, 10.0]}]
    wanted = runs(
        tokens=["16k"],
        optim={"clip": False, "warmup_steps": 0},
        model={"qk_norm": False},
        axes=axes,
    )
    (pack,) = pack_groups(group_runs(wanted), 2)
    outcomes = train_all([pack], tmp_path)
    assert sorted(outcome.kind for outcome in outcomes.values()) == ["diverged", "done"]
    good = next(run for run in wanted if run.optim.lr == 1e-2)
    assert math.isfinite(final_losses({good.run_id: outcomes[good.run_id]})[good.run_id])


def test_weight_average_has_a_horizon_of_a_tenth_of_the_run():
    """Shamir and Zhang 2013.

    Weights add up to one, and their mean age is about steps / (power + 2).
    """
    steps = 400
    average = np.zeros(steps)
    for step in range(steps):
        average = np.asarray(update_average(average, np.eye(steps)[step], jax.numpy.float32(step)))
    assert average.sum() == pytest.approx(1.0, rel=1e-5)
    assert (steps - 1 - np.arange(steps)) @ average == pytest.approx(
        steps / (AVERAGE_POWER + 2.0), rel=0.05
    )


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
def test_a_longer_run_added_later_continues_the_kept_state_to_the_bit(tmp_path, schedule):
    """Its rows, early measurements included, are those of the same run trained from the start."""
    optim = {"schedule": schedule}
    wanted, (*_, longer) = runs(optim=optim), runs([*BUDGETS, "60k"], optim=optim)
    (group,) = group_runs(wanted, extensions=extension_groups(wanted, [longer]))
    (kept,) = group.extensions
    train_all([group], tmp_path)
    step = int(np.load(tmp_path / f"{longer.run_id}.npz")[f"leaf_{step_leaf(longer)}"])
    assert step == group.runs[0].stable_steps > 0.5 * group.runs[0].n_steps
    (whole,) = group_runs([*wanted, longer])
    assert kept.constant_lr_eval_steps == whole.constant_lr_eval_steps
    alone = train_all(
        [RunGroup((longer,), constant_lr_eval_steps=whole.constant_lr_eval_steps)],
        tmp_path / "alone",
    )
    continued = train_all(
        [RunGroup((longer,), constant_lr_eval_steps=whole.constant_lr_eval_steps)], tmp_path
    )
    assert rows(continued[longer.run_id]) == rows(alone[longer.run_id])
    assert "constant_loss" in {m.metric for m in alone[longer.run_id].measured}


def rows(outcome):
    """Everything but the clock's."""
    return [replace(m, seconds=0.0) for m in outcome.measured if m.metric != "tokens_per_second"]


def step_leaf(run):
    """The number of the step among the leaves of a state."""
    shapes = jax.eval_shape(lambda: initial_state(program_key(run, PLAIN), 0))
    return [leaf.dtype for leaf in jax.tree.leaves(shapes)].index(np.int32)
