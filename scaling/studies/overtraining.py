"""Over-training: does a law fitted at few tokens per parameter predict the loss at many? (Gadre et
al. 2024)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.errors import BAD_INPUT, ScalingError
from scaling.fit.estimate import LawFit, estimate
from scaling.fit.frontier.budgets import groups_by_gap
from scaling.fit.laws.laws import LAWS
from scaling.points.comparability import supports_one_law
from scaling.points.points import Points
from scaling.render.figure import Axis, ColorScale, Figure, Line, Markers, Trace
from scaling.render.table import Table
from scaling.studies import runs
from scaling.studies.study import Claim, Study, record_table

Array = np.ndarray

LAW_NAMES = ("overtraining", "chinchilla")
EXTRAPOLATION = 4.0  # the largest ratio over the largest that is fitted, at least
SAME_RATIO = 0.05  # ratios this near in ln(D/N) are one: D is a whole number of steps
MIN_RATIOS, MIN_SIZES = 4, 3
MAX_ERROR = 0.02  # expected of the held-out loss, relative


@dataclass(frozen=True)
class OvertrainingStudy:
    """A ladder: `points`, the index of each run's ratio D/N (n,), and `ratios`, the mean of each,
    ascending; the laws fitted to its lower ratios, and why a law is absent.
    """

    points: Points
    ratio_index: Array
    ratios: Array
    laws: dict[str, LawFit]
    unavailable: dict[str, str]

    @property
    def is_fitted(self) -> Array:
        """Mask over `ratios`: those that the laws are fitted to."""
        return self.ratios <= self.ratios[-1] / EXTRAPOLATION * (1 + SAME_RATIO)

    def runs_at(self, index: int) -> Array:
        """Indices of the runs of a ratio; -1 is the largest."""
        return np.flatnonzero(self.ratio_index == index % len(self.ratios))

    def predicted(self, law: str) -> Array:
        """The loss of every run (n,) by a law."""
        return np.exp(self.laws[law].predict(self.points))

    def error(self, law: str) -> Array:
        """Predicted / measured - 1 (n,)."""
        return np.asarray(self.predicted(law) / self.points.loss - 1)


def analyze(rows: pd.DataFrame) -> OvertrainingStudy | None:
    """The ratios D/N that at least three sizes share, and the laws; None where the runs are no
    ladder of fresh tokens.

    N counts blocks and head, C is exact. A ladder has four ratios, one of them at most a quarter of
    the largest, and no other runs.
    """
    repeats_tokens = any(run["task"].get("unique_tokens") for run in runs.configs(rows).values())
    if repeats_tokens or not supports_one_law(rows) or (points := runs.law_points(rows)) is None:
        return None
    n, d = points.inputs("ND").values()
    log_ratio = np.log(d / n)
    index = groups_by_gap(log_ratio, SAME_RATIO)
    groups = [index == i for i in range(index.max() + 1)]
    ratios = np.exp([log_ratio[among].mean() for among in groups])
    study = OvertrainingStudy(points, index, ratios, {}, {})
    has_sizes = min(len(np.unique(n[among])) for among in groups) >= MIN_SIZES
    if len(groups) < MIN_RATIOS or not has_sizes or not study.is_fitted.any():
        return None
    train = points.take(study.is_fitted[index])
    for name in LAW_NAMES:
        try:
            study.laws[name] = estimate(LAWS[name], train)
        except ScalingError as error:
            if error.exit_code != BAD_INPUT:
                raise
            study.unavailable[name] = error.what
    return study


def claims(study: OvertrainingStudy) -> Iterator[Claim]:
    """How far each law misses the loss at the largest ratio: the mean over runs, the worst size and
    the worst run.
    """
    ratios, held_out = study.ratios, study.runs_at(-1)
    largest_fitted = ratios[study.is_fitted][-1]
    n = np.asarray(study.points.n)[held_out]
    for law in LAW_NAMES:
        measured, holds = f"not fitted: {study.unavailable.get(law)}", None
        if law in study.laws:
            error = study.error(law)[held_out]
            mean = float(np.abs(error).mean())
            worst_size = max(abs(float(error[n == size].mean())) for size in np.unique(n))
            measured = (
                f"{mean:.2%} on average over {len(held_out)} runs, {worst_size:.2%} the worst "
                f"size, {np.abs(error).max():.2%} the worst run"
            )
            holds = mean <= MAX_ERROR
        yield Claim(
            f"held-out loss at {ratios[-1] / largest_fitted:.2g}x more tokens per parameter than "
            f"the law {law} was fitted to ({largest_fitted:.0f})",
            f"within {MAX_ERROR:.0%} on average",
            measured,
            holds,
        )


def notes(study: OvertrainingStudy) -> list[str]:
    """How far each law misses the largest ratio."""
    ratios, held_out = study.ratios, study.runs_at(-1)
    missed = " and ".join(
        f"the law {law} by {np.abs(study.error(law)[held_out]).mean():.1%}" for law in study.laws
    )
    fitted = f"Fitted to up to {ratios[study.is_fitted][-1]:.0f} tokens per parameter, "
    if not missed:
        return [f"{fitted}neither law has enough runs."]
    return [f"{fitted}the loss at {ratios[-1]:.0f} is missed by {missed} on average."]


def figures(study: OvertrainingStudy) -> Iterator[Figure]:
    """By each law loss against C: the runs, and the law at each D/N through the sizes."""
    loss = study.points.loss
    columns = study.points.inputs("NDC")
    n, c = columns["N"], columns["C"]
    ramp = ColorScale.of(study.ratios, "tokens per parameter", "number")
    for law, fit in study.laws.items():
        traces: list[Trace] = []
        for index, ratio in enumerate(study.ratios):
            among, is_fitted = study.runs_at(index), study.is_fitted[index]
            among = among[np.argsort(n[among], kind="stable")]
            first_of_size = among[np.unique(n[among], return_index=True)[1]]
            inputs = {letter: values[first_of_size] for letter, values in columns.items()}
            law_loss, colour = fit.law.predict(fit.theta, inputs), ramp.at(float(ratio))
            label = f"D/N = {ratio:.0f}{'' if is_fitted else ', held out'}"
            traces += [
                Line(inputs["C"], law_loss, "", colour, "solid" if is_fitted else "dash", 1.8),
                Markers(c[among], loss[among], label, colour, "circle" if is_fitted else "open"),
            ]
        caption = (
            f"The law {law}, fitted to the filled runs: solid where it was fitted, dashed where it "
            "predicts. Open marks were held out."
        )
        axes = Axis("training FLOPs C", log=True, unit="flops"), Axis("loss, nats per token")
        title = f"Loss at each D/N by the law {law}"
        yield Figure(f"overtraining-{law}", title, caption, *axes, traces, ramp)


def table(study: OvertrainingStudy) -> Table | None:
    """Every held-out run: measured, predicted by each law, relative error."""
    n, d, c = study.points.inputs("NDC").values()
    table = {"N": n, "D/N": d / n, "C": c, "measured": study.points.loss}
    for law in study.laws:
        table |= {f"by {law}": study.predicted(law), f"error of {law}": study.error(law)}
    order = np.lexsort((n, study.ratio_index))
    held_out = order[~study.is_fitted[study.ratio_index[order]]]
    records = pd.DataFrame(table).iloc[held_out].to_dict("records")
    caption = "One row per run; the laws were not fitted to these."
    percent = [f"error of {law}" for law in study.laws]
    rough = ("D/N",)
    title = "Held-out runs"
    return record_table("overtraining", title, records, caption, rough=rough, percent=percent)


STUDY = Study("overtraining", "Over-training", analyze, claims, figures, table, notes)
