"""The prediction document: the answer of a fit to one question."""

from __future__ import annotations

from typing import Any

from scaling.fit.document import Document, Integer, Interval, Real
from scaling.predict.question import QuestionKind
from scaling.warning import ResultWarning


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


class ServedModel(Document):
    """N and D that cost least at the same loss in one form of attention, in device-seconds."""

    n_params: Real
    tokens: Real
    device_seconds: Real
    training_seconds: Real
    prefill_seconds: Real
    decode_seconds: Real
    device_seconds_without: Real
    saved_fraction: Real
    tokens_per_second: Real
    mfu_decode: Real
    kv_cache_bytes: Real


class DecodingForm(Document):
    """KV cache per sequence, and tokens/s at most on every device, of one form of attention."""

    n_kv_heads: Integer
    kv_cache_bytes: Integer
    tokens_per_second: dict[str, Real]


class Decoding(Document):
    """Decoding of the named model at a context and batch, by form of attention."""

    context: Integer
    batch: Integer
    n_params: Integer
    forms: dict[str, DecodingForm]


class ServingCost(Document):
    """How the model is served, and what costs least then by form of attention."""

    device: str
    mfu_training: Real
    mfu_prefill: Real
    mfu_decode: Real | None
    prompt_tokens: Integer
    output_tokens: Integer
    batch: Integer
    context: Integer
    requests: Real
    forms: dict[str, ServedModel]
    model: dict[str, Any]
    decoding: Decoding


class Inference(Document):
    """The size that costs least when it also serves `demand_tokens`, in FLOPs and, where asked, in
    device-seconds.
    """

    demand_tokens: Real
    n_params: Real
    tokens: Real
    flops_total: Real
    flops_total_without: Real
    flops_saved: Real
    saved_fraction: Real
    serving: ServingCost | None = None


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
    decoding: Decoding | None = None
    time: TrainingTime | None = None
    extrapolation_decades: Real | None
    model: dict[str, Any] | None
    law: str
    source: str
    ci: Real
    basis: str
    warnings: tuple[ResultWarning, ...]
