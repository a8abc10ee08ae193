"""Moved from inference.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scaling.render.table import Column, Document, Table


def models(document: Document) -> Table | None:
    """Named models beside the optimum of their own budgets."""
    held: Sequence[Mapping[str, Any]] = document.get("models") or []
    if not held:
        return None
    names = (
        "model",
        "n_params",
        "tokens",
        "tokens_per_param",
        "optimal_tokens_per_param",
        "size_ratio",
        "excess_loss",
    )
    columns = (
        Column("model"),
        Column("N", "count"),
        Column("D", "count"),
        Column("D/N", "rough"),
        Column("optimal D/N", "rough"),
        Column("N/N*", "rough"),
        Column("excess loss", "short"),
    )
    told = f"N* is the optimum of the model's own FLOPs by {document.get('source')}; the excess is in nats of that law, not of the model's data."
    return Table(
        "models",
        "Named models against the optimum",
        columns,
        tuple(tuple(row[name] for name in names) for row in held),
        told,
    )
