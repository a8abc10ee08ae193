"""Over-training: does a law fitted at few tokens per parameter tell the loss at many? (Gadre et al. 2024)"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.errors import BAD_INPUT, ScalingError
from scaling.fit.estimate import PointEstimate, estimate
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points
from scaling.points.points import points as points_of
from scaling.studies import runs
from scaling.studies.findings import Claim
from scaling.studies.runs import configs

LAW_NAMES = ("overtraining", "chinchilla")
FURTHER = 4.0  # the largest ratio lies this many times beyond those that are fitted
SAME = 0.05  # ratios this near in ln(D/N) are one rung: D is a whole number of steps
MIN_RUNGS, MIN_SIZES = 4, 3
WITHIN = 0.02  # asked of the held-out loss, relative


@dataclass(frozen=True)
class OvertrainingLadder:
    """Runs of a ladder: `points` with the rung of each (n,), and `ratios`, the mean D/N of each rung, ascending."""

    points: Points
    rung: np.ndarray
    ratios: np.ndarray

    @property
    def fitted(self) -> np.ndarray:
        """The rungs that the laws are fitted to (mask): at most a `FURTHER`th of the largest."""
        return self.ratios <= self.ratios[-1] / FURTHER * (1 + SAME)


@dataclass(frozen=True)
class Study:
    """A ladder with the laws fitted to its lower rungs, the loss that each predicts of every run (n,), and why a law is absent."""

    ladder: OvertrainingLadder
    laws: dict[str, PointEstimate]
    predicted: dict[str, np.ndarray]
    refused: dict[str, str]

    def error(self, law: str) -> np.ndarray:
        """Predicted over measured, less one (n,)."""
        return np.asarray(self.predicted[law] / self.ladder.points.loss - 1)

    def at(self, rung: int) -> np.ndarray:
        """The runs of a rung, by index; -1 is the largest ratio."""
        return np.flatnonzero(self.ladder.rung == rung % len(self.ladder.ratios))


def ladder(table: pd.DataFrame) -> OvertrainingLadder | None:
    """The rungs of tokens per parameter that at least three sizes share; None where the runs are no ladder of fresh tokens.

    N counts blocks and head, C is exact. A ladder has four rungs, one of them at most a quarter of the largest, and no runs beside them.
    """
    if not runs.has_law(table) or _limited(table):
        return None
    try:
        points = points_of(table)
    except ScalingError as error:
        if error.exit_code != BAD_INPUT:
            raise
        return None  # several corpora, or no loss: there is nothing to compare
    n, d = points.inputs("ND").values()
    log_ratio = np.log(d / n)
    order = np.argsort(log_ratio, kind="stable")
    rung = np.empty(len(order), int)
    rung[order] = np.concatenate([[0], np.cumsum(np.diff(log_ratio[order]) > SAME)])
    sizes = [len(np.unique(n[rung == each])) for each in range(rung.max() + 1)]
    ratios = np.exp([log_ratio[rung == each].mean() for each in range(len(sizes))])
    found = OvertrainingLadder(points, rung, ratios)
    return (
        found
        if len(sizes) >= MIN_RUNGS and min(sizes) >= MIN_SIZES and found.fitted.any()
        else None
    )


def _limited(table: pd.DataFrame) -> bool:
    """Whether any run repeats its tokens: then D/N is not what it seems."""
    return any(config["task"].get("unique_tokens") for config in configs(table).values())


def study(table: pd.DataFrame) -> Study | None:
    """The laws fitted to the lower rungs of a ladder and what they say of the others; None where there is no ladder."""
    found = ladder(table)
    if found is None:
        return None
    train = found.points.take(found.fitted[found.rung])
    laws, predicted, refused = {}, {}, {}
    for name in LAW_NAMES:
        law = LAWS[name]
        try:
            laws[name] = estimate(law, train)
        except ScalingError as error:
            if error.exit_code != BAD_INPUT:
                raise
            refused[name] = error.what
            continue
        predicted[name] = np.exp(law.log_predict(laws[name].theta, found.points.inputs(law.inputs)))
    return Study(found, laws, predicted, refused)


def findings(found: Study) -> list[Claim]:
    """How far each law misses the loss of the runs at the largest ratio: the mean relative error over sizes and seeds, and the worst."""
    ratios, runs = found.ladder.ratios, found.at(-1)
    seen = ratios[found.ladder.fitted][-1]
    return [_finding(found, law, seen, runs) for law in LAW_NAMES]


def _finding(found: Study, law: str, seen: float, runs: np.ndarray) -> Claim:
    further = found.ladder.ratios[-1] / seen
    what = f"held-out loss at {further:.2g}x more tokens per parameter than the law {law} saw ({seen:.0f})"
    target = f"within {WITHIN:.0%} on average"
    if law in found.refused:
        return Claim(what, target, f"not fitted: {found.refused[law]}", None)
    n = np.asarray(found.ladder.points.n)[runs]
    error = found.error(law)[runs]
    sizes = [abs(float(error[n == size].mean())) for size in np.unique(n)]
    reached = f"{np.abs(error).mean():.2%} on average over {len(runs)} runs, {max(sizes):.2%} the worst size, {np.abs(error).max():.2%} the worst run"
    return Claim(what, target, reached, bool(np.abs(error).mean() <= WITHIN))
