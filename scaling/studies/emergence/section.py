"""Emergence in a report: one set of checkpoints under several metrics, and which jump is the
metric's and which the model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd

from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Table, number
from scaling.studies.emergence.analysis import (
    METRIC_EFFECT_RATIO,
    NAMES,
    TRANSITION_SHARE,
    UNIFORM_SARLE,
    EmergenceStudy,
    analyze,
    claims,
)
from scaling.studies.study import Interval, Study, record_table

N_AXIS = Axis("parameters N", log=True, unit="count")
MATCH_AXIS = Axis("exact match")
METRIC = {
    True: ", so the metric adds to the jump (the criterion is {limit:g} times).",
    False: ", so the metric adds little to the jump (less than {limit:g} times).",
    None: "; these seeds do not settle whether the metric adds to the jump "
    "(the criterion is {limit:g} times).",
}
MODEL = {
    True: "at least the criterion of {limit:g}, so there is a transition of the model itself",
    False: "less than the criterion of {limit:g}, so over N the model improves smoothly",
    None: "and these seeds do not settle whether that is the {limit:g} of a transition",
}
SPREAD = 0.05  # half the width, in ln N, that the seeds of a size are spread over


def notes(study: EmergenceStudy) -> list[str]:
    """What is seen, what the metric adds, what the model does, each by the stated criterion; then
    which runs are left out.
    """
    exact, nll = study.trends["exact_match"], study.trends["nll"]
    metric, transition = study.metric_effect, study.transition
    is_whole = study.is_all_or_nothing
    said = [
        f"From {format_count(exact.n[0])} to {format_count(exact.n[-1])} parameters exact match on "
        f"addition goes from {exact.value[0]:.2f} to {exact.value[-1]:.2f} and passes half of that "
        f"at {format_count(round(exact.halfway))}, log-likelihood at "
        f"{format_count(round(nll.halfway))}.",
        f"Metric: exact match is {metric} times as sharp in N as log-likelihood on the same runs"
        + METRIC[metric.verdict].format(limit=METRIC_EFFECT_RATIO),
        f"Model: log-likelihood itself passes {transition} of its range within one doubling of N, "
        + MODEL[transition.verdict].format(limit=TRANSITION_SHARE)
        + f"; {study.n_settled} of the {study.n_digits} digits that some run does not know are "
        "guessed or known at the end of a run, "
        + ("so what jumps is each digit." if is_whole else "the others half-learned."),
    ]
    if study.n_excluded:
        said.append(
            f"{study.n_excluded} runs that differ from the others of their size in more than the "
            "seed are not in these figures."
        )
    return said


def columns(frame: pd.DataFrame, *names: str) -> np.ndarray:
    """The columns of these names (names, rows)."""
    return frame[list(names)].to_numpy(float).T


def _metrics(study: EmergenceStudy) -> Figure:
    """Every metric between the smallest size's value and the largest's."""
    traces: list[Trace] = []
    for index, metric in enumerate(name for name in NAMES if name in study.trends):
        trend, name = study.trends[metric], NAMES[metric]
        first, last = trend.value[0], trend.value[-1]
        width = 2.0 if index else 3.0
        dash: Literal["dash", "solid"] = "dash" if index else "solid"
        traces.append(Line(trend.n, trend.share, name, index, dash, width))
        n, value = columns(study.final, "n", metric)
        tooltips = [
            f"{format_count(size)} parameters, {name} {number(at)}"
            for size, at in zip(n, value, strict=True)
        ]
        share = (value - first) / (last - first)
        traces.append(Markers(n, share, "", index, "circle", 4.5, notes=tooltips))
    caption = (
        "The same checkpoints under each metric, scaled from its value at the smallest size (0) to "
        "that at the largest (1). Lines join medians over seeds, points are runs."
    )
    title, y = "One ladder, several metrics", Axis("share of the change")
    return Figure("emergence-metrics", title, caption, N_AXIS, y, traces, size="wide")


def _fits(study: EmergenceStudy) -> Figure:
    """The exact match of each run with both curves."""
    lines = [
        Line(fit.x, np.clip(fit.y, 0.0, 1.3), f"{fit.name}, RSS {number(fit.rss, 3)}", colour)
        for colour, fit in enumerate(study.curve_fits)
    ]
    n, match = columns(study.final, "n", "exact_match")
    sigmoid, power_law = (fit.formula for fit in study.curve_fits)
    caption = f"{sigmoid} and {power_law} by least squares on all runs, two free parameters each."
    traces: tuple[Trace, ...] = (*lines, Markers(n, match, "runs", "ink", "circle", 6))
    title = "Sigmoid or power law"
    return Figure("emergence-fits", title, caption, N_AXIS, MATCH_AXIS, traces)


def _seeds(study: EmergenceStudy) -> Figure:
    """Exact match for each size, its seeds next to each other."""
    by_size = study.final.groupby("n")
    rank, count = by_size.cumcount().to_numpy(), by_size["n"].transform("count").to_numpy()
    n, value = columns(study.final, "n", "exact_match")
    offset = np.where(count > 1, 2 * rank / np.maximum(count - 1, 1) - 1, 0.0)
    x, at_threshold = n * np.exp(SPREAD * offset), n == study.threshold.n
    seeds = study.final["seed"].to_numpy()

    def markers(
        chosen: np.ndarray, label: str, colour: int, symbol: Literal["circle", "diamond"], size: int
    ) -> Markers:
        tooltips = [
            f"seed {seed}: {match:.3f}"
            for seed, match in zip(seeds[chosen], value[chosen], strict=True)
        ]
        return Markers(x[chosen], value[chosen], label, colour, symbol, size, notes=tooltips)

    n_seeds, sarle = int(at_threshold.sum()), study.threshold.sarle
    bimodality = (
        f"Sarle's coefficient is {sarle:.2f} (two points 1, uniform {UNIFORM_SARLE:.2f})"
        if np.isfinite(sarle)
        else "the seeds do not differ"
    )
    caption = (
        "Exact match of each seed, next to each other at their size. At the threshold "
        f"{bimodality}; "
        "so few seeds cannot settle whether there are two peaks."
    )
    traces = (
        markers(at_threshold, f"threshold, {n_seeds} seeds", 1, "diamond", 9),
        markers(~at_threshold, "other sizes", 0, "circle", 6),
        ReferenceLine(y=0.5),
    )
    y = Axis("exact match", range=(-0.04, 1.04))
    return Figure("emergence-seeds", "Seeds at the threshold", caption, N_AXIS, y, traces)


def _product(study: EmergenceStudy) -> Figure:
    """Two predictions of exact match from accuracies, over all checkpoints."""
    match, power, product = columns(study.points, "exact_match", "power", "product")
    traces = (
        Line([0, 1], [0, 1], "predicted = measured", "muted", "dash", 1.5),
        Markers(power, match, "(mean token accuracy)^digits", 1, "open", 6),
        Markers(product, match, "product of per-position accuracies", 0, "circle", 6),
    )
    caption = (
        "Every checkpoint of every run: its exact match against two predictions from single digits."
    )
    title, x = "Exact match from single digits", Axis("predicted")
    return Figure("emergence-product", title, caption, x, MATCH_AXIS, traces)


def _training(study: EmergenceStudy) -> Figure:
    """Exact match against log-likelihood along training, one colour per size."""
    sizes = sorted(study.points["n"].unique())
    ramp = ColorScale("parameters N", float(sizes[0]), float(sizes[-1]))
    traces: list[Trace] = []
    for _, of_size in study.points.groupby("n"):
        x, y = columns(of_size, "nll", "exact_match")
        colour = ramp.at(float(of_size["n"].iloc[0]))
        tooltips = [f"step {step}" for step in of_size["step"]]
        traces.append(Markers(x, y, "", colour, "circle", 6, notes=tooltips))
    n_digits = int(study.final["digits"].iloc[0])
    grid = np.linspace(0.0, float(study.points["nll"].max()), 80)
    curve = study.likelihood_curve
    label = f"falling curve, R2 {curve.r2:.3f}"
    traces += [
        Line(curve.x, curve.y, label, "ink", "solid", 1.5),
        Line(grid, np.exp(-n_digits * grid), "exp(-nats of the answer)", "muted", "dash", 1.5),
    ]
    caption = (
        "All checkpoints along training. Where they share one curve, exact match is a function of "
        "log-likelihood; its bend is the metric's and the same for every size."
    )
    axes, title = (Axis("negative log-likelihood, nats per digit"), MATCH_AXIS), "Along training"
    return Figure("emergence-training", title, caption, *axes, traces, ramp)


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
    even = 1.0 / float(np.log2(sizes[-1] / sizes[0]))
    caption = (
        "Medians over seeds. The share is the largest change within one doubling of N; an even "
        f"change would give {even:.2f}. The likelihood is that of a whole answer; the edit "
        "distance is of the greedily decoded answer, at the end of a run."
    )
    rough, count = ("share of range per doubling",), ("N halfway",)
    title = "How sharp each metric is"
    yield record_table("emergence-metrics", title, records, caption, rough=rough, count=count)
    records = []
    for _, of_size in study.final.groupby("n"):
        match = of_size["exact_match"]
        records.append(
            {
                "N": float(of_size["n"].iloc[0]),
                "seeds": len(of_size),
                "exact match": Interval(
                    float(match.mean()), float(match.min()), float(match.max())
                ),
                "token accuracy": float(of_size["token_accuracy"].mean()),
                "nats per digit": float(of_size["nll"].mean()),
            }
        )
    caption = "Exact match: mean, minimum and maximum over seeds."
    yield record_table("emergence-sizes", "The ladder", records, caption, count="N")


def figures(study: EmergenceStudy) -> list[Figure]:
    """Metrics over N, curves, seeds, products of accuracies, and exact match along training."""
    return [_metrics(study), _fits(study), _seeds(study), _product(study), _training(study)]


TITLE = "Emergence: metric or transition?"
STUDY = Study("emergence", TITLE, analyze, claims, figures, tables, notes)
