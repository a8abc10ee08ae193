"""The rows that `--csv` prints: of each command's document those that one would plot or join."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling.errors import ScalingError

Document = Mapping[str, Any]
Rows = list[dict[str, Any]]
ESTIMATE = ("value", "se", "lo", "hi")
INTERVAL = ("value", "lo", "hi")

# What heads a table without rows; the rows themselves say the same.
PLANNED = (
    "run_id",
    "n_params",
    "n_params_with_head",
    "n_params_nonembedding",
    "n_layers",
    "d_model",
    "tokens",
    "tokens_per_param",
    "flops",
    "batch_tokens",
    "lr",
    "n_steps",
    "seed",
    "seconds",
    "memory_bytes",
)
DEVICE_FIT = ("fits", "remedy", "device_memory_bytes")  # of a plan for a device
STATES = (
    "run_id",
    "status",
    "n_params",
    "n_params_with_head",
    "tokens",
    "step",
    "loss",
    "loss_split",
    "attempts",
    "reason",
)
FITTED = ("parameter", *ESTIMATE)
PREDICTED = ("quantity", *INTERVAL)
RECONCILED = ("counting", "approach", *INTERVAL, "unavailable")
PROPOSED = ("n_params", "tokens", "flops", "copies", "seeds", "trunk")
TUNED = (
    "field",
    "n_params",
    "tokens",
    "index",
    "value",
    "short_run_loss",
    "loss",
    "losses",
    "state",
    "kept",
)
SIZES = ("parametrisation", "over", "at", "kind", "change", "size", "slope")
ASKED = ("flops", "n_params", "tokens", "tokens_per_param", "loss", "accuracy")


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
    if models or smaller:
        return [dict(row) for row in document["models" if models else "smaller"]]
    return [
        {"quantity": name, **_estimated(document[name])}
        for name in ASKED
        if document.get(name) is not None
    ]


def _estimated(entry: Any) -> dict[str, Any]:
    entries = entry if isinstance(entry, Mapping) else {"value": entry}
    return {part: entries.get(part) for part in INTERVAL}


def reconcile_rows(document: Document) -> Rows:
    """The exponent a of the same runs, one row for each counting and approach."""
    return [
        {
            "counting": row["label"],
            "approach": approach,
            **_estimated(row[approach].get("a")),
            "unavailable": row[approach].get("unavailable"),
        }
        for row in document["countings"]
        for approach in ("parametric", "isoflop", "envelope")
    ]


def tuning_rows(document: Document) -> Rows:
    """Every grid value that was tried at a size, with its losses."""
    return [
        {"field": field["field"], "n_params": size["n_params"], "tokens": size["tokens"], **value}
        for field in document["fields"]
        for size in field["sizes"]
        for value in size["values"]
    ]


def coordinate_rows(document: Document) -> Rows:
    """The size of every kind of activation at every width and depth, with its slope."""
    return [
        {
            "parametrisation": check["parametrisation"],
            "over": check["over"],
            "at": at,
            "kind": curve["kind"],
            "change": curve["change"],
            "size": size,
            "slope": curve["slope"],
        }
        for check in document["checks"]
        for curve in check["curves"]
        for at, size in zip(check["at"], curve["sizes"], strict=True)
    ]
