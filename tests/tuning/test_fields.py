"""What is tuned: what a run has of it, what a index sets, and how a rule goes into the recipe and
out again.
"""

import math

import pytest

from scaling.config import PowerRule
from scaling.plan import plan
from scaling.recipe import PUBLISHED
from scaling.tuning.fields import FIELDS, half_life, is_measured, scaled, with_rule
from tests.sweep_files import TINY, tiny

FREE = {  # without a batch size of its own
    "base": {"task": TINY["base"]["task"]},
    "recipe": {"n_layers": 1, "decay_timescale": 0.5},
}


def planned(sweep):
    return plan(sweep, sweep.base.task, 16).runs


def one(**changes):
    """A sweep of one cell, and its run."""
    sweep = tiny(
        **(FREE | changes | {"design": {"kind": "grid", "sizes": ["6k"], "tokens": ["1M"]}})
    )
    return sweep, planned(sweep)[0]


def with_cell(sweep, settings):
    design = {"kind": "list", "cells": [{"size": "6k", "tokens": "1M", "settings": settings}]}
    return planned(type(sweep).model_validate(sweep.model_dump() | {"design": design}))[0].run


@pytest.mark.parametrize("name", FIELDS)
def test_tuned_value_sets_the_field_of_the_run(name):
    sweep, item = one()
    entry = FIELDS[name]
    value = 2 * entry.now(item.run)
    assert entry.now(with_cell(sweep, entry.settings(value, item.run))) == pytest.approx(
        value, rel=0.01
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("optim.lr", {}),
        ("optim.lr", {"recipe": {"lr_rule": "porian", "n_layers": 1}}),
        ("optim.lr", {"recipe": {"lr_rule": "step-law", "n_layers": 1}}),
        ("optim.lr", {"recipe": {"lr_rule": {"coef": 0.3, "n_power": -0.5}, "n_layers": 1}}),
        ("optim.lr", {"recipe": {"transfer": {"base_width": 16}, "n_layers": 1}}),
        ("optim.lr", {"base": FREE["base"] | {"optim": {"lr": 0.01}}}),
        ("batch_size", {}),
        ("batch_size", {"base": TINY["base"]}),
        ("batch_size", {"recipe": {"batch_rule": "step-law", "n_layers": 1}}),
        ("batch_size", {"recipe": {"batch_rule": {"coef": 30.0, "n_power": 0.4}, "n_layers": 1}}),
        ("optim.b2", {}),
        ("optim.b2", {"recipe": {"b2_half_life": {"coef": 5.0, "n_power": 0.9}, "n_layers": 1}}),
        ("optim.b2", {"base": FREE["base"] | {"optim": {"b2": 0.9}}}),
        ("optim.weight_decay", {}),
        ("optim.weight_decay", {"base": FREE["base"] | {"optim": {"weight_decay": 0.1}}}),
        (
            "optim.weight_decay",
            {"recipe": {"n_layers": 1, "decay_timescale": {"coef": 20.0, "d_power": -0.3}}},
        ),
        (
            "optim.lr",
            {"recipe": {"lr_rule": {"coef": 0.3, "n_power": -0.5, "batch_power": 0.5}}},
        ),
    ],
)
def test_a_ratio_from_one_size_passes_through_it_and_keeps_the_form(name, changes):
    sweep, item = one(**changes)
    n = float(item.n_params["with_head"])
    value = 4 * FIELDS[name].now(item.run)
    tuned = with_rule(sweep, name, scaled(sweep, name, value, item.run, n))
    assert FIELDS[name].now(planned(tuned)[0].run) == pytest.approx(value, rel=0.01)
    assert type(sweep).model_validate(tuned.model_dump()) == tuned


def test_a_published_rule_keeps_its_powers():
    sweep, item = one(recipe={"lr_rule": "step-law", "n_layers": 1})
    rule = scaled(sweep, "optim.lr", 0.01, item.run, 6000.0)["lr_rule"]
    assert (rule.n_power, rule.d_power) == (pytest.approx(-0.713), pytest.approx(0.307))
    assert PUBLISHED["step-law"].lr(8.0, 1.0) / PUBLISHED["step-law"].lr(1.0, 1.0) == pytest.approx(
        8.0**rule.n_power
    )


def test_a_measured_rule_replaces_what_would_override_it():
    sweep, _ = one(
        base=TINY["base"] | {"optim": {"lr": 0.01, "b2": 0.9}},
        recipe={"batch_tokens": 512, "n_layers": 1},
    )
    for name, entry in FIELDS.items():
        assert not is_measured(sweep, name)
        sweep = with_rule(
            sweep, name, {entry.rule: PowerRule(coef=0.02 if name == "optim.lr" else 240.0)}
        )
        assert is_measured(sweep, name)
    run = planned(sweep)[0].run
    assert (run.optim.lr, run.batch_tokens, run.optim.b2) == (0.02, 240, pytest.approx(0.9))


def test_half_life_of_an_exponential_average():
    _, item = one()
    run = item.run
    assert run.optim.b2 ** (half_life(run) / run.batch_tokens) == pytest.approx(0.5)
    assert math.isfinite(half_life(run))
