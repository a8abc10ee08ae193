"""Grokking: equations that a model has learned by heart, and understands much later (Power 2022, arXiv 2201.02177).

Each run is dated twice: when it has 99 % of the equations that it trains on, and when it has 99 % of those held out. The steps in
between are the delay, which has laws: in the share of equations that is trained on, and in the weight decay.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from scaling.config import ModularTask
from scaling.errors import ScalingError
from scaling.studies import quadratic_network, runs
from scaling.studies.findings import Claim
from scaling.tasks import open_task
from scaling.tasks.corpus.token_store import SPLITS

LEVEL = 0.99
POLES = 400  # places that are tried for the share below which nothing is understood
RESAMPLES, SEED, CI = 1000, 0, 0.95
LEAST_RATIO, CONTROL_BELOW, CONTROL_TIMES = 5.0, 0.5, 2.0
WIDTHS = (16, 32, 64, 128, 256, 512)
MOST_P = 257  # p^3 logits: beyond it they take a GB of memory, and minutes
SETTING = ("p", "operation", "fraction", "decay", "lr", "rest")


@dataclass(frozen=True)
class Run:
    """A run's accuracy on both splits at its measured steps, arrays (n,), and what was asked of it; `rest` are model and task but for the share, as text."""

    run_id: str
    seed: int
    task: ModularTask
    decay: float
    lr: float
    rest: str
    step: np.ndarray
    train: np.ndarray
    test: np.ndarray

    @property
    def fraction(self) -> float:
        """The share of equations that is trained on."""
        return self.task.train_fraction

    @property
    def p(self) -> int:
        """The modulus."""
        return self.task.p

    @property
    def operation(self) -> str:
        """What the equations do."""
        return self.task.operation

    @property
    def learned(self) -> float | None:
        """The step at which the training equations are known."""
        return crossing(self.step, self.train)

    @property
    def understood(self) -> float | None:
        """The step at which the others are."""
        return crossing(self.step, self.test)

    @property
    def delay(self) -> float | None:
        """Steps between the two; None unless the second came later than the first."""
        first, second = self.learned, self.understood
        return (
            second - first if first is not None and second is not None and second > first else None
        )


def crossing(step: np.ndarray, accuracy: np.ndarray, level: float = LEVEL) -> float | None:
    """The first step at which an accuracy (n,) reaches a level: on a line in ln(step) between two measurements; None for never.

    A run that is there at its first measurement is dated then, which may be late.
    """
    reached = np.flatnonzero(accuracy >= level)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return float(step[0])
    share = (level - accuracy[at - 1]) / (accuracy[at] - accuracy[at - 1])
    return float(step[at - 1] * (step[at] / step[at - 1]) ** share)


def modular_runs(table: pd.DataFrame) -> list[Run]:
    """The modular runs of a results table whose accuracy is measured, ordered by share, decay, learning rate and seed."""
    table = runs.ended(table[table["task"] == "modular"])
    known = runs.configs(table)
    found = []
    accuracies = runs.trail(table, "accuracy", "train").merge(
        runs.trail(table, "accuracy"), on=["run_id", "seed", "step"]
    )
    for run_id, mine in accuracies.groupby("run_id"):
        config = known[str(run_id)]
        optim: dict[str, Any] = config["optim"]
        columns = (mine[name].to_numpy(float) for name in ("step", "value_x", "value_y"))
        task = ModularTask.model_validate(config["task"])
        rest = runs.without_seeds(
            {name: config[name] for name in ("model", "task")}, "train_fraction"
        )
        found.append(
            Run(
                str(run_id),
                int(config["seed"]),
                task,
                optim["weight_decay"],
                optim["lr"],
                rest,
                *columns,
            )
        )
    return sorted(found, key=lambda run: (run.fraction, run.decay, run.lr, run.seed))


@dataclass(frozen=True)
class Power:
    """delay = a (x - pole)^-b through points (n,), by least squares of ln(delay); each of a, b, pole is (value, lo, hi) at 95 %.

    The pole is 0 where it is not fitted, or where the runs do not tell it from 0: its upper end stays then. `left_out` counts runs that were not understood in their time, of which the law knows nothing.
    """

    x: np.ndarray
    delay: np.ndarray
    a: tuple[float, float, float]
    b: tuple[float, float, float]
    pole: tuple[float, float, float]
    r2: float
    left_out: int

    def at(self, x: np.ndarray) -> np.ndarray:
        """The delay in steps."""
        return np.asarray(self.a[0] * (x - self.pole[0]) ** -self.b[0])


