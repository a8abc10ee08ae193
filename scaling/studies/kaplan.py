"""The loss as one power of parameters, of tokens, of compute, and the critical batch as a power of
the loss (Kaplan 2020).

Each is a line in logs without a floor, L = (X_c / X)^alpha, as in the paper; R2 and the largest
residual say how straight it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pandas import DataFrame
from scipy.stats import linregress, t

from scaling.fit.laws.published import published
from scaling.fit.special.critical_batch import ALPHA_B, B_STAR, critical_batch
from scaling.formatting import format_percent
from scaling.render.figure import Axis, Figure, Line, Markers
from scaling.render.table import Table, number
from scaling.studies import runs
from scaling.studies.study import CI, Claim, Interval, Study, record_table

Array = np.ndarray

UNITS: dict[str, Literal["count", "flops"]] = {"N": "count", "D": "count", "C": "flops"}
LOSS_AXIS = Axis("loss (nats per byte or token)", log=True)
MIN_POINTS = 4
MIN_R2 = 0.95  # from which a power law is said to describe the points
EARLY_STOPPED = "unique tokens, best loss along the run"


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(level) x^slope through points x, y (n,) by least squares in logs, the slope with
    Student's interval: L = (X_c / X)^alpha of the letter X, or the critical batch B = B* /
    L^(1 / alpha_B) where the letter is B (Kaplan 2020, eq. 5.3). `counted` says what X counts,
    `published` is Kaplan's exponent.
    """

    letter: str
    counted: str
    published: float
    x: Array
    y: Array
    slope: Interval
    level: float
    r2: float

    def predict(self, x: Array) -> Array:
        """The line."""
        return np.asarray(np.exp(self.level) * x**self.slope.value)

    @property
    def residuals(self) -> Array:
        """ln y less the line (n,)."""
        return np.asarray(np.log(self.y) - np.log(self.predict(self.x)))

    @property
    def exponent(self) -> Interval:
        """-slope with its interval: alpha, or 1 / alpha_B."""
        return Interval(-self.slope.value, -self.slope.hi, -self.slope.lo)

    @property
    def largest_residual(self) -> float:
        """Of ln y, without its sign."""
        return float(np.abs(self.residuals).max())

    @property
    def scale(self) -> float:
        """X_c, where the loss is one nat, or B*, the batch in tokens at one nat."""
        power = 1.0 if self.letter == "B" else -1 / self.slope.value
        return float(np.exp(self.level * power))


@dataclass(frozen=True)
class KaplanStudy:
    """Kaplan's laws in a folder, and the critical batch by noise scales in tokens at the ends of
    runs. `loss_before` and `noise_before` (m,) are from after warm-up and before the end: not
    fitted. `share_improving` is the share of runs on limited text whose best loss is their last.
    """

    laws: tuple[PowerLaw, ...]
    batch: PowerLaw | None
    loss_before: Array
    noise_before: Array
    share_improving: float = 0.0


def analyze(rows: DataFrame) -> KaplanStudy | None:
    """The laws of a folder of text runs of one of two designs; None for others, and where no law
    has `MIN_POINTS` points.

    Either a grid of sizes and tokens with gradient noise, or limited texts without fresh runs.
    """
    if rows.empty or set(rows["task"]) != {"text"}:
        return None
    configs = runs.configs(rows)
    limits = {run: config["task"].get("unique_tokens") for run, config in configs.items()}
    (batch, loss_before, noise_before), share_improving = _critical_batch(rows, configs), 0.0
    if None not in limits.values():
        laws = [_limited_law(rows, limits)]
        is_last_best = [
            bool(of_run["value"].iloc[-1] <= of_run["value"].min())
            for _, of_run in runs.metric_rows(rows, "loss").groupby("run_id")
        ]
        share_improving = float(np.mean(is_last_best))  # early stopping would not have stopped
    elif batch is not None and not any(limits.values()):
        laws = _grid_laws(rows)
    else:
        return None
    fitted = tuple(law for law in laws if law is not None)
    if not fitted:
        return None
    return KaplanStudy(fitted, batch, loss_before, noise_before, share_improving)


def fit_line(letter: str, counted: str, published: float, x: Array, y: Array) -> PowerLaw | None:
    """A line in logs through points (n,); None from fewer than `MIN_POINTS` points or one x."""
    if len(x) < MIN_POINTS or np.ptp(np.log(x)) == 0.0:
        return None
    line = linregress(np.log(x), np.log(y))
    reach = float(t.ppf((1 + CI) / 2, len(x) - 2)) * float(line.stderr)
    slope = Interval(float(line.slope), float(line.slope) - reach, float(line.slope) + reach)
    level, r2 = float(line.intercept), float(line.rvalue) ** 2
    return PowerLaw(letter, counted, published, x, y, slope, level, r2)


