"""The prediction document: the answer of a fit to one question."""

from __future__ import annotations

from typing import Any

from scaling.fit.document import Document, Integer, Interval, Real
from scaling.predict.question import QuestionKind
from scaling.warning import ResultWarning

COMBINATION = "combination"  # in place of a law, where several answer together


class ApproachPrediction(Document):
    """The optimum at the budget by one approach."""

    n_params: Interval
    tokens: Interval
    loss: Interval


class SmallerModel(Document):
    """A smaller model of the same loss: the tokens and compute it needs, and the smallest fraction
    that can reach it.
    """

    fraction: Real
    n_params: Real
    tokens: Interval
    tokens_per_param: Real | None
    flops: Interval
    extra_compute_percent: Interval
    critical_fraction: Real


class Inference(Document):
    """The size that costs least FLOPs when it also serves `demand_tokens`."""

    demand_tokens: Real
    n_params: Real
    tokens: Real
    flops_total: Real
    flops_total_without: Real
    flops_saved: Real
    saved_fraction: Real


class ErrorParts(Document):
    """The standard error of an answer, in logs: the scatter of a run, the parameters of the
    headline law, the form of the law (what the candidates differ by beyond them), the distance
    from the data (what they err by together), and the `total`.
    """

    noise: Real
    parameters: Real | None
    form: Real
    distance: Real
    total: Real


class CombinedAnswer(Document):
    """What each candidate of the combination says, with its weight, and the parts of the standard
    error.
    """

    each: dict[str, Real]
    weights: dict[str, Real]
    parts: ErrorParts


class TrainingTime(Document):
    """How long the training of the answer takes: `hours` on `count` devices at `mfu`."""

    device: str
    count: Integer
    mfu: Real
    hours: Real


class PredictionResult(Document):
    """The answer to one question. `model` is the buildable model nearest to it, with the recipe's
    hyper-parameters: null where the vocabulary is not known and no model was asked for. `inputs`
    are those other than N, D and C, by letter.
    """

    question: QuestionKind
    flops: Interval
    n_params: Interval
    tokens: Interval
    loss: Interval
    tokens_per_param: Interval
    inputs: dict[str, Interval] | None = None
    inference: Inference | None = None
    smaller: list[SmallerModel] | None = None
    approaches: dict[str, ApproachPrediction] | None = None
    accuracy: Interval | None = None
    combination: dict[str, CombinedAnswer] | None = None
    time: TrainingTime | None = None
    extrapolation_decades: Real | None
    model: dict[str, Any] | None
    law: str
    source: str
    ci: Real
    basis: str
    warnings: tuple[ResultWarning, ...]