def power(x: np.ndarray, delay: np.ndarray, *, with_pole: bool, left_out: int = 0) -> Power | None:
    """Fit `Power` to positive points (n,); None where distinct x are no more than the parameters.

    For every pole the rest is a straight line in logs, so a grid of poles holds the optimum (variable projection). Intervals are of
    refits to the law with residuals drawn anew, which are the seeds' and the misfit's, scaled by sqrt(n / (n - parameters)).
    """
    count = 3 if with_pole else 2
    if len(np.unique(x)) <= count:
        return None
    poles = np.linspace(0.0, 0.999 * float(x.min()), POLES) if with_pole else np.zeros(1)
    log_delay = np.log(delay)
    best = _lines(x, log_delay[None], poles)[0]
    expected = best[0] - best[1] * np.log(x - best[2])
    residual = (log_delay - expected) * math.sqrt(len(x) / (len(x) - count))
    drawn = np.random.default_rng(SEED).choice(residual, (RESAMPLES, len(x)))
    refits = _lines(x, expected + drawn - residual.mean(), poles)
    lo, hi = np.quantile(refits, [(1 - CI) / 2, (1 + CI) / 2], axis=0)
    a, b, pole = ((float(best[i]), float(lo[i]), float(hi[i])) for i in range(3))
    r2 = 1.0 - float(
        np.square(log_delay - expected).sum() / np.square(log_delay - log_delay.mean()).sum()
    )
    return Power(x, delay, (math.exp(a[0]), math.exp(a[1]), math.exp(a[2])), b, pole, r2, left_out)


def _lines(x: np.ndarray, y_RN: np.ndarray, poles_G: np.ndarray) -> np.ndarray:
    """(R, 3) of ln a, b and the pole that bring y (R, n) closest to ln a - b ln(x - pole) in squares."""
    z_GN = -np.log(x - poles_G[:, None])
    mean_G = z_GN.mean(axis=1)
    z_GN = z_GN - mean_G[:, None]
    squares_G = np.square(z_GN).sum(axis=1)
    slope_RG = y_RN @ z_GN.T / squares_G
    at = np.argmax(np.square(slope_RG) * squares_G, axis=1)
    slope = slope_RG[np.arange(len(at)), at]
    return np.stack([y_RN.mean(axis=1) - slope * mean_G[at], slope, poles_G[at]], axis=1)


@dataclass(frozen=True)
class Study:
    """What a table says of grokking. `typical` are the runs of the setting that the others vary, `control` the same without decay;
    the laws are None where too few settings differ, `others` counts runs that fit in nowhere.
    """

    typical: tuple[Run, ...]
    control: tuple[Run, ...]
    rates: tuple[Run, ...]
    by_fraction: Power | None
    by_decay: Power | None
    others: int

    @property
    def task(self) -> ModularTask:
        """The task of the typical runs."""
        return self.typical[0].task


def study(table: pd.DataFrame) -> Study | None:
    """Sort the runs of a table; None where it holds no modular run with weight decay."""
    found = modular_runs(table)
    decayed = [run for run in found if run.decay > 0]
    if not decayed:
        return None
    usual = {
        name: Counter(getattr(run, name) for run in decayed).most_common(1)[0][0]
        for name in SETTING
    }

    def alike(among: Sequence[Run], *but: str) -> list[Run]:
        return [
            run
            for run in among
            if all(getattr(run, name) == usual[name] for name in SETTING if name not in but)
        ]

    typical = alike(decayed)
    if not typical:
        return None
    control = [run for run in alike(found, "decay") if run.decay == 0]
    fractions, decays, rates = (
        alike(decayed, "fraction"),
        alike(decayed, "decay"),
        alike(decayed, "decay", "lr"),
    )
    seen = {run.run_id for run in (*control, *fractions, *rates)}
    return Study(
        tuple(typical),
        tuple(control),
        tuple(rates),
        _law(fractions, "fraction", with_pole=True),
        _law(decays, "decay", with_pole=False),
        len(found) - len(seen),
    )


def _law(among: Sequence[Run], field: str, *, with_pole: bool) -> Power | None:
    dated = [run for run in among if run.delay]
    x, delay = (
        np.array([getattr(run, field) for run in dated]),
        np.array([run.delay for run in dated], float),
    )
    left_out = len(among) - len(dated)
    law = power(x, delay, with_pole=with_pole, left_out=left_out) if dated else None
    if law is None or not with_pole or law.pole[1] > 0:
        return law
    plain = power(
        x, delay, with_pole=False, left_out=left_out
    )  # a pole that may be 0 only blurs the rest
    return plain and replace(plain, pole=(0.0, 0.0, law.pole[2]))


def findings(found: Study) -> list[Claim]:
    """The figures of the study: the delay, the control, the laws, and the closed-form network."""
    return [
        _late(found),
        *_control(found),
        *_fraction(found),
        *_decay(found),
        *_product(found),
        *_closed_form(found.task),
    ]


def _late(found: Study) -> Claim:
    figure, target = "steps to test 99 % over steps to train 99 %", f">= {LEAST_RATIO:g}"
    pairs = [(run.learned, run.understood) for run in found.typical]
    ratios = [second / first for first, second in pairs if first and second]
    if len(ratios) < len(pairs):
        steps = max(run.step.max() for run in found.typical)
        return Claim(
            figure,
            target,
            f"{len(pairs) - len(ratios)} of {len(pairs)} runs not there by step {steps:,.0f}",
            None,
        )
    first, second = (float(np.median([pair[i] for pair in pairs])) for i in (0, 1))
    reached = f"{np.median(ratios):.1f} (train at {first:.0f}, test at {second:.0f}; {len(pairs)} runs, {min(ratios):.1f} to {max(ratios):.1f})"
    return Claim(figure, target, reached, bool(np.median(ratios) >= LEAST_RATIO))


