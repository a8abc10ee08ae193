"""Kaplan's side: the loss as one power of parameters, of tokens, of compute, and the critical batch as a power of the loss (Kaplan 2020).

Each is a line in logs without a floor, L = (X_c / X)^alpha, as he fits them; R2 and the largest residual say how far it is from one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.config import TextTask
from scaling.config.sweep_file import load_run
from scaling.errors import BAD_INPUT, ScalingError
from scaling.fit.frontier.frontier import fit_power
from scaling.fit.laws.published import published
from scaling.fit.special.critical_batch import ALPHA_B
from scaling.points.points import Points, points
from scaling.studies import runs
from scaling.studies.findings import Claim

LEAST = 4  # points of a line
CI = 0.95
FITS = 0.95  # R2 from which a power law is said to describe the points
LIMITED = "unique tokens, best loss along the run"


@dataclass(frozen=True)
class Power:
    """y = exp(level) x^slope through points x, y (n,) by least squares in logs.

    [lo, hi] is the interval of the slope by Student's t; `r2` and `residuals` (n,) are those of ln y.
    """

    x: np.ndarray
    y: np.ndarray
    slope: float
    lo: float
    hi: float
    level: float
    r2: float

    def at(self, x: np.ndarray) -> np.ndarray:
        """The line."""
        return np.asarray(np.exp(self.level) * x**self.slope)

    @property
    def residuals(self) -> np.ndarray:
        """ln y less the line."""
        return np.asarray(np.log(self.y) - np.log(self.at(self.x)))


@dataclass(frozen=True)
class Law:
    """L = (X_c / X)^alpha: what X is, its power, and Kaplan's exponent for it."""

    letter: str
    counted: str
    power: Power
    published: float

    @property
    def alpha(self) -> tuple[float, float, float]:
        """The exponent with its interval."""
        return -self.power.slope, -self.power.hi, -self.power.lo

    @property
    def crossing(self) -> float:
        """X_c, where the line says that the loss is one nat."""
        return float(np.exp(-self.power.level / self.power.slope))


@dataclass(frozen=True)
class CriticalBatch:
    """B = B* / L^(1 / alpha_B) through noise scales in tokens against losses at the ends of runs (Kaplan 2020, eq. 5.3).

    `loss_before` and `noise_before` (m,) are those after warm-up and before the end, which the line does not use.
    """

    power: Power
    loss_before: np.ndarray
    noise_before: np.ndarray

    @property
    def inverse_alpha(self) -> tuple[float, float, float]:
        """1 / alpha_B with its interval."""
        return -self.power.slope, -self.power.hi, -self.power.lo

    @property
    def star(self) -> float:
        """B*, the batch in tokens at a loss of one nat."""
        return float(np.exp(self.power.level))


@dataclass(frozen=True)
class Study:
    """What a folder shows of Kaplan's laws; `improving` is the share of runs on limited text whose best loss is their last."""

    laws: tuple[Law, ...]
    batch: CriticalBatch | None
    improving: float = 0.0


def study(table: pd.DataFrame) -> Study | None:
    """The laws of a folder that asks Kaplan's questions, runs on text alone: a grid of sizes and tokens with gradient noise, or one size
    on limited texts without fresh runs. None for other folders, and where no law has `LEAST` points.
    """
    if table.empty or set(table["task"]) != {"text"}:
        return None
    limits, noise, improving = _limits(table), _noise(table), 0.0
    if limits and None not in limits.values():
        laws = [_of_limited(table, {run: limit for run, limit in limits.items() if limit})]
        improving = _improving(table)
    elif noise is not None and not any(limits.values()):
        try:
            laws = _of_grid(table)
        except ScalingError as error:
            if error.exit_code != BAD_INPUT:
                raise
            return None  # several corpora, or no loss: there is nothing to compare
    else:
        return None
    held = tuple(law for law in laws if law is not None)
    return Study(held, noise, improving) if held else None


def through(x: np.ndarray, y: np.ndarray) -> Power | None:
    """A line in logs through points (n,); None from fewer than `LEAST` points or one x."""
    from scipy.stats import t

    if len(x) < LEAST or np.ptp(np.log(x)) == 0.0:
        return None
    log_x, log_y = np.log(x), np.log(y)
    centred = log_x - log_x.mean()
    slope, level = (float(value) for value in fit_power(log_x, log_y))
    rest = log_y - level - slope * log_x
    total = float(np.square(log_y - log_y.mean()).sum())
    reach = float(t.ppf((1 + CI) / 2, len(x) - 2)) * float(
        np.sqrt(rest @ rest / (len(x) - 2) / (centred @ centred))
    )
    r2 = 1.0 - float(rest @ rest) / total if total else 0.0
    return Power(x, y, slope, slope - reach, slope + reach, level, r2)


def _of_grid(table: pd.DataFrame) -> list[Law | None]:
    """L(N) at the most tokens that all sizes have, counted in two ways; L(D) at the largest size; L(C) along the lower edge of all."""
    bare, whole = (
        _by_cell(points(table, *convention))
        for convention in (("nonembedding", "kaplan"), ("with_head", "exact"))
    )
    most = _most_common(bare)
    if most is None:
        return []
    ample, largest, edge = (
        bare["d"] == most,
        bare["n"] == bare["n"].max(),
        _edge(bare["c"].to_numpy(), bare["loss"].to_numpy()),
    )
    return [
        _law("N", "parameters without embeddings and head", bare[ample], "n"),
        _law("N", "parameters with head", whole[whole["d"] == most], "n"),
        _law("D", "tokens, all new, largest size", bare[largest], "d"),
        _law(
            "C", "FLOPs, 6 N D without embeddings and head, lower edge of all runs", bare[edge], "c"
        ),
    ]


