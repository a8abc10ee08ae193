"""Over-training in tables: the size that is cheapest to train and serve, the price of a smaller
model, caches and rooflines.
"""

from __future__ import annotations

from collections.abc import Sequence

from scaling.errors import ScalingError
from scaling.formatting import format_bytes, format_count, format_flops
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import PredictionResult, SmallerModel
from scaling.render.table import Cell, Column, Table, pairs, tabulate
from scaling.report.parts.fit_tables import D, N

DAY = 86_400.0
FRACTIONS = (0.75, 0.5, 0.3)


def demand(prediction: PredictionResult) -> Table | None:
    """The size that is cheapest when it is also served, at the loss of the compute-optimal model
    (Sardana 2024).
    """
    served = prediction.inference
    if not served:
        return None
    in_all = (
        f"{format_flops(served.flops_total)}, {100 * served.saved_fraction:.2g} % less than with "
        "the compute-optimal size"
    )
    rows = (
        ("tokens served", format_count(served.demand_tokens)),
        ("parameters", format_count(served.n_params)),
        ("training tokens", format_count(served.tokens)),
        ("FLOPs in all", in_all),
    )
    return pairs("inference", "With inference demand", rows)


def served(prediction: PredictionResult) -> Table | None:
    """The same in device-seconds, for each form of attention."""
    serving = prediction.inference.serving if prediction.inference else None
    if not serving:
        return None
    parts = ("training", "prefill", "decode", "device")
    rows = [
        {
            "form": form,
            "n": row.n_params,
            "d": row.tokens,
            **{part: getattr(row, f"{part}_seconds") / DAY for part in parts},
            "saved": f"{100 * row.saved_fraction:.2g} %",
        }
        for form, row in serving.forms.items()
    ]
    columns = {
        "form": Column("attention"),
        "n": N,
        "d": D,
        **{part: Column("in all" if part == "device" else part, "rough") for part in parts},
        "saved": Column("saved"),
    }
    decode = "at its roofline" if serving.mfu_decode is None else f"at {serving.mfu_decode:.0%} MFU"
    caption = (
        f"Device-days of one {serving.device}: training at {serving.mfu_training:.0%} MFU, prompts "
        f"of {serving.prompt_tokens} at {serving.mfu_prefill:.0%}, answers of "
        f"{serving.output_tokens} in batches of {serving.batch} {decode}. The loss is taken to be "
        "the same for all heads (MHA), a quarter of them (GQA) and one (MQA)."
    )
    return tabulate("serving", "Training and serving, in device-days", rows, columns, caption)


def decoding(prediction: PredictionResult) -> Table | None:
    """KV cache and tokens/s at most by device of the model that is named: the served one where a
    demand is given.
    """
    serving = prediction.inference.serving if prediction.inference else None
    result = serving.decoding if serving else prediction.decoding
    if not result:
        return None
    forms = result.forms
    rows: list[tuple[Cell, ...]] = [
        ("KV cache a sequence", *(format_bytes(form.kv_cache_bytes) for form in forms.values()))
    ]
    for device in next(iter(forms.values())).tokens_per_second:
        speeds = (form.tokens_per_second[device] for form in forms.values())
        rows.append((device, *(f"{speed:,.0f}" for speed in speeds)))
    columns = (Column("tokens/s at most"), *(Column(name) for name in forms))
    caption = (
        f"{format_count(result.n_params)} parameters in bf16 at {result.context} tokens "
        f"of context, batch {result.batch}."
    )
    return Table("decoding", "Decoding: cache and roofline", columns, tuple(rows), caption)


def smaller(models: Sequence[SmallerModel] | None, at: str = "") -> Table | None:
    """The price of smaller models (De Vries 2023); `at` says which loss they keep."""
    if not models:
        return None
    columns = {
        "fraction": Column("of N", "short"),
        "n_params": Column("parameters", "count"),
        "tokens": Column("tokens", "count", True),
        "tokens_per_param": Column("D/N", "rough"),
        "extra_compute_percent": Column("extra compute, %", "rough", True),
    }
    caption = (
        f"Tokens that bring each size to the same loss{at}. No number of tokens does it at or "
        f"below {models[0].critical_fraction:.3g} of N."
    )
    if any(row.tokens.lo is not None and row.tokens.hi is None for row in models):
        caption += " An interval without an end holds draws that never reach the loss."
    return tabulate("smaller", "The price of a smaller model", models, columns, caption)


def price(law: FittedLaw | None, flops: float | None) -> Table | None:
    """What smaller models than the optimum of a budget cost by a law; None for a law that does not
    say it.
    """
    from scaling.predict.iso_loss import prices

    if law is None or law.optimum is None or flops is None:
        return None
    n, d = float(law.optimum.n_star(flops)), float(law.optimum.d_star(flops))
    try:
        rows = prices(law, n, d, FRACTIONS, flops)
    except ScalingError:
        return None  # a frontier, or a law in other inputs
    at = f" as N = {format_count(n)}, the optimum of {format_flops(flops)} FLOPs by the law "
    return smaller(rows, f"{at}{law.law}")
