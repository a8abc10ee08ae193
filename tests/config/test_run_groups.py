"""Runs that share a shared prefix or a shape find each other, and each is trained once."""

from pydantic import TypeAdapter

from scaling.config.run_groups import RunGroup, group_runs, pack_groups
from scaling.plan import plan
from scaling.tasks import open_task
from tests.sweep_files import TINY, tiny


def runs(**changes):
    sweep = tiny(**changes)
    return [
        item.run
        for item in plan(sweep, sweep.base.task, open_task(sweep.base.task).vocab_size).runs
    ]


def optim(**fields):
    return TINY["base"] | {"optim": {"warmup_steps": 5, **fields}}


THREE = {"kind": "grid", "sizes": ["2k", "6k"], "tokens": ["20k", "40k", "80k"]}


def test_longest_run_of_a_shared_prefix_comes_first():
    found = group_runs(runs(base=optim(), design=THREE))
    assert len(found) == 2
    for family in found:
        lengths = [branch.runs[0].n_steps for branch in family.branches]
        assert lengths == sorted(lengths)
        assert max(lengths) < family.runs[0].n_steps
        assert [branch.branch_step for branch in family.branches] == [
            n - round(0.2 * n) for n in lengths
        ]
        assert [steps for _, steps in family.incremental_steps()] == [
            family.runs[0].n_steps,
            *(round(0.2 * n) for n in lengths),
        ]


def test_runs_that_differ_in_more_than_the_horizon_share_no_prefix():
    assert all(
        not family.branches
        for family in group_runs(runs(base=optim(schedule="cosine"), design=THREE))
    )
    assert all(
        not family.branches
        for family in group_runs(runs(design=THREE | {"tokens": ["20k"]}, base=optim()))
    )
    warm = TINY[
        "base"
    ]  # the recipe's warm-up is a share of these short runs, so their beginnings differ
    assert all(not family.branches for family in group_runs(runs(base=warm, design=THREE)))


def test_every_run_is_in_exactly_one_group():
    axes = [{"field": "optim.lr", "values": [1e-3, 2e-3, 4e-3]}]
    wanted = runs(base=optim(), design=THREE, axes=axes, seeds=[0, 1])
    for found in (
        group_runs(wanted),
        pack_groups(group_runs(wanted), 4),
        pack_groups(group_runs(wanted), 1),
    ):
        assert sorted(run.run_id for family in found for run in family.all_runs()) == sorted(
            run.run_id for run in wanted
        )


def test_packs_join_seeds_and_rates_of_one_shape_with_their_branches():
    axes = [{"field": "optim.lr", "values": [1e-3, 2e-3]}]
    found = pack_groups(group_runs(runs(base=optim(), design=THREE, axes=axes, seeds=[0, 1])), 4)
    assert [len(family.runs) for family in found] == [4, 4]
    for family in found:
        assert len({run.model for run in family.all_runs()}) == 1
        assert len({(run.optim.lr, run.seed) for run in family.runs}) == 4
        for branch in family.branches:
            assert [(run.optim.lr, run.seed) for run in branch.runs] == [
                (run.optim.lr, run.seed) for run in family.runs
            ]
    assert sorted(
        len(family.runs)
        for family in pack_groups(group_runs(runs(base=optim(), seeds=[0, 1, 2])), 2)
    ) == [1, 1, 2, 2]


def test_run_group_round_trips_through_json_and_drops_named_branches():
    family = max(
        group_runs(runs(base=optim(), design=THREE)), key=lambda each: each.runs[0].model.d_model
    )
    adapter = TypeAdapter(RunGroup)
    assert adapter.validate_json(adapter.dump_json(family)) == family
    first, second = family.branches
    assert family.without([first.runs[0].run_id]) == RunGroup(
        family.runs, (second,), family.constant_lr_eval_steps
    )
    assert family.name == family.runs[0].run_id
    assert RunGroup(family.runs + second.runs).name.startswith("pack-")
