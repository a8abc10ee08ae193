"""How many problems are solved when a model may answer each of them k times, and whether training
or sampling is the cheaper way there.

Finding a right answer among k samples needs a verifier (pass@k). Without one, the most frequent
answer (Wang 2023) or the most likely sample tends to the share of problems whose most likely answer
is right. Here the likelihood of each right answer is known, so coverage is exact.

C = training FLOPs + queries (FLOPs of reading the problem + k x FLOPs of writing an answer): the
joint optimum of N, D and k is the least C among models of equal coverage (Brown 2024, section 2.3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from pandas import DataFrame, Series

from scaling import accounting
from scaling.config import RunConfig
from scaling.config.sweep_file import load_run
from scaling.formatting import format_count
from scaling.render.figure import SIZES, Axis, Figure, Line, Markers, Trace
from scaling.studies import runs
from scaling.studies.study import Claim, Findings, Study, fit_power_law, record_table
from scaling.tasks.answer_metrics import coverage, exact_pass_at_k, ks, samples_needed

Array = np.ndarray

MIN_R2, MAX_Z, MAX_PLATEAU_GAP = 0.98, 3.0, 0.02
MOST_K = 10_000
LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # of coverage
K = ks(MOST_K)  # 1 .. 10^4, log-spaced
METRICS = ["problem_nll", "correct_samples", "samples", "mode_is_right"]
METRICS += ["pass_at_k", "majority_at_k", "best_of_k"]
SHOWN = ["N", "D", "pass@1", "sampled", "z", "b", "R2", "pass@1e4"]
SHOWN += ["majority", "most likely", "mode is right"]
KEPT = ["FLOPs", "config", "nll", "exact", "passed"]


def analyze(rows: DataFrame) -> Findings | None:
    """The models that answered problems of one task (the one that most runs have); None without."""
    models = sampled_models(rows)
    if models.empty:
        return None
    caption = "pass@1 and pass@1e4 are exact; z is sampled minus exact pass@1 in standard errors."
    title, records = "Coverage laws and votes", models[SHOWN].to_dict("records")
    return Findings(
        list(claims(models)),
        [_figure(models)],
        record_table("sampling", title, records, caption, rough=SHOWN[2:]),
        n_left_out=rows.loc[rows["metric"] == "problem_nll", "run_id"].nunique() - len(models),
    )


def sampled_models(rows: DataFrame) -> DataFrame:
    """A row for each model that answered P problems of the task that most runs have.

    The columns SHOWN: pass@1 and pass@1e4 from likelihoods, `sampled` the share of right samples,
    `z` the difference in standard errors of drawing them, `coverage_law`, and what votes of all
    samples solve. Then `nll` of each right answer in nats (P,), `exact` pass@k at K, and the rows
    of pass@k (`passed`).
    """
    made, rows = [], rows[rows["metric"].isin(METRICS)]
    for _, of_run in runs.of_one_setting(rows, "task").groupby("run_id"):
        last = runs.at_end(of_run).sort_values("at")
        by_metric = dict(iter(last.groupby("metric")))
        if len(by_metric) < len(METRICS):
            continue  # rows are missing
        value = {name: frame["value"].to_numpy(float) for name, frame in by_metric.items()}
        first, nll, (samples,) = last.iloc[0], value["problem_nll"], value["samples"]
        chance, exact = np.exp(-nll), exact_pass_at_k(nll, K).mean(axis=0)
        pass_at_1, sampled = chance.mean(), value["correct_samples"].mean() / samples
        error = math.sqrt((chance * (1.0 - chance)).sum() / samples) / len(chance)
        z = (sampled - pass_at_1) / error if error else math.inf * (sampled != pass_at_1)
        votes = (value[name][-1] for name in ("majority_at_k", "best_of_k", "mode_is_right"))
        shown = (first["n_params"], first["tokens"], pass_at_1, sampled, z, *coverage_law(exact))
        kept = (first["flops"], first["config"], nll, exact, by_metric["pass_at_k"])
        made.append((*shown, exact[-1], *votes, *kept))
    return DataFrame(made, columns=SHOWN + KEPT).sort_values(["N", "D"])


def coverage_law(exact: Array) -> tuple[float, float]:
    """(b, R2) of -log pass@k = a k^-b (Brown 2024) over the exact coverage at K; nan where hardly
    any k leaves problems both solved and unsolved.
    """
    y = _minus_log(exact)
    inside = np.isfinite(y)
    law = fit_power_law(K[inside], y[inside])
    return (math.nan, math.nan) if law is None else (law.exponent.value, law.r2)


def common_target(nlls: Sequence[Array]) -> float | None:
    """The highest coverage of LEVELS that two thirds of the models, at least two, reach."""
    n_needed = max(2, math.ceil(2 * len(nlls) / 3))
    reached = np.array([coverage(nll, MOST_K) for nll in nlls])
    return max((level for level in LEVELS if (reached >= level).sum() >= n_needed), default=None)


def answer_costs(run: RunConfig) -> tuple[float, float]:
    """Forward FLOPs of reading a problem, and of writing an answer after it, keys and values
    cached: its first token comes with the last of the problem; its last one is not read.
    """
    positions = run.task.target_positions
    assert positions is not None  # the rows say that the task has answers
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
    for _, model in models.iterrows():
        if (k := samples_needed(model["nll"], target, MOST_K)) is not None:
            prompt, answer = answer_costs(load_run(model["config"], "the results"))
            made.append((model["N"], model["D"], k, model["FLOPs"], prompt + k * answer))
    return DataFrame(made, columns=["N", "D", "k", "training", "query"])


def cheapest(candidates: DataFrame, queries: float) -> Series:
    """The joint optimum of N, D and k: the least FLOPs of training and of all samples."""
    total = candidates["training"] + queries * candidates["query"]
    return candidates.iloc[int(total.argmin())]


def claims(models: DataFrame) -> Iterator[Claim]:
    """The law, the decoder, the plateau of votes, and training against sampling."""
    laws = models.dropna(subset="b")
    b, worst = laws["b"], laws["R2"].min()
    measured = f"{worst:.3f} ({len(laws)} models, b {b.min():.2f} to {b.max():.2f})"
    if laws.empty:
        measured = "no model solves some of the problems and not all"
    holds = bool(worst >= MIN_R2) if len(laws) else None
    quantity = "R2 of -log pass@k = a k^-b over k = 1 .. 1e4, lowest of all models"
    yield Claim(quantity, f">= {MIN_R2}", measured, holds)
    z, quantity = max(models["z"], key=abs), "sampled pass@1 minus mean exp(-NLL), the largest"
    expected = f"within {MAX_Z:g} standard errors"
    yield Claim(quantity, expected, f"{z:+.2f} standard errors", abs(z) <= MAX_Z)
    gaps = (models["majority"] - models["mode is right"]).abs()
    quantity = "majority vote of all samples minus the share whose most likely answer is right"
    measured, mean = f"{gaps.mean():.3f} on average, {gaps.max():.3f} at most", gaps.mean()
    yield Claim(quantity, f"within {MAX_PLATEAU_GAP}", measured, bool(mean <= MAX_PLATEAU_GAP))
    if (target := common_target(models["nll"].tolist())) is None:
        return
    few, many = (cheapest(models_that_reach(models, target), queries) for queries in (1, 1e9))
    shown = (
        f"N {best['N'] / 1e3:.3g}k, D {best['D'] / 1e6:.3g}M, k {best['k']:g}"
        for best in (few, many)
    )
    quantity = f"cheapest N, D, k for {100 * target:.0f} % solved, at one query and at 1e9"
    holds = many["training"] > few["training"] and many["k"] < few["k"]
    yield Claim(quantity, "more training, fewer samples", " -> ".join(shown), bool(holds))


def _figure(models: DataFrame) -> Figure:
    """-log pass@k against k: exact lines, and what was sampled."""
    traces: list[Trace] = []
    for _, model in models.drop_duplicates("N", keep="last").iterrows():
        name, colour = f"N {format_count(model['N'])}", float(model["N"])
        k, share = model["passed"][["at", "value"]].to_numpy().T
        traces.append(Line(K, _minus_log(model["exact"]), name, colour))
        traces.append(Markers(k, _minus_log(share), "", colour, "open"))
    caption = (
        "Problems not solved by k samples: lines from the likelihoods of right answers, rings from "
        "sampled answers; of each size the longest trained model."
    )
    axes = Axis("samples k", log=True, unit="count"), Axis("-log pass@k", log=True)
    return Figure("sampling", "Coverage against samples", caption, *axes, traces, SIZES)


def _minus_log(share: Array) -> Array:
    """-log of a share (n,), nan for 0 and 1, which a log axis cannot show."""
    inside = (share > 0.0) & (share < 1.0)
    return np.where(inside, -np.log(np.where(inside, share, 0.5)), np.nan)


STUDY = Study("sampling", "Test-time sampling", analyze)
