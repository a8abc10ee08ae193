"""The loss as one power of parameters, of tokens, of compute, and the critical batch as a power of
the loss (Kaplan 2020).

Each is a line in logs without a floor, L = (X_c / X)^alpha, as in the paper; R2 and the largest
residual say how straight it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.config import TextTask
from scaling.config.sweep_file import load_run
from scaling.errors import BAD_INPUT, ScalingError
from scaling.fit.laws.published import published
from scaling.fit.special.critical_batch import ALPHA_B
from scaling.points.points import Points, points
from scaling.studies import runs
from scaling.studies.claims import Claim

MIN_POINTS = 4
CI = 0.95
MIN_R2 = 0.95  # from which a power law is said to describe the points
EARLY_STOPPED = "unique tokens, best loss along the run"


@dataclass(frozen=True)
class PowerFit:
    """y = exp(level) x^slope through points x, y (n,) by least squares in logs; [lo, hi] is
    Student's interval of the slope.
    """

    x: np.ndarray
    y: np.ndarray
    slope: float
    lo: float
    hi: float
    level: float
    r2: float

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The line."""
        return np.asarray(np.exp(self.level) * x**self.slope)

    @property
    def residuals(self) -> np.ndarray:
        """ln y less the line (n,)."""
        return np.asarray(np.log(self.y) - np.log(self.predict(self.x)))

    @property
    def exponent(self) -> tuple[float, float, float]:
        """-slope with its interval."""
        return -self.slope, -self.hi, -self.lo


@dataclass(frozen=True)
class KaplanLaw:
    """L = (X_c / X)^alpha: the letter X, what it counts, the fit, and Kaplan's exponent."""

    letter: str
    counted: str
    power: PowerFit
    published: float

    @property
    def scale(self) -> float:
        """X_c, where the loss is one nat."""
        return float(np.exp(-self.power.level / self.power.slope))


@dataclass(frozen=True)
class CriticalBatch:
    """B = B* / L^(1 / alpha_B) through noise scales in tokens against losses at the ends of runs
    (Kaplan 2020, eq. 5.3).

    `loss_before` and `noise_before` (m,) are from after warm-up and before the end: not fitted.
    """

    power: PowerFit
    loss_before: np.ndarray
    noise_before: np.ndarray

    @property
    def star(self) -> float:
        """B*, the batch in tokens at a loss of one nat."""
        return float(np.exp(self.power.level))


@dataclass(frozen=True)
class KaplanStudy:
    """Kaplan's laws in a folder; `share_improving` is the share of runs on limited text whose best
    loss is their last.
    """

    laws: tuple[KaplanLaw, ...]
    batch: CriticalBatch | None
    share_improving: float = 0.0


def analyze(rows: pd.DataFrame) -> KaplanStudy | None:
    """The laws of a folder of text runs of one of two designs; None for others, and where no law
    has `MIN_POINTS` points.

    Either a grid of sizes and tokens with gradient noise, or limited texts without fresh runs.
    """
    if rows.empty or set(rows["task"]) != {"text"}:
        return None
    limits, batch, share_improving = _unique_tokens(rows), _critical_batch(rows), 0.0
    if limits and None not in limits.values():
        laws = [_limited_law(rows, {run: limit for run, limit in limits.items() if limit})]
        share_improving = _share_improving(rows)
    elif batch is not None and not any(limits.values()):
        try:
            laws = _grid_laws(rows)
        except ScalingError as error:
            if error.exit_code != BAD_INPUT:
                raise
            return None  # several corpora, or no loss: there is nothing to compare
    else:
        return None
    fitted = tuple(law for law in laws if law is not None)
    return KaplanStudy(fitted, batch, share_improving) if fitted else None


def fit_power(x: np.ndarray, y: np.ndarray) -> PowerFit | None:
    """A line in logs through points (n,); None from fewer than `MIN_POINTS` points or one x."""
    from scipy.stats import linregress, t

    if len(x) < MIN_POINTS or np.ptp(np.log(x)) == 0.0:
        return None
    line = linregress(np.log(x), np.log(y))
    reach = float(t.ppf((1 + CI) / 2, len(x) - 2)) * float(line.stderr)
    slope = float(line.slope)
    r2 = float(line.rvalue) ** 2
    return PowerFit(x, y, slope, slope - reach, slope + reach, float(line.intercept), r2)


def _grid_laws(rows: pd.DataFrame) -> list[KaplanLaw | None]:
    """L(N) at the most tokens that all sizes have, in two conventions; L(D) at the largest size;
    L(C) along the lower edge.
    """
    bare, with_head = (
        _by_cell(points(rows, *convention))
        for convention in (("nonembedding", "kaplan"), ("with_head", "exact"))
    )
    n_sizes = bare.groupby("d")["n"].nunique()
    shared = n_sizes[n_sizes == bare["n"].nunique()]
    if not len(shared):
        return []  # where rounding of steps gives every size its own D
    most_tokens = float(shared.index.max())
    edge = bare[_lower_edge(bare["c"].to_numpy(), bare["loss"].to_numpy())]
    return [
        _law("N", "parameters without embeddings and head", bare[bare["d"] == most_tokens], "n"),
        _law("N", "parameters with head", with_head[with_head["d"] == most_tokens], "n"),
        _law("D", "tokens, all new, largest size", bare[bare["n"] == bare["n"].max()], "d"),
        _law("C", "FLOPs, 6 N D without embeddings and head, lower edge of all runs", edge, "c"),
    ]


