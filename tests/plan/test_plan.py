"""Planning: every cell of a sweep is a run or infeasible with its reason."""

import time

import pytest

from scaling import accounting
from scaling.config import RunConfig
from scaling.config.run_groups import group_runs
from scaling.errors import ScalingError
from scaling.plan import plan
from tests.sweep_files import TINY, tiny

ISOFLOP = {
    "kind": "isoflop",
    "sizes": ["6k", "20k", "70k"],
    "budgets": ["1e11", "4e11"],
    "tokens_per_param_range": [4, 400],
}


def planned(**changes):
    sweep = tiny(**changes)
    return plan(sweep, sweep.base.task, 256)


def test_isoflop_runs_cost_their_budget():
    made = planned(design=ISOFLOP)
    budgets = sorted(float(f"{item.flops:.1g}") for item in made.runs)
    assert set(budgets) == {1e11, 4e11}
    for item in made.runs:
        exact = accounting.train_flops(item.run.model, 30, item.run.tokens, "exact")
        assert item.flops == exact
        assert min(abs(exact / budget - 1) for budget in (1e11, 4e11)) < 0.02  # whole steps


def test_every_cell_is_a_run_or_infeasible():
    made = planned(design=ISOFLOP, seeds=[0, 1])
    assert len(made.runs) + len(made.infeasible) + made.merged == 3 * 2 * 2
    assert all("tokens_per_param_range" in cell.reason for cell in made.infeasible)
    assert {item.run.seed for item in made.runs} == {0, 1}


def test_axes_override_the_recipe_and_multiply_runs():
    axes = [
        {"field": "optim.lr", "values": [1e-3, 2e-3], "role": "nuisance"},
        {"field": "model.norm", "values": ["rmsnorm", "layernorm"]},
    ]
    made = planned(axes=axes)
    assert len(made.runs) == 4 * 4
    assert {(item.run.optim.lr, item.run.model.norm) for item in made.runs} == {
        (lr, norm) for lr in (1e-3, 2e-3) for norm in ("rmsnorm", "layernorm")
    }


def test_infeasible_cells_have_their_reason():
    axes = [{"field": "model.n_kv_heads", "values": [1, 3]}]
    made = planned(axes=axes)
    assert len(made.runs) == 4
    assert {cell.reason for cell in made.infeasible} == {
        "n_heads = 1 is not a multiple of n_kv_heads = 3"
    }


def test_ladder_multiplies_tokens_by_parameters():
    made = planned(design={"kind": "ladder", "sizes": ["6k"], "tokens_per_param": [5, 20]})
    ratios = sorted(item.run.tokens / item.n_params["with_head"] for item in made.runs)
    assert ratios == pytest.approx([5, 20], rel=0.02)


def test_two_sizes_of_one_model_are_merged_and_counted():
    made = planned(design={"kind": "grid", "sizes": ["6k", "6001"], "tokens": ["40k"]})
    assert (len(made.runs), made.merged) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"design": ISOFLOP | {"tokens_per_param_range": [1e6, 2e6]}}, "every cell is infeasible"),
        ({"design": {"kind": "grid", "sizes": ["6k"], "tokens": ["1k"]}}, "fewer than 20"),
        ({"axes": [{"field": "optim.learning_rate", "values": [1e-3]}]}, "optim.learning_rate"),
        ({"axes": [{"field": "optim.lr", "values": [1e-3]}] * 2}, "stands twice"),
        ({"seeds": list(range(100_000))}, "400,000 cells"),
    ],
)
def test_design_errors_name_their_cause(changes, words):
    with pytest.raises(ScalingError, match=words):
        planned(**changes)


def test_plan_order_is_by_budget_then_size():
    made = planned(design=ISOFLOP | {"tokens_per_param_range": [1, 4000]})
    keys = [(float(f"{item.flops:.2g}"), item.n_params["total"]) for item in made.runs]
    assert keys == sorted(keys)


