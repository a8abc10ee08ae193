"""Induction: symbols that can only be copied from earlier in the window, by models of one layer and
of more (Olsson 2022).

Copying needs two steps of attention: a head that marks each position with the symbol before it, and
a head of a later layer that looks for the position whose mark is the present symbol (the induction
head). Both are needed before either pays, so the loss on copied symbols falls in a short part of
training; one layer cannot compose them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scaling.render.figure import Axis, Figure, Line, ReferenceLine, Trace
from scaling.render.section import Section
from scaling.render.table import Column, Table
from scaling.studies import runs
from scaling.studies.claims import Claim, study_section

DROP_WINDOW = 1 / 3  # a drop is sought within this share of the steps so far
MIN_DROP = 1.5  # nats


@dataclass(frozen=True)
class LossDrop:
    """The largest fall of the copied loss within `DROP_WINDOW`, in nats, from step `start` to step
    `end`.
    """

    nats: float
    start: int
    end: int


@dataclass(frozen=True)
class InductionRun:
    """Losses in nats at the measured steps, arrays (n,): on symbols that can be copied, and on
    fresh ones.
    """

    run_id: str
    seed: int
    n_layers: int
    n_symbols: int
    step: np.ndarray
    copied: np.ndarray
    fresh: np.ndarray

    @property
    def chance_loss(self) -> float:
        """ln V, the loss of a guess among all symbols."""
        return math.log(self.n_symbols)

    @property
    def final_loss(self) -> float:
        """The copied loss at the end."""
        return float(self.copied[-1])

    @property
    def copies(self) -> bool:
        """Whether the copied loss ends below half of ln V."""
        return self.final_loss < self.chance_loss / 2

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


@dataclass(frozen=True)
class InductionStudy:
    """The runs of one layer and those of more, by depth and seed."""

    shallow: tuple[InductionRun, ...]
    deep: tuple[InductionRun, ...]

    @property
    def all_runs(self) -> tuple[InductionRun, ...]:
        """All runs, the shallow ones first."""
        return self.shallow + self.deep


def analyze(rows: pd.DataFrame) -> InductionStudy | None:
    """The induction runs of a results table; None where there are none."""
    rows = runs.without_diverged(rows)
    copied = runs.metric_rows(rows[rows["task"] == "induction"], "copied_loss")
    if copied.empty:
        return None
    fresh = runs.metric_rows(rows, "fresh_loss")[["run_id", "step", "value"]]
    joined = copied.merge(fresh.rename(columns={"value": "fresh"}), on=["run_id", "step"])
    if joined.empty:
        return None
    made = [
        InductionRun(
            str(run_id),
            int(of_run["seed"].iloc[0]),
            int(of_run["n_layers"].iloc[0]),
            int(of_run["vocab_size"].iloc[0]),
            of_run["step"].to_numpy(),
            of_run["value"].to_numpy(float),
            of_run["fresh"].to_numpy(float),
        )
        for run_id, of_run in joined.groupby("run_id")
    ]
    made.sort(key=lambda run: (run.n_layers, run.seed, run.run_id))
    return InductionStudy(
        tuple(run for run in made if run.n_layers == 1),
        tuple(run for run in made if run.n_layers > 1),
    )


def claims(study: InductionStudy) -> list[Claim]:
    """Two layers copy below half of ln V and learn it in one drop; one layer does neither."""
    bound = f"{study.all_runs[0].chance_loss / 2:.3g} nats, half of ln V"
    is_two = all(run.n_layers == 2 for run in study.deep)
    deep = "two layers" if is_two else "two layers or more"
    final, drop = "copied loss at the end", "largest drop within a third of the steps so far"

    def claim(
        quantity: str,
        expected: str,
        among: Sequence[InductionRun],
        value: Callable[[InductionRun], float],
        worst: Callable[[list[float]], float],
        holds: Callable[[InductionRun], bool],
    ) -> Claim:
        if not among:
            return Claim(quantity, expected, "no such runs", None)
        measured = f"{worst([value(run) for run in among]):.3g} nats"
        if len(among) > 1:
            measured += f", the worst of {len(among)} runs"
        return Claim(quantity, expected, measured, all(holds(run) for run in among))

    def final_loss(run: InductionRun) -> float:
        return run.final_loss

    def drop_nats(run: InductionRun) -> float:
        return run.drop.nats

    def drops(run: InductionRun) -> bool:
        return run.drop.nats >= MIN_DROP

    return [
        claim(
            f"{final}, {deep}", f"below {bound}", study.deep, final_loss, max, lambda r: r.copies
        ),
        claim(f"{drop}, {deep}", f"at least {MIN_DROP:g} nats", study.deep, drop_nats, min, drops),
        claim(
            f"{final}, one layer",
            f"not below {bound}",
            study.shallow,
            final_loss,
            min,
            lambda run: not run.copies,
        ),
        claim(
            f"{drop}, one layer",
            f"below {MIN_DROP:g} nats",
            study.shallow,
            drop_nats,
            max,
            lambda run: not drops(run),
        ),
    ]


def section(rows: pd.DataFrame) -> Section | None:
    """The loss on symbols that can be copied, against steps; None where there are no induction
    runs.
    """
    study = analyze(rows)
    if study is None:
        return None
    return study_section(
        "induction",
        "Induction: copying earlier symbols",
        claims(study),
        [_losses(study)],
        [_drops(study)],
        _notes(study),
    )


def _notes(study: InductionStudy) -> list[str]:
    """Three sentences that say no more than these runs show."""
    notes = [
        "Each window repeats a random segment of random length, so the next symbol can be "
        "known only "
        "by copying what followed the same symbol before."
    ]
    if study.deep:
        n_copying = sum(run.copies for run in study.deep)
        notes.append(
            f"Of the runs with two layers or more, {n_copying} of {len(study.deep)} learn it: the "
            "loss stays flat, then falls quickly once a head marks each position with the symbol "
            "before it and a head of a later layer looks for that mark (the induction head of "
            "Olsson 2022)."
        )
    if study.shallow:
        n_copying = sum(run.copies for run in study.shallow)
        notes.append(
            f"Of the runs with one layer, {n_copying} of {len(study.shallow)} get that far: "
            "heads of "
            "one layer read the embeddings and not each other's output, so the loss falls only by "
            "what the symbols so far say about those to come."
        )
    return notes


def _losses(study: InductionStudy) -> Figure:
    """Copied and fresh loss of all runs."""
    chance = study.all_runs[0].chance_loss
    traces: list[Trace] = [
        ReferenceLine(y=chance, label="ln V, a guess"),
        ReferenceLine(y=chance / 2, label="half of ln V"),
    ]
    labelled: set[str] = set()
    for run in study.all_runs:
        depth = "1 layer" if run.n_layers == 1 else f"{run.n_layers} layers"
        colour, tooltip = 1 if run.n_layers == 1 else 0, f"seed {run.seed}"
        for label, line in (
            (f"{depth}, copied", Line(run.step, run.copied, "", colour, "solid", 2.2, tooltip)),
            (f"{depth}, fresh", Line(run.step, run.fresh, "", colour, "dot", 1.2, tooltip)),
        ):
            traces.append(line if label in labelled else replace(line, label=label))
            labelled.add(label)
    caption = (
        "Loss on the symbols that can be copied (solid) and on those of the segment's first "
        "appearance, which cannot be known (dotted). One line per seed."
    )
    axes = Axis("step", log=True, unit="count"), Axis("loss (nats per symbol)")
    title = "Copied and fresh symbols"
    return Figure("induction", title, caption, *axes, tuple(traces), size="wide")


def _drops(study: InductionStudy) -> Table:
    """Each run at its end, and its largest drop."""
    rows = tuple(
        (
            run.n_layers,
            run.seed,
            run.final_loss,
            float(run.fresh[-1]),
            run.drop.nats,
            run.drop.start,
            run.drop.end,
        )
        for run in study.all_runs
    )
    columns = (
        Column("layers", "integer"),
        Column("seed", "integer"),
        Column("copied loss", "number"),
        Column("fresh loss", "number"),
        Column("largest drop, nats", "number"),
        Column("from step", "integer"),
        Column("to step", "integer"),
    )
    caption = (
        "Losses at the end in nats; the drop is the largest of the copied loss within a third of "
        "the steps so far."
    )
    return Table("induction", "Losses and drops by run", columns, rows, caption)
