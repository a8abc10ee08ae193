"""Emergence: is a sudden ability sudden in the model, or in the metric that looks at it?

Schaeffer, Miranda and Koyejo 2023 ("Are emergent abilities of large language models a mirage?", section 2): a metric that wants all of an
answer right is about the product of what the single tokens reach, so it can look sharp while each token improves smoothly. Here the
same checkpoints are read under several metrics, and what is sharp in log-likelihood too is called a transition of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points
from scaling.studies import runs
from scaling.studies.findings import Claim

Array = np.ndarray
NAMES: Mapping[str, str] = {
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "edit_distance": "edit distance",
    "brier": "Brier score",
    "answer_nll": "negative log-likelihood",
}
SIZES = 3  # below this many sizes there is no ladder
SEEDS = 5
PRODUCT = 0.02  # the product law's target
TRANSITION = 0.5  # share of the range of log-likelihood within one doubling of N, from which the model itself is said to jump
SHARPER = 1.25  # times as sharp as log-likelihood, from which the metric is said to add to it
HALF_LEARNED = (0.2, 0.9)  # accuracies between which a digit is neither guessed (.1) nor known
ALL_OR_NOTHING = 0.9  # share of the digits outside of these
RESAMPLES = 400
ONE_CURVE = 0.95  # share of the variance along training
EVEN = 5 / 9  # Sarle's coefficient of the even distribution
VERDICTS = {True: "yes", False: "no", None: "these seeds do not settle it"}
LEAST = 1e-6  # stands for an exact match of zero, for laws are fitted in logs; residuals are not


def checkpoints(table: pd.DataFrame) -> pd.DataFrame:
    """One row a run and step of homogeneous addition (operands even over all numbers): run_id, seed, step, n, digits of an answer,
    `NAMES` (absent: nan), `nll` in nats a digit, `product` of the accuracies by position, `power` = (mean token accuracy)^digits.
    """
    table = runs.ended(table)
    mine = table[(table["task"] == "arithmetic") & (table["split"] == "val")]
    known = (
        {
            run
            for run, config in runs.configs(mine).items()
            if config["task"].get("length_power") is None
        }
        if len(mine)
        else set()
    )
    mine = mine[mine["run_id"].isin(known)]
    keys = ["run_id", "seed", "n_params", "step"]
    whole = mine[mine["metric"].isin(list(NAMES))].pivot_table(
        index=keys, columns="metric", values="value"
    )
    placed = (
        mine[mine["metric"] == "accuracy_at_position"].groupby(keys)["value"].agg(["prod", "count"])
    )
    joined = (
        whole.join(placed, how="inner")
        .reset_index()
        .rename(columns={"n_params": "n", "prod": "product", "count": "digits"})
    )
    if joined.empty or not {"exact_match", "token_accuracy", "answer_nll"} <= set(joined):
        return joined.iloc[:0]
    joined = joined.reindex(columns=list(dict.fromkeys([*joined.columns, *NAMES])))
    return joined.assign(
        nll=joined["answer_nll"] / joined["digits"],
        power=joined["token_accuracy"] ** joined["digits"],
    )


def finals(seen: pd.DataFrame) -> pd.DataFrame:
    """The last row of each run, by size and seed."""
    at_end = seen[seen["step"] == seen.groupby("run_id")["step"].transform("max")]
    return at_end.sort_values(["n", "seed"], kind="stable").reset_index(drop=True)


@dataclass(frozen=True)
class Trend:
    """A metric over N: `n` and `value` (sizes,), medians over seeds, for a mean of runs that have learned and runs that have not is no run's.

    `sharpness` is its largest change within one doubling of N as a share of its range (1 / log2(largest / smallest N) if it changes
    evenly), `halfway` the N at which half of the range is passed.
    """

    n: Array
    value: Array
    sharpness: float
    halfway: float

    @property
    def share(self) -> Array:
        """The way from the smallest size's value (0) to the largest's (1)."""
        return (self.value - self.value[0]) / (self.value[-1] - self.value[0])


def trend(ends: pd.DataFrame, metric: str) -> Trend | None:
    """How a metric changes with N, or None where it was not measured at all sizes, or does not change."""
    middle = ends.groupby("n")[metric].median()
    n, value = middle.index.to_numpy(float), middle.to_numpy(float)
    if len(n) < SIZES or not np.isfinite(value).all() or value[0] == value[-1]:
        return None
    x = np.log2(n)
    share = (value - value[0]) / (value[-1] - value[0])
    first = int(np.argmax(share >= 0.5))  # at least 1: a share begins at 0
    halfway = np.interp(0.5, share[first - 1 : first + 1], x[first - 1 : first + 1])
    return Trend(n, value, sharpness(x, value), float(2.0**halfway))


def sharpness(x: Array, value: Array) -> float:
    """The largest change of `value` (sizes,) between x and x + 1, x = log2 N, read off straight lines, as a share of its range."""
    begins = np.unique(np.concatenate([x, x - 1.0]))
    changes = np.abs(np.interp(begins + 1.0, x, value) - np.interp(begins, x, value))
    return float(changes.max() / np.ptp(value))


@dataclass(frozen=True)
class Decision:
    """A figure with the 95 % interval of resampled seeds (nan where a size has one seed), and the limit from which something is there."""

    value: float
    lo: float
    hi: float
    limit: float

    @property
    def verdict(self) -> bool | None:
        """None where the interval holds values on both sides of the limit: these seeds do not settle it."""
        return True if self.lo >= self.limit else False if self.hi < self.limit else None

    def __str__(self) -> str:
        known = np.isfinite(self.lo)
        return (
            f"{self.value:.2f} [{self.lo:.2f}, {self.hi:.2f}]"
            if known
            else f"{self.value:.2f} (a size has one seed: no interval)"
        )


def decisions(ends: pd.DataFrame, trends: Mapping[str, Trend]) -> tuple[Decision, Decision]:
    """How many times as sharp exact match is as log-likelihood (a metric effect), and how sharp log-likelihood is (a transition)."""
    exact_is, nll_is = trends["exact_match"].sharpness, trends["nll"].sharpness
    if ends.groupby("n").size().min() < 2:
        nan = float("nan")
        return Decision(exact_is / nll_is, nan, nan, SHARPER), Decision(
            nll_is, nan, nan, TRANSITION
        )
    x, draw = np.log2(trends["nll"].n), np.random.default_rng(0)
    seeds = [group[["exact_match", "nll"]].to_numpy(float) for _, group in ends.groupby("n")]
    medians = np.array(
        [
            np.median(held[draw.integers(0, len(held), (RESAMPLES, len(held)))], axis=1)
            for held in seeds
        ]
    )  # sizes, resamples, 2
    moving = medians[:, (np.ptp(medians, axis=0) > 0).all(axis=1)]
    drawn = [
        (sharpness(x, exact) / sharpness(x, nll), sharpness(x, nll))
        for exact, nll in moving.transpose(1, 2, 0)
    ]
    lo, hi = np.percentile(drawn, [2.5, 97.5], axis=0)
    return Decision(exact_is / nll_is, lo[0], hi[0], SHARPER), Decision(
        nll_is, lo[1], hi[1], TRANSITION
    )


def all_or_nothing(table: pd.DataFrame, ends: pd.DataFrame) -> tuple[int, int]:
    """At the ends of runs: how many digits are guessed or known, and how many there are; places that every run knows are not counted."""
    placed = runs.last(table, "accuracy_at_position")
    held = (
        placed[placed["run_id"].isin(ends["run_id"])]
        .pivot_table(index="run_id", columns="at", values="value")
        .to_numpy()
    )
    held = held[:, (held < HALF_LEARNED[1]).any(axis=0)]
    return int(((held <= HALF_LEARNED[0]) | (held >= HALF_LEARNED[1])).sum()), held.size


@dataclass(frozen=True)
class Shape:
    """A curve of exact match over N fitted by least squares: `rss`, `aic` = n ln(rss / n) + 2 k for k free parameters, `x` and `y` to draw."""

    name: str
    formula: str
    rss: float
    aic: float
    x: Array
    y: Array


def shapes(ends: pd.DataFrame) -> tuple[Shape, Shape]:
    """The sigmoid 1 / (1 + (N_0 / N)^k) and the power law K N^a on the exact match of all runs; two free parameters each."""
    n, value = ends["n"].to_numpy(float), np.maximum(ends["exact_match"].to_numpy(float), LEAST)
    most = np.e * n.max()  # the law's input must be positive: ln(e N_max / N) is at least 1
    grid = np.geomspace(n.min(), n.max(), 120)
    whole = {"lo": 0.0, "span": 1.0}
    return (
        _shape(
            "sigmoid",
            "1 / (1 + (N_0 / N)^k)",
            "sigmoid",
            {"X": np.log(most / n)},
            {"X": np.log(most / grid)},
            value,
            grid,
            whole,
        ),
        _shape("power law", "K N^a", "optimum", {"C": n}, {"C": grid}, value, grid, {}),
    )


def _shape(
    name: str,
    formula: str,
    law: str,
    x: Mapping[str, Array],
    drawn: Mapping[str, Array],
    value: Array,
    grid: Array,
    fixed: dict[str, float],
) -> Shape:
    inputs = {"others": {"X": x["X"]}} if "X" in x else {"c": x["C"]}
    found = estimate(
        LAWS[law], Points(loss=value, **inputs), "mse", fixed=fixed, where="exact match against N"
    )  # type: ignore[arg-type]
    rss = float(np.sum((np.exp(found.law.log_predict(found.theta, x)) - value) ** 2))
    free = len(LAWS[law].params) - len(fixed)
    aic = len(value) * float(np.log(max(rss, 1e-12) / len(value))) + 2 * free
    return Shape(name, formula, rss, aic, grid, np.exp(found.law.log_predict(found.theta, drawn)))


@dataclass(frozen=True)
class Curve:
    """Exact match as a falling function of nats a digit, over all checkpoints: `x` and `y` (n,) in order of x, the share `r2` of the variance
    of exact match that it explains, and the `farthest` checkpoint's distance from it.
    """

    x: Array
    y: Array
    r2: float
    farthest: float


def one_curve(seen: pd.DataFrame) -> Curve:
    """Isotonic regression of exact match on log-likelihood: no form is assumed but that it falls."""
    order = np.argsort(seen["nll"].to_numpy(), kind="stable")
    x, y = seen["nll"].to_numpy(float)[order], seen["exact_match"].to_numpy(float)[order]
    fitted = isotonic_regression(y, increasing=False).x
    spread = float(np.sum((y - y.mean()) ** 2))
    return Curve(
        x,
        fitted,
        1.0 - float(np.sum((y - fitted) ** 2)) / spread if spread else 1.0,
        float(np.abs(y - fitted).max()),
    )


@dataclass(frozen=True)
class Seeds:
    """The threshold: of the sizes with the most seeds, the one whose mean exact match is nearest to one half.

    `sarle` is nan where all seeds agree or are fewer than four; `chance` is the share of even samples of as many values that have at
    least as large a coefficient.
    """

    n: float
    values: Array
    sarle: float
    chance: float


def at_threshold(ends: pd.DataFrame) -> Seeds:
    """The exact match of each seed at the threshold, and how far two-peaked it is."""
    held = ends.groupby("n")["exact_match"].agg(["count", "mean"])
    most = held[held["count"] == held["count"].max()]
    n = float((most["mean"] - 0.5).abs().idxmin())
    values = ends.loc[ends["n"] == n, "exact_match"].to_numpy(float)
    coefficient = sarle(values)
    draws = (
        [sarle(row) for row in np.random.default_rng(0).random((1000, len(values)))]
        if np.isfinite(coefficient)
        else []
    )
    return Seeds(
        n,
        values,
        coefficient,
        float(np.mean(np.array(draws) >= coefficient)) if draws else float("nan"),
    )


def sarle(values: Array) -> float:
    """Sarle's bimodality coefficient (g^2 + 1) / k, g the skewness and k the kurtosis (Ellison 1987; Knapp 2007, "Bimodality revisited").

    1 for two points in any proportion, which is the most; 5/9 for the even distribution, 1/3 for the normal one. The corrections for small
    samples (Pfister et al. 2013) are left out: they give .29 to five values of which two differ from the other three. nan for fewer
    than four values or equal ones.
    """
    away = np.asarray(values, float) - np.mean(values)
    second = float(np.mean(away**2))
    if len(values) < 4 or second < 1e-18:
        return float("nan")
    return float((np.mean(away**3) ** 2 / second**3 + 1.0) * second**2 / np.mean(away**4))


@dataclass(frozen=True)
class Study:
    """All that the report tells of an addition ladder: of `counted` digits at the ends of runs `settled` are guessed or known;
    `left_out` runs differ from the others of their size in more than the seed.
    """

    seen: pd.DataFrame
    ends: pd.DataFrame
    trends: dict[str, Trend]
    shapes: tuple[Shape, Shape]
    curve: Curve
    seeds: Seeds
    metric: Decision
    transition: Decision
    settled: int
    counted: int
    left_out: int = 0

    def missed(self, by: str) -> Array:
        """|`product` or `power` - exact match| at the end of each run (runs,)."""
        return np.asarray((self.ends[by] - self.ends["exact_match"]).abs(), float)


def study(table: pd.DataFrame) -> Study | None:
    """The addition ladder in a table, or None where there is none of three sizes whose exact match changes."""
    table, of_other_tasks = runs.of_one_task(table[table["task"] == "arithmetic"])
    table, of_other_settings = runs.of_one_setting(table)
    seen = checkpoints(table)
    ends = finals(seen) if len(seen) else seen
    if not len(ends) or ends["n"].nunique() < SIZES or ends["digits"].nunique() > 1:
        return None
    trends = {
        metric: found for metric in (*NAMES, "nll") if (found := trend(ends, metric)) is not None
    }
    if not {"exact_match", "nll"} <= set(trends):
        return None
    metric, transition = decisions(ends, trends)
    return Study(
        seen,
        ends,
        trends,
        shapes(ends),
        one_curve(seen),
        at_threshold(ends),
        metric,
        transition,
        *all_or_nothing(table, ends),
        of_other_tasks + of_other_settings,
    )


def findings(found: Study) -> list[Claim]:
    """The figures of issue 7, point 4."""
    product, power = found.missed("product"), found.missed("power")
    (sigmoid, law), seeds, curve = found.shapes, found.seeds, found.curve
    told = [NAMES[metric] for metric in NAMES if metric in found.trends]
    return [
        Claim(
            "metrics on the same checkpoints",
            f"{len(NAMES)}",
            f"{len(told)}: {', '.join(told)}",
            len(told) == len(NAMES),
        ),
        Claim(
            "product of per-position accuracies minus exact match",
            f"within {PRODUCT:g} in every run",
            f"at most {product.max():.4f}, mean {product.mean():.4f} in {len(product)} runs",
            bool(product.max() <= PRODUCT),
        ),
        Claim(
            "(mean token accuracy)^digits minus exact match",
            "misses by more than the product",
            f"at most {power.max():.3f}, mean {power.mean():.3f}",
            bool(power.max() > product.max()),
        ),
        Claim(
            "exact match against N, sigmoid and power law of two parameters each",
            "sigmoid has the lower AIC",
            f"residual sum of squares {sigmoid.rss:.3g} and {law.rss:.3g}, AIC lower by {law.aic - sigmoid.aic:.1f}",
            bool(sigmoid.aic < law.aic),
        ),
        Claim(
            "exact match of the seeds at the threshold, Sarle's coefficient",
            f"reported for {SEEDS} seeds",
            _told(seeds),
            True if len(seeds.values) >= SEEDS else None,
        ),
        Claim(
            "exact match a function of log-likelihood along training",
            f"one falling curve explains {ONE_CURVE:.0%}",
            f"{curve.r2:.1%} of the variance of {len(curve.x)} checkpoints",
            bool(curve.r2 >= ONE_CURVE),
        ),
        Claim(
            "metric effect: sharpness in N of exact match over that of log-likelihood",
            f"yes if {SHARPER:g} or more",
            f"{found.metric}: {VERDICTS[found.metric.verdict]}",
            None if found.metric.verdict is None else True,
        ),
        Claim(
            "transition: share of log-likelihood's range within one doubling of N",
            f"yes if {TRANSITION:g} or more",
            f"{found.transition}: {VERDICTS[found.transition.verdict]}",
            None if found.transition.verdict is None else True,
        ),
        Claim(
            "digits that runs guess or know, not half-learned",
            f"all or nothing: {ALL_OR_NOTHING:.0%}",
            f"{found.settled} of {found.counted}",
            found.settled >= ALL_OR_NOTHING * found.counted if found.counted else None,
        ),
    ]


def _told(seeds: Seeds) -> str:
    values = ", ".join(f"{value:.2f}" for value in np.sort(seeds.values))
    if not np.isfinite(seeds.sarle):
        return f"{values}: no coefficient"
    return f"{values}: {seeds.sarle:.2f} (two points 1, even {EVEN:.2f}); {seeds.chance:.0%} of even samples of {len(seeds.values)} have as much"
