"""Over-training: does a law fitted at few tokens per parameter predict the loss at many? (Gadre et
al. 2024)
"""

from __future__ import annotations

import math

import numpy as np
from pandas import DataFrame

from scaling.errors import BAD_INPUT, ScalingError
from scaling.fit.estimate import estimate
from scaling.fit.frontier.budgets import groups_by_gap
from scaling.fit.laws.laws import LAWS
from scaling.points.comparability import supports_one_law
from scaling.render.figure import Axis, Figure, Line, Markers, Trace
from scaling.studies import runs
from scaling.studies.study import Claim, Findings, Study

LAW_NAMES = ("overtraining", "chinchilla")
EXTRAPOLATION = 4.0  # the largest ratio over the largest that is fitted, at least
SAME_RATIO = 0.05  # ratios this near in ln(D/N) are one: D is a whole number of steps
MIN_RATIOS, MIN_SIZES = 4, 3
MAX_ERROR = 0.02  # expected of the held-out loss, relative


def analyze(rows: DataFrame) -> Findings | None:
    """The ratios D/N that at least three sizes share, and the laws fitted to the lower of them;
    None where the runs are no ladder of fresh tokens.

    N counts blocks and head, C is exact. A ladder has four ratios, one of them at most a quarter of
    the largest, and no other runs.
    """
    repeats_tokens = any(run["task"].get("unique_tokens") for run in runs.configs(rows).values())
    if repeats_tokens or not supports_one_law(rows) or (points := runs.law_points(rows)) is None:
        return None
    ladder = DataFrame({**points.inputs("NDC"), "loss": points.loss})
    log_ratio = (ladder["D"] / ladder["N"]).map(math.log)
    groups = log_ratio.groupby(groups_by_gap(log_ratio.to_numpy(), SAME_RATIO))
    ladder["ratio"] = groups.transform("mean").map(math.exp)
    highest_fitted = ladder["ratio"].max() / EXTRAPOLATION * (1 + SAME_RATIO)
    ladder["is_fitted"] = ladder["ratio"] <= highest_fitted
    sizes = ladder.groupby("ratio")["N"].nunique()
    if len(sizes) < MIN_RATIOS or sizes.min() < MIN_SIZES or not ladder["is_fitted"].any():
        return None
    claims, figures = [], []
    for name in LAW_NAMES:
        try:
            fit = estimate(LAWS[name], points.take(ladder["is_fitted"].to_numpy()))
        except ScalingError as error:
            if error.exit_code != BAD_INPUT:
                raise
            claims.append(_claim(name, ladder, f"not fitted: {error.what}"))
            continue
        predicted = ladder.assign(predicted=np.exp(fit.predict(points)))
        claims.append(_claim(name, predicted))
        figures.append(_figure(name, predicted))
    return Findings(claims, figures)


def _claim(law: str, ladder: DataFrame, unavailable: str = "") -> Claim:
    """How far a law misses the loss at the largest ratio: the mean over runs, the worst size and
    the worst run.
    """
    held_out = ladder[ladder["ratio"] == ladder["ratio"].max()]
    ratio, fitted = held_out["ratio"].iloc[0], ladder.loc[ladder["is_fitted"], "ratio"].max()
    quantity = f"held-out loss at {ratio / fitted:.2g}x more tokens per parameter than the law "
    quantity += f"{law} was fitted to ({fitted:.0f})"
    expected = f"within {100 * MAX_ERROR:.0f} % on average"
    if unavailable:
        return Claim(quantity, expected, unavailable, None)
    error = held_out["predicted"] / held_out["loss"] - 1
    mean, worst_size = error.abs().mean(), error.groupby(held_out["N"]).mean().abs().max()
    measured = (
        f"{100 * mean:.2f} % on average over {len(held_out)} runs, {100 * worst_size:.2f} % the "
        f"worst size, {100 * error.abs().max():.2f} % the worst run"
    )
    return Claim(quantity, expected, measured, bool(mean <= MAX_ERROR))


def _figure(law: str, ladder: DataFrame) -> Figure:
    """Loss against C: the runs, and the law at each D/N through the sizes."""
    traces: list[Trace] = []
    for _, of_ratio in ladder.groupby("ratio"):
        by_size, ratio = of_ratio.sort_values("N", kind="stable"), of_ratio["ratio"].iloc[0]
        c, loss = by_size[["C", "loss"]].to_numpy().T
        law_c, law_loss = by_size.drop_duplicates("N")[["C", "predicted"]].to_numpy().T
        is_fitted, colour = by_size["is_fitted"].all(), float(ratio)
        label = f"D/N = {ratio:.0f}{'' if is_fitted else ', held out'}"
        traces += [
            Line(law_c, law_loss, "", colour, "solid" if is_fitted else "dash", 1.8),
            Markers(c, loss, label, colour, "circle" if is_fitted else "open"),
        ]
    caption = (
        f"The law {law}, fitted to the filled runs: solid where it was fitted, dashed where it "
        "predicts. Open marks were held out."
    )
    axes = Axis("training FLOPs C", log=True, unit="flops"), Axis("loss, nats per token")
    title, scale = f"Loss at each D/N by the law {law}", Axis("tokens per parameter")
    return Figure(f"overtraining-{law}", title, caption, *axes, traces, scale)


STUDY = Study("overtraining", "Over-training", analyze)