def _grid_laws(rows: DataFrame) -> list[PowerLaw | None]:
    """L(N) at the most tokens that all sizes have, in two conventions; L(D) at the largest size;
    L(C) along the lower edge.
    """
    conventions = (("nonembedding", "kaplan"), ("with_head", "exact"))
    bare, with_head = (_by_cell(rows, *convention) for convention in conventions)
    if bare.empty:
        return []
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


def _by_cell(rows: DataFrame, *convention: str) -> DataFrame:
    """n, d, c and the loss of each size and amount, the geometric mean over seeds; empty where the
    runs cannot be compared.
    """
    points = runs.law_points(rows, *convention)
    if points is None:
        return DataFrame()
    table = DataFrame({name: getattr(points, name) for name in ("n", "d", "c", "loss")})
    return _geometric_mean(table, ["n", "d", "c"])


def _geometric_mean(table: DataFrame, by: list[str]) -> DataFrame:
    """The loss of each cell."""
    log_loss = np.log(table["loss"]).groupby([table[name] for name in by]).mean()
    return np.exp(log_loss).reset_index()


def _lower_edge(c: Array, loss: Array) -> Array:
    """Mask (n,) of the points that no cheaper one beats."""
    order = np.lexsort((loss, c))
    best = np.minimum.accumulate(loss[order])
    is_edge = np.zeros(len(c), bool)
    is_edge[order] = (loss[order] <= best) & np.r_[True, best[1:] < best[:-1]]
    return is_edge


def _law(letter: str, counted: str, cells: DataFrame, column: str) -> PowerLaw | None:
    cells = cells[np.isfinite(cells["loss"])]  # a run may have measured no number
    exponent = published(f"kaplan2020-{letter.lower()}").values[f"alpha_{letter}"]
    x, y = (cells[name].to_numpy(float) for name in (column, "loss"))
    return fit_line(letter, counted, float(exponent), x, y)


def _limited_law(rows: DataFrame, limits: Mapping[str, int]) -> PowerLaw | None:
    """L(D) of the largest size on limited texts: the lowest loss along each run, as early stopping
    would give.
    """
    losses = runs.metric_rows(rows, "loss").rename(columns={"value": "loss"})
    largest = losses[losses["n_params_nonembedding"] == losses["n_params_nonembedding"].max()]
    best = largest.groupby("run_id", as_index=False)["loss"].min()
    cells = _geometric_mean(best.assign(d=best["run_id"].map(limits)), ["d"])
    return _law("D", EARLY_STOPPED, cells, "d")


def _critical_batch(
    rows: DataFrame, configs: Mapping[str, Any]
) -> tuple[PowerLaw | None, Array, Array]:
    """Noise scale against held-out loss at the ends of runs (None where there is too little), and
    loss and noise scale before.

    The two are kept apart: the cooldown lowers the loss and raises the noise scale severalfold, so
    a line through both would be steeper than either.
    """
    curves = runs.along(rows, loss="loss", noise=("noise_scale", "train"))
    of_row = [configs[str(run_id)] for run_id in curves["run_id"]]
    at_end = curves["step"] == [config["n_steps"] for config in of_row]
    is_warm = curves["step"] > [config["optim"]["warmup_steps"] for config in of_row]
    before = curves[~at_end & is_warm].drop_duplicates(["n_params", "step", "seed"])
    (loss, noise_scale), (loss_before, noise_before) = (
        frame[["loss", "noise"]].to_numpy(float).T for frame in (curves[at_end], before)
    )
    power = fit_line("B", "critical batch", 1 / ALPHA_B, loss, noise_scale)
    return power, loss_before, noise_before


def claims(study: KaplanStudy) -> Iterator[Claim]:
    """How straight each law is, with its exponent and Kaplan's; other data and sizes have other
    exponents.
    """
    for law in study.laws:
        letter, alpha = law.letter, law.exponent
        yield Claim(
            f"L({letter}) as one power, R2 in logs ({law.counted})",
            f"at least {MIN_R2:g}",
            f"{law.r2:.3f} with alpha_{letter} = {alpha:.3g} (Kaplan {law.published:g})",
            law.r2 >= MIN_R2,
        )
    if study.batch is not None:
        exponent = study.batch.exponent
        yield Claim(
            "critical batch by gradient noise at the ends of runs, "
            "1/alpha_B of B = B* / L^(1/alpha_B)",
            "above 0: noise grows as loss falls",
            f"{exponent:.3g} (Kaplan {1 / ALPHA_B:.2g})",
            exponent.lo > 0,
        )


