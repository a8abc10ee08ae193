"""When each run fits its training equations and when it generalizes, and the laws of the delay
between the two.

Each run has two dates: when it reaches 99 % accuracy on the equations that it trains on, and on
those held out. The steps between are the delay, a function of the share of equations that is
trained on and of the weight decay (Power 2022, arXiv 2201.02177).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scaling.config import ModularTask
from scaling.studies import runs
from scaling.studies.grokking.closed_form import accuracy_by_width
from scaling.studies.grokking.delay_law import DelayLaw, fit_delay_law
from scaling.studies.study import Claim

ACCURACY = 0.99
MIN_STEP_RATIO = 5.0  # test date over train date
MAX_CONTROL_ACCURACY, MIN_CONTROL_STEP_RATIO = 0.5, 2.0  # of runs without weight decay


@dataclass(frozen=True)
class ModularRun:
    """Accuracy on both splits at the measured steps, arrays (n,); `other_settings` is model and
    task but for the share, as text.
    """

    run_id: str
    seed: int
    task: ModularTask
    decay: float
    lr: float
    other_settings: str
    step: np.ndarray
    train: np.ndarray
    test: np.ndarray

    @property
    def setting(self) -> dict[str, Any]:
        """What runs of one setting share: all but the seed."""
        return {
            "p": self.task.p,
            "operation": self.task.operation,
            "fraction": self.task.train_fraction,
            "decay": self.decay,
            "lr": self.lr,
            "other_settings": self.other_settings,
        }

    @property
    def train_fit_step(self) -> float | None:
        """The step at which the training equations are fitted (memorization)."""
        return first_step_at(self.step, self.train)

    @property
    def generalization_step(self) -> float | None:
        """The step at which the held-out equations are answered."""
        return first_step_at(self.step, self.test)

    @property
    def delay(self) -> float | None:
        """Steps between the two; None unless the second comes later than the first."""
        first, second = self.train_fit_step, self.generalization_step
        return None if first is None or second is None or second <= first else second - first


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


def modular_runs(rows: pd.DataFrame) -> list[ModularRun]:
    """The modular runs with measured accuracy, by share, decay, learning rate and seed."""
    rows = runs.without_diverged(rows[rows["task"] == "modular"])
    configs = runs.configs(rows)
    made = []
    accuracies = runs.metric_rows(rows, "accuracy", "train").merge(
        runs.metric_rows(rows, "accuracy"), on=["run_id", "seed", "step"]
    )
    for run_id, of_run in accuracies.groupby("run_id"):
        config = configs[str(run_id)]
        step, train, test = (
            of_run[name].to_numpy(float) for name in ("step", "value_x", "value_y")
        )
        made.append(
            ModularRun(
                run_id=str(run_id),
                seed=int(config["seed"]),
                task=ModularTask.model_validate(config["task"]),
                decay=config["optim"]["weight_decay"],
                lr=config["optim"]["lr"],
                other_settings=runs.config_without(
                    {name: config[name] for name in ("model", "task")},
                    "train_fraction",
                    "seed",
                    "data_seed",
                ),
                step=step,
                train=train,
                test=test,
            )
        )
    return sorted(made, key=lambda run: (run.task.train_fraction, run.decay, run.lr, run.seed))


@dataclass(frozen=True)
class GrokkingStudy:
    """`baseline` are the runs of the setting that the others vary, `control` the same without
    decay, `rates` vary decay and lr.

    A law is None where too few settings differ; `n_unused` counts runs that fit in nowhere.
    """

    baseline: tuple[ModularRun, ...]
    control: tuple[ModularRun, ...]
    rates: tuple[ModularRun, ...]
    by_fraction: DelayLaw | None
    by_decay: DelayLaw | None
    n_unused: int

    @property
    def task(self) -> ModularTask:
        """The task of the baseline runs."""
        return self.baseline[0].task


def analyze(rows: pd.DataFrame) -> GrokkingStudy | None:
    """Group the runs of a table; None where it holds no modular run with weight decay."""
    all_runs = modular_runs(rows)
    with_decay = [run for run in all_runs if run.decay > 0]
    if not with_decay:
        return None
    usual = {
        name: Counter(run.setting[name] for run in with_decay).most_common(1)[0][0]
        for name in with_decay[0].setting
    }

    def usual_but_for(among: Sequence[ModularRun], *fields: str) -> list[ModularRun]:
        names = [name for name in usual if name not in fields]
        return [run for run in among if all(run.setting[n] == usual[n] for n in names)]

    baseline = usual_but_for(with_decay)
    if not baseline:
        return None
    control = [run for run in usual_but_for(all_runs, "decay") if run.decay == 0]
    fractions = usual_but_for(with_decay, "fraction")
    rates = usual_but_for(with_decay, "decay", "lr")
    used = {run.run_id for run in (*control, *fractions, *rates)}
    return GrokkingStudy(
        baseline=tuple(baseline),
        control=tuple(control),
        rates=tuple(rates),
        by_fraction=_law(fractions, "fraction", with_pole=True),
        by_decay=_law(usual_but_for(with_decay, "decay"), "decay", with_pole=False),
        n_unused=len(all_runs) - len(used),
    )


def _law(among: Sequence[ModularRun], field: str, *, with_pole: bool) -> DelayLaw | None:
    dated = [run for run in among if run.delay]
    if not dated:
        return None
    x = np.array([run.setting[field] for run in dated])
    delay = np.array([run.delay for run in dated], float)
    return fit_delay_law(x, delay, with_pole=with_pole, n_censored=len(among) - len(dated))


def claims(study: GrokkingStudy) -> list[Claim]:
    """The delay, the control without decay, the two laws, their product, and the closed-form
    network.
    """
    return [
        _delay_claim(study),
        *_control_claim(study),
        *_law_claims(study),
        *_closed_form_claim(study),
    ]


def _delay_claim(study: GrokkingStudy) -> Claim:
    quantity, expected = "steps to test 99 % over steps to train 99 %", f">= {MIN_STEP_RATIO:g}"
    dates = [(run.train_fit_step, run.generalization_step) for run in study.baseline]
    ratios = [second / first for first, second in dates if first and second]
    n_late = len(dates) - len(ratios)
    if n_late:
        steps = max(run.step.max() for run in study.baseline)
        measured = f"{n_late} of {len(dates)} runs not there by step {steps:,.0f}"
        return Claim(quantity, expected, measured, None)
    train, test = (float(np.median([date[i] for date in dates])) for i in (0, 1))
    measured = (
        f"{np.median(ratios):.1f} (train at {train:.0f}, test at {test:.0f}; "
        f"{len(dates)} runs, {min(ratios):.1f} to {max(ratios):.1f})"
    )
    return Claim(quantity, expected, measured, bool(np.median(ratios) >= MIN_STEP_RATIO))


def _control_claim(study: GrokkingStudy) -> Iterator[Claim]:
    if not study.control:
        return
    dates = [run.generalization_step for run in study.baseline if run.generalization_step]
    highest = max(float(run.test.max()) for run in study.control)
    steps = min(float(run.step.max()) for run in study.control)
    ratio = steps / float(np.median(dates)) if dates else None
    compared = f", {ratio:.1f} times the steps with it" if ratio else ""
    is_long = bool(ratio and ratio >= MIN_CONTROL_STEP_RATIO)
    decides = is_long and all(run.train_fit_step for run in study.control)
    yield Claim(
        "highest test accuracy without weight decay",
        f"< {MAX_CONTROL_ACCURACY}",
        f"{highest:.2f} by step {steps:,.0f}{compared}",
        highest < MAX_CONTROL_ACCURACY if decides else None,
    )


def describe_fraction_law(law: DelayLaw) -> str:
    """The law of the share in words, with f_c where it is known."""
    if law.pole.lo > 0:
        return f"a (f - f_c)^-b: f_c = {law.pole:.3f}, b = {law.b:.2f}"
    return f"a f^-b: b = {law.b:.2f}, no f_c seen (it is below {law.pole.hi:.3f})"


def _law_claims(study: GrokkingStudy) -> Iterator[Claim]:
    if (law := study.by_fraction) is not None:
        yield Claim(
            "delay against the share f of equations trained on",
            "falls: b > 0",
            f"{describe_fraction_law(law)}, R2 {law.r2:.3f}",
            law.b.lo > 0,
        )
    if (law := study.by_decay) is not None:
        yield Claim(
            "delay against weight decay",
            "b = 1 within 0.3",
            f"a decay^-b: b = {law.b:.2f}, R2 {law.r2:.3f}",
            abs(law.b.value - 1.0) <= 0.3,
        )
    values = [product for _, _, product in products(study)]
    if len(values) >= 3:
        yield Claim(
            "delay x learning rate x weight decay",
            "constant within a factor of 2",
            f"{min(values):.1f} to {max(values):.1f} over {len(values)} settings",
            max(values) <= 2 * min(values),
        )


def products(study: GrokkingStudy) -> list[tuple[float, float, float]]:
    """(decay, learning rate, median of delay x rate x decay) of every setting whose runs all
    generalized.
    """
    made = []
    for decay, lr in sorted({(run.decay, run.lr) for run in study.rates}):
        delays = [run.delay for run in study.rates if (run.decay, run.lr) == (decay, lr)]
        if all(delays):
            median = float(np.median([delay * lr * decay for delay in delays if delay]))
            made.append((decay, lr, median))
    return made


def _closed_form_claim(study: GrokkingStudy) -> Iterator[Claim]:
    by_width = accuracy_by_width(study.task)
    if by_width is None:
        return
    exact_widths = [width for width, accuracies in by_width if min(accuracies) == 1.0]
    narrowest = float(np.mean(by_width[0][1]))
    narrow = f"{narrowest:.2f} at width {by_width[0][0]}"
    width, accuracies = by_width[-1]
    yield Claim(
        f"accuracy of the closed-form network on all {study.task.p**2:,} equations",
        "1 where wide, less where narrow",
        f"1 from width {min(exact_widths)} on, {narrow}"
        if exact_widths
        else f"{np.mean(accuracies):.4f} at width {width}, {narrow}",
        bool(exact_widths and narrowest < 0.9),
    )
