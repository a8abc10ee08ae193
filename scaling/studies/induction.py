"""Induction: symbols that can only be copied from earlier in the window, by models of one layer and
of more (Olsson 2022).

Copying needs two steps of attention: a head that marks each position with the symbol before it, and
a head of a later layer that looks for the position whose mark is the present symbol (the induction
head). Both are needed before either pays, so the loss on copied symbols falls in a short part of
training; one layer cannot compose them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pandas import DataFrame

from scaling.render.figure import Axis, Dash, Figure, ReferenceLine, Trace
from scaling.studies import runs
from scaling.studies.study import Claim, Findings, Study, record_table, run_lines

DROP_WINDOW = 1 / 3  # a drop is sought within this share of the steps so far
MIN_DROP = 1.5  # nats
KINDS: tuple[tuple[str, Dash, float], ...] = (("copied", "solid", 2.2), ("fresh", "dot", 1.2))


def analyze(rows: DataFrame) -> Findings | None:
    """The losses along the runs, on symbols that can be copied and on `fresh` ones, and each run's
    largest drop; None where there are no such losses.
    """
    rows = rows[rows["task"] == "induction"]
    curves = runs.along(rows, copied="copied_loss", fresh="fresh_loss")
    if curves.empty:
        return None
    curves = curves.sort_values(["n_layers", "seed", "run_id", "step"])
    half = float(np.log(curves["vocab_size"].iloc[0]) / 2)
    table = ends(curves)
    caption = (
        "Losses at the end in nats; the drop is the largest of the copied loss within a third of "
        "the steps so far."
    )
    records = table.to_dict("records")
    return Findings(
        list(_claims(table, half)),
        [_figure(curves, half)],
        record_table("induction", "Losses and drops by run", records, caption),
        [
            "One head marks each position with the symbol before it, a head of a later layer looks "
            "for that mark (Olsson 2022); the heads of one layer do not read each other's output."
        ],
    )


def largest_drop(step: np.ndarray, loss: np.ndarray) -> tuple[float, int, int]:
    """The largest fall of a loss (n,), and its first and last step, over pairs of measured steps
    s1 < s2 with s2 - s1 <= s2 / 3; 0 nats without such a pair.
    """
    start, end = np.triu_indices(len(step), 1)
    is_near = step[end] - step[start] <= DROP_WINDOW * step[end]
    if not is_near.any():
        return 0.0, int(step[0]), int(step[-1])
    falls = np.where(is_near, loss[start] - loss[end], -np.inf)
    best = int(np.argmax(falls))
    return float(falls[best]), int(step[start[best]]), int(step[end[best]])


def ends(curves: DataFrame) -> DataFrame:
    """Each run at its end, and its largest drop of the copied loss."""
    records = []
    for (layers, seed, _), run in curves.groupby(["n_layers", "seed", "run_id"]):
        drop = largest_drop(run["step"].to_numpy(), run["copied"].to_numpy())
        losses = run[["copied", "fresh"]].iloc[-1]
        records.append((layers, seed, *losses, *drop))
    names = ("layers", "seed", "copied loss", "fresh loss", "largest drop, nats")
    return DataFrame(records, columns=[*names, "from step", "to step"])


def _claims(table: DataFrame, half: float) -> Iterator[Claim]:
    """Two layers copy below `half` of ln V and learn it in one drop; one layer does neither."""
    deep, shallow = table[table["layers"] > 1], table[table["layers"] == 1]
    depth = "two layers" if (deep["layers"] == 2).all() else "two layers or more"
    drop = "largest drop within a third of the steps so far"
    for learns, name, among in ((True, depth, deep), (False, "one layer", shallow)):
        for column, quantity, limit, above, at_least in (
            ("copied loss", "copied loss at the end", half, not learns, "not below"),
            ("largest drop, nats", drop, MIN_DROP, learns, "at least"),
        ):
            expected = f"{at_least if above else 'below'} {limit:.3g} nats"
            expected += ", half of ln V" if limit is half else ""
            measured, holds = "no such runs", None
            if len(among):
                worst = among[column].min() if above else among[column].max()
                several = f", the worst of {len(among)} runs" if len(among) > 1 else ""
                measured, holds = f"{worst:.3g} nats{several}", bool((worst >= limit) == above)
            yield Claim(f"{quantity}, {name}", expected, measured, holds)


def _figure(curves: DataFrame, half: float) -> Figure:
    """Copied and fresh loss of all runs."""
    traces: list[Trace] = [
        ReferenceLine(y=2 * half, label="ln V, a guess"),
        ReferenceLine(y=half, label="half of ln V"),
    ]
    for depth, of_depth in curves.groupby("n_layers"):
        layers, colour = ("1 layer", 1) if depth == 1 else (f"{depth} layers", 0)
        for kind, dash, width in KINDS:
            traces += run_lines(of_depth, kind, f"{layers}, {kind}", colour, dash, width)
    caption = (
        "Loss on the symbols that can be copied (solid) and on those of the segment's first "
        "appearance, which cannot be known (dotted). One line per seed."
    )
    axes = Axis("step", log=True, unit="count"), Axis("loss (nats per symbol)")
    return Figure("induction", "Copied and fresh symbols", caption, *axes, traces)


STUDY = Study("induction", "Induction: copying earlier symbols", analyze)
