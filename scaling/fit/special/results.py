"""Parts of a FitResult of laws with tables of their own."""

from __future__ import annotations

from scaling.fit.document import Document, Estimate, Integer, Number


class BetaBinomial(Document):
    """The beta distribution of success rates, and the b that follows from it."""

    alpha: Number
    beta: Number
    b: Number


class CoverageGroup(Document):
    """The coverage law of one model."""

    model: str
    problems: Integer
    a: Estimate
    b: Estimate
    r2: Number
    beta_binomial: BetaBinomial


class CurveErrors(Document):
    """How well loss curves are predicted: R^2, mean absolute error in nats over `n` evaluations,
    and the error of the last one.
    """

    n: Integer
    r2: Number
    mae: Number
    final_error: Number


class ScheduleErrors(CurveErrors):
    """How well the loss curve of one schedule is predicted, fitted or held out."""

    name: str
    held_out: bool
