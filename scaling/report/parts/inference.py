"""Over-training in tables: the size that is cheapest to train and serve, the price of a smaller
model, caches and rooflines, named models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.errors import ScalingError
from scaling.formatting import format_bytes, format_count, format_flops
from scaling.render.table import Cell, Column, Document, Table, estimate, pairs

DAY = 86_400.0
FRACTIONS = (0.75, 0.5, 0.3)


def demand(prediction: Document) -> Table | None:
    """The size that is cheapest when it is also served, at the loss of the compute-optimal model
    (Sardana 2024).
    """
    inference = prediction.get("inference")
    if not inference:
        return None
    in_all = (
        f"{format_flops(inference['flops_total'])}, {100 * inference['saved_fraction']:.2g} % "
        "less than with the compute-optimal size"
    )
    counts = (
        ("tokens served", "demand_tokens"),
        ("parameters", "n_params"),
        ("training tokens", "tokens"),
    )
    rows = [
        *((label, format_count(inference[name])) for label, name in counts),
        ("FLOPs in all", in_all),
    ]
    return pairs("inference", "With inference demand", rows)


def served(prediction: Document) -> Table | None:
    """The same in device-seconds, for each form of attention."""
    serving = (prediction.get("inference") or {}).get("serving")
    if not serving:
        return None
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            form,
            row["n_params"],
            row["tokens"],
            *(
                _days(row[f"{part}_seconds"])
                for part in ("training", "prefill", "decode", "device")
            ),
            f"{100 * row['saved_fraction']:.2g} %",
        )
        for form, row in serving["forms"].items()
    )
    columns = (
        Column("attention"),
        Column("N", "count"),
        Column("D", "count"),
        Column("training", "rough"),
        Column("prefill", "rough"),
        Column("decode", "rough"),
        Column("in all", "rough"),
        Column("saved"),
    )
    decode = (
        "at its roofline"
        if serving["mfu_decode"] is None
        else f"at {serving['mfu_decode']:.0%} MFU"
    )
    caption = (
        f"Device-days of one {serving['device']}: training at {serving['mfu_training']:.0%} "
        f"MFU, prompts of {serving['prompt_tokens']} at "
        f"{serving['mfu_prefill']:.0%}, answers of {serving['output_tokens']} in batches of "
        f"{serving['batch']} {decode}. The loss is taken to be the "
        "same for all heads (MHA), a quarter of them (GQA) and one (MQA)."
    )
    return Table("serving", "Training and serving, in device-days", columns, rows, caption)


def _days(seconds: float) -> float:
    return seconds / DAY


def decoding(prediction: Document) -> Table | None:
    """KV cache and tokens/s at most by device of the model that is named: the served one where a
    demand is given.
    """
    result = ((prediction.get("inference") or {}).get("serving") or prediction).get("decoding")
    if not result:
        return None
    forms: Mapping[str, Any] = result["forms"]
    rows: list[tuple[Cell, ...]] = [
        ("KV cache a sequence", *(format_bytes(form["kv_cache_bytes"]) for form in forms.values()))
    ]
    devices = next(iter(forms.values()))["tokens_per_second"]
    rows += [
        (name, *(f"{form['tokens_per_second'][name]:,.0f}" for form in forms.values()))
        for name in devices
    ]
    columns = (Column("tokens/s at most"), *(Column(name) for name in forms))
    caption = (
        f"{format_count(result['n_params'])} parameters in bf16 at {result['context']} tokens "
        f"of context, batch {result['batch']}."
    )
    return Table("decoding", "Decoding: cache and roofline", columns, tuple(rows), caption)


def smaller(prediction: Document) -> Table | None:
    """The price of a smaller model (De Vries 2023)."""
    models: Sequence[Mapping[str, Any]] = prediction.get("smaller") or []
    if not models:
        return None
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            f"{row['fraction']:g}",
            row["n_params"],
            estimate(row["tokens"]),
            row["tokens_per_param"],
            estimate(row["extra_compute_percent"]),
        )
        for row in models
    )
    columns = (
        Column("of N"),
        Column("parameters", "count"),
        Column("tokens", "count", True),
        Column("D/N", "rough"),
        Column("extra compute, %", "rough", True),
    )
    caption = (
        "Tokens that bring each size to the same loss. No number of tokens does it at or "
        f"below {models[0]['critical_fraction']:.3g} of N."
    )
    caption += (
        " An interval without an end holds draws that never reach the loss."
        if any(_open(row) for row in models)
        else ""
    )
    return Table("smaller", "The price of a smaller model", columns, rows, caption)


def _open(row: Mapping[str, Any]) -> bool:
    return row["tokens"]["lo"] is not None and row["tokens"]["hi"] is None


def price(document: Document, path: Path | None) -> Table | None:
    """What smaller models than the optimum of the largest budget cost by the fit at `path`; None
    for a law that does not say it.
    """
    from scaling.predict.iso_loss import prices
    from scaling.predict.law_source import load_law

    budget = (document["range"].get("flops") or [None])[-1]
    if path is None or budget is None:
        return None
    law = load_law(str(path))
    if law.optimum is None:
        return None
    try:
        rows = prices(
            law,
            float(law.optimum.n_star(budget)),
            float(law.optimum.d_star(budget)),
            FRACTIONS,
            budget,
        )
    except ScalingError:
        return None  # a frontier, or a law in other inputs
    return smaller({"smaller": [row.to_dict() for row in rows]})
