"""When each run fits its training equations and when it generalizes, and the laws of the delay
between the two.

Each run has two dates: when it reaches 99 % accuracy on the equations that it trains on, and on
those held out. The steps between are the delay, a function of the share of equations that is
trained on and of the weight decay (Power 2022, arXiv 2201.02177).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from pandas import DataFrame

from scaling.config import ModularTask
from scaling.render.figure import Axis, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import number
from scaling.studies import runs
from scaling.studies.power_law import DelayLaw, fit_delay_law
from scaling.studies.study import Claim, Interval, Study, run_lines
from scaling.tasks import open_task
from scaling.tasks.corpus.token_store import SPLITS

ACCURACY = 0.99
MIN_STEP_RATIO = 5.0  # test date over train date
MAX_CONTROL_ACCURACY, MIN_CONTROL_STEP_RATIO = 0.5, 2.0  # of runs without weight decay
WIDTHS = (16, 32, 64, 128, 256, 512)
MAX_P = 257  # p^3 logits: larger p take over a GB of memory, and minutes
SIGNS = {"add": 1, "subtract": -1}  # of b
SEEDS = (0, 1, 2)
SETTING = ["fraction", "decay", "lr", "other"]
ACCURACY_AXIS = Axis("accuracy", range=(0.0, 1.04))
DELAY_AXIS = Axis("delay in steps", log=True, unit="count")
DELAY = f"Steps from {ACCURACY:.0%} accuracy on training to {ACCURACY:.0%} on held-out equations."


def network_logits(p: int, width: int, operation: str = "add", seed: int = 0) -> np.ndarray:
    """Logits (p, p, p) of every c for every a and b: about 1 at the answer, else 0.

    The network of Gromov 2023, "Grokking modular arithmetic" (arXiv 2301.02679): two layers with a
    square between them. Unit k has the frequency sigma(k), a permutation of the units taken modulo
    p, and random phases f_a, f_b: it squares cos(2 pi sigma a / p + f_a) + cos(2 pi sigma b / p +
    f_b), and is read by cos(2 pi sigma c / p + f_a + f_b). Of the products only
    cos(2 pi sigma (a + b - c) / p) is free of phases, and adds up over the units; the logits are
    divided by its sum, W / 2, and exact in the limit of infinite width W.
    """
    random = np.random.default_rng(seed)
    waves = 2.0 * np.pi / p * (random.permutation(width) % p)
    phases = random.uniform(0.0, 2.0 * np.pi, (2, 1, width))
    angles = np.arange(p)[:, None] * waves
    first_a, first_b = np.cos(angles + phases[0]), np.cos(SIGNS[operation] * angles + phases[1])
    second = np.cos(angles + phases.sum(axis=0)).T * 2.0 / width
    return np.asarray(np.square(first_a[:, None] + first_b) @ second)


def network_accuracy(p: int, width: int, operation: str = "add", seed: int = 0) -> float:
    """The share of all p^2 equations that the network answers."""
    a, b = np.mgrid[:p, :p]
    logits = network_logits(p, width, operation, seed)
    return float((logits.argmax(axis=-1) == (a + SIGNS[operation] * b) % p).mean())


@functools.lru_cache(maxsize=8)
def accuracy_by_width(task: ModularTask) -> dict[int, Interval] | None:
    """The network's accuracy by width, mean and range over draws of phases; None where no closed
    form is known, or p exceeds `MAX_P`.
    """
    p, operation = task.p, task.operation
    if p > MAX_P or operation not in SIGNS:
        return None
    return {
        width: Interval.of_range([network_accuracy(p, width, operation, seed) for seed in SEEDS])
        for width in WIDTHS
    }


def commutative_overlap(task: ModularTask) -> float | None:
    """The share of held-out equations a o b whose mirror image b o a is trained on; None where the
    two differ.

    It is the accuracy of knowing that the order does not matter, and no more.
    """
    if task.operation == "subtract":
        return None
    opened = open_task(task)
    train, val = (opened.batch(split, 0, opened.n_windows(split)) for split in SPLITS)
    is_trained = np.zeros((task.p, task.p), bool)
    is_trained[train[:, 0], train[:, 1]] = True
    return float(is_trained[val[:, 1], val[:, 0]].mean())


@dataclass(frozen=True)
class GrokkingStudy:
    """Accuracies along the runs, `train` and `test`, and the laws of the delay.

    `baseline` are the runs of the setting that the others vary, `control` the same without decay,
    `rates` vary decay and lr (tables as of `modular_runs`). A law is None where too few settings
    differ; `n_unused` counts runs that fit in nowhere.
    """

    curves: DataFrame
    task: ModularTask
    baseline: DataFrame
    control: DataFrame
    rates: DataFrame
    by_fraction: DelayLaw | None
    by_decay: DelayLaw | None
    n_unused: int


def first_step_at(step: np.ndarray, accuracy: np.ndarray) -> float | None:
    """The first step at which an accuracy (n,) reaches ACCURACY, linear in ln(step) between
    measurements; None for never.

    A run that is there at its first measurement is dated then, which may be late.
    """
    reached = np.flatnonzero(accuracy >= ACCURACY)
    if not len(reached):
        return None
    i = int(reached[0])
    if i == 0:
        return float(step[0])
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
        optim, settings = config["optim"], {name: config[name] for name in ("model", "task")}
        other = runs.config_without(settings, "train_fraction", *runs.SEEDS)
        setting = (settings["task"]["train_fraction"], optim["weight_decay"], optim["lr"], other)
        dates = (
            first_step_at(run["step"].to_numpy(), run[split].to_numpy())
            for split in ("train", "test")
        )
        made.append(
            (run_id, run["seed"].iloc[0], *setting, *dates, run["test"].max(), run["step"].max())
        )
    names = ["run_id", "seed", *SETTING, "fitted", "generalized", "highest", "steps"]
    table = DataFrame(made, columns=names).astype({"fitted": float, "generalized": float})
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

    baseline = usual_but_for(decayed)
    if baseline.empty:
        return None
    control = usual_but_for(table[table["decay"] == 0], "decay")
    fractions = usual_but_for(decayed, "fraction")
    rates = usual_but_for(decayed, "decay", "lr")
    used = pd.concat([control, fractions, rates])["run_id"].nunique()
    config = runs.configs(rows)[baseline["run_id"].iloc[0]]
    return GrokkingStudy(
        curves=curves,
        task=ModularTask.model_validate(config["task"]),
        baseline=baseline,
        control=control,
        rates=rates,
        by_fraction=_law(fractions, "fraction", with_pole=True),
        by_decay=_law(usual_but_for(decayed, "decay"), "decay", with_pole=False),
        n_unused=len(table) - used,
    )


def _law(among: DataFrame, field: str, *, with_pole: bool) -> DelayLaw | None:
    x, delay = among.dropna(subset="delay")[[field, "delay"]].to_numpy().T
    law = fit_delay_law(x, delay, with_pole=with_pole)
    return law and replace(law, n_censored=len(among) - len(x))


def claims(study: GrokkingStudy) -> Iterator[Claim]:
    """The delay, the control without decay, the two laws, their product, and the closed-form
    network.
    """
    baseline, control = study.baseline, study.control
    ratio = baseline["generalized"] / baseline["fitted"]
    n_runs, n_late = len(ratio), int(ratio.isna().sum())
    measured = f"{n_late} of {n_runs} runs not there by step {baseline['steps'].max():,.0f}"
    holds = None
    if not n_late:
        train, test = baseline[["fitted", "generalized"]].median()
        measured = (
            f"{ratio.median():.1f} (train at {train:.0f}, test at {test:.0f}; "
            f"{n_runs} runs, {ratio.min():.1f} to {ratio.max():.1f})"
        )
        holds = bool(ratio.median() >= MIN_STEP_RATIO)
    quantity = "steps to test 99 % over steps to train 99 %"
    yield Claim(quantity, f">= {MIN_STEP_RATIO:g}", measured, holds)
    if len(control):
        highest, steps = control["highest"].max(), control["steps"].min()
        times = steps / baseline["generalized"].median()  # nan where no run generalized
        compared = f", {times:.1f} times the steps with it" if times > 0 else ""
        decides = times >= MIN_CONTROL_STEP_RATIO and control["fitted"].notna().all()
        yield Claim(
            "highest test accuracy without weight decay",
            f"< {MAX_CONTROL_ACCURACY}",
            f"{highest:.2f} by step {steps:,.0f}{compared}",
            bool(highest < MAX_CONTROL_ACCURACY) if decides else None,
        )
    if (law := study.by_fraction) is not None:
        measured = f"{describe_fraction_law(law)}, R2 {law.r2:.3f}"
        quantity = "delay against the share f of equations trained on"
        yield Claim(quantity, "falls: b > 0", measured, law.b.lo > 0)
    if (law := study.by_decay) is not None:
        measured, is_one = f"a decay^-b: b = {law.b:.2f}, R2 {law.r2:.3f}", abs(law.b.value - 1)
        yield Claim("delay against weight decay", "b = 1 within 0.3", measured, is_one <= 0.3)
    if len(values := products(study)) >= 3:
        yield Claim(
            "delay x learning rate x weight decay",
            "constant within a factor of 2",
            f"{values.min():.1f} to {values.max():.1f} over {len(values)} settings",
            bool(values.max() <= 2 * values.min()),
        )
    if (by_width := accuracy_by_width(study.task)) is not None:
        exact = [width for width, accuracy in by_width.items() if accuracy.lo == 1.0]
        narrow, wide = by_width[WIDTHS[0]].value, by_width[WIDTHS[-1]].value
        reached = f"{wide:.4f} at width {WIDTHS[-1]}"
        if exact:
            reached = f"1 from width {min(exact)} on"
        yield Claim(
            f"accuracy of the closed-form network on all {study.task.p**2:,} equations",
            "1 where wide, less where narrow",
            f"{reached}, {narrow:.2f} at width {WIDTHS[0]}",
            bool(exact and narrow < 0.9),
        )


def products(study: GrokkingStudy) -> pd.Series:
    """The median of delay x rate x decay of every setting whose runs all generalized."""
    rates = study.rates
    product = rates.assign(product=rates["delay"] * rates["lr"] * rates["decay"])
    by_setting = product.groupby(["decay", "lr"])["product"]
    return by_setting.median()[by_setting.count() == by_setting.size()]


def describe_fraction_law(law: DelayLaw) -> str:
    """The law of the share in words, with f_c where it is known."""
    if law.pole.lo > 0:
        return f"a (f - f_c)^-b: f_c = {law.pole:.3f}, b = {law.b:.2f}"
    return f"a f^-b: b = {law.b:.2f}, no f_c seen (it is below {law.pole.hi:.3f})"


def notes(study: GrokkingStudy) -> list[str]:
    """Three sentences on what these runs show; one more where some of them are not shown."""
    baseline, goal = study.baseline, f"{ACCURACY:.0%}"
    dated = baseline.dropna(subset="delay")
    if len(dated):
        ratio = (dated["generalized"] / dated["fitted"]).median()
        all_runs = len(dated) == len(baseline)
        some = "" if all_runs else f" in {len(dated)} of {len(baseline)} runs"
        first = (
            f"The model fits {goal} of its training equations (dashed) before it answers as many "
            f"of those held out (solid), which takes {ratio:.1f} times the steps{some}."
        )
    elif baseline["generalized"].notna().any():
        first = (
            f"The model answers {goal} of the held-out equations (solid) no later than those "
            "trained on (dashed)."
        )
    else:
        first = (
            f"The model does not answer {goal} of the held-out equations (solid) within these "
            "steps."
        )
    never = len(study.control) and study.control["generalized"].isna().all()
    without = ", and without decay that does not happen within these steps" if never else ""
    second = (
        "Weight decay goes on shrinking the weights after the training equations are fitted, until "
        f"the solution for all equations is the cheaper one (Varma 2023){without}."
    )
    widths, third = accuracy_by_width(study.task) or {}, ""
    if all(law is not None and law.b.lo > 0 for law in (study.by_fraction, study.by_decay)):
        third = (
            "The delay is longer where fewer equations are shown and where the decay is weaker; "
            "the lines are the laws fitted to both."
        )
    elif any(accuracy.lo == 1.0 for accuracy in widths.values()):
        third = (
            "A network whose weights are given in closed form, not trained, answers all equations, "
            "so it is the learning that is late."
        )
    else:
        third = "These runs do not show how the delay depends on the share and on the decay."
    unused = f"{study.n_unused} runs of further settings are not in these figures."
    return [first, second, third, *([unused] if study.n_unused else [])]


def figures(study: GrokkingStudy) -> Iterator[Figure]:
    """Both accuracies of every baseline run and of the control; both laws; the closed form."""
    task, (decay, lr) = study.task, study.baseline[["decay", "lr"]].iloc[0]
    traces: list[Trace] = [ReferenceLine(y=ACCURACY, label=f"{ACCURACY:.0%}")]
    for colour, (label, among) in enumerate(
        ((f"decay {decay:g}", study.baseline), ("no decay", study.control))
    ):
        curves = study.curves[study.curves["run_id"].isin(among["run_id"])]
        traces += run_lines(curves, "train", f"{label}: train", colour, "dash", 1.4)
        traces += run_lines(curves, "test", f"{label}: test", colour)
    caption = (
        f"{task.operation} modulo {task.p}, {task.train_fraction:.0%} of the {task.p**2:,} "
        f"equations trained on, learning rate {lr:g}. Dashed: accuracy on these; solid: on "
        "those held out. One line per seed."
    )
    if (overlap := commutative_overlap(task)) is not None:
        traces.append(ReferenceLine(y=overlap, label="mirror images"))
        caption += (
            f" {overlap:.0%} of those held out are mirror images of ones trained on: knowing that "
            "the order of a and b does not matter brings accuracy there and no further."
        )
    title, axes = "Train and test accuracy", (Axis("step", log=True, unit="count"), ACCURACY_AXIS)
    yield Figure("grokking", title, caption, *axes, traces)
    if (law := study.by_fraction) is not None:
        title, x = "the share of equations trained on", Axis("share f of equations trained on")
        letter = "f" if law.pole.lo <= 0 else "(f - f_c)"
        caption = f"The law is {describe_fraction_law(law)}"
        yield _delay_figure(law, "fraction", title, caption, x, letter)
    if (law := study.by_decay) is not None:
        caption = f"The power is b = {law.b:.2f}; at b = 1 the delay times the decay is constant"
        x = Axis("weight decay", log=True)
        yield _delay_figure(law, "decay", x.label, caption, x, "decay")
    if (by_width := accuracy_by_width(task)) is not None:
        widths, (mean, lo, hi) = [float(w) for w in by_width], zip(*by_width.values(), strict=True)
        caption = (
            f"Accuracy on all {task.p**2:,} equations of the network whose weights are given in "
            "closed form, not trained (Gromov 2023): mean and range of three draws of its phases. "
            "A wide enough network solves the task exactly."
        )
        points = Markers(widths, mean, "", 2, lo=lo, hi=hi)
        axes = Axis("width", log=True, unit="count"), ACCURACY_AXIS
        traces, title = [Line(widths, mean, "", 2, "dot", 1.4), points], "The closed-form network"
        yield Figure("grokking-closed-form", title, caption, *axes, traces)


def _delay_figure(
    law: DelayLaw, name: str, against: str, caption: str, x_axis: Axis, letter: str
) -> Figure:
    """The delay of each run, and the law."""
    x, caption = np.geomspace(law.x.min(), law.x.max(), 80), f"{DELAY} {caption}."
    if n := law.n_censored:
        runs, are = ("run", "is") if n == 1 else ("runs", "are")
        caption += f" {n} {runs} that did not get there in time {are} not in the law."
    line = law.a.value * (x - law.pole.value) ** -law.b.value
    traces: list[Trace] = [
        Line(x, line, f"{number(law.a.value, 3)} {letter}^-b", "ink", "dash"),
        Markers(law.x, law.delay, "runs", 0),
    ]
    if law.pole.lo > 0:
        traces.append(ReferenceLine(x=law.pole.value, label="f_c"))
    title = f"Delay against {against}"
    return Figure(f"grokking-{name}", title, caption, x_axis, DELAY_AXIS, traces)


STUDY = Study("grokking", "Grokking", analyze, claims, figures, lambda study: (), notes)
