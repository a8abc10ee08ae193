"""Induction: symbols that can only be copied from earlier in the window, by models of one layer and
of more (Olsson 2022).

Copying needs two steps of attention: a head that marks each position with the symbol before it, and
a head of a later layer that looks for the position whose mark is the present symbol (the induction
head). Both are needed before either pays, so the loss on copied symbols falls in a short part of
training; one layer cannot compose them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from scaling.render.figure import Axis, Figure, Line, ReferenceLine, Trace
from scaling.render.table import Table
from scaling.studies import runs
from scaling.studies.study import Claim, Study, record_table

DROP_WINDOW = 1 / 3  # a drop is sought within this share of the steps so far
MIN_DROP = 1.5  # nats


class LossDrop(NamedTuple):
    """The largest fall of the copied loss within `DROP_WINDOW`, from step `start` to step `end`."""

    nats: float
    start: int
    end: int


@dataclass(frozen=True)
class InductionRun:
    """Losses in nats at the measured steps, arrays (n,): on symbols that can be copied, and on
    fresh ones. `chance_loss` is ln V, that of a guess among all symbols.
    """

    run_id: str
    seed: int
    n_layers: int
    chance_loss: float
    step: np.ndarray
    copied: np.ndarray
    fresh: np.ndarray

    @property
    def copies(self) -> bool:
        """Whether the copied loss ends below half of ln V."""
        return bool(self.copied[-1] < self.chance_loss / 2)

    @property
    def drop(self) -> LossDrop:
        """The largest drop over pairs of measured steps s1 < s2 with s2 - s1 <= s2 / 3; 0 nats
        without such a pair.
        """
        start, end = np.triu_indices(len(self.step), 1)
        is_near = self.step[end] - self.step[start] <= DROP_WINDOW * self.step[end]
        if not is_near.any():
            return LossDrop(0.0, int(self.step[0]), int(self.step[-1]))
        start, end = start[is_near], end[is_near]
        falls = self.copied[start] - self.copied[end]
        best = int(np.argmax(falls))
        return LossDrop(float(falls[best]), int(self.step[start[best]]), int(self.step[end[best]]))


def analyze(rows: pd.DataFrame) -> list[InductionRun] | None:
    """The induction runs of a results table by depth and seed; None where there are none."""
    rows = runs.without_diverged(rows)
    copied = runs.metric_rows(rows[rows["task"] == "induction"], "copied_loss")
    fresh = runs.metric_rows(rows, "fresh_loss")[["run_id", "step", "value"]]
    joined = copied.merge(fresh.rename(columns={"value": "fresh"}), on=["run_id", "step"])
    made = []
    for run_id, of_run in joined.groupby("run_id"):
        first = of_run.iloc[0]
        made.append(
            InductionRun(
                str(run_id),
                int(first["seed"]),
                int(first["n_layers"]),
                math.log(first["vocab_size"]),
                of_run["step"].to_numpy(),
                of_run["value"].to_numpy(float),
                of_run["fresh"].to_numpy(float),
            )
        )
    return sorted(made, key=lambda run: (run.n_layers, run.seed, run.run_id)) or None


def claims(study: Sequence[InductionRun]) -> list[Claim]:
    """Two layers copy below half of ln V and learn it in one drop; one layer does neither."""
    bound = f"{study[0].chance_loss / 2:.3g} nats, half of ln V"
    deep = [run for run in study if run.n_layers > 1]
    is_two = all(run.n_layers == 2 for run in deep)
    depths = (("two layers" if is_two else "two layers or more"), deep, True)
    shallow = ("one layer", [run for run in study if run.n_layers == 1], False)
    made = []
    for depth, among, learns in (depths, shallow):
        final = [float(run.copied[-1]) for run in among]
        drops = [run.drop.nats for run in among]
        for quantity, expected, values, worst, passes in (
            (
                "copied loss at the end",
                f"{'below' if learns else 'not below'} {bound}",
                final,
                max if learns else min,
                [run.copies is learns for run in among],
            ),
            (
                "largest drop within a third of the steps so far",
                f"{'at least' if learns else 'below'} {MIN_DROP:g} nats",
                drops,
                min if learns else max,
                [(drop >= MIN_DROP) is learns for drop in drops],
            ),
        ):
            measured, holds = "no such runs", None
            if among:
                several = f", the worst of {len(among)} runs" if len(among) > 1 else ""
                measured, holds = f"{worst(values):.3g} nats{several}", all(passes)
            made.append(Claim(f"{quantity}, {depth}", expected, measured, holds))
    return made


def notes(study: Sequence[InductionRun]) -> list[str]:
    """Three sentences that say no more than these runs show."""
    said = [
        "Each window repeats a random segment of random length, so the next symbol can be known "
        "only by copying what followed the same symbol before."
    ]
    deep, shallow = ([r.copies for r in study if (r.n_layers > 1) is d] for d in (True, False))
    if deep:
        said.append(
            f"Of the runs with two layers or more, {sum(deep)} of {len(deep)} learn it: the "
            "loss stays flat, then falls quickly once a head marks each position with the symbol "
            "before it and a head of a later layer looks for that mark (the induction head of "
            "Olsson 2022)."
        )
    if shallow:
        said.append(
            f"Of the runs with one layer, {sum(shallow)} of {len(shallow)} get that far: heads of "
            "one layer read the embeddings and not each other's output, so the loss falls only by "
            "what the symbols so far say about those to come."
        )
    return said


def figures(study: Sequence[InductionRun]) -> Iterator[Figure]:
    """Copied and fresh loss of all runs."""
    chance = study[0].chance_loss
    traces: list[Trace] = [
        ReferenceLine(y=chance, label="ln V, a guess"),
        ReferenceLine(y=chance / 2, label="half of ln V"),
    ]
    labels = set()
    for run in study:
        depth = "1 layer" if run.n_layers == 1 else f"{run.n_layers} layers"
        copied, fresh = (
            "" if depth in labels else f"{depth}, {kind}" for kind in ("copied", "fresh")
        )
        labels.add(depth)
        colour, tooltip = 1 if run.n_layers == 1 else 0, f"seed {run.seed}"
        traces.append(Line(run.step, run.copied, copied, colour, "solid", 2.2, tooltip))
        traces.append(Line(run.step, run.fresh, fresh, colour, "dot", 1.2, tooltip))
    caption = (
        "Loss on the symbols that can be copied (solid) and on those of the segment's first "
        "appearance, which cannot be known (dotted). One line per seed."
    )
    axes = Axis("step", log=True, unit="count"), Axis("loss (nats per symbol)")
    title = "Copied and fresh symbols"
    yield Figure("induction", title, caption, *axes, traces, size="wide")


def tables(study: Sequence[InductionRun]) -> Iterator[Table | None]:
    """Each run at its end, and its largest drop."""
    records = [
        {
            "layers": run.n_layers,
            "seed": run.seed,
            "copied loss": float(run.copied[-1]),
            "fresh loss": float(run.fresh[-1]),
            "largest drop, nats": run.drop.nats,
            "from step": run.drop.start,
            "to step": run.drop.end,
        }
        for run in study
    ]
    caption = (
        "Losses at the end in nats; the drop is the largest of the copied loss within a third of "
        "the steps so far."
    )
    yield record_table("induction", "Losses and drops by run", records, caption)


STUDY = Study(
    "induction",
    "Induction: copying earlier symbols",
    analyze,
    claims,
    figures,
    tables,
    notes,
)
