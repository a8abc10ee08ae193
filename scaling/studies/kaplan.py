"""The loss as one power of parameters, of tokens, of compute, and the critical batch as a power of
the loss (Kaplan 2020).

Each is a line in logs without a floor, L = (X_c / X)^alpha, as in the paper; R2 says how straight
it is.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pandas import DataFrame
from scipy.stats import gmean

from scaling.fit.laws.published import published
from scaling.fit.special.critical_batch import ALPHA_B
from scaling.render.figure import Axis, Figure, Line, Markers
from scaling.studies import runs
from scaling.studies.study import Claim, Findings, PowerLaw, Study, fit_power_law

UNITS: dict[str, Literal["count", "flops"]] = {"N": "count", "D": "count", "C": "flops"}
LOSS_AXIS = Axis("loss (nats per byte or token)", log=True)
MIN_R2 = 0.95  # from which a power law is said to describe the points
EARLY_STOPPED = "unique tokens, best loss along the run"


class KaplanLaw(NamedTuple):
    """L(X), X the `letter`; or the critical batch B = B* / L^(1 / alpha_B), where it is "B" (Kaplan
    2020, eq. 5.3). `counted` says what X counts, `published` is Kaplan's exponent.
    """

    letter: str
    counted: str
    published: float
    line: PowerLaw


def analyze(rows: DataFrame) -> Findings | None:
    """The laws of a folder of text runs of one of two designs; None for others, and where there is
    no law.

    Either a grid of sizes and tokens with gradient noise, or limited texts without fresh runs.
    """
    if rows.empty or set(rows["task"]) != {"text"}:
        return None
    limits = {
        run: config["task"].get("unique_tokens") for run, config in runs.configs(rows).items()
    }
    # at the ends of runs: the cooldown lowers the loss and raises the noise scale severalfold
    ends = runs.at_end(runs.along(rows, loss="loss", noise=("noise_scale", "train")))
    batch = _law("B", "at the ends of runs", ends, "loss", "noise")
    notes = ["Text in other units, with another window and at other sizes has other exponents."]
    if None not in limits.values():
        losses = runs.metric_rows(rows, "loss").rename(columns={"value": "loss"})
        along = losses.groupby("run_id")["loss"]
        if share := float((along.last() <= along.min()).mean()):
            notes.append(
                f"Early stopping would not have stopped {100 * share:.0f} % of the runs: their "
                "best loss is their last, and more passes might lower it."
            )
        largest = losses[losses["n_params_nonembedding"] == losses["n_params_nonembedding"].max()]
        # the lowest loss along each run, as early stopping would give
        best = largest.groupby("run_id", as_index=False)["loss"].min()
        cells = _mean_over_seeds(best.assign(d=best["run_id"].map(limits)), ["d"])
        found = [_law("D", EARLY_STOPPED, cells, "d")]
    elif batch is not None and not any(limits.values()):
        found = _grid_laws(rows)
    else:
        return None
    laws = [law for law in found if law is not None]
    if not laws:
        return None
    laws += [batch] if batch else []
    figures = [_figure(law, index) for index, law in enumerate(laws, 1)]
    return Findings([_claim(law) for law in laws], figures, notes=notes)


def _law(letter: str, counted: str, cells: DataFrame, x: str, y: str = "loss") -> KaplanLaw | None:
    cells = cells[np.isfinite(cells["loss"])]  # a run may have measured no number
    line = fit_power_law(*cells[[x, y]].to_numpy(float).T)
    if line is None:
        return None
    exponent = 1 / ALPHA_B
    if letter != "B":
        exponent = published(f"kaplan2020-{letter.lower()}").values[f"alpha_{letter}"]
    return KaplanLaw(letter, counted, float(exponent), line)


def _grid_laws(rows: DataFrame) -> list[KaplanLaw | None]:
    """L(N) at the most tokens that all sizes have, in two conventions; L(D) at the largest size;
    L(C) along the lower edge.
    """
    tables = []
    for convention in (("nonembedding", "kaplan"), ("with_head", "exact")):
        points = runs.law_points(rows, *convention)
        if points is None:
            return []
        cells = DataFrame({name: getattr(points, name) for name in ("n", "d", "c", "loss")})
        tables.append(_mean_over_seeds(cells, ["n", "d", "c"]))
    bare, with_head = tables
    n_sizes = bare.groupby("d")["n"].nunique()
    shared = n_sizes[n_sizes == bare["n"].nunique()]
    if not len(shared):
        return []  # where rounding of steps gives every size its own D
    d = float(shared.index.max())
    edge = "FLOPs, 6 N D without embeddings and head, lower edge of all runs"
    return [
        _law("N", "parameters without embeddings and head", bare[bare["d"] == d], "n"),
        _law("N", "parameters with head", with_head[with_head["d"] == d], "n"),
        _law("D", "tokens, all new, largest size", bare[bare["n"] == bare["n"].max()], "d"),
        _law("C", edge, lower_edge(bare), "c"),
    ]


def _mean_over_seeds(losses: DataFrame, by: list[str]) -> DataFrame:
    """The geometric mean of the loss of each cell."""
    return losses.groupby(by)["loss"].agg(gmean).reset_index()


def lower_edge(cells: DataFrame) -> DataFrame:
    """The cells whose loss no cheaper one reaches."""
    by_cost = cells.sort_values(["c", "loss"])
    return by_cost[by_cost["loss"] < by_cost["loss"].cummin().shift(fill_value=np.inf)]


def _claim(law: KaplanLaw) -> Claim:
    """How straight a law is, with its exponent and Kaplan's."""
    exponent, r2 = law.line.exponent, law.line.r2
    measured = f"{exponent:.3g} (Kaplan {law.published:.2g})"
    if law.letter == "B":
        quantity = f"critical batch by gradient noise {law.counted}, exponent 1/alpha_B"
        return Claim(quantity, "above 0: noise grows as loss falls", measured, exponent.lo > 0)
    quantity = f"L({law.letter}) as one power, R2 in logs ({law.counted})"
    measured = f"{r2:.3f} with alpha_{law.letter} = {measured}"
    return Claim(quantity, f"at least {MIN_R2:g}", measured, r2 >= MIN_R2)


def _figure(law: KaplanLaw, number: int) -> Figure:
    """A law as a line in logs."""
    line, name = law.line, f"L({law.letter})"
    axes = Axis(f"{law.letter} ({law.counted})", True, UNITS.get(law.letter, "number")), LOSS_AXIS
    if law.letter == "B":
        name, axes = "B(L)", (LOSS_AXIS, Axis("noise scale (tokens)", True, "count"))
    x, exponent = np.geomspace(line.x.min(), line.x.max(), 60), line.exponent.value
    fitted = np.exp(line.level) * x**-exponent
    first = line.y[0] * (x / line.x[0]) ** -law.published
    traces = (
        Line(x, fitted, f"exponent {exponent:.3g}", "ink", "dash", 1.6),
        Line(x, first, f"Kaplan's, {law.published:.2g}", "muted", "dot", 1.4),
        Markers(line.x, line.y, "runs", 0),
    )
    caption = f"{name}, {law.counted}: R2 {line.r2:.3f} in logs. Dotted: the published exponent, "
    caption += "from the first point on."
    return Figure(f"kaplan-{law.letter.lower()}-{number}", name, caption, *axes, traces)


STUDY = Study("kaplan", "Kaplan's laws", analyze)
