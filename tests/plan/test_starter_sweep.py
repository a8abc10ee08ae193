"""A starter sweep: within its budget, every isoFLOP curve with sizes on both sides, as its file
says.
"""

from pathlib import Path

import pytest

from scaling.config.sweep_file import parse_sweep
from scaling.errors import ScalingError
from scaling.plan import plan
from scaling.plan.starter_sweep import StarterRequest, draft, flops_of_minutes


def question(budget=1e13, device="cpu", vocab_size=256, corpus="stdlib", path="first.toml"):
    return StarterRequest(budget, device, corpus, vocab_size, Path(path))


def drafted(asked):
    return draft(asked, lambda sweep: plan(sweep, sweep.base.task, asked.vocab_size))


BUDGETS = [
    *(
        (float(f"{digits}e{power}"), 256)
        for power in range(11, 15)
        for digits in (1, 1.64, 2, 3, 4, 7)
    ),
    *((float(f"{digits}e{power}"), 4096) for power in (13, 14) for digits in (1, 2, 4)),
    *[(1e15, 256), (1e16, 4096), (3e14, 32_000), (1e18, 32_000), (1e21, 32_000)],
]


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "vocab_size"), BUDGETS)
def test_any_budget_gives_curves_with_the_expected_minimum_inside(budget, vocab_size):
    made = drafted(question(budget, vocab_size=vocab_size))
    sweep = made.plan.sweep
    assert 0.5 * budget < made.plan.flops < budget
    low, high = sweep.design.tokens_per_param_range
    expected = (low * high) ** 0.5
    for amount in sweep.design.budgets:
        curve = [item for item in made.plan.runs if 0.8 < item.flops / amount < 1.25]
        ratios = [item.run.tokens / item.n_params["with_head"] for item in curve]
        assert len({item.n_params["total"] for item in curve}) >= 5
        assert min(ratios) < expected / 2 < 2 * expected < max(ratios)
    assert not made.plan.warnings


def test_the_file_is_the_sweep_and_its_head_the_commands():
    made = drafted(question(path="my sweeps/first.toml", corpus='data/"mine" \\ ö'))
    read = parse_sweep(made.text, "here")
    assert read == made.plan.sweep
    assert read.base.task.corpus == 'data/"mine" \\ ö'
    head = made.text.partition('name = "first"')[0]
    for words in (
        "scaling plan 'my sweeps/first.toml' ",
        "scaling run 'my sweeps/first.toml' ",
        "scaling fit results/first",
        "scaling report results/first",
    ):
        assert words in head
    assert f"{len(made.plan.runs)} runs" in head
    assert all(line.startswith("#") for line in head.strip().splitlines())


def test_devices_differ_in_precision():
    assert drafted(question(device="cpu")).plan.sweep.base.precision == "float32"
    assert drafted(question(device="tpu")).plan.sweep.base.precision == "bfloat16"


@pytest.mark.slow
def test_a_budget_too_small_for_isoflop_curves_is_rejected_with_one_that_suffices():
    with pytest.raises(ScalingError, match="too few for isoFLOP curves") as raised:
        drafted(question(1e9))
    assert raised.value.where == "--budget"
    enough = float(raised.value.remedy.split()[1])
    assert drafted(question(enough)).plan.flops < enough


def test_minutes_become_flops_of_the_cores_or_of_the_accelerator():
    assert flops_of_minutes(2, 2, None) == pytest.approx(6.7e12, rel=0.01)
    assert flops_of_minutes(10, 1, 989e12) == pytest.approx(600 * 0.3 * 989e12)