def _by_cell(of_runs: Points) -> pd.DataFrame:
    """n, d, c and the loss of each size and amount, the geometric mean over seeds."""
    columns = {"n": of_runs.n, "d": of_runs.d, "c": of_runs.c, "loss": np.log(of_runs.loss)}
    means = pd.DataFrame(columns).groupby(["n", "d", "c"], as_index=False)["loss"].mean()
    return means.assign(loss=lambda cells: np.exp(cells["loss"]))


def _lower_edge(c: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Mask (n,) of the points that no cheaper one beats."""
    order = np.lexsort((loss, c))
    best = np.minimum.accumulate(loss[order])
    is_edge = np.zeros(len(c), bool)
    is_edge[order] = (loss[order] <= best) & np.r_[True, best[1:] < best[:-1]]
    return is_edge


def _law(letter: str, counted: str, cells: pd.DataFrame, column: str) -> KaplanLaw | None:
    cells = cells[np.isfinite(cells["loss"])]  # a run may have measured no number
    power = fit_power(cells[column].to_numpy(float), cells["loss"].to_numpy(float))
    if power is None:
        return None
    exponent = published(f"kaplan2020-{letter.lower()}").values[f"alpha_{letter}"]
    return KaplanLaw(letter, counted, power, float(exponent))


def _unique_tokens(rows: pd.DataFrame) -> dict[str, int | None]:
    """The unique tokens of each run, None without a limit."""
    first_rows = rows.drop_duplicates("run_id")
    tasks = {
        str(run_id): load_run(text, f"run {run_id}").task
        for run_id, text in zip(first_rows["run_id"], first_rows["config"], strict=True)
    }
    return {
        run_id: task.unique_tokens if isinstance(task, TextTask) else None
        for run_id, task in tasks.items()
    }


def _limited_law(rows: pd.DataFrame, limits: dict[str, int]) -> KaplanLaw | None:
    """L(D) of the largest size on limited texts: the lowest loss along each run, as early stopping
    would give.
    """
    losses = runs.metric_rows(rows, "loss")
    largest = losses[losses["n_params_nonembedding"] == losses["n_params_nonembedding"].max()]
    best = largest.groupby("run_id", as_index=False)["value"].min()
    unique = [limits[str(run_id)] for run_id in best["run_id"]]
    best = best.assign(unique=unique, value=np.log(best["value"]))
    cells = best.groupby("unique", as_index=False)["value"].mean()
    means = pd.DataFrame({"d": cells["unique"], "loss": np.exp(cells["value"])})
    return _law("D", EARLY_STOPPED, means, "d")


def _share_improving(rows: pd.DataFrame) -> float:
    """The share of runs that early stopping would not have stopped."""
    is_last_best = [
        bool(of_run["value"].iloc[-1] <= of_run["value"].min())
        for _, of_run in runs.metric_rows(rows, "loss").groupby("run_id")
    ]
    return float(np.mean(is_last_best))


def _critical_batch(rows: pd.DataFrame) -> CriticalBatch | None:
    """Noise scale against held-out loss at the ends of runs, and what was measured before; None
    where there is too little.

    The two are kept apart: the cooldown lowers the loss and raises the noise scale severalfold, so
    a line through both would be steeper than either.
    """
    noise = runs.metric_rows(rows, "noise_scale", "train")[["run_id", "step", "value"]]
    losses = runs.metric_rows(rows, "loss").rename(columns={"value": "loss"})
    joined = noise.rename(columns={"value": "noise"}).merge(losses, on=["run_id", "step"])
    if joined.empty:
        return None
    joined = runs.with_setting(joined, rows, "n_steps")
    joined = runs.with_setting(joined, rows, "optim.warmup_steps")
    at_end = joined["step"] == joined["n_steps"]
    loss, noise_scale = (joined.loc[at_end, name].to_numpy(float) for name in ("loss", "noise"))
    power = fit_power(loss, noise_scale)
    if power is None:
        return None
    before = joined[~at_end & (joined["step"] > joined["optim.warmup_steps"])]
    before = before.drop_duplicates(["n_params", "step", "seed"])
    return CriticalBatch(power, *(before[name].to_numpy(float) for name in ("loss", "noise")))


def claims(study: KaplanStudy) -> list[Claim]:
    """How straight each law is, with its exponent and Kaplan's; other data and sizes have other
    exponents.
    """
    made = [
        Claim(
            f"L({law.letter}) as one power, R2 in logs ({law.counted})",
            f"at least {MIN_R2:g}",
            f"{law.power.r2:.3f} with alpha_{law.letter} = {_interval(law.power.exponent)} "
            f"(Kaplan {law.published:g})",
            law.power.r2 >= MIN_R2,
        )
        for law in study.laws
    ]
    if study.batch is not None:
        exponent = study.batch.power.exponent
        made.append(
            Claim(
                "critical batch by gradient noise at the ends of runs, "
                "1/alpha_B of B = B* / L^(1/alpha_B)",
                "above 0: noise grows as loss falls",
                f"{_interval(exponent)} (Kaplan {1 / ALPHA_B:.2g})",
                exponent[1] > 0,
            )
        )
    return made


def _interval(estimate: Sequence[float]) -> str:
    value, lo, hi = estimate
    return f"{value:.3g} [{lo:.3g}, {hi:.3g}]"
