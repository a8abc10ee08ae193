"""What a model costs in use, in device-seconds: training and prefill at a model FLOPs utilisation,
decoding at its roofline.

Sardana et al. 2024 weigh training, prompts and answers by the utilisation of each; here the
decoding of a token is the slower of its arithmetic and of reading weights and KV cache (Pope et al.
2023), unless its utilisation is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scaling.accounting import (
    DEVICES,
    attention_forms,
    decode_seconds,
    decode_tokens_per_second,
    kv_cache_bytes,
    n_params,
)
from scaling.config import ModelConfig, Recipe
from scaling.errors import ScalingError, unknown_choice
from scaling.predict.iso_loss import IsoLossCurve, equal_loss
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import Decoding, DecodingForm, Inference, ServedModel, ServingCost
from scaling.recipe import InfeasibleCell, describe, model_for

# share of the heads that have keys and values of their own; 0: one head
FORMS = {"MHA": 1.0, "GQA": 0.25, "MQA": 0.0}
HEAD = 128
# of the size asked about: the buildable models whose caches are measured
SIZES = np.geomspace(1e-2, 10.0, 13)
VALUE_BYTES = 2  # weights and cache in bfloat16
PARTS = ("training_seconds", "prefill_seconds", "decode_seconds")
MOST = 2**40  # tokens of a request, and requests side by side


@dataclass(frozen=True)
class Serving:
    """Requests of `prompt_tokens` and `output_tokens`, `batch` of them side by side, on a device of
    `DEVICES`.

    Utilisations are shares of the device's peak FLOP/s at 2 N FLOPs a token (6 N in training);
    `mfu_decode` None is the roofline. Raises ScalingError for what is none.
    """

    device: str = "h100"
    mfu_training: float = 0.4
    mfu_prefill: float = 0.5
    mfu_decode: float | None = None
    prompt_tokens: int = 512
    output_tokens: int = 512
    batch: int = 16

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise unknown_choice("device", self.device, DEVICES, where="--device")
        for name in ("mfu_training", "mfu_prefill", "mfu_decode"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ScalingError(
                    f"must be above 0 and at most 1, not {value:g}",
                    where=f"--{name.replace('_', '-')}",
                    remedy="give a share of the peak, such as 0.4",
                )
        if min(self.prompt_tokens, self.output_tokens - 1, self.batch - 1) < 0:
            raise ScalingError(
                f"{self.prompt_tokens} prompt tokens, {self.output_tokens} output tokens and "
                f"a batch of {self.batch} are no requests",
                remedy="give at least one output token and a batch of one",
            )
        for name in ("prompt_tokens", "output_tokens", "batch"):
            if getattr(self, name) > MOST:
                raise ScalingError(
                    "more than any device serves",
                    where=f"--{name.replace('_', '-')}",
                    remedy=f"give at most {MOST:,}",
                )

    @property
    def context(self) -> int:
        """Tokens in the cache at the end of an answer."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True)
class Shapes:
    """How layers x width and the width grow with N among buildable models (parabolas in logs), and
    what a form keeps of the width.

    A form of attention keeps keys and values of a `share` of the width, or of one head of `HEAD`
    where the share is 0.
    """

    depth_times_width: np.ndarray
    width: np.ndarray
    share: float = 1.0

    def cache_bytes(self, n: Any) -> Any:
        """KV bytes of one token of context."""
        share = self.share or np.minimum(1.0, HEAD / np.exp(np.polyval(self.width, np.log(n))))
        return 2 * VALUE_BYTES * share * self._layers_times_width(n)

    def attention_flops(self, n: Any) -> Any:
        """FLOPs of a new token for each token of context; the same in every form."""
        return 4 * self._layers_times_width(n)

    def _layers_times_width(self, n: Any) -> Any:
        return np.exp(np.polyval(self.depth_times_width, np.log(n)))


def shapes(n: float, vocab_size: int) -> dict[str, Shapes]:
    """The shapes of the forms of attention about a size, from the recipe's models.

    Raises ScalingError when no models of about that size can be built.
    """
    sizes: set[tuple[int, int, int]] = set()
    rule = Recipe(size_tolerance=0.5)
    for size in n * SIZES:
        with suppress(InfeasibleCell):
            model = model_for(float(size), rule, vocab_size=vocab_size, seq_len=1)
            width = model.n_heads * model.d_head
            sizes.add((n_params(model, 1), model.n_layers * width, width))
    if len(sizes) < 4:
        raise ScalingError(
            f"no models of about {n:.3g} parameters can be built to serve",
            remedy="leave --device out: FLOPs alone",
        )
    x, *curves = np.log(np.array(sorted(sizes), float)).T
    depth_times_width, width_curve = (np.polyfit(x, curve, 2) for curve in curves)
    return {form: Shapes(depth_times_width, width_curve, share) for form, share in FORMS.items()}


