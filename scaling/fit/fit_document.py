"""The fit as a JSON document: what `scaling fit` writes, and all that `predict` and `report` know of it.

No NaN reaches the file (what is not finite is null), and a file that is not such a document is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaling import files
from scaling.errors import ScalingError
from scaling.points.readers import read_bytes

SCHEMA = 1
KEPT_DRAWS = 1000
KEPT_POINTS = 5000
DIGITS = 10
NUMBER = (int, float, type(None))
KEYS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "law": str,
    "approach": str,
    "objective": dict,
    "params": dict,
    "derived": dict,
    "status": str,
    "warnings": list,
    "n_points": int,
    "excluded": list,
    "source": dict,
    "version": str,
    "ci": float,
    "cost": dict,
    "range": dict,
    "data": dict,
    "roads": dict,
}

PARTS: dict[tuple[str, ...], type | tuple[type, ...]] = {  # each after the one that it is a part of
    ("cost", "c0"): (int, float),
    ("cost", "p"): (int, float),
    ("objective", "name"): str,
    ("objective", "delta"): (int, float),
    ("noise",): dict,
    ("noise", "sd"): (int, float),
    ("accuracy",): dict,
    ("source", "paths"): list,
    ("source", "convention"): dict,
    ("source", "model"): dict,
    ("source", "model", "vocab_size"): int,
    ("source", "model", "seq_len"): int,
    ("source", "digest"): str,
    ("source", "filters"): dict,
    ("source", "convention", "params"): str,
    ("source", "convention", "flops"): str,
    ("bootstrap",): dict,
    ("bootstrap", "draws"): dict,
    ("bootstrap", "resamples"): int,
    ("bootstrap", "seed"): int,
}
SPANS = (
    "flops",
    "n_params",
    "tokens",
)  # of `range`: what was trained, from the smallest to the largest
LONGEST = 300  # digits of a whole number that a float can still hold

NEEDED = {
    ("cost", "c0"),
    ("cost", "p"),
    ("objective", "name"),
    ("source", "model", "vocab_size"),
    ("source", "model", "seq_len"),
}  # never null


def interval(value: float, draws: np.ndarray | None, ci: float) -> dict[str, float | None]:
    """{value, se, lo, hi}: standard error and central percentile interval of the draws, widened to hold the value itself.

    A bootstrap's percentiles may miss the estimate when it sits at a bound or the draws are few; lo <= value <= hi always.
    """
    held = np.empty(0) if draws is None else np.asarray(draws, float)
    held = held[np.isfinite(held)]
    if len(held) < 2 or not math.isfinite(value):
        return {"value": value, "se": None, "lo": None, "hi": None}
    with np.errstate(over="ignore"):
        se = float(np.std(held, ddof=1))
    lo, hi = np.quantile(held, [(1 - ci) / 2, (1 + ci) / 2])
    return {"value": value, "se": se, "lo": min(float(lo), value), "hi": max(float(hi), value)}


def subsample_draws(
    draws: Mapping[str, np.ndarray], most: int = KEPT_DRAWS
) -> dict[str, list[float]]:
    """At most `most` draws, evenly picked, to ten significant digits."""
    count = max((len(values) for values in draws.values()), default=0)
    pick = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
    return {
        name: [float(f"{value:.{DIGITS}g}") for value in values[pick]]
        for name, values in draws.items()
    }


def to_jsonable(value: Any) -> Any:
    """A value as JSON knows it: numpy unwrapped, tuples as lists, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, np.generic):
        return to_jsonable(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dump(document: Mapping[str, Any], path: Path) -> None:
    """Publish a document as a sealed file, whole or not at all. Raises ScalingError (74)."""
    files.write_json(path, to_jsonable(document), indent=None)


def load(path: Path) -> dict[str, Any]:
    """A document from its file. Raises ScalingError that names the file and what is wrong with it."""
    if not path.exists():
        remedy = "name a fit, as `scaling fit SOURCE --out FIT.json` writes it"
        raise ScalingError("no such file", where=str(path), remedy=remedy)
    try:
        data = read_bytes(path)
        if _is_as_dumped(data):
            files.verify_checksum(data)
        document = json.loads(data, parse_int=_whole)
    except files.ChecksumError as error:
        remedy = 'fit again; or, where you changed it yourself, delete its key "checksum"'
        raise ScalingError(
            f"is corrupt or was edited: {error}", where=str(path), remedy=remedy
        ) from None
    except (ValueError, RecursionError) as error:
        raise _no_fit(path, f"not valid JSON: {str(error)[:120]}") from None
    if not isinstance(document, dict) or "schema" not in document:
        raise _no_fit(path, "not a fit document: it has no schema")
    if isinstance(document["schema"], int) and document["schema"] > SCHEMA:
        raise ScalingError(
            f"written with fit schema {document['schema']}, this program reads {SCHEMA}",
            where=str(path),
            remedy="update scaling",
        )
    for key, kind in KEYS.items():
        if key not in document:
            raise _no_fit(path, f"the key {key!r} is missing")
        if not isinstance(document[key], (int, float) if kind is float else kind) or isinstance(
            document[key], bool
        ):
            raise _no_fit(path, f"{key} = {str(document[key])[:40]!r} is not of the right kind")
    _check_parts(path, document)
    _check_numbers(path, document)
    _check_spans(path, document)
    for key in files.KEYS:
        document.pop(key, None)
    return document


def _whole(text: str) -> int:
    if len(text) > LONGEST:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _is_as_dumped(data: bytes) -> bool:
    """Whether a file has the shape of `dump`, one line with its end; what another program has written again needs no seal of ours."""
    return data.endswith(b"}\n") and data.count(b"\n") == 1


def _check_numbers(path: Path, document: Mapping[str, Any]) -> None:
    """Estimates are objects of numbers, draws are equally long lists of numbers, data columns too."""
    for group in ("params", "derived"):
        for name, entry in document[group].items():
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(part), NUMBER) for part in ("value", "se", "lo", "hi")
            ):
                raise _no_fit(path, f"{group}.{name} is not an estimate {{value, se, lo, hi}}")
    draws = (document.get("bootstrap") or {}).get("draws") or {}
    for name, columns in (("bootstrap.draws", draws), ("data", document["data"])):
        lists = [column for column in columns.values() if column is not None]
        if (
            not all(isinstance(column, list) for column in lists)
            or len({len(column) for column in lists}) > 1
        ):
            raise _no_fit(path, f"{name} does not hold equally long lists")
        if not all(isinstance(value, NUMBER) for column in lists for value in column):
            raise _no_fit(path, f"{name} holds what is not a number")