def _control(found: Study) -> list[Claim]:
    if not found.control:
        return []
    dates = [run.understood for run in found.typical if run.understood]
    highest = max(float(run.test.max()) for run in found.control)
    steps = min(float(run.step.max()) for run in found.control)
    times = steps / float(np.median(dates)) if dates else None
    told = f", {times:.1f} times the steps with it" if times else ""
    certain = bool(times and times >= CONTROL_TIMES) and all(run.learned for run in found.control)
    reached = f"{highest:.2f} by step {steps:,.0f}{told}"
    return [
        Claim(
            "highest test accuracy without weight decay",
            f"< {CONTROL_BELOW}",
            reached,
            highest < CONTROL_BELOW if certain else None,
        )
    ]


def interval(estimate: tuple[float, float, float], digits: int = 2) -> str:
    """0.24 [0.21, 0.26]."""
    value, lo, hi = (f"{number:.{digits}f}" for number in estimate)
    return f"{value} [{lo}, {hi}]"


def share_law(law: Power) -> str:
    """The law of the share in words, with f_c where it is known."""
    if law.pole[1] > 0:
        return f"a (f - f_c)^-b: f_c = {interval(law.pole, 3)}, b = {interval(law.b)}"
    return f"a f^-b: b = {interval(law.b)}, no f_c seen (it is below {law.pole[2]:.3f})"


def _fraction(found: Study) -> list[Claim]:
    law = found.by_fraction
    if law is None:
        return []
    reached = f"{share_law(law)}, R2 {law.r2:.3f}"
    return [
        Claim(
            "delay against the share f of equations trained on",
            "falls: b > 0",
            reached,
            law.b[1] > 0,
        )
    ]


def _decay(found: Study) -> list[Claim]:
    law = found.by_decay
    if law is None:
        return []
    reached = f"a decay^-b: b = {interval(law.b)}, R2 {law.r2:.3f}"
    return [
        Claim("delay against weight decay", "b = 1 within 0.3", reached, abs(law.b[0] - 1.0) <= 0.3)
    ]


def products(found: Study) -> list[tuple[float, float, float]]:
    """(decay, learning rate, median of delay x rate x decay) of every setting whose runs all were understood."""
    settings = sorted({(run.decay, run.lr) for run in found.rates})
    told = []
    for decay, lr in settings:
        delays = [run.delay for run in found.rates if (run.decay, run.lr) == (decay, lr)]
        if all(delays):
            told.append(
                (decay, lr, float(np.median([delay * lr * decay for delay in delays if delay])))
            )
    return told


def _product(found: Study) -> list[Claim]:
    held = [product for _, _, product in products(found)]
    if len(held) < 3:
        return []
    reached = f"{min(held):.1f} to {max(held):.1f} over {len(held)} settings"
    return [
        Claim(
            "delay x learning rate x weight decay",
            "constant within a factor of 2",
            reached,
            max(held) <= 2 * min(held),
        )
    ]


@functools.lru_cache(maxsize=8)
def closed_form(task: ModularTask) -> tuple[tuple[int, tuple[float, ...]], ...] | None:
    """(width, accuracies) of the closed-form network on all equations of a task; None where none is known, or p exceeds `MOST_P`."""
    if task.p > MOST_P:
        return None
    try:
        return tuple(quadratic_network.by_width(task, WIDTHS))
    except ScalingError:
        return None


def commutative_overlap(task: ModularTask) -> float | None:
    """The share of held-out equations whose mirror image b o a is trained on: all that is won by knowing that both are alike.

    None where the two are not.
    """
    if task.operation == "subtract":
        return None
    opened = open_task(task)
    train, held = (opened.batch(split, 0, opened.n_windows(split)) for split in SPLITS)
    known = np.zeros((task.p, task.p), bool)
    known[train[:, 0], train[:, 1]] = True
    return float(known[held[:, 1], held[:, 0]].mean())


def _closed_form(task: ModularTask) -> list[Claim]:
    held = closed_form(task)
    if held is None:
        return []
    widths = [width for width, drawn in held if min(drawn) == 1.0]
    narrow = f"{np.mean(held[0][1]):.2f} at width {held[0][0]}"
    reached = (
        f"1 from width {min(widths)} on, {narrow}"
        if widths
        else f"{np.mean(held[-1][1]):.4f} at width {held[-1][0]}, {narrow}"
    )
    figure = f"accuracy of the closed-form network on all {task.p**2:,} equations"
    return [
        Claim(
            figure,
            "1 where wide, less where narrow",
            reached,
            bool(widths and np.mean(held[0][1]) < 0.9),
        )
    ]
