"""Is a sudden ability sudden in the model, or in the metric that measures it?

Schaeffer, Miranda and Koyejo 2023 ("Are emergent abilities of large language models a mirage?",
section 2): a metric that needs all of an answer to be right is about the product of the accuracies
of single tokens, so it can look sharp while each token improves smoothly. Here the same checkpoints
are read under several metrics; what is sharp in log-likelihood too is a transition of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy.optimize import isotonic_regression

from scaling.render.figure import Axis, Dash, Figure, Line, Markers, Trace
from scaling.studies import runs
from scaling.studies.study import Claim, Findings, Interval, Study, record_table

Array = np.ndarray

NAMES: Mapping[str, str] = {
    "exact_match": "exact match",
    "token_accuracy": "token accuracy",
    "edit_distance": "edit distance",
    "brier": "Brier score",
    "answer_nll": "negative log-likelihood",
}
MIN_SIZES = 3
MAX_PRODUCT_ERROR = 0.02
MIN_CURVE_R2 = 0.95
RESAMPLES = 400
DECISIONS = (  # each with its limit
    ("Metric effect: sharpness in N of exact match over that of log-likelihood", 1.25),
    ("Transition: share of log-likelihood's range within one doubling of N", 0.5),
)


def analyze(rows: DataFrame) -> Findings | None:
    """The addition ladder in a table; None without three sizes whose exact match changes, or where
    operands are not uniform over all numbers. Runs that differ from the others of their size in
    more than the seed are left out.
    """
    every = rows[rows["task"] == "arithmetic"]
    if every.empty:
        return None
    rows = runs.of_one_setting(every, "task")
    rows = pd.concat([runs.of_one_setting(of_size) for _, of_size in rows.groupby("n_params")])
    config = next(iter(runs.configs(rows).values()))
    points = checkpoints(rows)
    final = runs.at_end(points).sort_values(["n", "seed"], kind="stable", ignore_index=True)
    medians = final.groupby("n")[["exact_match", "nll"]].median()
    if config["task"]["length_power"] is not None or len(medians) < MIN_SIZES:
        return None
    changes = (medians.iloc[0] != medians.iloc[-1]).all()
    if not changes or not np.isfinite(medians).all(axis=None):
        return None
    by_size = final.groupby("n").agg(
        **{
            "seeds": ("n", "size"),
            "exact match": ("exact_match", lambda of: Interval(of.mean(), of.min(), of.max())),
            "token accuracy": ("token_accuracy", "mean"),
            "nats per digit": ("nll", "mean"),
        }
    )
    records = by_size.reset_index(names="N").astype({"N": float}).to_dict("records")
    caption = "Exact match: mean, minimum and maximum over seeds."
    return Findings(
        [_product_claim(final), _curve_claim(points), *_decision_claims(final)],
        [_figure(final)],
        record_table("emergence", "The ladder", records, caption),
        n_left_out=every["run_id"].nunique() - rows["run_id"].nunique(),
    )


def checkpoints(rows: DataFrame) -> DataFrame:
    """One row per run and step: run_id, seed, step, n, digits of an answer, `NAMES` (absent: nan),
    `nll` in nats per digit, `product` of the accuracies by position, `power` = (mean token
    accuracy)^digits.
    """
    rows, keys = runs.without_diverged(rows), ["run_id", "seed", "n_params", "step"]
    val = rows[rows["split"] == "val"]
    metrics = val.pivot_table(index=keys, columns="metric", values="value")
    at_position = val[val["metric"] == "accuracy_at_position"].groupby(keys)["value"]
    digits = at_position.agg(product="prod", digits="count")
    table = metrics.reindex(columns=list(NAMES)).join(digits, how="inner").reset_index()
    power = table["token_accuracy"] ** table["digits"]
    table = table.assign(nll=table["answer_nll"] / table["digits"], power=power)
    return table.rename(columns={"n_params": "n"})


def sharpness(x: Array, value: Array) -> float:
    """The largest change of `value` (sizes,) between x and x + 1, x = log2 N, interpolated
    linearly, as a share of its range.
    """
    starts = np.unique(np.concatenate([x, x - 1.0]))
    changes = np.abs(np.interp(starts + 1.0, x, value) - np.interp(starts, x, value))
    return float(changes.max() / np.ptp(value))


def decisions(final: DataFrame) -> list[Interval]:
    """The values of DECISIONS with the 95 % intervals of resampled seeds (nan where a size has one
    seed), from medians: a mean of learned and unlearned runs is the value of no run.
    """
    sizes = {n: of_size[["exact_match", "nll"]].to_numpy() for n, of_size in final.groupby("n")}
    x = np.log2(np.array(list(sizes), float))

    def quantities(medians: Array) -> tuple[float, float]:
        exact, nll = (sharpness(x, value) for value in medians.T)
        return exact / nll, nll

    values = quantities(np.array([np.median(seeds, axis=0) for seeds in sizes.values()]))
    draws = np.full((1, 2), np.nan)
    if min(map(len, sizes.values())) >= 2:
        rng = np.random.default_rng(0)
        resampled = (
            np.median(seeds[rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))], axis=1)
            for seeds in sizes.values()
        )
        medians = np.stack(list(resampled), axis=1)  # (resamples, sizes, 2)
        changing = medians[(np.ptp(medians, axis=1) > 0).all(axis=1)]
        draws = np.array([quantities(drawn) for drawn in changing])
    return [Interval.of_draws(value, drawn) for value, drawn in zip(values, draws.T, strict=True)]


def _product_claim(final: DataFrame) -> Claim:
    exact = final["exact_match"]
    product, power = ((final[by] - exact).abs().max() for by in ("product", "power"))
    measured = f"at most {product:.4f} in {len(exact)} runs; (mean accuracy)^digits: {power:.3f}"
    quantity = "product of per-position accuracies minus exact match"
    expected = f"within {MAX_PRODUCT_ERROR:g} in every run"
    return Claim(quantity, expected, measured, bool(product <= MAX_PRODUCT_ERROR))


def _curve_claim(points: DataFrame) -> Claim:
    """The share of the variance of exact match that a falling function of log-likelihood explains
    over all checkpoints.
    """
    exact = points.sort_values("nll", kind="stable")["exact_match"].to_numpy(float)
    residual = exact - isotonic_regression(exact, increasing=False).x
    r2 = 1.0 - float(np.mean(residual**2) / np.var(exact))
    return Claim(
        "exact match a function of log-likelihood along training",
        f"one falling curve explains {100 * MIN_CURVE_R2:.0f} %",
        f"{100 * r2:.1f} % of the variance of {len(points)} checkpoints",
        r2 >= MIN_CURVE_R2,
    )


def _decision_claims(final: DataFrame) -> Iterator[Claim]:
    for (quantity, limit), decision in zip(DECISIONS, decisions(final), strict=True):
        is_yes, is_no = decision.lo >= limit, decision.hi < limit
        answer = "yes" if is_yes else "no" if is_no else "these seeds do not settle it"
        measured = f"{decision:.2f}: {answer}"
        if np.isnan(decision.lo):
            measured = f"{decision.value:.2f} (a size has one seed: no interval)"
        yield Claim(quantity, f"yes if {limit:g} or more", measured, is_yes or is_no or None)


def _figure(final: DataFrame) -> Figure:
    """Every metric over N."""
    medians = final.groupby("n")[list(NAMES)].median()
    first, last = medians.iloc[0], medians.iloc[-1]
    shares, by_run = (table[list(NAMES)].sub(first) / (last - first) for table in (medians, final))
    traces: list[Trace] = []
    measured = [name for name in NAMES if np.isfinite(shares[name]).all()]
    for colour, name in enumerate(measured):
        dash: Dash = "dash" if colour else "solid"
        sizes, share = medians.index.to_numpy(float), shares[name].to_numpy()
        traces.append(Line(sizes, share, NAMES[name], colour, dash))
        n, of_run = final["n"].to_numpy(float), by_run[name].to_numpy()
        traces.append(Markers(n, of_run, "", colour, "circle", 4.5))
    caption = (
        "The same checkpoints under each metric, scaled from its value at the smallest size (0) to "
        "that at the largest (1). Lines join medians over seeds, points are runs."
    )
    title, x = "One ladder, several metrics", Axis("parameters N", log=True, unit="count")
    return Figure("emergence", title, caption, x, Axis("share of the change"), traces)


STUDY = Study("emergence", "Emergence: metric or transition?", analyze)
