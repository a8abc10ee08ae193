"""Over-training in tables: the size that is cheapest to train and serve, the price of a smaller model, caches and rooflines, named models."""

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
    """The size that is cheapest when it is also served, at the loss of the compute-optimal model (Sardana 2024)."""
    held = prediction.get("inference")
    if not held:
        return None
    in_all = f"{format_flops(held['flops_total'])}, {100 * held['saved_fraction']:.2g} % less than with the compute-optimal size"
    named = (
        ("tokens served", "demand_tokens"),
        ("parameters", "n_params"),
        ("training tokens", "tokens"),
    )
    rows = [*((label, format_count(held[name])) for label, name in named), ("FLOPs in all", in_all)]
    return pairs("inference", "With inference demand", rows)


def served(prediction: Document) -> Table | None:
    """The same in device-seconds, for each form of attention."""
    held = (prediction.get("inference") or {}).get("serving")
    if not held:
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
        for form, row in held["forms"].items()
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
    decode = "at its roofline" if held["mfu_decode"] is None else f"at {held['mfu_decode']:.0%} MFU"
    told = (
        f"Device-days of one {held['device']}: training at {held['mfu_training']:.0%} MFU, prompts of {held['prompt_tokens']} at "
        f"{held['mfu_prefill']:.0%}, answers of {held['output_tokens']} in batches of {held['batch']} {decode}. The loss is taken to be the "
        "same for all heads (MHA), a quarter of them (GQA) and one (MQA)."
    )
    return Table("serving", "Training and serving, in device-days", columns, rows, told)


def _days(seconds: float) -> float:
    return seconds / DAY


def decoding(prediction: Document) -> Table | None:
    """KV cache and tokens/s at most by device of the model that is named: the served one where a demand is given."""
    held = ((prediction.get("inference") or {}).get("serving") or prediction).get("decoding")
    if not held:
        return None
    forms: Mapping[str, Any] = held["forms"]
    rows: list[tuple[Cell, ...]] = [
        ("KV cache a sequence", *(format_bytes(form["kv_cache_bytes"]) for form in forms.values()))
    ]
    devices = next(iter(forms.values()))["tokens_per_second"]
    rows += [
        (name, *(f"{form['tokens_per_second'][name]:,.0f}" for form in forms.values()))
        for name in devices
    ]
    columns = (Column("tokens/s at most"), *(Column(name) for name in forms))
    told = f"{format_count(held['n_params'])} parameters in bf16 at {held['context']} tokens of context, batch {held['batch']}."
    return Table("decoding", "Decoding: cache and roofline", columns, tuple(rows), told)


def smaller(prediction: Document) -> Table | None:
    """The price of a smaller model (De Vries 2023)."""
    held: Sequence[Mapping[str, Any]] = prediction.get("smaller") or []
    if not held:
        return None
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            f"{row['fraction']:g}",
            row["n_params"],
            estimate(row["tokens"]),
            row["tokens_per_param"],
            estimate(row["extra_compute_percent"]),
        )
        for row in held
    )
    columns = (
        Column("of N"),
        Column("parameters", "count"),
        Column("tokens", "count", True),
        Column("D/N", "rough"),
        Column("extra compute, %", "rough", True),
    )
    told = f"Tokens that bring each size to the same loss. No number of tokens does it at or below {held[0]['critical_fraction']:.3g} of N."
    told += (
        " An interval without an end holds draws that never reach the loss."
        if any(_open(row) for row in held)
        else ""
    )
    return Table("smaller", "The price of a smaller model", columns, rows, told)


def _open(row: Mapping[str, Any]) -> bool:
    return row["tokens"]["lo"] is not None and row["tokens"]["hi"] is None


def price(document: Document, path: Path | None) -> Table | None:
    """What smaller models than the optimum of the largest budget cost by the fit at `path`; None for a law that does not say it."""
    from scaling.predict.iso_loss import prices
    from scaling.predict.law_source import load_law

    budget = (document["range"].get("flops") or [None])[-1]
    if path is None or budget is None:
        return None
    known = load_law(str(path))
    if known.optimum is None:
        return None
    try:
        rows = prices(
            known,
            float(known.optimum.n_star(budget)),
            float(known.optimum.d_star(budget)),
            FRACTIONS,
            budget,
        )
    except ScalingError:
        return None  # a frontier, or a law in other inputs
    return smaller({"smaller": [row.to_dict() for row in rows]})