def test_large_sizes_and_budgets_are_planned_without_building_them():
    design = {"kind": "isoflop", "sizes": ["70B", "1T", "1e13"], "budgets": ["1e24", "1e26"]}
    task = {"kind": "synthetic", "seq_len": 2048}
    made = planned(design=design, base={"task": task}, recipe={})
    assert not made.infeasible
    assert max(item.n_params["with_head"] for item in made.runs) == pytest.approx(1e13, rel=0.01)
    assert made.runs[-1].flops == pytest.approx(1e26, rel=0.01)
    narrow = planned(
        design=design, base={"task": task}, recipe={"n_layers": 2, "width_multiple": 4}
    )
    assert not narrow.infeasible


def test_more_tokens_than_a_row_can_count_are_rejected():
    grid = {"kind": "grid", "sizes": ["1e12"], "tokens": ["1e18", "1e19"]}
    made = planned(design=grid, base={"task": TINY["base"]["task"], "batch_size": 2**30}, recipe={})
    assert [cell.reason for cell in made.infeasible] == [
        "1e+19 training tokens are more than a row can hold (9.22e+18)"
    ]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("model.n_layers", True, "should be a valid integer"),
        ("optim.lr", "x", "should be a valid number"),
        ("optim.lr", 100.0, "should be less than or equal to 10"),
        ("model.norm", "layrnorm", "should be 'layernorm' or 'rmsnorm'"),
    ],
)
def test_a_value_that_no_run_can_have_is_rejected_with_the_reason(field, value, reason):
    with pytest.raises(ScalingError) as refused:
        planned(axes=[{"field": field, "values": [value]}])
    assert refused.value.what == f"axis {field}: {reason}, not {value!r}"


def test_siblings_differ_in_their_seed_alone_and_have_ids_of_their_own():
    made = planned(seeds=[3, 0, 7])
    for item in made.runs:
        alone = RunConfig.model_validate_json(item.run.model_dump_json())
        assert (alone, alone.run_id) == (item.run, item.run_id)
    assert len({item.run_id for item in made.runs}) == 3 * 4
    assert len({item.run.model_copy(update={"seed": 1}).run_id for item in made.runs}) == 4


