"""The section on emergence: one set of checkpoints under several metrics, and which jump is the metric's and which the model's."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, ReferenceLine
from scaling.render.section import Section
from scaling.render.table import Column, Table, number
from scaling.studies import emergence
from scaling.studies.emergence import EVEN, NAMES, Study
from scaling.studies.findings import table as findings_table

ID, TITLE = "emergence", "Emergence: metric or transition?"
SIZE = Axis("parameters N", log=True, unit="count")
_AS = "Metric: exact match is {} times as sharp in N as log-likelihood on the same runs"
METRIC = {
    True: _AS + ", so the metric adds to the jump (from {:g} times on it is said to).",
    False: _AS + ", so the metric adds little to the jump (less than {:g} times).",
    None: _AS
    + "; these seeds do not settle whether the metric adds to the jump (from {:g} times on it is said to).",
}
_PASSES = "Model: log-likelihood itself passes {} of its range within one doubling of N, "
MODEL = {
    True: _PASSES
    + "at least the {:g} that are asked for, so there is a transition of the model itself",
    False: _PASSES + "less than the {:g} that are asked for, so over N the model improves smoothly",
    None: _PASSES + "and these seeds do not settle whether that is the {:g} of a transition",
}
SPREAD = 0.05  # half the width, in ln N, that the seeds of a size are spread over so that none hides another


def section(table: pd.DataFrame) -> Section | None:
    """The addition ladder of a table, or None where there is none."""
    found = emergence.study(table)
    if found is None:
        return None
    figures = (_metrics(found), _fits(found), _seeds(found), _product(found), _training(found))
    tables = (findings_table(ID, emergence.findings(found)), _trends(found), _sizes(found))
    return Section(ID, TITLE, figures, tables, notes(found))


def notes(found: Study) -> list[str]:
    """What is seen, what the metric adds, and what the model itself does, each as the stated criterion decides; then who is left out."""
    exact, nll = found.trends["exact_match"], found.trends["nll"]
    saw = (
        f"From {format_count(exact.n[0])} to {format_count(exact.n[-1])} parameters exact match on addition goes from "
        f"{exact.value[0]:.2f} to {exact.value[-1]:.2f} and passes half of that way at {format_count(round(exact.halfway))}, log-likelihood "
        f"at {format_count(round(nll.halfway))}."
    )
    left_out = f"{found.left_out} runs that differ from the others of their size in more than the seed are not in these figures."
    said = [
        saw,
        METRIC[found.metric.verdict].format(found.metric, emergence.SHARPER),
        _model(found),
    ]
    return [*said, *([left_out] if found.left_out else [])]


def _model(found: Study) -> str:
    """The third sentence: the transition over N, and the digits."""
    said = MODEL[found.transition.verdict].format(found.transition, emergence.TRANSITION)
    whole = found.settled >= emergence.ALL_OR_NOTHING * found.counted
    digits = f"{found.settled} of the {found.counted} digits that some run does not know are guessed or known at the end of a run"
    return f"{said}; {digits}, {'so what jumps is each digit' if whole else 'the others half-learned'}."


def _metrics(found: Study) -> Figure:
    """Every metric on the way from the smallest size's value to the largest's."""
    traces: list[Line | Markers] = []
    for place, metric in enumerate(name for name in NAMES if name in found.trends):
        seen = found.trends[metric]
        first, last = seen.value[0], seen.value[-1]
        wide = 3.0 if metric == "exact_match" else 2.0
        traces.append(
            Line(seen.n, seen.share, NAMES[metric], place, "solid" if place < 1 else "dash", wide)
        )
        runs = [
            f"{format_count(n)} parameters, {NAMES[metric]} {number(value)}"
            for n, value in found.ends[["n", metric]].to_numpy()
        ]
        traces.append(
            Markers(
                _of(found.ends, "n"),
                (_of(found.ends, metric) - first) / (last - first),
                "",
                place,
                "circle",
                4.5,
                notes=runs,
            )
        )
    caption = "The same checkpoints under each metric, as the share of the way from its value at the smallest size to that at the largest. "
    caption += "Lines join medians over seeds, points are runs."
    return Figure(
        "emergence-metrics",
        "One ladder, several metrics",
        caption,
        SIZE,
        Axis("share of the way"),
        tuple(traces),
        size="wide",
    )


def _fits(found: Study) -> Figure:
    """The exact match of each run with both curves."""
    lines = [
        Line(
            shape.x, np.clip(shape.y, 0.0, 1.3), f"{shape.name}, RSS {number(shape.rss, 3)}", colour
        )
        for shape, colour in zip(found.shapes, (0, 1), strict=True)
    ]
    runs = Markers(_of(found.ends, "n"), _of(found.ends, "exact_match"), "runs", "ink", "circle", 6)
    caption = f"{found.shapes[0].formula} and {found.shapes[1].formula} by least squares on all runs, two free parameters each."
    return Figure(
        "emergence-fits", "Sigmoid or power law", caption, SIZE, Axis("exact match"), (*lines, runs)
    )


def _seeds(found: Study) -> Figure:
    """A strip of exact match for each size, its seeds side by side."""
    rank = found.ends.groupby("n").cumcount().to_numpy()
    count = found.ends.groupby("n")["n"].transform("count").to_numpy()
    n, value = _of(found.ends, "n"), _of(found.ends, "exact_match")
    x = n * np.exp(SPREAD * np.where(count > 1, 2 * rank / np.maximum(count - 1, 1) - 1, 0.0))
    here = n == found.seeds.n
    told = [
        f"seed {seed}: {match:.3f}" for seed, match in zip(found.ends["seed"], value, strict=True)
    ]
    traces = (
        Markers(
            x[here],
            value[here],
            f"threshold, {int(here.sum())} seeds",
            1,
            "diamond",
            9,
            notes=[note for note, mine in zip(told, here, strict=True) if mine],
        ),
        Markers(
            x[~here],
            value[~here],
            "other sizes",
            0,
            "circle",
            6,
            notes=[note for note, mine in zip(told, here, strict=True) if not mine],
        ),
        ReferenceLine(y=0.5),
    )
    sarle = found.seeds.sarle
    known = (
        "the seeds do not spread"
        if not np.isfinite(sarle)
        else f"Sarle's coefficient {sarle:.2f} (two points 1, even {EVEN:.2f})"
    )
    caption = f"Exact match of each seed, side by side at its size. At the threshold {known}; so few seeds cannot settle whether there are two "
    caption += "peaks."
    return Figure(
        "emergence-seeds",
        "Seeds at the threshold",
        caption,
        SIZE,
        Axis("exact match", range=(-0.04, 1.04)),
        traces,
    )


def _product(found: Study) -> Figure:
    """Two predictions of exact match from accuracies, over all checkpoints."""
    seen = found.seen
    traces = (
        Line([0, 1], [0, 1], "predicted = measured", "muted", "dash", 1.5),
        Markers(
            _of(seen, "power"),
            _of(seen, "exact_match"),
            "(mean token accuracy)^digits",
            1,
            "open",
            6,
        ),
        Markers(
            _of(seen, "product"),
            _of(seen, "exact_match"),
            "product of per-position accuracies",
            0,
            "circle",
            6,
        ),
    )
    caption = (
        "Every checkpoint of every run: its exact match against two predictions from single digits."
    )
    return Figure(
        "emergence-product",
        "Exact match from single digits",
        caption,
        Axis("predicted"),
        Axis("exact match"),
        traces,
    )


def _training(found: Study) -> Figure:
    """Exact match against log-likelihood along training, one colour a size."""
    sizes = sorted(found.seen["n"].unique())
    ramp = ColorScale("parameters N", float(sizes[0]), float(sizes[-1]))
    runs = [
        Markers(
            _of(mine, "nll"),
            _of(mine, "exact_match"),
            "",
            ramp.at(n),
            "circle",
            6,
            notes=[f"step {step}" for step in mine["step"]],
        )
        for n, mine in _by_size(found.seen)
    ]
    digits = int(found.ends["digits"].iloc[0])
    grid = np.linspace(0.0, float(found.seen["nll"].max()), 80)
    lines = (
        Line(
            found.curve.x,
            found.curve.y,
            f"falling curve, R2 {found.curve.r2:.3f}",
            "ink",
            "solid",
            1.5,
        ),
        Line(grid, np.exp(-digits * grid), "exp(-nats of the answer)", "muted", "dash", 1.5),
    )
    caption = "All checkpoints along training. Where they share one curve, exact match is log-likelihood seen through a bent glass; "
    caption += "the bend is the metric's and the same for every size."
    x = Axis("negative log-likelihood, nats a digit")
    return Figure(
        "emergence-training",
        "Along training",
        caption,
        x,
        Axis("exact match"),
        (*runs, *lines),
        ramp,
    )


def _trends(found: Study) -> Table:
    """How sharp each metric is in N."""
    order = [name for name in NAMES if name in found.trends]
    rows = tuple(
        (NAMES[name], float(seen.value[0]), float(seen.value[-1]), seen.sharpness, seen.halfway)
        for name, seen in ((name, found.trends[name]) for name in order)
    )
    columns = (
        Column("metric"),
        Column("smallest N", "number"),
        Column("largest N", "number"),
        Column("share of range in a doubling", "rough"),
        Column("N halfway", "count"),
    )
    sizes = found.trends["exact_match"].n
    even = 1.0 / float(np.log2(sizes[-1] / sizes[0]))
    caption = f"Medians over seeds. The third figure is the largest change within one doubling of N; an even change would give {even:.2f}. "
    caption += "The likelihood is that of a whole answer; the edit distance is of the answer written greedily, at the end of a run."
    return Table("emergence-metrics", "How sharp each metric is", columns, rows, caption)


def _sizes(found: Study) -> Table:
    """Exact match by size."""
    rows = tuple(
        (
            n,
            len(mine),
            (
                float(mine["exact_match"].mean()),
                float(mine["exact_match"].min()),
                float(mine["exact_match"].max()),
            ),
            float(mine["token_accuracy"].mean()),
            float(mine["nll"].mean()),
        )
        for n, mine in _by_size(found.ends)
    )
    columns = (
        Column("N", "count"),
        Column("seeds", "integer"),
        Column("exact match", "number", True),
        Column("token accuracy", "number"),
        Column("nats a digit", "number"),
    )
    return Table(
        "emergence-sizes",
        "The ladder",
        columns,
        rows,
        "Exact match: mean, least and most of the seeds.",
    )


def _of(frame: pd.DataFrame, column: str) -> np.ndarray:
    return frame[column].to_numpy(float)


def _by_size(frame: pd.DataFrame) -> list[tuple[float, pd.DataFrame]]:
    return [(float(n), frame[frame["n"] == n]) for n in sorted(frame["n"].unique())]