def _check_parts(path: Path, document: Mapping[str, Any]) -> None:
    """What `predict`, `next` and `plan` calculate with is of the right kind, where it is there."""
    for (group, *names), kind in PARTS.items():
        held: Any = document
        for name in (group, *names):
            held = held.get(name, ...) if isinstance(held, dict) else ...
        if held is ... or (held is None and (group, *names) not in NEEDED):
            continue
        wrong = not isinstance(held, kind) or isinstance(held, bool)
        if wrong or ((group, *names) in NEEDED and kind is not str and not 0 < held < math.inf):
            raise _no_fit(
                path, f"{'.'.join((group, *names))} = {str(held)[:40]!r} is not of the right kind"
            )


def _check_spans(path: Path, document: Mapping[str, Any]) -> None:
    """The level of intervals is a share, and what was trained lies between two positive numbers."""
    if not 0 < document["ci"] < 1:
        raise _no_fit(path, f"ci = {document['ci']:g} is no level: it lies between 0 and 1")
    for name in SPANS:
        ends = document["range"].get(name)
        if ends is None:
            continue
        numbers = (
            isinstance(ends, list)
            and len(ends) == 2
            and all(isinstance(end, (int, float)) for end in ends)
        )
        if not numbers or not 0 < ends[0] <= ends[1] < math.inf:
            raise _no_fit(
                path, f"range.{name} = {str(ends)[:40]} is no span of two positive numbers"
            )


def _no_fit(path: Path, what: str) -> ScalingError:
    return ScalingError(
        what, where=str(path), remedy="write it with: scaling fit SOURCE --out FIT.json"
    )
