"""Is a sudden ability sudden in the model, or in the metric that measures it?

Schaeffer, Miranda and Koyejo 2023 ("Are emergent abilities of large language models a mirage?",
section 2): a metric that needs all of an answer to be right is about the product of the accuracies
of single tokens, so it can look sharp while each token improves smoothly. Here the same checkpoints
are read under several metrics; what is sharp in log-likelihood too is a transition of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import kurtosis, skew

from scaling.studies import runs
from scaling.studies.emergence.curves import (
    CurveFit,
    LikelihoodCurve,
    fit_curves,
    fit_likelihood_curve,
)
from scaling.studies.study import Claim

NAMES: Mapping[str, str] = {
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "edit_distance": "edit distance",
    "brier": "Brier score",
    "answer_nll": "negative log-likelihood",
}
MIN_SIZES = 3
MIN_SEEDS = 5  # at the threshold
MAX_PRODUCT_ERROR = 0.02
TRANSITION_SHARE = 0.5  # of the range of log-likelihood within one doubling of N
METRIC_EFFECT_RATIO = 1.25  # sharpness of exact match over that of log-likelihood
HALF_LEARNED = (0.2, 0.9)  # accuracies between which a digit is neither guessed (0.1) nor known
ALL_OR_NOTHING = 0.9  # share of the digits outside of these
RESAMPLES = 400
MIN_CURVE_R2 = 0.95
UNIFORM_SARLE = 5 / 9  # Sarle's coefficient of the uniform distribution


def checkpoints(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per run and step of addition whose operands are uniform over all numbers.

    Columns: run_id, seed, step, n, digits of an answer, `NAMES` (absent: nan), `nll` in nats per
    digit, `product` of the accuracies by position, `power` = (mean token accuracy)^digits.
    """
    rows = runs.without_diverged(rows)
    val = rows[(rows["task"] == "arithmetic") & (rows["split"] == "val")]
    configs = runs.configs(val) if len(val) else {}
    uniform = {run for run, config in configs.items() if config["task"].get("length_power") is None}
    val = val[val["run_id"].isin(uniform)]
    keys = ["run_id", "seed", "n_params", "step"]
    metrics = val[val["metric"].isin(list(NAMES))].pivot_table(
        index=keys, columns="metric", values="value"
    )
    at_position = val[val["metric"] == "accuracy_at_position"]
    by_position = at_position.groupby(keys)["value"].agg(["prod", "count"])
    joined = metrics.join(by_position, how="inner").reset_index()
    joined = joined.rename(columns={"n_params": "n", "prod": "product", "count": "digits"})
    if joined.empty or not {"exact_match", "token_accuracy", "answer_nll"} <= set(joined):
        return joined.iloc[:0]
    joined = joined.reindex(columns=list(dict.fromkeys([*joined.columns, *NAMES])))
    return joined.assign(
        nll=joined["answer_nll"] / joined["digits"],
        power=joined["token_accuracy"] ** joined["digits"],
    )


@dataclass(frozen=True)
class Trend:
    """A metric over N: `n` and `value` (sizes,), medians over seeds (a mean of learned and
    unlearned runs is no run's value).

    `sharpness` is its largest change within one doubling of N as a share of its range (1 /
    log2(largest / smallest N) if it changes evenly), `halfway` the N at which half of the range is
    passed.
    """

    n: np.ndarray
    value: np.ndarray
    sharpness: float
    halfway: float

    @property
    def share(self) -> np.ndarray:
        """The position between the smallest size's value (0) and the largest's (1)."""
        return (self.value - self.value[0]) / (self.value[-1] - self.value[0])


def trend(final: pd.DataFrame, metric: str) -> Trend | None:
    """How a metric changes with N; None where it was not measured at all sizes or is constant."""
    median = final.groupby("n")[metric].median()
    n, value = median.index.to_numpy(float), median.to_numpy(float)
    if len(n) < MIN_SIZES or not np.isfinite(value).all() or value[0] == value[-1]:
        return None
    x = np.log2(n)
    share = (value - value[0]) / (value[-1] - value[0])
    first = int(np.argmax(share >= 0.5))  # at least 1: a share begins at 0
    halfway = np.interp(0.5, share[first - 1 : first + 1], x[first - 1 : first + 1])
    return Trend(n, value, sharpness(x, value), float(2.0**halfway))


def sharpness(x: np.ndarray, value: np.ndarray) -> float:
    """The largest change of `value` (sizes,) between x and x + 1, x = log2 N, interpolated
    linearly, as a share of its range.
    """
    starts = np.unique(np.concatenate([x, x - 1.0]))
    changes = np.abs(np.interp(starts + 1.0, x, value) - np.interp(starts, x, value))
    return float(changes.max() / np.ptp(value))