def test_a_simulated_sweep_has_other_run_ids_and_the_same_runs():
    sweep = tiny()
    real, other = planned(), plan(sweep, sweep.base.task, 256, "published:besiroglu2024")
    assert not {item.run_id for item in real.runs} & {item.run_id for item in other.runs}
    assert {item.run.simulated for item in other.runs} == {"published:besiroglu2024"}
    assert {item.run for item in real.runs} == {
        item.run.model_copy(update={"simulated": None}) for item in other.runs
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "axis", [{}, {"axes": [{"field": "optim.lr", "values": [i * 1e-5 for i in range(1, 51)]}]}]
)
def test_a_sweep_of_a_hundred_thousand_cells_costs_little(axis):
    seeds = list(range(15_000 // len(axis["axes"][0]["values"]) if axis else 15_000))
    started = time.process_time()
    made = planned(design=ISOFLOP | {"tokens_per_param_range": [1, 4000]}, seeds=seeds, **axis)
    found = group_runs([item.run for item in made.runs])
    assert (
        time.process_time() - started < 30
    )  # 4 to 8 s on a busy core; without sharing among seeds and shapes over 60 s
    assert len(made.runs) + len(made.infeasible) == 3 * 2 * 15_000
    assert sum(len(list(family.all_runs())) for family in found) == len(made.runs)


@pytest.mark.parametrize("field", ["batch_size", "model.d_head", "optim.lr"])
def test_an_axis_of_words_where_numbers_belong_is_rejected(field):
    sweep = tiny(axes=[{"field": field, "values": ["many"]}])
    with pytest.raises(ScalingError, match="not 'many'"):
        plan(sweep, sweep.base.task, 16)


def test_replicates_are_further_seeds_of_chosen_cells():
    more = [
        {"seeds": [1, 2], "sizes": ["6k"], "amounts": ["20k"]},
        {"seeds": [7], "amounts": ["40k"]},
    ]
    made = planned(replicates=more)
    seeds = {}
    for item in made.runs:
        seeds.setdefault((item.run.model.d_model, round(item.run.tokens / 2e4)), []).append(
            item.run.seed
        )
    assert sorted(map(sorted, seeds.values())) == [[0], [0, 1, 2], [0, 7], [0, 7]]


def test_replicates_of_a_missing_cell_are_an_error():
    with pytest.raises(ScalingError, match="no cell of the design has these sizes and amounts"):
        planned(replicates=[{"seeds": [1], "sizes": ["7k"]}])


def test_a_list_is_trained_cell_by_cell():
    cells = [{"size": "2k", "tokens": "20k"}, {"size": "6k", "tokens": "40k", "seeds": [3, 4]}]
    made = planned(design={"kind": "list", "cells": cells})
    assert sorted((round(item.run.tokens / 2e4), item.run.seed) for item in made.runs) == [
        (1, 0),
        (2, 3),
        (2, 4),
    ]


def test_epochs_limit_the_corpus_and_keep_fresh_controls():
    design = {"kind": "epochs", "sizes": ["6k"], "unique_tokens": ["12k"], "epochs": [1, 2, 4]}
    sweep = tiny(design=design, base={"batch_size": 8, "task": {"kind": "text", "seq_len": 30}})
    made = plan(sweep, sweep.base.task, 256)
    found = sorted(
        (item.run.task.unique_tokens or 0, round(item.run.tokens / 12e3)) for item in made.runs
    )
    assert found == [(0, 1), (0, 2), (0, 4), (12_000, 2), (12_000, 4)]
    assert len({item.run.prefix_key for item in made.runs if item.run.task.unique_tokens}) <= 2


def test_an_axis_of_the_task_holds_for_limited_corpora_too():
    design = {"kind": "epochs", "sizes": ["6k"], "unique_tokens": ["12k"], "epochs": [2]}
    axes = [{"field": "task.seq_len", "values": [20, 30]}]
    sweep = tiny(
        design=design, axes=axes, base={"batch_size": 8, "task": {"kind": "text", "seq_len": 30}}
    )
    found = {
        (item.run.task.seq_len, item.run.task.unique_tokens)
        for item in plan(sweep, sweep.base.task, 256).runs
    }
    assert found == {(20, None), (20, 12_000), (30, None), (30, 12_000)}


def test_a_stream_has_no_corpus_to_limit():
    with pytest.raises(ScalingError, match="a corpus can be limited only where there is one"):
        planned(
            design={
                "kind": "epochs",
                "sizes": ["6k"],
                "unique_tokens": ["12k"],
                "epochs": [2],
                "fresh": False,
            }
        )


@pytest.mark.parametrize("value", [0, -1, True, 1.5])
@pytest.mark.parametrize("by_axis", [True, False])
def test_batch_that_is_no_multiple_of_the_sequence_is_rejected(value, by_axis):
    cell = {"size": "6k", "tokens": "40k", "settings": {} if by_axis else {"batch_size": value}}
    axes = [{"field": "batch_size", "values": [value]}] if by_axis else []
    with pytest.raises(ScalingError, match=r"(axis|setting) batch_size: "):
        planned(design={"kind": "list", "cells": [cell]}, axes=axes)


def test_vocabulary_other_than_the_tasks_is_rejected():
    with pytest.raises(ScalingError, match=r"vocab_size is the task's, 256"):
        planned(base=TINY["base"] | {"model": {"vocab_size": 300}})
    planned(base=TINY["base"] | {"model": {"vocab_size": 256}})


def test_setting_that_a_run_cannot_have_is_named():
    with pytest.raises(ScalingError, match=r"n_steps: should be less than"):
        planned(design={"kind": "grid", "sizes": ["6k"], "tokens": ["1e30"]})


@pytest.mark.parametrize(
    "rule",
    [
        {"coef": 1e308, "n_power": 300.0},
        {"coef": 1.0, "n_power": -1e300},
        {"coef": 1e308, "n_power": 1.0},
    ],
)
@pytest.mark.parametrize("name", ["lr_rule", "batch_rule", "b2_half_life"])
def test_measured_rule_that_overflows_is_rejected(name, rule):
    base = {"task": TINY["base"]["task"]}
    with pytest.raises(ScalingError, match="is no number at N = "):
        planned(recipe=TINY["recipe"] | {name: rule}, base=base)