def _by_cell(held: Points) -> pd.DataFrame:
    """n, d, c and the loss of each size and amount, the geometric mean over seeds."""
    frame = pd.DataFrame({"n": held.n, "d": held.d, "c": held.c, "loss": np.log(held.loss)})
    return (
        frame.groupby(["n", "d", "c"], as_index=False)["loss"]
        .mean()
        .assign(loss=lambda cells: np.exp(cells["loss"]))
    )


def _most_common(cells: pd.DataFrame) -> float | None:
    """The most tokens that every size was trained on; where a rounding of steps tells sizes apart there are none."""
    shared = cells.groupby("d")["n"].nunique()
    whole = shared[shared == cells["n"].nunique()]
    return float(whole.index.max()) if len(whole) else None


def _edge(c: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Which points no cheaper one beats (n,)."""
    order = np.lexsort((loss, c))
    best = np.minimum.accumulate(loss[order])
    keep = np.zeros(len(c), bool)
    keep[order] = (loss[order] <= best) & np.r_[True, best[1:] < best[:-1]]
    return keep


def _law(letter: str, counted: str, cells: pd.DataFrame, column: str) -> Law | None:
    cells = cells[np.isfinite(cells["loss"])]  # a run may have measured no number
    power = through(cells[column].to_numpy(float), cells["loss"].to_numpy(float))
    return None if power is None else Law(letter, counted, power, _published(letter))


def _published(letter: str) -> float:
    return float(published(f"kaplan2020-{letter.lower()}").values[f"alpha_{letter}"])


def _limits(table: pd.DataFrame) -> dict[str, int | None]:
    """The unique tokens of each run, None without a limit."""
    firsts = table.drop_duplicates("run_id")
    tasks = {
        str(run_id): load_run(text, f"run {run_id}").task
        for run_id, text in zip(firsts["run_id"], firsts["config"], strict=True)
    }
    return {
        run_id: task.unique_tokens if isinstance(task, TextTask) else None
        for run_id, task in tasks.items()
    }


def _of_limited(table: pd.DataFrame, limits: dict[str, int]) -> Law | None:
    """L(D) of the largest size on limited texts: the lowest loss along each run, which is where early stopping would have stopped."""
    trail = runs.trail(table, "loss")
    largest = trail[trail["n_params_nonembedding"] == trail["n_params_nonembedding"].max()]
    best = largest.groupby("run_id", as_index=False)["value"].min()
    best = best.assign(
        unique=[limits[str(run_id)] for run_id in best["run_id"]], value=np.log(best["value"])
    )
    cells = best.groupby("unique", as_index=False)["value"].mean()
    return _law(
        "D", LIMITED, pd.DataFrame({"d": cells["unique"], "loss": np.exp(cells["value"])}), "d"
    )


def _improving(table: pd.DataFrame) -> float:
    """The share of runs that early stopping would not have stopped."""
    best = [
        bool(held["value"].iloc[-1] <= held["value"].min())
        for _, held in runs.trail(table, "loss").groupby("run_id")
    ]
    return float(np.mean(best))


def _noise(table: pd.DataFrame) -> CriticalBatch | None:
    """Noise scale against held-out loss at the ends of runs, and beside it what was measured before; None where there is too little.

    The two do not mix: cooling the learning rate down lowers the loss and raises the noise scale severalfold, so a line through both
    would be steeper than either.
    """
    noise = runs.trail(table, "noise_scale", "train")[["run_id", "step", "value"]].rename(
        columns={"value": "noise"}
    )
    joined = noise.merge(
        runs.trail(table, "loss").rename(columns={"value": "loss"}), on=["run_id", "step"]
    )
    if joined.empty:
        return None
    settings = runs.with_setting(
        runs.with_setting(joined, table, "n_steps"), table, "optim.warmup_steps"
    )
    at_end = settings["step"] == settings["n_steps"]
    power = through(*(settings.loc[at_end, name].to_numpy(float) for name in ("loss", "noise")))
    before = settings[
        ~at_end & (settings["step"] > settings["optim.warmup_steps"])
    ].drop_duplicates(["n_params", "step", "seed"])
    return (
        None
        if power is None
        else CriticalBatch(power, before["loss"].to_numpy(float), before["noise"].to_numpy(float))
    )


def findings(found: Study) -> list[Claim]:
    """How well each law is a power law, with its exponent beside Kaplan's; other data and sizes have other exponents."""
    told = [
        Claim(
            f"L({law.letter}) as one power, R2 in logs ({law.counted})",
            f"at least {FITS:g}",
            f"{law.power.r2:.3f} with alpha_{law.letter} = {_interval(law.alpha)} (Kaplan {law.published:g})",
            law.power.r2 >= FITS,
        )
        for law in found.laws
    ]
    if found.batch is not None:
        grows = found.batch.inverse_alpha
        told.append(
            Claim(
                "critical batch by gradient noise at the ends of runs, 1/alpha_B of B = B* / L^(1/alpha_B)",
                "above 0: noise grows as loss falls",
                f"{_interval(grows)} (Kaplan {1 / ALPHA_B:.2g})",
                grows[1] > 0,
            )
        )
    return told


def _interval(estimate: Sequence[float]) -> str:
    value, lo, hi = estimate
    return f"{value:.3g} [{lo:.3g}, {hi:.3g}]"
