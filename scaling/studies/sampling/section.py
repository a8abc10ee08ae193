"""Test-time sampling in a report: coverage against samples, its forecast, votes, and training
against sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from scaling.fit.special.pass_at_k import FORECAST_FROM, MOST_K
from scaling.formatting import format_count
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Table
from scaling.studies.sampling import analysis
from scaling.studies.sampling.analysis import (
    QUERIES,
    CoverageForecast,
    SampledModel,
    SamplingStudy,
    analyze,
    claims,
)
from scaling.studies.sampling.train_or_sample import cheapest
from scaling.studies.study import Study, record_table

K_AXIS = Axis("samples k", log=True, unit="count")
QUERY_GRID = np.geomspace(QUERIES[0], QUERIES[-1], 80)
SYMBOLS: tuple[Literal["circle", "diamond", "star"], ...] = ("circle", "star", "diamond")
VOTE_LABELS = {
    "pass_at_k": "a verifier chooses (pass@k)",
    "best_of_k": "the most likely sample",
    "majority_at_k": "majority vote",
}


def notes(study: SamplingStudy) -> list[str]:
    """Three sentences: the law, votes without a verifier, training against sampling; one more where
    runs are left out.
    """
    models, target = study.models, study.target
    laws = [model.law for model in models if model.law]
    if laws:
        b = [law.b for law in laws]
        falls = (
            f"falls as a k^-b in {len(laws)} model{'s' * (len(laws) > 1)}, b from {min(b):.2f} to "
            f"{max(b):.2f} with R2 of at least {min(law.r2 for law in laws):.3f}"
        )
    else:
        falls = "shows no power, for no model solves some problems and not all"
    model = _nearest_to_half(models)
    majority, likeliest, verified = (
        100 * model.final_vote(name) for name in ("majority_at_k", "best_of_k", "pass_at_k")
    )
    if target is None:
        trade = (
            "No coverage is reached by several models, so training cannot be traded against "
            "sampling here."
        )
    else:
        few, many = (
            f"N {format_count(best.n_params)}, D {format_count(best.tokens)} and {best.k} samples"
            for best in (cheapest(study.candidates, q) for q in (QUERIES[0], QUERIES[-1]))
        )
        trade = (
            "Training is paid once and samples are paid by every query: to solve "
            f"{100 * target:.0f} % of the problems, one query is cheapest with {few}, "
            f"{QUERIES[-1]:.0e} queries with {many}."
        )
    said = [
        "Problems of mixed difficulty are solved one after another as more answers are sampled: "
        f"-log pass@k {falls}; for a single problem it would fall exponentially.",
        "Without a verifier a model can give no more than its most likely answer, which is "
        f"right for {100 * model.mode_is_right:.0f} % of the problems at N "
        f"{format_count(model.n_params)}: the vote of {model.samples} samples solves "
        f"{majority:.0f} %, the most likely of them {likeliest:.0f} %, and a verifier "
        f"{verified:.0f} %.",
        trade,
    ]
    if study.n_other:
        said.append(
            f"{study.n_other} runs of another task, or that lack rows, are not in these figures."
        )
    return said


def _nearest_to_half(models: Sequence[SampledModel]) -> SampledModel:
    """The model whose pass@1 is nearest to one half."""
    return min(models, key=lambda model: abs(model.sampled_pass_at_1 - 0.5))


def _coverage(models: Sequence[SampledModel], ramp: ColorScale) -> Figure:
    """-log pass@k against k: exact lines, their laws, and what was sampled."""
    traces: list[Trace] = []
    for index, model in enumerate(analysis.longest_trained(models)):
        colour, is_first = ramp.at(model.n_params), index == 0
        k, share, stderr = model.votes["pass_at_k"]
        name, note = f"N {format_count(model.n_params)}", f"run {model.run_id}: from likelihoods"
        traces.append(Line(model.k, _minus_log(model.exact), name, colour, note=note))
        if model.law:
            fitted = model.law.a * model.k.astype(float) ** -model.law.b
            label = "law a k^-b" if is_first else ""
            traces.append(Line(model.k, fitted, label, "muted", "dash", 1.2))
        tooltips = [
            f"pass@{at:g} {p:.3f} ± {s:.3f}" for at, p, s in zip(k, share, stderr, strict=True)
        ]
        label = f"{model.samples} samples per problem" if is_first else ""
        traces.append(Markers(k, _minus_log(share), label, colour, "open", 6, notes=tooltips))
    caption = (
        "Problems not solved by k samples: lines from the likelihoods of right answers, rings from "
        "sampled answers, dashes the power laws; of each size the longest trained model."
    )
    y = Axis("-log pass@k", log=True)
    title = "Coverage against samples"
    return Figure("sampling-coverage", title, caption, K_AXIS, y, traces, ramp)


def _minus_log(coverage: np.ndarray) -> np.ndarray:
    """-log pass@k, NaN where nothing or everything is solved, which a log axis cannot show."""
    inside = (coverage > 0.0) & (coverage < 1.0)
    return np.where(inside, -np.log(np.where(inside, coverage, 0.5)), np.nan)


def _forecast(forecasts: Sequence[CoverageForecast]) -> Figure | None:
    """pass@10^4 as forecast from a few samples against the exact one."""
    if not forecasts:
        return None
    exact = [forecast.exact for forecast in forecasts]
    ends = [0.95 * min(exact), 1.0]
    tooltips = [
        f"{format_count(f.model.n_params)} parameters, {format_count(f.model.tokens)} tokens"
        for f in forecasts
    ]
    traces: list[Trace] = [Line(ends, ends, "forecast = exact", "muted", "dash", 1.2)]
    names = zip(analysis.FORECASTERS.items(), SYMBOLS, strict=True)
    for colour, ((name, label), symbol) in enumerate(names):
        predicted = [forecast.predicted[name] for forecast in forecasts]
        traces.append(Markers(exact, predicted, label, colour, symbol, 8, notes=tooltips))
    caption = (
        f"From {FORECAST_FROM} samples of each problem to pass@{MOST_K}: means of {analysis.DRAWS} "
        "forecasts from other samples. On the dashed line the forecast is exact."
    )
    axes = Axis("pass@10⁴ (exact)"), Axis("pass@10⁴ (forecast)")
    return Figure("sampling-forecast", "Forecasts of coverage", caption, *axes, traces)


def _votes(models: Sequence[SampledModel]) -> Figure:
    """With and without a verifier, for the model whose pass@1 is nearest to one half."""
    model = _nearest_to_half(models)
    label = "most likely answer is right"
    traces: list[Trace] = [ReferenceLine(y=model.mode_is_right, label=label)]
    for colour, (name, label) in enumerate(VOTE_LABELS.items()):
        k, value, stderr = model.votes[name]
        traces += [
            Line(k, value, "", colour),
            Markers(k, value, label, colour, lo=value - stderr, hi=value + stderr),
        ]
    caption = (
        f"N {format_count(model.n_params)}, D {format_count(model.tokens)}: bars are standard "
        "errors "
        f"over {len(model.nll)} problems."
    )
    title, y = "With and without a verifier", Axis("share of problems solved")
    return Figure("sampling-votes", title, caption, K_AXIS, y, traces)


def _trade(study: SamplingStudy, ramp: ColorScale) -> Figure | None:
    """Total compute against the number of queries: a line for each model, and the cheapest."""
    candidates, target = study.candidates, study.target
    if target is None:
        return None
    lines = [
        Line(
            QUERY_GRID,
            [model.total_flops(queries) for queries in QUERY_GRID],
            "",
            ramp.at(model.n_params),
            width=1.3,
            note=f"N {format_count(model.n_params)}, D {format_count(model.tokens)}, k {model.k}",
        )
        for model in candidates
    ]
    least = [min(model.total_flops(queries) for model in candidates) for queries in QUERY_GRID]
    traces = (*lines, Line(QUERY_GRID, least, "cheapest", "ink", "dash", 2.2))
    caption = (
        "FLOPs of training and of all queries, each with the samples that solve "
        f"{100 * target:.0f} % of the problems. Each line is a trained model."
    )
    axes = Axis("queries", log=True, unit="count"), Axis("total FLOPs", log=True, unit="flops")
    return Figure("sampling-trade", "Training against sampling", caption, *axes, traces, ramp)


def tables(study: SamplingStudy) -> Iterator[Table | None]:
    """Every model with its law and what its samples give; the cheapest N, D and k for each number
    of queries.
    """
    models, candidates, target = study.models, study.candidates, study.target
    records = [
        {
            "N": model.n_params,
            "D": model.tokens,
            "pass@1": float(np.exp(-model.nll).mean()),
            "sampled": model.sampled_pass_at_1,
            "z": model.z,
            **dict(zip(("a", "b", "R2"), model.law or (None,) * 3, strict=True)),
            "pass@1e4": float(model.exact[-1]),
            "majority": model.final_vote("majority_at_k"),
            "most likely": model.final_vote("best_of_k"),
            "mode is right": model.mode_is_right,
        }
        for model in models
    ]
    caption = (
        "pass@1 and pass@1e4 are exact; z is sampled minus exact pass@1 in standard errors of "
        f"sampling. Majority and most likely are of all {models[0].samples} samples."
    )
    title, (_, _, *rough) = "Coverage laws and votes", records[0]
    yield record_table("sampling-laws", title, records, caption, count=("N", "D"), rough=rough)
    if target is None:
        return
    records = [
        {
            "queries": queries,
            "N": best.n_params,
            "D": best.tokens,
            "k": best.k,
            "training": best.train_flops,
            "sampling": queries * best.query_flops,
            "total": best.total_flops(queries),
        }
        for queries, best in ((queries, cheapest(candidates, queries)) for queries in QUERIES)
    ]
    caption = (
        f"To solve {100 * target:.0f} % of the problems: the cheapest of {len(candidates)} models "
        f"that reach it with at most {MOST_K} samples per query. A problem is read once and k "
        "answers are written; the verifier costs nothing."
    )
    title, count = "Joint optimum of N, D and k", ("queries", "N", "D")
    flops = ("training", "sampling", "total")
    yield record_table("sampling-optimum", title, records, caption, count=count, flops=flops)


def figures(study: SamplingStudy) -> list[Figure | None]:
    """Coverage, its forecasts, votes, and the trade."""
    models = study.models
    ramp = ColorScale("parameters N", models[0].n_params, models[-1].n_params)
    return [
        _coverage(models, ramp),
        _forecast(study.forecasts),
        _votes(models),
        _trade(study, ramp),
    ]


STUDY = Study("sampling", "Test-time sampling", analyze, claims, figures, tables, notes)
