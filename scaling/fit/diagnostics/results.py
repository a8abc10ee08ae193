"""Results of the diagnostics, as parts of a FitResult."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from scaling.fit.document import Document, FitStatus, Integer, Number, Real


class LackOfFit(Document):
    """The F ratio of the scatter about the law over that of seeds, and its p-value."""

    ratio: Number
    p: Number


class NoiseResult(Document):
    """The noise of one run's log loss: `sd` from seeds where they were replicated, else from
    residuals.
    """

    residual_sd: Number
    sd: Number
    basis: Literal["seeds", "residuals"]
    lo: Number = None
    hi: Number = None
    cells: Integer | None = None
    degrees_of_freedom: Integer | None = None
    lack_of_fit: LackOfFit | None = None


class RunAboveLaw(Document):
    """A run whose loss lies above the law, with the likely cause."""

    run_id: str
    n_params: Real
    tokens: Real
    loss: Real
    excess: Real
    cause: str


class FlaggedPoint(Document):
    """A point, by its row from 1."""

    row: Integer
    n_params: Real
    tokens: Real
    loss: Real


class FlaggedPoints(Document):
    """Points to look at again, and why."""

    reason: str
    count: Integer
    points: list[FlaggedPoint]


class FitWithoutFlagged(Document):
    """The fit without the flagged points, or why it is unavailable."""

    n_points: Integer
    left_out: Integer
    unavailable: str | None = None
    params: Mapping[str, Number] | None = None
    status: FitStatus | None = None
    a: Number = None


class HoldoutRow(Document):
    """A run that was left out: its measured and predicted loss, with the interval for one run."""

    n_params: Real
    tokens: Real
    flops: Real
    loss: Real
    predicted: Number
    lo: Number
    hi: Number


class Holdout(Document):
    """The largest budgets left out, and how well a fit of the rest predicts them."""

    budget: Real
    n_train: Integer
    n_test: Integer
    rows: list[HoldoutRow]
    mean_abs_rel_error: Number
    covered: Number
    by: str | None = None  # the law, or `combination`


class RepeatedRuns(Document):
    """Runs of one size that repeat U unique tokens, and the fresh tokens that reach the
    same loss.
    """

    n_params: Real
    unique_tokens: Real
    epochs: Real
    tokens: Real
    loss: Real
    runs: Integer
    effective_tokens: Number
    ratio: Number
    lo: Number
    hi: Number
    extrapolated: bool | None
    predicted_ratio: Number


class KnownEntropy(Document):
    """The entropy of a synthetic language and the lowest loss on the windows measured, with the
    fitted E.
    """

    entropy: Real
    floor: Number
    fitted_E: Real
    lo: Number
    hi: Number
    difference_percent: Real
    floor_difference_percent: Number
    covers: bool | None
