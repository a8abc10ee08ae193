"""The fields that can be tuned: the value of a run, what a cell sets, and the rule in the recipe.

A batch is counted in tokens, b2 as its half-life in tokens, and weight decay as the share of the
run that weights remember, for these are what the recipe's rules give and what transfers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scaling import recipe
from scaling.config import PowerRule, RunConfig, Sweep
from scaling.recipe import PUBLISHED

LN2 = math.log(2.0)
Setting = bool | int | float | str


@dataclass(frozen=True)
class Field:
    """A field of [[tuning]].

    `now(run)` is the value that a run has, `settings(value, run)` what a cell sets so that a run
    like `run` has it. `safer` is the direction in which a run that diverges becomes stable.
    """

    name: str
    short: str
    unit: str
    safer: int
    rule: str
    now: Callable[[RunConfig], float]
    settings: Callable[[float, RunConfig], dict[str, Setting]]


def half_life(run: RunConfig) -> float:
    """The tokens in which the second moment of a run forgets half; a b2 of zero forgets at once."""
    return run.batch_tokens * LN2 / -math.log(run.optim.b2) if run.optim.b2 else 0.0


def timescale(run: RunConfig) -> float:
    """1 / (lr x decay x steps), the share of a run that its weights remember; 0 without decay."""
    rate = run.optim.lr * run.optim.weight_decay * run.n_steps
    return 1.0 / rate if rate else 0.0


FIELDS = {
    entry.name: entry
    for entry in (
        Field(
            "optim.lr",
            "lr",
            "",
            -1,
            "lr_rule",
            lambda run: run.optim.lr,
            lambda value, run: {"optim.lr": float(f"{value:.6g}")},
        ),
        Field(
            "batch_size",
            "batch",
            "tokens a step",
            1,
            "batch_rule",
            lambda run: float(run.batch_tokens),
            lambda value, run: {"batch_size": max(1, round(value / run.task.seq_len))},
        ),
        Field(
            "optim.b2",
            "b2",
            "tokens of half-life",
            -1,
            "b2_half_life",
            half_life,
            lambda value, run: {"optim.b2": recipe.b2_of(run.batch_tokens, value)},
        ),
        Field(
            "optim.weight_decay",
            "weight_decay",
            "share of the run that weights remember",
            1,
            "decay_timescale",
            timescale,
            lambda value, run: {
                "optim.weight_decay": float(f"{1 / (value * run.optim.lr * run.n_steps):.6g}")
            },
        ),
    )
}


def is_pending(sweep: Sweep) -> bool:
    """Whether a sweep asks for a tuning whose rule its recipe does not have yet."""
    return any(not is_measured(sweep, entry.field) for entry in sweep.tuning)


def is_measured(sweep: Sweep, name: str) -> bool:
    """Whether the recipe's rule for a field is a measured one, which nothing in the sweep
    overrides.
    """
    return isinstance(getattr(sweep.recipe, FIELDS[name].rule), PowerRule) and not _is_given(
        sweep, name
    )


def _is_given(sweep: Sweep, name: str) -> bool:
    """Whether the sweep gives the field itself, in place of the recipe's rule."""
    if name == "batch_size":
        return bool(sweep.base.batch_size or sweep.recipe.batch_tokens)
    return getattr(sweep.base.optim, FIELDS[name].short) is not None


def with_rule(sweep: Sweep, name: str, changes: dict[str, Any]) -> Sweep:
    """The sweep with a changed recipe for a field, and without what would override it."""
    base: dict[str, Any] = {}
    if name == "batch_size":
        changes = {"batch_tokens": None} | changes
        base = {"batch_size": None}
    else:
        optim: Any = sweep.base.optim
        base = {"optim": optim.model_copy(update={FIELDS[name].short: None})}
    return sweep.model_copy(
        update={
            "recipe": sweep.recipe.model_copy(update=changes),
            "base": sweep.base.model_copy(update=base),
        },
    )


def scaled(sweep: Sweep, name: str, value: float, run: RunConfig, n: float) -> dict[str, Any]:
    """Changes to the recipe that keep the powers of its rule and pass through `value` at one run of
    N parameters. What the sweep gives as a number stays one value for all sizes.
    """
    key, rules = FIELDS[name].rule, sweep.recipe
    rule, batch = getattr(rules, key), float(run.batch_tokens)
    if _is_given(sweep, name):
        rule = None
    elif rule == "width":
        now = recipe.learning_rate(run.model, n, run.tokens, batch, rules)
        return {"lr_width": rules.lr_width * value / now}
    elif isinstance(rule, str):
        published = PUBLISHED[rule]
        rule = _as_power(published.batch_tokens if name == "batch_size" else published.lr)
    if not isinstance(rule, PowerRule):
        return {key: PowerRule(coef=value, n_range=(n, n))}
    tokens = 1.0 if name == "optim.b2" else run.tokens
    powers = n**rule.n_power * tokens**rule.d_power
    powers *= 1.0 if name == "batch_size" else batch**rule.batch_power
    return {key: rule.model_copy(update={"coef": value / powers, "n_range": (n, n)})}


def _as_power(formula: Callable[[float, float], float]) -> PowerRule:
    """The powers of a published formula: all are products of powers."""
    n_power, d_power = (
        round(math.log2(formula(*doubled) / formula(1.0, 1.0)), 9)
        for doubled in ((2.0, 1.0), (1.0, 2.0))
    )
    return PowerRule(coef=1.0, n_power=n_power, d_power=d_power)