def notes(study: KaplanStudy) -> list[str]:
    """Three sentences that say no more than these runs show; one law per letter, N as Kaplan counts
    it.
    """
    by_letter = {law.letter: law for law in reversed(study.laws)}
    laws = list(by_letter.values())[::-1]
    exponents = ", ".join(f"{law.exponent.value:.2g} for {law.letter}" for law in laws)
    inside = [law.letter for law in laws if law.exponent.lo <= law.published <= law.exponent.hi]
    agree = (
        f"that of {', '.join(inside)} lies" if inside else "none of the published exponents lies"
    )
    notes = [
        "Each line is a power law without a floor, as Kaplan et al. 2020 fit them: the exponents "
        f"here are {exponents}, and {agree} in its interval.",
        "Equal exponents are not to be expected: the loss of other text in other units (bytes, a "
        "short window) is another quantity than that of web text in tokens with a window of 1,024, "
        "and that study's sizes range from 768 to 1.5e9 parameters.",
        "R2 and the largest residual say how straight each line is: a floor or a second limit (too "
        "few tokens for the largest sizes, too small a model for the most tokens) bends it, "
        "and its "
        "exponent then holds for these points alone.",
    ]
    if study.share_improving:
        notes.append(
            f"Early stopping would not have stopped {study.share_improving:.0%} of the runs: their "
            "best loss is their last, and more passes might lower it."
        )
    return notes


def tables(study: KaplanStudy) -> Iterator[Table | None]:
    """Exponents with intervals, the published ones, and how well each line fits."""
    laws = [(f"L({law.letter}), {law.counted}", law, law.largest_residual) for law in study.laws]
    if (batch := study.batch) is not None:
        laws.append(("B_crit(L), 1/alpha_B", batch, float(np.expm1(batch.largest_residual))))
    records = [
        {
            "law": name,
            "points": len(law.x),
            "exponent": law.exponent,
            "Kaplan": law.published,
            "X_c or B*": law.scale,
            "R2": law.r2,
            "largest residual": f"{format_percent(largest)}",
        }
        for name, law, largest in laws
    ]
    caption = (
        f"Least squares in logs; intervals of {CI:.0%} by Student's t, for the line alone: they do "
        "not account for curvature."
    )
    title = "Exponents and the published ones"
    yield record_table("kaplan-exponents", title, records, caption, rough=("X_c or B*",))


def figures(study: KaplanStudy) -> Iterator[Figure]:
    """Each law as a line in logs, and the noise scale against loss with both critical batches."""
    for index, law in enumerate(study.laws):
        alpha = law.exponent.value
        x = np.geomspace(law.x.min(), law.x.max(), 60)
        published = law.y[0] / (law.x[0] / x) ** -law.published  # from the first point on
        traces = (
            Line(x, law.predict(x), f"alpha = {alpha:.3g}", "ink", "dash", 1.6),
            Line(x, published, f"Kaplan's slope, {law.published:g}", "muted", "dot", 1.4),
            Markers(law.x, law.y, "runs", 0),
        )
        caption = (
            f"{law.letter}: {law.counted}. R2 {law.r2:.3f} in logs, largest residual "
            f"{format_percent(law.largest_residual)}. Dotted: the published "
            "exponent, from the first point on."
        )
        x_axis = Axis(f"{law.letter} ({law.counted})", True, UNITS[law.letter])
        name = f"kaplan-{law.letter.lower()}-{index + 1}"
        yield Figure(name, f"L({law.letter})", caption, x_axis, LOSS_AXIS, traces)
    if (batch := study.batch) is None:
        return
    exponent = batch.exponent.value
    loss = np.geomspace(batch.x.min(), batch.x.max(), 60)
    ours = f"{number(batch.scale, 3)} / L^{exponent:.3g}"
    theirs = f"Kaplan, {B_STAR:.3g} / L^{1 / ALPHA_B:.2g}"
    lines = (
        Line(loss, batch.predict(loss), ours, "ink", "dash", 1.6),
        Line(loss, critical_batch(loss), theirs, "muted", "dot", 1.4),
        Markers(batch.x, batch.y, "ends of runs", 0),
        Markers(study.loss_before, study.noise_before, "before the end", 1, "open"),
    )
    caption = (
        f"The line is fitted to the ends of runs alone, R2 {batch.r2:.3f} in logs: there the "
        "learning rate is cooled down, which lowers the loss and raises the noise. Kaplan's "
        "line is "
        "for tokens of that study and nats per token."
    )
    y = Axis("noise scale (tokens)", True, "count")
    title = "Critical batch by gradient noise"
    yield Figure("kaplan-batch", title, caption, LOSS_AXIS, y, lines)


STUDY = Study("kaplan", "Kaplan's laws", analyze, claims, figures, tables, notes)