class Decision(NamedTuple):
    """A quantity with the 95 % interval of resampled seeds (nan where a size has one seed), and the
    limit it is tested against.
    """

    value: float
    lo: float
    hi: float
    limit: float

    @property
    def verdict(self) -> bool | None:
        """Whether the value is above the limit; None where the interval holds both sides."""
        return True if self.lo >= self.limit else False if self.hi < self.limit else None

    def __str__(self) -> str:
        if np.isfinite(self.lo):
            return f"{self.value:.2f} [{self.lo:.2f}, {self.hi:.2f}]"
        return f"{self.value:.2f} (a size has one seed: no interval)"


def decisions(final: pd.DataFrame, trends: Mapping[str, Trend]) -> tuple[Decision, Decision]:
    """Metric effect: sharpness of exact match over that of log-likelihood. Transition: sharpness of
    log-likelihood.
    """
    x, exact, nll = np.log2(trends["nll"].n), trends["exact_match"].value, trends["nll"].value

    def quantities(exact: np.ndarray, nll: np.ndarray) -> tuple[float, float]:
        return sharpness(x, exact) / sharpness(x, nll), sharpness(x, nll)

    lo, hi = np.full(2, np.nan), np.full(2, np.nan)
    if final.groupby("n").size().min() >= 2:
        rng = np.random.default_rng(0)
        by_size = [
            of_size[["exact_match", "nll"]].to_numpy(float) for _, of_size in final.groupby("n")
        ]
        medians = np.array(  # (sizes, resamples, 2)
            [
                np.median(seeds[rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))], axis=1)
                for seeds in by_size
            ]
        )
        changing = medians[:, (np.ptp(medians, axis=0) > 0).all(axis=1)]
        draws = [quantities(*of_draw) for of_draw in changing.transpose(1, 2, 0)]
        lo, hi = np.percentile(draws, [2.5, 97.5], axis=0)
    ends = zip(quantities(exact, nll), lo, hi, (METRIC_EFFECT_RATIO, TRANSITION_SHARE), strict=True)
    metric_effect, transition = (Decision(*map(float, of_one)) for of_one in ends)
    return metric_effect, transition


def count_settled_digits(rows: pd.DataFrame, final: pd.DataFrame) -> tuple[int, int]:
    """At the ends of runs: how many digits are guessed or known, and how many there are; digits
    that every run knows are not counted.
    """
    at_position = runs.at_end(runs.metric_rows(rows, "accuracy_at_position"))
    accuracy = (
        at_position[at_position["run_id"].isin(final["run_id"])]
        .pivot_table(index="run_id", columns="at", values="value")
        .to_numpy()
    )
    low, high = HALF_LEARNED
    accuracy = accuracy[:, (accuracy < high).any(axis=0)]
    return int(((accuracy <= low) | (accuracy >= high)).sum()), accuracy.size


class ThresholdSeeds(NamedTuple):
    """Of the sizes with the most seeds, the one whose mean exact match is nearest to one half.

    `sarle` is nan where all seeds agree or are fewer than four; `chance` is the share of uniform
    samples of as many values that have at least as large a coefficient.
    """

    n: float
    values: np.ndarray
    sarle: float
    chance: float

    def __str__(self) -> str:
        values = ", ".join(f"{value:.2f}" for value in np.sort(self.values))
        if not np.isfinite(self.sarle):
            return f"{values}: no coefficient"
        return (
            f"{values}: {self.sarle:.2f} (two points 1, uniform {UNIFORM_SARLE:.2f}); "
            f"{self.chance:.0%} of uniform samples of {len(self.values)} have as much"
        )


def threshold_seeds(final: pd.DataFrame) -> ThresholdSeeds:
    """The exact match of each seed at the threshold, and how bimodal it is."""
    by_size = final.groupby("n")["exact_match"].agg(["count", "mean"])
    most_seeds = by_size[by_size["count"] == by_size["count"].max()]
    n = float((most_seeds["mean"] - 0.5).abs().idxmin())
    values = final.loc[final["n"] == n, "exact_match"].to_numpy(float)
    coefficient, chance = sarle(values), float("nan")
    if np.isfinite(coefficient):
        samples = np.random.default_rng(0).random((1000, len(values)))
        chance = float(np.mean(np.array([sarle(row) for row in samples]) >= coefficient))
    return ThresholdSeeds(n, values, coefficient, chance)


def sarle(values: np.ndarray) -> float:
    """Sarle's bimodality coefficient (g^2 + 1) / k, g the skewness and k the kurtosis (Ellison
    1987; Knapp 2007).

    1 for two points in any proportion, which is the most; 5/9 for the uniform distribution, 1/3 for
    the normal one. The corrections for small samples (Pfister et al. 2013) are left out: they give
    0.29 to five values of which two differ from the other three. nan for fewer than four values or
    equal ones.
    """
    if len(values) < 4 or np.var(values) < 1e-18:
        return float("nan")
    return float((skew(values) ** 2 + 1.0) / kurtosis(values, fisher=False))


