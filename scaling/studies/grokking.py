"""When each run fits its training equations, when it generalizes, and the laws of the delay.

The dates are those of 99 % accuracy on either; the steps between are the delay, a function of the
share of equations trained on and of the weight decay (Power 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas import DataFrame

from scaling.config import ModularTask
from scaling.render.figure import Axis, Figure, ReferenceLine, Trace
from scaling.render.table import Table
from scaling.studies import runs
from scaling.studies.study import (
    Claim,
    PowerLaw,
    Study,
    fit_power_law,
    left_out_note,
    record_table,
    run_lines,
)

ACCURACY = 0.99
MIN_STEP_RATIO = 5.0  # test date over train date
MAX_CONTROL_ACCURACY, MIN_CONTROL_STEP_RATIO = 0.5, 2.0  # of runs without weight decay
SETTING = ["fraction", "decay", "lr", "other"]


@dataclass(frozen=True)
class GrokkingStudy:
    """Accuracies along the runs (`train`, `test`), every run's dates (`table`), and the laws of the
    delay, None where too few settings differ.

    `baseline` runs have the setting that the others vary, `control` no decay, `rates` vary decay
    and lr; `n_unused` fit in nowhere.
    """

    curves: DataFrame
    table: DataFrame
    task: ModularTask
    baseline: DataFrame
    control: DataFrame
    rates: DataFrame
    by_fraction: PowerLaw | None
    by_decay: PowerLaw | None
    n_unused: int


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


def analyze(rows: DataFrame) -> GrokkingStudy | None:
    """Group the runs of a table; None where it holds no modular run with weight decay."""
    rows = rows[rows["task"] == "modular"]
    curves = runs.along(rows, train=("accuracy", "train"), test="accuracy")
    table = modular_runs(rows, curves)
    decayed = table[table["decay"] > 0]
    usual = {name: decayed[name].mode().head(1) for name in SETTING}

    def usual_but_for(among: DataFrame, *fields: str) -> DataFrame:
        for name in set(SETTING).difference(fields):
            among = among[among[name].isin(usual[name])]
        return among

    def law(field: str) -> PowerLaw | None:
        dated = usual_but_for(decayed, field).dropna(subset="delay")
        return fit_power_law(dated[field].to_numpy(), dated["delay"].to_numpy())

    baseline = usual_but_for(decayed)
    if baseline.empty:
        return None
    control = usual_but_for(table[table["decay"] == 0], "decay")
    rates = usual_but_for(decayed, "decay", "lr")
    used = pd.concat([control, usual_but_for(decayed, "fraction"), rates])
    config = runs.configs(rows)[baseline["run_id"].iloc[0]]
    return GrokkingStudy(
        curves=curves,
        table=table,
        task=ModularTask.model_validate(config["task"]),
        baseline=baseline,
        control=control,
        rates=rates,
        by_fraction=law("fraction"),
        by_decay=law("decay"),
        n_unused=len(table) - used["run_id"].nunique(),
    )


def claims(study: GrokkingStudy) -> Iterator[Claim]:
    """The delay, the control without decay, the two laws and their product."""
    baseline, control = study.baseline, study.control
    ratio = baseline["generalized"] / baseline["fitted"]
    train, test = baseline[["fitted", "generalized"]].median()
    spread = f"{len(ratio)} runs, {ratio.min():.1f} to {ratio.max():.1f}"
    measured = f"{ratio.median():.1f} (train at {train:.0f}, test at {test:.0f}; {spread})"
    if n_late := int(ratio.isna().sum()):
        measured = f"{n_late} of {len(ratio)} runs not there by step {baseline['steps'].max():,.0f}"
    holds = None if n_late else bool(ratio.median() >= MIN_STEP_RATIO)
    quantity = "steps to test 99 % over steps to train 99 %"
    yield Claim(quantity, f">= {MIN_STEP_RATIO:g}", measured, holds)
    if len(control):
        highest, steps = control["highest"].max(), control["steps"].min()
        is_long = steps >= MIN_CONTROL_STEP_RATIO * test and control["fitted"].notna().all()
        measured = f"{highest:.2f} by step {steps:,.0f}"
        holds = bool(highest < MAX_CONTROL_ACCURACY) if is_long else None
        quantity, expected = "highest test accuracy without weight decay", MAX_CONTROL_ACCURACY
        yield Claim(quantity, f"< {expected}", measured, holds)
    if (law := study.by_fraction) is not None:
        quantity = "delay a f^-b, f the share trained on"
        yield Claim(quantity, "b > 0", f"b = {law}, {len(law.x)} runs", law.slope.hi < 0)
    if (law := study.by_decay) is not None:
        is_near, quantity = abs(law.slope.value + 1) <= 0.3, "delay a decay^-b"
        yield Claim(quantity, "b = 1 within 0.3", f"b = {law}, {len(law.x)} runs", is_near)
    product = study.rates["delay"] * study.rates["lr"] * study.rates["decay"]
    rates = product.groupby([study.rates["decay"], study.rates["lr"]])
    values = rates.median()[rates.count() == rates.size()]  # of settings that all generalized
    if len(values) >= 3:
        measured = f"{values.min():.1f} to {values.max():.1f} over {len(values)} settings"
        quantity, holds = "delay x learning rate x weight decay", values.max() <= 2 * values.min()
        yield Claim(quantity, "constant within a factor of 2", measured, bool(holds))


def notes(study: GrokkingStudy) -> list[str]:
    """What these runs show; which of them are not shown."""
    late = study.baseline.dropna(subset="delay")
    said = "No run answers the held-out equations (solid) later than those trained on (dashed)."
    if len(late):
        ratio = (late["generalized"] / late["fitted"]).median()
        said = (
            f"{len(late)} of {len(study.baseline)} runs with weight decay answer the held-out "
            f"equations (solid) after {ratio:.1f} times the steps of those trained on (dashed)."
        )
    return [said, *left_out_note(study.n_unused)]


def figures(study: GrokkingStudy) -> Iterator[Figure]:
    """Both accuracies of every baseline run and of the control."""
    task, (decay, lr) = study.task, study.baseline[["decay", "lr"]].iloc[0]
    traces: list[Trace] = [ReferenceLine(y=ACCURACY)]
    groups = {f"decay {decay:g}": study.baseline, "no decay": study.control}
    for colour, (label, among) in enumerate(groups.items()):
        curves = study.curves[study.curves["run_id"].isin(among["run_id"])]
        traces += run_lines(curves, "train", f"{label}: train", colour, "dash", 1.4)
        traces += run_lines(curves, "test", f"{label}: test", colour)
    caption = (
        f"{task.operation} modulo {task.p}, {task.train_fraction:.0%} of the {task.p**2:,} "
        f"equations trained on, learning rate {lr:g}. Dashed: accuracy on these; solid: on "
        "those held out. One line per seed."
    )
    axes = Axis("step", log=True, unit="count"), Axis("accuracy", range=(0.0, 1.04))
    yield Figure("grokking", "Train and test accuracy", caption, *axes, traces)


def table(study: GrokkingStudy) -> Table | None:
    """Every run with its dates."""
    columns = ["seed", *SETTING[:3], "fitted", "generalized", "delay", "highest"]
    caption = f"The steps of {ACCURACY:.0%} on training and held-out equations; the best of these."
    records = study.table[columns].to_dict("records")
    return record_table("grokking", "Dates of each run", records, caption)


STUDY = Study("grokking", "Grokking", analyze, claims, figures, table, notes)
