"""Test-time sampling as a section: coverage against samples, its forecast, votes, and training against sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from scaling.fit.special.pass_at_k import FORECAST_FROM, MOST_K
from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.section import Section
from scaling.render.table import Column, Table
from scaling.studies import findings, sampling
from scaling.studies.sampling import QUERIES, Forecast, SampledModel
from scaling.studies.train_or_sample import TrainedModelWithSamples, best

TITLE = "Test-time sampling"
K_AXIS = Axis("samples k", log=True, unit="count")
SHOWN_QUERIES = np.geomspace(QUERIES[0], QUERIES[-1], 80)
SYMBOLS: tuple[Literal["circle", "diamond", "star"], ...] = ("circle", "star", "diamond")
VOTE_LABELS = {
    "pass_at_k": "a verifier chooses (pass@k)",
    "best_of_k": "the likeliest sample",
    "majority_at_k": "majority vote",
}


def section(table: pd.DataFrame) -> Section | None:
    """What sampled answers show; None where no run has drawn any."""
    models = sampling.answered(table)
    if not models:
        return None
    target, ways = sampling.compute_optimal_inference(models)
    ahead = sampling.forecasts(models)
    ramp = ColorScale("parameters N", models[0].n_params, models[-1].n_params)
    drawn = [coverage(models, ramp), forecast(ahead), votes(models), trade(ways, target, ramp)]
    tables = [
        findings.table("sampling", sampling.findings(models, ahead, ways)),
        laws(models),
        optimum(ways, target),
    ]
    others = table.loc[table["metric"] == "problem_nll", "run_id"].nunique() - len(models)
    left_out = f"{others} runs of another task, or that lack rows, are not in these figures."
    said = [*_told(models, ways, target), *([left_out] if others else [])]
    return Section(
        "sampling", TITLE, [one for one in drawn if one], [one for one in tables if one], said
    )


def _told(
    models: Sequence[SampledModel], ways: Sequence[TrainedModelWithSamples], target: float | None
) -> tuple[str, str, str]:
    """Three sentences."""
    laws = [one.law for one in models if one.law]
    shape = "a single problem's would fall exponentially"
    if laws:
        b = [law.b for law in laws]
        first = f"falls as a k^-b in {len(laws)} model{'s' * (len(laws) > 1)}, b from {min(b):.2f} to {max(b):.2f} with R2 of at least {min(law.r2 for law in laws):.3f}"
    else:
        first = "cannot be seen to fall as a power, for no model solves some problems and not all"
    one = _middling(models)
    vote, own, verified = (
        100 * float(one.votes[name][1][-1]) for name in ("majority_at_k", "best_of_k", "pass_at_k")
    )
    return (
        f"Problems of mixed difficulty are solved one after another as more answers are sampled: -log pass@k {first}, where {shape}.",
        f"Without a verifier a model can find no more than its likeliest answer, which is right for {100 * one.mode_is_right:.0f} % of the problems at "
        f"N {format_count(one.n_params)}: the vote of {one.samples} samples solves {vote:.0f} %, the likeliest of them {own:.0f} %, and a verifier {verified:.0f} %.",
        _told_trade(ways, target),
    )


def _told_trade(ways: Sequence[TrainedModelWithSamples], target: float | None) -> str:
    if target is None:
        return "No coverage is reached by several models, so that training cannot be traded against sampling here."
    few, many = (best(ways, queries).solver for queries in (QUERIES[0], QUERIES[-1]))
    few_text, many_text = (
        f"N {format_count(way.n_params)}, D {format_count(way.tokens)} and {way.k} samples"
        for way in (few, many)
    )
    return (
        f"Training is paid once and samples are paid by every query: to solve {100 * target:.0f} % of the problems, one query is cheapest with {few_text}, "
        f"{QUERIES[-1]:.0e} queries with {many_text}."
    )


def _middling(models: Sequence[SampledModel]) -> SampledModel:
    """The model that solves nearest to half of the problems at once."""
    return min(models, key=lambda one: abs(one.once - 0.5))


def coverage(models: Sequence[SampledModel], ramp: ColorScale) -> Figure:
    """-log pass@k against k: exact lines, their laws, and what was sampled."""
    shown = sampling.longest(models)
    traces: list[Trace] = []
    for place, one in enumerate(shown):
        colour = ramp.at(one.n_params)
        k, passed, stderr = one.votes["pass_at_k"]
        traces.append(
            Line(
                one.k,
                _bits(one.exact),
                f"N {format_count(one.n_params)}",
                colour,
                note=f"run {one.run_id}: exact, from likelihoods",
            )
        )
        if one.law:
            fitted = -np.log(one.law.coverage(one.k))
            traces.append(
                Line(one.k, fitted, "law a k^-b" if place == 0 else "", "muted", "dash", 1.2)
            )
        label = f"{one.samples} samples a problem" if place == 0 else ""
        traces.append(
            Markers(
                k,
                _bits(passed),
                label,
                colour,
                "open",
                6,
                notes=[
                    f"pass@{at:g} {p:.3f} +- {s:.3f}"
                    for at, p, s in zip(k, passed, stderr, strict=True)
                ],
            )
        )
    caption = "Problems not solved by k samples: lines from the likelihoods of right answers, rings from sampled answers, dashes the power laws; the longest run of each size."
    return Figure(
        "sampling-coverage",
        "Coverage against samples",
        caption,
        K_AXIS,
        Axis("-log pass@k", log=True),
        tuple(traces),
        ramp,
    )


def _bits(passed: np.ndarray) -> np.ndarray:
    """-log pass@k, NaN where nothing or everything is solved: a log axis has no place for it."""
    inside = (passed > 0.0) & (passed < 1.0)
    return np.where(inside, -np.log(np.where(inside, passed, 0.5)), np.nan)


def forecast(ahead: Sequence[Forecast]) -> Figure | None:
    """pass@10^4 as forecast from a few samples against the truth."""
    if not ahead:
        return None
    truth = [one.truth for one in ahead]
    ends = [0.95 * min(truth), 1.0]
    notes = [
        f"{format_count(one.model.n_params)} parameters, {format_count(one.model.tokens)} tokens"
        for one in ahead
    ]
    caption = f"From {FORECAST_FROM} samples of each problem to pass@{MOST_K}: means of {sampling.DRAWS} forecasts from other samples. On the dashed line the forecast is right."
    traces: list[Trace] = [Line(ends, ends, "forecast = truth", "muted", "dash", 1.2)]
    for colour, ((name, label), symbol) in enumerate(
        zip(sampling.FORECASTERS.items(), SYMBOLS, strict=True)
    ):
        traces.append(
            Markers(truth, [one.told[name] for one in ahead], label, colour, symbol, 8, notes=notes)
        )
    return Figure(
        "sampling-forecast",
        "Forecasts of coverage",
        caption,
        Axis("pass@10⁴ (exact)"),
        Axis("pass@10⁴ (forecast)"),
        tuple(traces),
    )


def votes(models: Sequence[SampledModel]) -> Figure:
    """With and without a verifier, for the model that solves nearest to half of the problems at once."""
    one = _middling(models)
    traces: list[Trace] = [ReferenceLine(y=one.mode_is_right, label="likeliest answer is right")]
    for colour, (name, label) in enumerate(VOTE_LABELS.items()):
        k, value, stderr = one.votes[name]
        traces += [
            Line(k, value, "", colour),
            Markers(k, value, label, colour, lo=value - stderr, hi=value + stderr),
        ]
    caption = f"N {format_count(one.n_params)}, D {format_count(one.tokens)}: bars are standard errors over {len(one.nll)} problems."
    return Figure(
        "sampling-votes",
        "With and without a verifier",
        caption,
        K_AXIS,
        Axis("share of problems solved"),
        tuple(traces),
    )


def trade(
    ways: Sequence[TrainedModelWithSamples], target: float | None, ramp: ColorScale
) -> Figure | None:
    """Total compute against the number of queries: a line for each model, and the cheapest."""
    if target is None:
        return None
    lines = [
        Line(
            SHOWN_QUERIES,
            [way.total(q) for q in SHOWN_QUERIES],
            "",
            ramp.at(way.n_params),
            width=1.3,
            note=f"N {format_count(way.n_params)}, D {format_count(way.tokens)}, k {way.k}",
        )
        for way in ways
    ]
    cheapest = Line(
        SHOWN_QUERIES,
        [best(ways, float(q)).flops for q in SHOWN_QUERIES],
        "cheapest",
        "ink",
        "dash",
        2.2,
    )
    caption = f"Training FLOPs and those of so many queries, each with the samples that solve {100 * target:.0f} % of the problems. Each line is a trained model."
    axes = Axis("queries", log=True, unit="count"), Axis("total FLOPs", log=True, unit="flops")
    return Figure(
        "sampling-trade", "Training against sampling", caption, *axes, (*lines, cheapest), ramp
    )


def laws(models: Sequence[SampledModel]) -> Table:
    """Every model: its law, and what its samples say."""
    rows = tuple(
        (
            one.n_params,
            one.tokens,
            float(np.exp(-one.nll).mean()),
            one.once,
            one.z,
            *((one.law.a, one.law.b, one.law.r2) if one.law else (None,) * 3),
            float(one.exact[-1]),
            float(one.votes["majority_at_k"][1][-1]),
            float(one.votes["best_of_k"][1][-1]),
            one.mode_is_right,
        )
        for one in models
    )
    names = (
        "pass@1",
        "sampled",
        "z",
        "a",
        "b",
        "R2",
        "pass@1e4",
        "majority",
        "likeliest",
        "mode is right",
    )
    columns = (
        Column("N", "count"),
        Column("D", "count"),
        *(Column(name, "rough") for name in names),
    )
    caption = (
        "pass@1 and pass@1e4 are exact; z is sampled minus exact pass@1 in standard errors of sampling. Majority and likeliest are those of all "
        f"{models[0].samples} samples."
    )
    return Table("sampling-laws", "Coverage laws and votes", columns, rows, caption)


def optimum(ways: Sequence[TrainedModelWithSamples], target: float | None) -> Table | None:
    """The cheapest N, D and k for each number of queries."""
    if target is None:
        return None
    chosen = [best(ways, queries) for queries in QUERIES]
    rows = tuple(
        (
            one.queries,
            one.solver.n_params,
            one.solver.tokens,
            one.solver.k,
            one.solver.train_flops,
            one.queries * one.solver.query_flops,
            one.flops,
        )
        for one in chosen
    )
    columns = (
        Column("queries", "count"),
        Column("N", "count"),
        Column("D", "count"),
        Column("k", "integer"),
        Column("training", "flops"),
        Column("sampling", "flops"),
        Column("total", "flops"),
    )
    caption = (
        f"To solve {100 * target:.0f} % of the problems: the cheapest of {len(ways)} models that reach it with at most {MOST_K} samples a query. "
        "A problem is read once and k answers are written; the verifier costs nothing."
    )
    return Table("sampling-optimum", "Joint optimum of N, D and k", columns, rows, caption)
