"""A first sweep: within its budget, every valley with sizes on both sides, and the file says what it plans."""

from pathlib import Path

import pytest

from scaling.config.sweep_file import parse_sweep
from scaling.errors import ScalingError
from scaling.plan import plan
from scaling.plan.starter_sweep import StarterRequest, draft


def question(budget=1e13, device="cpu", vocab_size=256, corpus="stdlib", path="first.toml"):
    return StarterRequest(budget, device, corpus, vocab_size, Path(path), "first")


def drafted(asked):
    return draft(asked, lambda sweep: plan(sweep, sweep.base.task, asked.vocab_size))


@pytest.mark.parametrize(
    ("budget", "vocab_size"),
    [(5e12, 256), (1e13, 256), (1e15, 256), (1e16, 4096), (1e18, 32_000), (1e21, 32_000)],
)
def test_every_valley_has_its_expected_minimum_inside(budget, vocab_size):
    made = drafted(question(budget, vocab_size=vocab_size))
    sweep = made.plan.sweep
    assert 0.75 * budget < made.plan.flops < budget
    low, high = sweep.design.tokens_per_param_range
    expected = (low * high) ** 0.5
    for amount in sweep.design.budgets:
        valley = [item for item in made.plan.runs if 0.8 < item.flops / amount < 1.25]
        ratios = [item.run.tokens / item.n_params["with_head"] for item in valley]
        assert len({item.n_params["total"] for item in valley}) >= 5
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


def test_a_budget_too_small_for_a_valley_is_refused_with_one_that_is_not():
    with pytest.raises(ScalingError, match="too few for isoFLOP valleys") as found:
        drafted(question(1e11))
    assert found.value.where == "--budget"
    enough = float(found.value.remedy.split()[0])
    assert drafted(question(enough)).plan.flops < enough
