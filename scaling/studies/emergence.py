"""Is a sudden ability sudden in the model, or in the metric that measures it?

Schaeffer, Miranda and Koyejo 2023 ("Are emergent abilities of large language models a mirage?",
section 2): a metric that needs all of an answer to be right is about the product of the accuracies
of single tokens, so it can look sharp while each token improves smoothly. Here the same checkpoints
are read under several metrics; what is sharp in log-likelihood too is a transition of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy.optimize import isotonic_regression

from scaling.fit.estimate import estimate
from scaling.fit.laws.laws import LAWS
from scaling.formatting import format_count
from scaling.points.points import Points
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Table, number
from scaling.studies import runs, sharpness
from scaling.studies.study import Claim, Interval, Study, record_table

Array = np.ndarray

NAMES: Mapping[str, str] = {
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "edit_distance": "edit distance",
    "brier": "Brier score",
    "answer_nll": "negative log-likelihood",
}
MIN_SEEDS = 5  # at the threshold
MAX_PRODUCT_ERROR = 0.02
HALF_LEARNED = (0.2, 0.9)  # accuracies between which a digit is neither guessed (0.1) nor known
ALL_OR_NOTHING = 0.9  # share of the digits outside of these
MIN_CURVE_R2 = 0.95
MIN_EXACT_MATCH = 1e-6  # replaces zero, for laws are fitted in logs; residuals are not
SPREAD = 0.05  # half the width, in ln N, that the seeds of a size are spread over
VERDICTS = {True: "yes", False: "no", None: "these seeds do not settle it"}
METRIC = {
    True: ", so the metric adds to the jump (the criterion is {:g} times).",
    False: ", so the metric adds little to the jump (less than {:g} times).",
    None: "; these seeds do not settle whether the metric adds to the jump "
    "(the criterion is {:g} times).",
}
MODEL = {
    True: "at least the criterion of {:g}, so there is a transition of the model itself",
    False: "less than the criterion of {:g}, so over N the model improves smoothly",
    None: "and these seeds do not settle whether that is the {:g} of a transition",
}
N_AXIS = Axis("parameters N", log=True, unit="count")
MATCH_AXIS = Axis("exact match")


class CurveFit(NamedTuple):
    """A curve of exact match over N by least squares: `rss`, `aic` = n ln(rss / n) + 2 k for k free
    parameters; `x`, `y` to draw.
    """

    name: str
    formula: str
    rss: float
    aic: float
    x: Array
    y: Array


class LikelihoodCurve(NamedTuple):
    """Exact match as a falling function of nats per digit, over all checkpoints: `x`, `y` (n,) in
    order of x. `r2` is the share of the variance of exact match that it explains.
    """

    x: Array
    y: Array
    r2: float


@dataclass(frozen=True)
class EmergenceStudy:
    """An addition ladder: checkpoints and the ends of runs as of `checkpoints`. Of `n_digits`
    digits at the ends `n_settled` are guessed or known.

    `n_excluded` runs differ from the others of their size in more than the seed.
    """

    points: DataFrame
    final: DataFrame
    trends: Mapping[str, sharpness.Trend]
    curve_fits: list[CurveFit]
    likelihood_curve: LikelihoodCurve
    threshold: sharpness.ThresholdSeeds
    metric_effect: sharpness.Decision
    transition: sharpness.Decision
    n_settled: int
    n_digits: int
    n_excluded: int

    @property
    def is_all_or_nothing(self) -> bool:
        """Whether nearly all digits are guessed or known."""
        return self.n_settled >= ALL_OR_NOTHING * self.n_digits


def analyze(rows: DataFrame) -> EmergenceStudy | None:
    """The addition ladder in a table; None without three sizes whose exact match changes, or where
    operands are not uniform over all numbers.
    """
    every = rows[rows["task"] == "arithmetic"]
    if every.empty:
        return None
    rows = runs.of_one_setting(every, "task")
    rows = pd.concat([runs.of_one_setting(of_size) for _, of_size in rows.groupby("n_params")])
    config = next(iter(runs.configs(rows).values()))
    points = checkpoints(rows)
    final = runs.at_end(points).sort_values(["n", "seed"], kind="stable", ignore_index=True)
    trends = {metric: sharpness.trend(final, metric) for metric in (*NAMES, "nll")}
    if config["task"]["length_power"] is not None or not (trends["exact_match"] and trends["nll"]):
        return None
    last = runs.at_end(rows[rows["metric"] == "accuracy_at_position"])
    accuracy = last.pivot_table(index="run_id", columns="at", values="value").to_numpy()
    low, high = HALF_LEARNED
    accuracy = accuracy[:, (accuracy < high).any(axis=0)]  # what some run does not know
    metric_effect, transition = sharpness.decisions(final)
    return EmergenceStudy(
        points=points,
        final=final,
        trends={metric: made for metric, made in trends.items() if made is not None},
        curve_fits=fit_curves(final),
        likelihood_curve=fit_likelihood_curve(points),
        threshold=sharpness.threshold_seeds(final),
        metric_effect=metric_effect,
        transition=transition,
        n_settled=int(((accuracy <= low) | (accuracy >= high)).sum()),
        n_digits=accuracy.size,
        n_excluded=every["run_id"].nunique() - rows["run_id"].nunique(),
    )


def checkpoints(rows: DataFrame) -> DataFrame:
    """One row per run and step.

    Columns: run_id, seed, step, n, digits of an answer, `NAMES` (absent: nan), `nll` in nats per
    digit, `product` of the accuracies by position, `power` = (mean token accuracy)^digits.
    """
    rows, keys = runs.without_diverged(rows), ["run_id", "seed", "n_params", "step"]
    val = rows[rows["split"] == "val"]
    metrics = val.pivot_table(index=keys, columns="metric", values="value")
    at_position = val[val["metric"] == "accuracy_at_position"].groupby(keys)["value"]
    digits = at_position.agg(product="prod", digits="count")
    table = metrics.reindex(columns=list(NAMES)).join(digits, how="inner").reset_index()
    power = table["token_accuracy"] ** table["digits"]
    table = table.assign(nll=table["answer_nll"] / table["digits"], power=power)
    return table.rename(columns={"n_params": "n"})


def fit_curves(final: DataFrame) -> list[CurveFit]:
    """The sigmoid 1 / (1 + (N_0 / N)^k) and the power law K N^a on the exact match of all runs; two
    free parameters each.
    """
    n, measured = final["n"].to_numpy(float), final["exact_match"].to_numpy(float)
    value, grid = np.maximum(measured, MIN_EXACT_MATCH), np.geomspace(n.min(), n.max(), 120)
    largest = np.e * n.max()  # the law's input must be positive: ln(e N_max / N) is at least 1
    x, where, made = np.log(largest / n), "exact match against N", []
    fixed, points = {"lo": 0.0, "span": 1.0}, Points(loss=value, others={"X": x}, c=n)
    for name, formula, law, inputs, fix in (
        ("sigmoid", "1 / (1 + (N_0 / N)^k)", "sigmoid", {"X": np.log(largest / grid)}, fixed),
        ("power law", "K N^a", "optimum", {"C": grid}, None),
    ):
        fit = estimate(LAWS[law], points, "mse", fixed=fix, where=where)
        rss = float(np.sum((np.exp(fit.predict(points)) - value) ** 2))
        aic = len(value) * float(np.log(max(rss, 1e-12) / len(value))) + 2 * 2
        made.append(CurveFit(name, formula, rss, aic, grid, fit.law.predict(fit.theta, inputs)))
    return made


def fit_likelihood_curve(points: DataFrame) -> LikelihoodCurve:
    """Isotonic regression of exact match on log-likelihood: it is only assumed to fall."""
    x, y = points.sort_values("nll", kind="stable")[["nll", "exact_match"]].to_numpy(float).T
    fitted, variance = isotonic_regression(y, increasing=False).x, float(np.var(y))
    r2 = 1.0 - float(np.mean((y - fitted) ** 2)) / variance if variance else 1.0
    return LikelihoodCurve(x, fitted, r2)


def claims(study: EmergenceStudy) -> Iterator[Claim]:
    """Metrics, products of accuracies, curves over N and along training, seeds, and the two
    decisions.
    """
    final, seeds, curve = study.final, study.threshold, study.likelihood_curve
    product, power = ((final[by] - final["exact_match"]).abs() for by in ("product", "power"))
    sigmoid, power_law = study.curve_fits
    names = [NAMES[name] for name in NAMES if name in study.trends]
    yield Claim(
        "metrics on the same checkpoints",
        f"{len(NAMES)}",
        f"{len(names)}: {', '.join(names)}",
        len(names) == len(NAMES),
    )
    yield Claim(
        "product of per-position accuracies minus exact match",
        f"within {MAX_PRODUCT_ERROR:g} in every run",
        f"at most {product.max():.4f}, mean {product.mean():.4f} in {len(product)} runs",
        bool((product <= MAX_PRODUCT_ERROR).all()),
    )
    yield Claim(
        "(mean token accuracy)^digits minus exact match",
        "larger error than the product",
        f"at most {power.max():.3f}, mean {power.mean():.3f}",
        bool(power.max() > product.max()),
    )
    yield Claim(
        "exact match against N, sigmoid and power law of two parameters each",
        "sigmoid has the lower AIC",
        f"residual sum of squares {sigmoid.rss:.3g} and {power_law.rss:.3g}, "
        f"AIC lower by {power_law.aic - sigmoid.aic:.1f}",
        sigmoid.aic < power_law.aic,
    )
    yield Claim(
        "exact match of the seeds at the threshold, Sarle's coefficient",
        f"reported for {MIN_SEEDS} seeds",
        str(seeds),
        True if len(seeds.values) >= MIN_SEEDS else None,
    )
    yield Claim(
        "exact match a function of log-likelihood along training",
        f"one falling curve explains {MIN_CURVE_R2:.0%}",
        f"{curve.r2:.1%} of the variance of {len(curve.x)} checkpoints",
        curve.r2 >= MIN_CURVE_R2,
    )
    effect = "metric effect: sharpness in N of exact match over that of log-likelihood"
    jump = "transition: share of log-likelihood's range within one doubling of N"
    for quantity, decision in ((effect, study.metric_effect), (jump, study.transition)):
        measured = f"{decision}: {VERDICTS[decision.verdict]}"
        is_settled = None if decision.verdict is None else True
        yield Claim(quantity, f"yes if {decision.limit:g} or more", measured, is_settled)
    yield Claim(
        "digits that runs guess or know, not half-learned",
        f"all or nothing: {ALL_OR_NOTHING:.0%}",
        f"{study.n_settled} of {study.n_digits}",
        study.is_all_or_nothing if study.n_digits else None,
    )


def notes(study: EmergenceStudy) -> list[str]:
    """What is seen, what the metric adds, what the model does, each by the stated criterion; then
    which runs are left out.
    """
    exact, nll = study.trends["exact_match"], study.trends["nll"]
    metric, transition = study.metric_effect, study.transition
    jumps = (
        "so what jumps is each digit." if study.is_all_or_nothing else "the others half-learned."
    )
    said = [
        f"From {format_count(exact.n[0])} to {format_count(exact.n[-1])} parameters exact match on "
        f"addition goes from {exact.value[0]:.2f} to {exact.value[-1]:.2f} and passes half of that "
        f"at {format_count(round(exact.halfway))}, log-likelihood at "
        f"{format_count(round(nll.halfway))}.",
        f"Metric: exact match is {metric} times as sharp in N as log-likelihood on the same runs"
        + METRIC[metric.verdict].format(metric.limit),
        f"Model: log-likelihood itself passes {transition} of its range within one doubling of N, "
        + MODEL[transition.verdict].format(transition.limit)
        + f"; {study.n_settled} of the {study.n_digits} digits that some run does not know are "
        f"guessed or known at the end of a run, {jumps}",
    ]
    if study.n_excluded:
        said.append(
            f"{study.n_excluded} runs that differ from the others of their size in more than the "
            "seed are not in these figures."
        )
    return said


def figures(study: EmergenceStudy) -> Iterator[Figure]:
    """Metrics over N, curves, seeds, products of accuracies, and exact match along training."""
    points, final = study.points, study.final
    n, match = final[["n", "exact_match"]].to_numpy(float).T
    traces: list[Trace] = []
    for index, name in enumerate(name for name in NAMES if name in study.trends):
        trend, value = study.trends[name], final[name].to_numpy(float)
        line = Line(trend.n, trend.share(trend.value), NAMES[name], index, "solid", 3.0)
        traces.append(replace(line, dash="dash", width=2.0) if index else line)
        traces.append(Markers(n, trend.share(value), "", index, "circle", 4.5))
    caption = (
        "The same checkpoints under each metric, scaled from its value at the smallest size (0) to "
        "that at the largest (1). Lines join medians over seeds, points are runs."
    )
    title, y = "One ladder, several metrics", Axis("share of the change")
    yield Figure("emergence-metrics", title, caption, N_AXIS, y, traces)
    sigmoid, power_law = (fit.formula for fit in study.curve_fits)
    caption = f"{sigmoid} and {power_law} by least squares on all runs, two free parameters each."
    traces = [
        Line(fit.x, np.clip(fit.y, 0.0, 1.3), f"{fit.name}, RSS {number(fit.rss, 3)}", colour)
        for colour, fit in enumerate(study.curve_fits)
    ]
    traces.append(Markers(n, match, "runs", "ink", "circle", 6))
    yield Figure("emergence-fits", "Sigmoid or power law", caption, N_AXIS, MATCH_AXIS, traces)
    yield _seeds(study)
    power, product, measured = points[["power", "product", "exact_match"]].to_numpy(float).T
    traces = [
        Line([0, 1], [0, 1], "predicted = measured", "muted", "dash", 1.5),
        Markers(power, measured, "(mean token accuracy)^digits", 1, "open", 6),
        Markers(product, measured, "product of per-position accuracies", 0, "circle", 6),
    ]
    caption = (
        "Every checkpoint of every run: its exact match against two predictions from single digits."
    )
    title, x = "Exact match from single digits", Axis("predicted")
    yield Figure("emergence-product", title, caption, x, MATCH_AXIS, traces)
    ramp, curve, traces = ColorScale.of(points["n"].to_numpy()), study.likelihood_curve, []
    for size, of_size in points.groupby("n"):
        nll, of_runs = of_size[["nll", "exact_match"]].to_numpy(float).T
        traces.append(Markers(nll, of_runs, "", ramp.at(size), "circle", 6))
    grid = np.linspace(0.0, float(points["nll"].max()), 80)
    answer = np.exp(-int(final["digits"].iloc[0]) * grid)
    traces += [
        Line(curve.x, curve.y, f"falling curve, R2 {curve.r2:.3f}", "ink", "solid", 1.5),
        Line(grid, answer, "exp(-nats of the answer)", "muted", "dash", 1.5),
    ]
    caption = (
        "All checkpoints along training. Where they share one curve, exact match is a function of "
        "log-likelihood; its bend is the metric's and the same for every size."
    )
    x = Axis("negative log-likelihood, nats per digit")
    yield Figure("emergence-training", "Along training", caption, x, MATCH_AXIS, traces, ramp)


def _seeds(study: EmergenceStudy) -> Figure:
    """Exact match for each size, its seeds next to each other."""
    final, seeds = study.final, study.threshold
    by_size = final.groupby("n")
    last = by_size["n"].transform("size") - 1
    offset = (2 * by_size.cumcount() / last.clip(1) - 1).where(last > 0, 0.0)
    spread = final.assign(x=final["n"] * np.exp(SPREAD * offset))
    is_threshold, label = spread["n"] == seeds.n, f"threshold, {len(seeds.values)} seeds"
    traces: list[Trace] = []
    for of_kind, look in (
        (spread[is_threshold], Markers([], [], label, 1, "diamond", 9)),
        (spread[~is_threshold], Markers([], [], "other sizes", 0, "circle", 6)),
    ):
        x, y = of_kind[["x", "exact_match"]].to_numpy(float).T
        traces.append(replace(look, x=x, y=y))
    bimodality = "the seeds do not differ"
    if np.isfinite(seeds.sarle):
        uniform = f"(two points 1, uniform {sharpness.UNIFORM_SARLE:.2f})"
        bimodality = f"Sarle's coefficient is {seeds.sarle:.2f} {uniform}"
    caption = (
        "Exact match of each seed, next to each other at their size. At the threshold "
        f"{bimodality}; so few seeds cannot settle whether there are two peaks."
    )
    y_axis, title = Axis("exact match", range=(-0.04, 1.04)), "Seeds at the threshold"
    traces.append(ReferenceLine(y=0.5))
    return Figure("emergence-seeds", title, caption, N_AXIS, y_axis, traces)


def tables(study: EmergenceStudy) -> Iterator[Table | None]:
    """How sharp each metric is in N, and exact match by size."""
    records = [
        {
            "metric": NAMES[name],
            "smallest N": float(trend.value[0]),
            "largest N": float(trend.value[-1]),
            "share of range per doubling": trend.sharpness,
            "N halfway": trend.halfway,
        }
        for name, trend in study.trends.items()
        if name in NAMES
    ]
    sizes = study.trends["exact_match"].n
    caption = (
        "Medians over seeds. The share is the largest change within one doubling of N; an even "
        f"change would give {1.0 / np.log2(sizes[-1] / sizes[0]):.2f}. The likelihood is that of a "
        "whole answer; the edit distance is of the greedily decoded answer, at the end of a run."
    )
    rough, count = ("share of range per doubling",), ("N halfway",)
    title = "How sharp each metric is"
    yield record_table("emergence-metrics", title, records, caption, rough=rough, count=count)
    by_size = study.final.groupby("n")
    ladder = by_size.agg(
        **{
            "seeds": ("n", "size"),
            "exact match": ("exact_match", Interval.of_range),
            "token accuracy": ("token_accuracy", "mean"),
            "nats per digit": ("nll", "mean"),
        }
    )
    caption = "Exact match: mean, minimum and maximum over seeds."
    rows = ladder.reset_index(names="N").astype({"N": float}).to_dict("records")
    yield record_table("emergence-sizes", "The ladder", rows, caption)


TITLE = "Emergence: metric or transition?"
STUDY = Study("emergence", TITLE, analyze, claims, figures, tables, notes)
