"""How many problems are solved when a model may answer each of them k times, and whether training
or sampling is the cheaper way there.

A model that has the right answer among its samples needs a verifier to find it (pass@k). Without
one, the most frequent answer (Wang 2023, self-consistency) or the most likely sample is taken: both
tend to the share of problems whose most likely answer is right. Here the likelihood of each right
answer is known, so the coverage of 10^4 samples is exact, and samples test the decoder.

C = training FLOPs + Q (FLOPs of reading the problem + k x FLOPs of writing an answer): a small or
briefly trained model needs more samples k for the same coverage. The joint optimum of N, D and k is
the least C among models whose coverage is known (Brown 2024, section 2.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas import DataFrame

from scaling import accounting
from scaling.config import RunConfig
from scaling.config.sweep_file import load_run
from scaling.errors import ScalingError
from scaling.fit.special.pass_at_k import MOST_K, forecast, line, line_r_squared
from scaling.formatting import format_count
from scaling.render import figure
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, ReferenceLine, Trace
from scaling.render.table import Table
from scaling.studies import runs
from scaling.studies.study import Claim, Study, record_table, table_rows
from scaling.tasks.answer_metrics import coverage, exact_pass_at_k, ks, samples_needed

Array = np.ndarray

MIN_R2, MAX_Z, MAX_PLATEAU_GAP = 0.98, 3.0, 0.02
DRAWS, MIN_POINTS = 5, 3  # forecasts, each from other samples; k of a law
FORECAST_FROM = 64  # samples of each problem
LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # of coverage
QUERIES = tuple(float(10**power) for power in range(10))
K = ks(MOST_K)  # 1 .. 10^4, log-spaced
FORECASTERS = {
    "beta_binomial": "beta-binomial",
    "line": "straight line in logs",
}
VOTES = {
    "pass_at_k": "a verifier chooses (pass@k)",
    "best_of_k": "the most likely sample",
    "majority_at_k": "majority vote",
}
METRICS = ("problem_nll", "correct_samples", "samples", "mode_is_right", *VOTES)
VOTED = ("majority", "most likely", "mode is right")
SHOWN = ("N", "D", "pass@1", "sampled", "z", "a", "b", "R2", "pass@1e4", *VOTED)
KEPT = ("FLOPs", "config", "samples", "correct", "nll", "exact", "rows")
SYMBOLS: tuple[figure.Symbol, ...] = ("circle", "diamond")
K_AXIS = Axis("samples k", log=True, unit="count")


@dataclass(frozen=True)
class SamplingStudy:
    """`models` and forecasts of their coverage, and the `candidates` of them that reach the
    `target` coverage, with the samples that each needs.

    `target` is None, and no model a candidate, where no coverage is reached by several; `n_other`
    runs are of another task, or lack rows.
    """

    models: DataFrame
    forecasts: DataFrame
    target: float | None
    candidates: DataFrame
    n_other: int


def analyze(rows: DataFrame) -> SamplingStudy | None:
    """The models that answered problems of one task (the one that most runs have); None without."""
    if (models := sampled_models(rows)).empty:
        return None
    target = common_target(models["nll"].tolist())
    n_other = rows.loc[rows["metric"] == "problem_nll", "run_id"].nunique() - len(models)
    candidates = models[:0] if target is None else models_that_reach(models, target)
    return SamplingStudy(models, forecasts(models), target, candidates, n_other)


def sampled_models(rows: DataFrame) -> DataFrame:
    """A row for each model that answered P problems of one task (the one that most runs have), by
    size and training.

    The columns SHOWN: pass@1 and pass@1e4 from likelihoods, `sampled` the share of right samples,
    `z` the difference in standard errors of drawing them, the law's a, b and R2, and what votes of
    all samples solve. Then `FLOPs`, `config`, `samples`, `nll` of each right answer in nats (P,),
    `correct` samples (P,), `exact` pass@k at K, and the `rows`.
    """
    made, rows = [], rows[rows["metric"].isin(METRICS)]
    for _, of_run in runs.of_one_setting(rows, "task").groupby("run_id"):
        last = runs.at_end(of_run).sort_values("at")
        value = {name: frame["value"].to_numpy(float) for name, frame in last.groupby("metric")}
        if len(value) < len(METRICS):
            continue  # rows are missing
        first, nll, (samples,) = last.iloc[0], value["problem_nll"], value["samples"]
        chance, exact = np.exp(-nll), exact_pass_at_k(nll, K).mean(axis=0)
        pass_at_1, sampled = chance.mean(), value["correct_samples"].mean() / samples
        error = math.sqrt((chance * (1.0 - chance)).sum() / samples) / len(chance)
        z = (sampled - pass_at_1) / error if error else math.inf * (sampled != pass_at_1)
        votes = (value[name][-1] for name in ("majority_at_k", "best_of_k", "mode_is_right"))
        shown = (first["n_params"], first["tokens"], pass_at_1, sampled, z, *coverage_law(exact))
        kept = (first["flops"], first["config"], int(samples), value["correct_samples"])
        made.append((*shown, exact[-1], *votes, *kept, nll, exact, last))
    return DataFrame(made, columns=[*SHOWN, *KEPT]).sort_values(["N", "D"])


def coverage_law(exact: Array) -> tuple[float, float, float]:
    """(a, b, R2) of -log pass@k = a k^-b (Brown 2024) over the exact coverage at K; nan where
    hardly any k leaves problems both solved and unsolved.
    """
    inside = (exact > 0.0) & (exact < 1.0)
    if inside.sum() < MIN_POINTS or np.ptp(exact[inside]) == 0.0:
        return (math.nan,) * 3
    a, b = line(K[inside], exact[inside])
    return float(a), float(b), line_r_squared(K[inside], exact[inside]) or 0.0


def forecasts(models: DataFrame, draws: int = DRAWS) -> DataFrame:
    """pass@10^4 `exact`, and as each of FORECASTERS predicts it from FORECAST_FROM samples of each
    problem: the mean over `draws` choices of samples, and the mean absolute "... error".

    Models whose samples are all right or all wrong are left out.
    """
    made = []
    for model in table_rows(models[models["samples"] >= FORECAST_FROM]):
        n, right = np.full(len(model.correct), model.samples), model.correct.astype(int)
        try:
            drawn = [forecast(n, right, MOST_K, FORECAST_FROM, seed) for seed in range(draws)]
        except ScalingError:  # all problems have the same success rate: no distribution to fit
            continue
        exact = model.exact[-1]
        record = {"model": f"N {format_count(model.N)}, D {format_count(model.D)}", "exact": exact}
        for name in FORECASTERS:
            values = np.array([draw[name] for draw in drawn])
            record |= {name: values.mean(), f"{name} error": np.abs(values - exact).mean()}
        made.append(record)
    return DataFrame(made).dropna()


def common_target(nlls: Sequence[Array]) -> float | None:
    """The highest multiple of 0.05 that two thirds of the models (at least two) reach with MOST_K;
    None without one.
    """
    n_needed = max(2, math.ceil(2 * len(nlls) / 3))
    reached = [coverage(nll, MOST_K) for nll in nlls]
    shared = [level for level in LEVELS if sum(c >= level for c in reached) >= n_needed]
    return max(shared, default=None)


def answer_costs(run: RunConfig) -> tuple[float, float]:
    """Forward FLOPs of reading a problem, and of writing an answer after it (exact convention, keys
    and values cached).

    The first token of an answer comes with the last of the problem; its last token is not read.
    """
    positions = run.task.target_positions
    if positions is None:
        raise ScalingError("the task has no answers", remedy='use task.kind = "arithmetic"')
    prompt, whole = (
        accounting.train_flops(run.model, tokens, tokens, "exact") / 3.0
        for tokens in (positions[0] + 1, run.task.seq_len)
    )
    return prompt, whole - prompt


def models_that_reach(models: DataFrame, target: float) -> DataFrame:
    """The models that reach the target: N, D, the samples `k` that each needs, and the FLOPs of
    `training` and of one `query`, where the problem is read once and k answers are written.
    """
    made = []
    for model in table_rows(models):
        if (k := samples_needed(model.nll, target, MOST_K)) is not None:
            prompt, answer = answer_costs(load_run(model.config, "the results"))
            made.append((model.N, model.D, k, model.FLOPs, prompt + k * answer))
    return DataFrame(made, columns=["N", "D", "k", "training", "query"])


def cheapest(candidates: DataFrame, queries: Sequence[float] | Array) -> DataFrame:
    """The joint optimum of N, D and k for each number of queries, with the FLOPs of `sampling` for
    all of them and the `total`; at least one candidate.
    """
    sampling_QM = np.outer(queries, candidates["query"])
    best = (candidates["training"].to_numpy() + sampling_QM).argmin(axis=1)
    optimum = candidates.iloc[best].assign(queries=list(queries))
    optimum["sampling"] = optimum["queries"] * optimum["query"]
    return optimum.assign(total=optimum["training"] + optimum["sampling"])


def claims(study: SamplingStudy) -> Iterator[Claim]:
    """The law, the decoder, the forecasts, the plateau of votes, and training against sampling."""
    models, ahead, laws = study.models, study.forecasts, study.models.dropna()
    measured, holds = "no model solves some of the problems and not all", None
    if len(laws):
        b, worst = laws["b"], laws["R2"].min()
        measured = f"{worst:.3f} ({len(laws)} models, b {b.min():.2f} to {b.max():.2f})"
        holds = bool(worst >= MIN_R2)
    quantity = "R2 of -log pass@k = a k^-b over k = 1 .. 1e4, lowest of all models"
    yield Claim(quantity, f">= {MIN_R2}", measured, holds)
    z = max(models["z"], key=abs)
    yield Claim(
        "sampled pass@1 minus mean exp(-NLL), the largest of all models",
        f"within {MAX_Z:g} standard errors",
        f"{z:+.2f} standard errors",
        abs(z) <= MAX_Z,
    )
    measured, holds = "no model has both right and wrong samples", None
    if len(ahead):
        error, by_line = ahead["beta_binomial error"], ahead["line error"]
        measured = (
            f"{error.mean():.3f} against {by_line.mean():.3f}; "
            f"nearer for {(error < by_line).sum()} of {len(ahead)} models"
        )
        holds = bool(error.mean() < by_line.mean())
    quantity = f"mean error of pass@1e4 as forecast from {FORECAST_FROM} samples, beta-binomial"
    yield Claim(quantity, f"less than by the {FORECASTERS['line']}", measured, holds)
    gaps = (models["majority"] - models["mode is right"]).abs()
    yield Claim(
        "majority vote of all samples minus the share of problems whose most likely answer is "
        "right",
        f"within {MAX_PLATEAU_GAP}",
        f"{gaps.mean():.3f} on average, {gaps.max():.3f} at most",
        bool(gaps.mean() <= MAX_PLATEAU_GAP),
    )
    measured, holds = "no coverage that several models reach", None
    if len(study.candidates):
        few, *_, many = table_rows(cheapest(study.candidates, QUERIES))
        measured = " -> ".join(
            f"N {best.N / 1e3:.3g}k, D {best.D / 1e6:.3g}M, k {best.k}" for best in (few, many)
        )
        holds = many.training > few.training and many.k < few.k
    expected = "more training and fewer samples for many queries"
    yield Claim("cheapest N, D, k at one query and at 1e9", expected, measured, holds)


def nearest_to_half(models: DataFrame) -> pd.Series:
    """The model whose pass@1 is nearest to one half."""
    return models.iloc[int(np.abs(models["sampled"].to_numpy() - 0.5).argmin())]


def notes(study: SamplingStudy) -> list[str]:
    """Three sentences: the law, votes without a verifier, training against sampling; one more where
    runs are left out.
    """
    laws, model = study.models.dropna(), nearest_to_half(study.models)
    falls = "shows no power, for no model solves some problems and not all"
    if len(laws):
        b = laws["b"]
        falls = (
            f"falls as a k^-b in {len(laws)} model{'s' * (len(laws) > 1)}, b from {b.min():.2f} to "
            f"{b.max():.2f} with R2 of at least {laws['R2'].min():.3f}"
        )
    trade = (
        "No coverage is reached by several models, so training cannot be traded against "
        "sampling here."
    )
    if study.target is not None:
        few, many = (
            f"N {format_count(best.N)}, D {format_count(best.D)} and {best.k} samples"
            for best in table_rows(cheapest(study.candidates, QUERIES[:: len(QUERIES) - 1]))
        )
        trade = (
            "Training is paid once and samples are paid by every query: to solve "
            f"{100 * study.target:.0f} % of the problems, one query is cheapest with {few}, "
            f"{QUERIES[-1]:.0e} queries with {many}."
        )
    verified = model["rows"].query("metric == 'pass_at_k'")["value"].iloc[-1]
    said = [
        "Problems of mixed difficulty are solved one after another as more answers are sampled: "
        f"-log pass@k {falls}; for a single problem it would fall exponentially.",
        "Without a verifier a model can give no more than its most likely answer, which is "
        f"right for {100 * model['mode is right']:.0f} % of the problems at N "
        f"{format_count(model['N'])}: the vote of {model['samples']} samples solves "
        f"{100 * model['majority']:.0f} %, the most likely of them "
        f"{100 * model['most likely']:.0f} %, and a verifier {100 * verified:.0f} %.",
        trade,
    ]
    if study.n_other:
        said.append(
            f"{study.n_other} runs of another task, or that lack rows, are not in these figures."
        )
    return said


def figures(study: SamplingStudy) -> Iterator[Figure]:
    """Coverage, its forecasts, votes with and without a verifier, and training against sampling."""
    ramp = ColorScale.of(study.models["N"].to_numpy())
    yield _coverage(study.models.drop_duplicates("N", keep="last"), ramp)
    traces: list[Trace]
    if len(ahead := study.forecasts):
        ends = [0.95 * ahead["exact"].min(), 1.0]
        traces = [Line(ends, ends, "forecast = exact", "muted", "dash", 1.2)]
        for colour, (name, label) in enumerate(FORECASTERS.items()):
            x, y = ahead[["exact", name]].to_numpy().T
            traces.append(Markers(x, y, label, colour, SYMBOLS[colour], 8))
        caption = (
            f"From {FORECAST_FROM} samples of each problem to pass@{MOST_K}: means of {DRAWS} "
            "forecasts from other samples. On the dashed line the forecast is exact."
        )
        axes = Axis("pass@10⁴ (exact)"), Axis("pass@10⁴ (forecast)")
        yield Figure("sampling-forecast", "Forecasts of coverage", caption, *axes, traces)
    yield _votes(nearest_to_half(study.models))
    if study.target is None:
        return
    queries, traces = np.geomspace(QUERIES[0], QUERIES[-1], 80), []
    for model in table_rows(study.candidates):
        name = f"N {format_count(model.N)}, D {format_count(model.D)}, k {model.k}"
        total = model.training + queries * model.query
        traces.append(Line(queries, total, "", ramp.at(model.N), width=1.3, name=name))
    least = cheapest(study.candidates, queries)["total"].to_numpy()
    traces.append(Line(queries, least, "cheapest", "ink", "dash", 2.2))
    caption = (
        "FLOPs of training and of all queries, each with the samples that solve "
        f"{100 * study.target:.0f} % of the problems. Each line is a trained model."
    )
    axes = Axis("queries", log=True, unit="count"), Axis("total FLOPs", log=True, unit="flops")
    yield Figure("sampling-trade", "Training against sampling", caption, *axes, traces, ramp)


def _coverage(models: DataFrame, ramp: ColorScale) -> Figure:
    """-log pass@k against k: exact lines, their laws, and what was sampled."""
    traces: list[Trace] = []
    for index, model in enumerate(table_rows(models)):
        colour, law, samples = ramp.at(model.N), "", ""
        if not index:
            law, samples = "law a k^-b", f"{model.samples} samples per problem"
        name = f"N {format_count(model.N)}"
        traces.append(Line(K, _minus_log(model.exact), name, colour))
        traces.append(Line(K, model.a * K.astype(float) ** -model.b, law, "muted", "dash", 1.2))
        passed = model.rows[model.rows["metric"] == "pass_at_k"]
        k, share = passed[["at", "value"]].to_numpy().T
        traces.append(Markers(k, _minus_log(share), samples, colour, "open", 6))
    caption = (
        "Problems not solved by k samples: lines from the likelihoods of right answers, rings from "
        "sampled answers, dashes the power laws; of each size the longest trained model."
    )
    y, title = Axis("-log pass@k", log=True), "Coverage against samples"
    return Figure("sampling-coverage", title, caption, K_AXIS, y, traces, ramp)


def _minus_log(share: Array) -> Array:
    """-log pass@k, NaN where nothing or everything is solved, which a log axis cannot show."""
    inside = (share > 0.0) & (share < 1.0)
    return np.where(inside, -np.log(np.where(inside, share, 0.5)), np.nan)


def _votes(model: pd.Series) -> Figure:
    """With and without a verifier."""
    traces: list[Trace] = [
        ReferenceLine(y=model["mode is right"], label="most likely answer is right")
    ]
    for colour, (name, label) in enumerate(VOTES.items()):
        votes = model["rows"][model["rows"]["metric"] == name]
        k, share, stderr = votes[["at", "value", "stderr"]].to_numpy().T
        traces.append(Line(k, share, "", colour))
        traces.append(Markers(k, share, label, colour, lo=share - stderr, hi=share + stderr))
    caption = (
        f"N {format_count(model['N'])}, D {format_count(model['D'])}: bars are standard errors "
        f"over {len(model['nll'])} problems."
    )
    title, y = "With and without a verifier", Axis("share of problems solved")
    return Figure("sampling-votes", title, caption, K_AXIS, y, traces)


def tables(study: SamplingStudy) -> Iterator[Table | None]:
    """Every model with its law and what its samples give; the cheapest N, D and k for each number
    of queries.
    """
    models, candidates = study.models, study.candidates
    caption = (
        "pass@1 and pass@1e4 are exact; z is sampled minus exact pass@1 in standard errors of "
        f"sampling. Majority and most likely are of all {models['samples'].iloc[0]} samples."
    )
    title, records = "Coverage laws and votes", models[list(SHOWN)].to_dict("records")
    yield record_table("sampling-laws", title, records, caption, rough=SHOWN[2:])
    if study.target is None:
        return
    names = ["queries", "N", "D", "k", "training", "sampling", "total"]
    records = cheapest(candidates, QUERIES)[names].to_dict("records")
    caption = (
        f"To solve {100 * study.target:.0f} % of the problems: the cheapest of {len(candidates)} "
        f"models that reach it with at most {MOST_K} samples per query. A problem is read once and "
        "k answers are written; the verifier costs nothing."
    )
    title, count, flops = "Joint optimum of N, D and k", ("queries",), names[-3:]
    yield record_table("sampling-optimum", title, records, caption, count=count, flops=flops)


STUDY = Study("sampling", "Test-time sampling", analyze, claims, figures, tables, notes)