def _seconds_per_token(how: Serving, shape: Shapes, n: Any) -> Any:
    """Device-seconds of one generated token, at the mean context of an answer."""
    device = DEVICES[how.device]
    if how.mfu_decode is not None:
        return 2 * n / (device.flops_per_second * how.mfu_decode)
    context = how.prompt_tokens + (how.output_tokens + 1) / 2
    cache, flops = context * shape.cache_bytes(n), context * shape.attention_flops(n)
    return np.maximum(*decode_seconds(n, cache, flops, how.batch, device, VALUE_BYTES)) / how.batch


def _served(
    law: FittedLaw, same: IsoLossCurve, n: float, demand: float, how: Serving, shape: Shapes
) -> ServedModel:
    """The N and D of a curve that cost least in seconds of one device, for training and for serving
    `demand` tokens, prompts included.

    A model that needs several devices uses each for a share of the time; communication is not
    counted.
    """
    peak, requests = DEVICES[how.device].flops_per_second, demand / how.context

    def seconds(size: Any, tokens: Any) -> tuple[Any, Any, Any]:
        """Of training, prefill and decoding."""
        training = law.cost.flops(size, tokens) / (peak * how.mfu_training)
        prefill = requests * how.prompt_tokens * 2 * size / (peak * how.mfu_prefill)
        decode = requests * how.output_tokens * _seconds_per_token(how, shape, size)
        return training, prefill, decode

    best, tokens, parts, without = same.cheapest(seconds, n)
    rate = 1 / float(_seconds_per_token(how, shape, best))
    return ServedModel(
        n_params=best,
        tokens=tokens,
        device_seconds=sum(parts),
        **dict(zip(PARTS, parts, strict=True)),
        device_seconds_without=without,
        saved_fraction=1 - sum(parts) / without,
        tokens_per_second=rate,
        mfu_decode=2 * best * rate / peak,
        kv_cache_bytes=shape.cache_bytes(best) * how.context,
    )


def nearest_servable_model(
    n: float, tokens: float, vocab_size: int, seq_len: int
) -> dict[str, Any]:
    """The described model nearest to `n`, within 5 %, with heads of usual width that can be grouped
    by four; else the nearest of all.
    """
    models = [
        describe(n * (1 + shift), tokens, vocab_size=vocab_size, seq_len=seq_len)
        for shift in (0.0, -0.015, 0.015, -0.03, 0.03, -0.045, 0.045)
    ]
    return next(
        (model for model in models if model["n_heads"] % 4 == 0 and model["d_head"] <= 2 * HEAD),
        models[0],
    )


def decoding(described: Mapping[str, Any], how: Serving) -> Decoding:
    """KV bytes a sequence of `how.context` tokens, and tokens/s at most on every named device, of a
    described model's MHA, GQA and MQA forms.
    """
    model = ModelConfig.model_validate(
        {name: value for name, value in described.items() if name in ModelConfig.model_fields}
    )
    forms = {
        name: DecodingForm(
            n_kv_heads=form.n_kv_heads,
            kv_cache_bytes=int(kv_cache_bytes(form, how.context)),
            tokens_per_second={
                device_name: decode_tokens_per_second(form, how.context, how.batch, device)
                for device_name, device in DEVICES.items()
            },
        )
        for name, form in attention_forms(model).items()
    }
    return Decoding(
        context=how.context, batch=how.batch, n_params=n_params(model, how.context), forms=forms
    )


FORWARD = 2.0  # FLOPs a parameter and token when a model is used


def with_demand(
    law: FittedLaw,
    n: float,
    d: float,
    demand: float,
    how: Serving | None,
    vocab_size: int,
    seq_len: int,
) -> Inference:
    """Minimise c0 N^p D + 2 N `demand` over N at the loss of (n, d), where D follows from the law
    (Sardana 2024, eq. 3), and device-seconds with the model then served.

    Raises ScalingError for a law that does not say which N and D have one loss.
    """
    same = equal_loss(law.law, law.values, n, d)

    def flops(size: Any, tokens: Any) -> tuple[Any, Any]:
        return law.cost.flops(size, tokens), FORWARD * size * demand

    best, tokens, parts, base = same.cheapest(flops, n)
    served = None
    if how is not None:
        forms = {
            form: _served(law, same, n, demand, how, shape)
            for form, shape in shapes(n, vocab_size).items()
        }
        cheapest_mha = forms["MHA"].n_params, forms["MHA"].tokens
        model = nearest_servable_model(*cheapest_mha, vocab_size, seq_len)
        served = ServingCost(
            **asdict(how),
            context=how.context,
            requests=demand / how.context,
            forms=forms,
            model=model,
            decoding=decoding(model, how),
        )
    return Inference(
        demand_tokens=demand,
        n_params=best,
        tokens=tokens,
        flops_total=sum(parts),
        flops_total_without=base,
        flops_saved=base - sum(parts),
        saved_fraction=1 - sum(parts) / base,
        serving=served,
    )
