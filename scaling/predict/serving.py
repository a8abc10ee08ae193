"""What a model costs in use, in device-seconds: training and prefill at a model FLOPs utilisation,
decoding at its roofline.

Sardana et al. 2024 weigh training, prompts and answers by the utilisation of each; here the
decoding of a token is the slower of its arithmetic and of reading weights and KV cache (Pope et al.
2023), unless its utilisation is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from scaling.fit.frontier.frontier import Cost
from scaling.predict.iso_loss import IsoLossCurve, cheapest, equal_loss
from scaling.predict.prediction import Decoding, DecodingForm, Inference, ServedModel

FORMS = {
    "MHA": 1.0,
    "GQA": 0.25,
    "MQA": 0.0,
}  # share of the heads that have keys and values of their own; 0: one head
HEAD = 128
SIZES = np.geomspace(
    1e-2, 10.0, 13
)  # of the size asked about: the buildable models whose caches are measured
VALUE_BYTES = 2  # weights and cache in bfloat16
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
                    f"{value:g} is not a utilisation",
                    where=f"--{name.replace('_', '-')}",
                    remedy="give a share of the peak, such as 0.4",
                )
        if min(self.prompt_tokens, self.output_tokens - 1, self.batch - 1) < 0:
            raise ScalingError(
                (
                    f"{self.prompt_tokens} prompt tokens, {self.output_tokens} output tokens and "
                    f"a batch of {self.batch} are no requests"
                ),
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

    def cache_bytes(self, n: np.ndarray) -> np.ndarray:
        """KV bytes of one token of context."""
        share = self.share or np.minimum(1.0, HEAD / np.exp(np.polyval(self.width, np.log(n))))
        return np.asarray(
            2 * VALUE_BYTES * share * np.exp(np.polyval(self.depth_times_width, np.log(n)))
        )

    def attention_flops(self, n: np.ndarray) -> np.ndarray:
        """FLOPs of a new token for each token of context; the same in every form."""
        return np.asarray(4 * np.exp(np.polyval(self.depth_times_width, np.log(n))))


def shapes(n: float, vocab_size: int) -> dict[str, Shapes]:
    """The shapes of the forms of attention about a size, from the recipe's models.

    Raises ScalingError when no models of about that size can be built.
    """
    from scaling.recipe import InfeasibleCell, model_for

    sizes: list[tuple[int, int, int]] = []
    for size in n * SIZES:
        try:
            model = model_for(
                float(size), Recipe(size_tolerance=0.5), vocab_size=vocab_size, seq_len=1
            )
        except InfeasibleCell:
            continue
        sizes.append(
            (
                n_params(model, 1),
                model.n_layers * model.n_heads * model.d_head,
                model.n_heads * model.d_head,
            )
        )
    x, depth_times_width, width = np.log(np.array(sorted(set(sizes)), float)).reshape(-1, 3).T
    if len(x) < 4:
        raise ScalingError(
            f"no models of about {n:.3g} parameters can be built to serve",
            remedy="leave --device out: FLOPs alone",
        )
    curves = np.polyfit(x, depth_times_width, 2), np.polyfit(x, width, 2)
    return {form: Shapes(*curves, share) for form, share in FORMS.items()}


def device_seconds(
    how: Serving, cost: Cost, shape: Shapes, n: np.ndarray, d: np.ndarray, demand: float
) -> dict[str, np.ndarray]:
    """Seconds of one device for training on D and for serving `demand` tokens, prompts included:
    {training, prefill, decode}.

    A model that needs several devices uses each for a share of the time; communication is not
    counted.
    """
    device, requests = DEVICES[how.device], demand / how.context
    prefill = requests * how.prompt_tokens * 2 * n / (device.flops_per_second * how.mfu_prefill)
    return {
        "training": np.asarray(cost.flops(n, d) / (device.flops_per_second * how.mfu_training)),
        "prefill": np.asarray(prefill),
        "decode": np.asarray(requests * how.output_tokens * _seconds_a_token(how, shape, n)),
    }


def _seconds_a_token(how: Serving, shape: Shapes, n: np.ndarray) -> np.ndarray:
    """Device-seconds of one generated token, at the mean context of an answer."""
    device = DEVICES[how.device]
    if how.mfu_decode is not None:
        return np.asarray(2 * n / (device.flops_per_second * how.mfu_decode))
    context = how.prompt_tokens + (how.output_tokens + 1) / 2
    step = decode_seconds(
        n,
        context * shape.cache_bytes(n),
        context * shape.attention_flops(n),
        how.batch,
        device,
        VALUE_BYTES,
    )
    return np.asarray(np.maximum(*step) / how.batch)


def with_serving(
    law: str,
    values: Mapping[str, float],
    cost: Cost,
    n: float,
    d: float,
    demand: float,
    how: Serving,
    vocab_size: int,
) -> dict[str, ServedModel]:
    """For each form of attention the N and D that cost least at the loss of (n, d).

    Raises ScalingError for a law that does not say which N and D have one loss.
    """
    same = equal_loss(law, values, n, d)
    return {
        form: _least(how, cost, shape, same, n, demand)
        for form, shape in shapes(n, vocab_size).items()
    }


def _least(
    how: Serving, cost: Cost, shape: Shapes, same: IsoLossCurve, n: float, demand: float
) -> ServedModel:
    def spent(size: Any) -> dict[str, np.ndarray]:
        return device_seconds(how, cost, shape, np.asarray(size), same.tokens(size), demand)

    best = cheapest(lambda sizes: np.asarray(sum(spent(sizes).values())), n)
    parts = {name: float(value) for name, value in spent(best).items()}
    total, base = sum(parts.values()), float(sum(spent(n).values()))
    a_token = float(_seconds_a_token(how, shape, np.asarray(best)))
    return ServedModel(
        n_params=best,
        tokens=float(same.tokens(best)),
        device_seconds=total,
        training_seconds=parts["training"],
        prefill_seconds=parts["prefill"],
        decode_seconds=parts["decode"],
        device_seconds_without=base,
        saved_fraction=1 - total / base,
        tokens_per_second=1 / a_token,
        mfu_decode=2 * best * (1 / a_token) / DEVICES[how.device].flops_per_second,
        kv_cache_bytes=float(shape.cache_bytes(np.asarray(best))) * how.context,
    )


def nearest_servable_model(
    n: float, tokens: float, vocab_size: int, seq_len: int
) -> dict[str, Any]:
    """The described model nearest to `n`, within 5 %, with heads of usual width that can be grouped
    by four; else the nearest of all.
    """
    from scaling.recipe import describe

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
    forms = {name: _form(variant, how) for name, variant in attention_forms(model).items()}
    return Decoding(
        context=how.context, batch=how.batch, n_params=n_params(model, how.context), forms=forms
    )


def _form(model: ModelConfig, how: Serving) -> DecodingForm:
    speeds = {
        name: decode_tokens_per_second(model, how.context, how.batch, device)
        for name, device in DEVICES.items()
    }
    return DecodingForm(
        n_kv_heads=model.n_kv_heads,
        kv_cache_bytes=int(kv_cache_bytes(model, how.context)),
        tokens_per_second=speeds,
    )


FORWARD = 2.0  # FLOPs a parameter and token when a model is used


def with_demand(
    law: str, values: Mapping[str, float], cost: Cost, n: float, d: float, demand: float
) -> Inference:
    """Minimise c0 N^p D + 2 N `demand` over N at the loss of (n, d); D follows from the law
    (Sardana 2024, eq. 3).

    Raises ScalingError for a law that does not say which N and D have one loss.
    """
    same = equal_loss(law, values, n, d)

    def total(size: np.ndarray) -> np.ndarray:
        return np.asarray(cost.flops(size, same.tokens(size)) + FORWARD * size * demand)

    best = cheapest(total, n)
    base, least = float(total(np.asarray(n))), float(total(np.asarray(best)))
    return Inference(
        demand_tokens=demand,
        n_params=best,
        tokens=float(same.tokens(best)),
        flops_total=least,
        flops_total_without=base,
        flops_saved=base - least,
        saved_fraction=1 - least / base,
    )
