"""The rows that `fit --csv` and `predict --csv` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling.errors import ScalingError

Document = Mapping[str, Any]
Rows = list[dict[str, Any]]
ESTIMATE = ("value", "se", "lo", "hi")
INTERVAL = ("value", "lo", "hi")
FITTED = ("parameter", *ESTIMATE)
PREDICTED = ("quantity", *INTERVAL)
QUANTITIES = ("flops", "n_params", "tokens", "tokens_per_param", "loss", "accuracy")


def fit_rows(document: Document) -> Rows:
    """The parameters and derived quantities with intervals; of coverage one row per model."""
    if document.get("groups"):
        return [dict(group) for group in document["groups"]]
    entries = {**document["params"], **document["derived"]}
    return [
        {"parameter": name, **{part: entry.get(part) for part in ESTIMATE}}
        for name, entry in entries.items()
    ]


def prediction_rows(document: Document, smaller: bool, models: bool) -> Rows:
    """What was predicted, with intervals; or the smaller models, or the named ones, where these are
    asked for. Raises ScalingError.
    """
    if smaller and models:
        raise ScalingError(
            "--csv prints one table, and --smaller and --models are two",
            where="--csv",
            remedy="ask for one, or --json",
        )
    if "predictions" in document:
        return [
            {"budget": each["flops"]["value"], **row}
            for each in document["predictions"]
            for row in prediction_rows(each, smaller, False)
        ]
    if models or smaller:
        return [dict(row) for row in document["models" if models else "smaller"]]
    rows = []
    for name in QUANTITIES:
        entry = document.get(name)
        if entry is not None:
            estimate = entry if isinstance(entry, Mapping) else {"value": entry}
            rows.append({"quantity": name, **{part: estimate.get(part) for part in INTERVAL}})
    return rows
