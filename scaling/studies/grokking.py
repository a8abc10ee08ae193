"""When each run fits its training equations, when it generalizes, and the laws of the delay.

The dates are those of 99 % accuracy on either; the steps between are the delay, a function of the
share of equations trained on and of the weight decay (Power 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from scaling.render.figure import Axis, Figure, ReferenceLine, Trace
from scaling.studies import runs
from scaling.studies.study import (
    Claim,
    Findings,
    Study,
    fit_power_law,
    record_table,
    run_lines,
)

ACCURACY = 0.99
MIN_STEP_RATIO = 5.0  # test date over train date
MAX_CONTROL_ACCURACY, MIN_CONTROL_STEP_RATIO = 0.5, 2.0  # of runs without weight decay
SETTING = ["fraction", "decay", "lr", "other"]


def first_step_at(step: np.ndarray, accuracy: np.ndarray) -> float:
    """The first step at which an accuracy (n,) reaches ACCURACY, linear in ln(step) between
    measurements; nan for never. A run that is there at first is dated then, which may be late.
    """
    reached = accuracy >= ACCURACY
    i = int(reached.argmax())
    if i == 0:
        return float(step[0]) if reached[0] else np.nan
    share = (ACCURACY - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return float(step[i - 1] * (step[i] / step[i - 1]) ** share)


def modular_runs(rows: DataFrame, curves: DataFrame) -> DataFrame:
    """Each run with the share trained on, weight decay, learning rate, the `other` settings of
    model and task, the step `fitted` at which it answers the training equations and the step
    `generalized` at which it answers those held out (nan for never), and the `delay` between (nan
    unless the second comes later).
    """
    configs, made = runs.configs(rows), []
    for run_id, run in curves.groupby("run_id"):
        config = configs[str(run_id)]
        settings = {name: config[name] for name in ("model", "task")}
        other = runs.config_without(settings, "train_fraction", *runs.SEEDS)
        optim, share = config["optim"], config["task"]["train_fraction"]
        step, train, test = run[["step", "train", "test"]].to_numpy(float).T
        dates = first_step_at(step, train), first_step_at(step, test), test.max(), step.max()
        setting = share, optim["weight_decay"], optim["lr"], other
        made.append((run_id, run["seed"].iloc[0], *setting, *dates))
    names = ["run_id", "seed", *SETTING, "fitted", "generalized", "highest", "steps"]
    table = DataFrame(made, columns=names)
    delay = table["generalized"] - table["fitted"]
    return table.assign(delay=delay.where(delay > 0)).sort_values([*SETTING[:3], "seed"])


def analyze(rows: DataFrame) -> Findings | None:
    """The runs of the usual setting (`baseline`), of it without decay (`control`), and those that
    vary the share trained on, or decay and learning rate (`rates`); None where no modular run has
    weight decay.
    """
    rows = rows[rows["task"] == "modular"]
    curves = runs.along(rows, train=("accuracy", "train"), test="accuracy")
    table = modular_runs(rows, curves)
    decayed = table[table["decay"] > 0]
    usual = {name: decayed[name].mode().head(1) for name in SETTING}

    def usual_but_for(among: DataFrame, *fields: str) -> DataFrame:
        for name in set(SETTING).difference(fields):
            among = among[among[name].isin(usual[name])]
        return among

    baseline = usual_but_for(decayed)
    if baseline.empty:
        return None
    control = usual_but_for(table[table["decay"] == 0], "decay")
    rates = usual_but_for(decayed, "decay", "lr")
    by_fraction, by_decay = (usual_but_for(decayed, name) for name in ("fraction", "decay"))
    claims = [_delay_claim(baseline)]
    if len(control):
        claims.append(_control_claim(control, baseline["generalized"].median()))
    claims += _law_claims(by_fraction, by_decay, rates)
    config = runs.configs(rows)[baseline["run_id"].iloc[0]]
    level = f"{100 * ACCURACY:.0f} %"
    caption = f"The steps of {level} on training and held-out equations; the best of these."
    columns = ["seed", *SETTING[:3], "fitted", "generalized", "delay", "highest"]
    return Findings(
        claims,
        [_figure(curves, config, baseline, control)],
        record_table("grokking", "Dates of each run", table[columns].to_dict("records"), caption),
        n_left_out=len(table) - pd.concat([control, by_fraction, rates])["run_id"].nunique(),
    )


def _delay_claim(baseline: DataFrame) -> Claim:
    ratio = baseline["generalized"] / baseline["fitted"]
    train, test = baseline[["fitted", "generalized"]].median()
    spread = f"{len(ratio)} runs, {ratio.min():.1f} to {ratio.max():.1f}"
    measured = f"{ratio.median():.1f} (train at {train:.0f}, test at {test:.0f}; {spread})"
    if n_late := int(ratio.isna().sum()):
        measured = f"{n_late} of {len(ratio)} runs not there by step {baseline['steps'].max():,.0f}"
    holds = None if n_late else bool(ratio.median() >= MIN_STEP_RATIO)
    quantity = "steps to test 99 % over steps to train 99 %"
    return Claim(quantity, f">= {MIN_STEP_RATIO:g}", measured, holds)


def _control_claim(control: DataFrame, generalized: float) -> Claim:
    highest, steps = control["highest"].max(), control["steps"].min()
    is_long = steps >= MIN_CONTROL_STEP_RATIO * generalized and control["fitted"].notna().all()
    holds = bool(highest < MAX_CONTROL_ACCURACY) if is_long else None
    quantity, expected = "highest test accuracy without weight decay", MAX_CONTROL_ACCURACY
    return Claim(quantity, f"< {expected}", f"{highest:.2f} by step {steps:,.0f}", holds)


def _law_claims(by_fraction: DataFrame, by_decay: DataFrame, rates: DataFrame) -> Iterator[Claim]:
    """The laws of the delay, and its product with learning rate and decay."""
    laws = (
        ("delay a f^-b, f the share trained on", "fraction", by_fraction, "b > 0"),
        ("delay a decay^-b", "decay", by_decay, "b = 1 within 0.3"),
    )
    for quantity, field, among, expected in laws:
        dated = among.dropna(subset="delay")
        law = fit_power_law(dated[field].to_numpy(), dated["delay"].to_numpy())
        if law is not None:
            b = law.exponent
            holds = abs(b.value - 1) <= 0.3 if field == "decay" else b.lo > 0
            yield Claim(quantity, expected, f"b = {law}, {len(dated)} runs", holds)
    product = rates["delay"] * rates["lr"] * rates["decay"]
    settings = product.groupby([rates["decay"], rates["lr"]])
    values = settings.median()[settings.count() == settings.size()]  # where all generalized
    if len(values) >= 3:
        measured = f"{values.min():.1f} to {values.max():.1f} over {len(values)} settings"
        quantity, holds = "delay x learning rate x weight decay", values.max() <= 2 * values.min()
        yield Claim(quantity, "constant within a factor of 2", measured, bool(holds))


def _figure(
    curves: DataFrame, config: dict[str, Any], baseline: DataFrame, control: DataFrame
) -> Figure:
    """Both accuracies of every run of the usual setting and of the control."""
    task, (decay, lr) = config["task"], baseline[["decay", "lr"]].iloc[0]
    traces: list[Trace] = [ReferenceLine(y=ACCURACY)]
    groups = {f"decay {decay:g}": baseline, "no decay": control}
    for colour, (label, among) in enumerate(groups.items()):
        of_group = curves[curves["run_id"].isin(among["run_id"])]
        traces += run_lines(of_group, "train", f"{label}: train", colour, "dash", 1.4)
        traces += run_lines(of_group, "test", f"{label}: test", colour)
    caption = (
        f"{task['operation']} modulo {task['p']}, {100 * task['train_fraction']:.0f} % of the "
        f"{task['p'] ** 2:,} equations trained on, learning rate {lr:g}. Dashed: accuracy on "
        "these; solid: on those held out. One line per seed."
    )
    axes = Axis("step", log=True, unit="count"), Axis("accuracy", range=(0.0, 1.04))
    return Figure("grokking", "Train and test accuracy", caption, *axes, traces)


STUDY = Study("grokking", "Grokking", analyze)
