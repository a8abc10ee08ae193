"""Planning: every cell of a sweep is a run or a refusal with its reason."""

import pytest

from scaling import accounting
from scaling.errors import ScalingError
from scaling.plan import plan
from tests.sweep_files import tiny

ISOFLOP = {"kind": "isoflop", "sizes": ["6k", "20k", "70k"], "budgets": ["1e11", "4e11"], "tokens_per_param_range": [4, 400]}


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


def test_every_cell_is_a_run_or_refused():
    made = planned(design=ISOFLOP, seeds=[0, 1])
    assert len(made.runs) + len(made.refused) + made.merged == 3 * 2 * 2
    assert all("tokens_per_param_range" in reason for _, reason in made.refused)
    assert {item.run.seed for item in made.runs} == {0, 1}


def test_axes_override_the_recipe_and_multiply_runs():
    axes = [{"field": "optim.lr", "values": [1e-3, 2e-3], "role": "nuisance"}, {"field": "model.norm", "values": ["rmsnorm", "layernorm"]}]
    made = planned(axes=axes)
    assert len(made.runs) == 4 * 4
    assert {(item.run.optim.lr, item.run.model.norm) for item in made.runs} == {
        (lr, norm) for lr in (1e-3, 2e-3) for norm in ("rmsnorm", "layernorm")
    }


def test_cells_that_cannot_be_built_are_refused_with_the_reason():
    axes = [{"field": "model.n_kv_heads", "values": [1, 3]}]
    made = planned(axes=axes)
    assert len(made.runs) == 4
    assert {reason for _, reason in made.refused} == {"n_heads = 1 is not a multiple of n_kv_heads = 3"}


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
        ({"design": ISOFLOP | {"tokens_per_param_range": [1e6, 2e6]}}, "every cell is refused"),
        ({"design": {"kind": "grid", "sizes": ["6k"], "tokens": ["1k"]}}, "fewer than 20"),
        ({"axes": [{"field": "optim.learning_rate", "values": [1e-3]}]}, "optim.learning_rate"),
        ({"axes": [{"field": "optim.lr", "values": [1e-3]}] * 2}, "stands twice"),
        ({"seeds": list(range(100_000))}, "400,000 cells"),
    ],
)
def test_mistakes_name_their_cause(changes, words):
    with pytest.raises(ScalingError, match=words):
        planned(**changes)


def test_plan_order_is_by_budget_then_size():
    made = planned(design=ISOFLOP | {"tokens_per_param_range": [1, 4000]})
    keys = [(float(f"{item.flops:.2g}"), item.n_params["total"]) for item in made.runs]
    assert keys == sorted(keys)