@dataclass(frozen=True)
class EmergenceStudy:
    """An addition ladder: of `n_digits` digits at the ends of runs `n_settled` are guessed or
    known.

    `n_excluded` runs differ from the others of their size in more than the seed.
    """

    points: pd.DataFrame
    final: pd.DataFrame
    trends: dict[str, Trend]
    curve_fits: Sequence[CurveFit]
    likelihood_curve: LikelihoodCurve
    threshold: ThresholdSeeds
    metric_effect: Decision
    transition: Decision
    n_settled: int
    n_digits: int
    n_excluded: int = 0

    def prediction_error(self, by: str) -> np.ndarray:
        """|`product` or `power` - exact match| at the end of each run (runs,)."""
        return np.asarray((self.final[by] - self.final["exact_match"]).abs(), float)

    @property
    def is_all_or_nothing(self) -> bool:
        """Whether nearly all digits are guessed or known."""
        return self.n_settled >= ALL_OR_NOTHING * self.n_digits


def analyze(rows: pd.DataFrame) -> EmergenceStudy | None:
    """The addition ladder in a table; None without three sizes whose exact match changes."""
    every = rows[rows["task"] == "arithmetic"]
    rows = runs.of_one_setting(every, "task")
    if rows.empty:
        return None
    rows = pd.concat([runs.of_one_setting(of_size) for _, of_size in rows.groupby("n_params")])
    points = checkpoints(rows)
    if points["n"].nunique() < MIN_SIZES or points["digits"].nunique() > 1:
        return None
    at_end = points["step"] == points.groupby("run_id")["step"].transform("max")
    final = points[at_end].sort_values(["n", "seed"], kind="stable").reset_index(drop=True)
    all_trends = {metric: trend(final, metric) for metric in (*NAMES, "nll")}
    trends = {metric: made for metric, made in all_trends.items() if made is not None}
    if not {"exact_match", "nll"} <= set(trends):
        return None
    metric_effect, transition = decisions(final, trends)
    n_settled, n_digits = count_settled_digits(rows, final)
    return EmergenceStudy(
        points=points,
        final=final,
        trends=trends,
        curve_fits=fit_curves(final),
        likelihood_curve=fit_likelihood_curve(points),
        threshold=threshold_seeds(final),
        metric_effect=metric_effect,
        transition=transition,
        n_settled=n_settled,
        n_digits=n_digits,
        n_excluded=every["run_id"].nunique() - rows["run_id"].nunique(),
    )


VERDICTS = {True: "yes", False: "no", None: "these seeds do not settle it"}


def claims(study: EmergenceStudy) -> list[Claim]:
    """Metrics, products of accuracies, curves over N and along training, seeds, and the two
    decisions.
    """
    product, power = study.prediction_error("product"), study.prediction_error("power")
    (sigmoid, power_law), curve = study.curve_fits, study.likelihood_curve
    metric, transition, seeds = study.metric_effect, study.transition, study.threshold
    measured = [NAMES[name] for name in NAMES if name in study.trends]
    return [
        Claim(
            "metrics on the same checkpoints",
            f"{len(NAMES)}",
            f"{len(measured)}: {', '.join(measured)}",
            len(measured) == len(NAMES),
        ),
        Claim(
            "product of per-position accuracies minus exact match",
            f"within {MAX_PRODUCT_ERROR:g} in every run",
            f"at most {product.max():.4f}, mean {product.mean():.4f} in {len(product)} runs",
            bool(product.max() <= MAX_PRODUCT_ERROR),
        ),
        Claim(
            "(mean token accuracy)^digits minus exact match",
            "larger error than the product",
            f"at most {power.max():.3f}, mean {power.mean():.3f}",
            bool(power.max() > product.max()),
        ),
        Claim(
            "exact match against N, sigmoid and power law of two parameters each",
            "sigmoid has the lower AIC",
            f"residual sum of squares {sigmoid.rss:.3g} and {power_law.rss:.3g}, "
            f"AIC lower by {power_law.aic - sigmoid.aic:.1f}",
            bool(sigmoid.aic < power_law.aic),
        ),
        Claim(
            "exact match of the seeds at the threshold, Sarle's coefficient",
            f"reported for {MIN_SEEDS} seeds",
            str(seeds),
            True if len(seeds.values) >= MIN_SEEDS else None,
        ),
        Claim(
            "exact match a function of log-likelihood along training",
            f"one falling curve explains {MIN_CURVE_R2:.0%}",
            f"{curve.r2:.1%} of the variance of {len(curve.x)} checkpoints",
            bool(curve.r2 >= MIN_CURVE_R2),
        ),
        Claim(
            "metric effect: sharpness in N of exact match over that of log-likelihood",
            f"yes if {METRIC_EFFECT_RATIO:g} or more",
            f"{metric}: {VERDICTS[metric.verdict]}",
            None if metric.verdict is None else True,
        ),
        Claim(
            "transition: share of log-likelihood's range within one doubling of N",
            f"yes if {TRANSITION_SHARE:g} or more",
            f"{transition}: {VERDICTS[transition.verdict]}",
            None if transition.verdict is None else True,
        ),
        Claim(
            "digits that runs guess or know, not half-learned",
            f"all or nothing: {ALL_OR_NOTHING:.0%}",
            f"{study.n_settled} of {study.n_digits}",
            study.is_all_or_nothing if study.n_digits else None,
        ),
    ]
