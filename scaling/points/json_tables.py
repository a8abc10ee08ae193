"""JSON tables: lists of objects, objects of lists, JSON lines, and what trainers and evaluators
write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.errors import ScalingError

MAX_DIGITS = 300  # of a whole number that a float can still hold
CURVE = "scaling.curve"  # the attribute of a table that is the loss curve of one run
WRAPPERS = ("runs", "data", "rows", "results", "records", "points")


def read_json(path: Path, data: bytes) -> pd.DataFrame:
    """A list of objects, one object of equally long lists, pandas' other forms, or a trainer's
    state.
    """
    try:
        content = _parse(data)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return read_json_lines(path, data)
        raise _not_json(path, "", error) from None
    except (ValueError, RecursionError) as error:
        raise _not_json(path, "", error) from None
    if isinstance(content, dict):
        return _from_object(path, content)
    return _records(path, content)


def read_json_lines(path: Path, data: bytes) -> pd.DataFrame:
    """One object in each line."""
    records = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(_parse(line))
        except (ValueError, RecursionError) as error:
            raise _not_json(path, f"line {number}: ", error) from None
    return _records(path, records)


def _parse(data: bytes) -> Any:
    return json.loads(data, object_pairs_hook=_unique, parse_int=_whole)


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"a key stands twice in one object: {[key for key, _ in pairs][:20]}")
    return record


def _not_json(path: Path, line: str, error: Exception) -> ScalingError:
    return ScalingError(
        f"{line}not valid JSON: {str(error)[:160]}",
        where=str(path),
        remedy="a list of objects, one a run",
    )


def _from_object(path: Path, content: dict[str, Any]) -> pd.DataFrame:
    if isinstance(content.get("log_history"), list):
        return _trainer_state(path, content)
    results = content.get("results")
    if isinstance(results, Mapping) and {"configs", "versions", "n-shot"} & set(content):
        raise ScalingError(
            "an lm-eval result: scores of one model, without its parameters, tokens and loss",
            where=str(path),
            remedy=(
                "join scores, N, D and loss in one table, a row for each model (--law two-stage)"
            ),
        )
    if set(content) >= {"columns", "data"} and isinstance(content["data"], list):
        try:
            return pd.DataFrame(content["data"], columns=content["columns"])
        except (ValueError, TypeError) as error:
            raise _not_json(path, "", error) from None
    if len(content) == 1 and _is_wrapped(*content.items()):
        return _records(path, next(iter(content.values())))
    if content and all(isinstance(column, list) for column in content.values()):
        lengths = {len(column) for column in content.values()}
        if len(lengths) > 1:
            raise ScalingError(
                f"its columns have different lengths: {sorted(lengths)}",
                where=str(path),
                remedy="one value for each run",
            )
        return pd.DataFrame(content)
    for name in WRAPPERS:
        if isinstance(content.get(name), list) and content[name]:
            return _records(path, content[name])
    if content and all(isinstance(column, Mapping) for column in content.values()):
        keys = [set(column) for column in content.values()]
        if all(key == keys[0] for key in keys) and len(keys[0]) > 0:
            rows_are_outer = {"loss", "N", "D"} & keys[0] or any("loss" in str(k) for k in keys[0])
            return pd.DataFrame.from_dict(
                content, orient="index" if rows_are_outer else "columns"
            ).reset_index(drop=not rows_are_outer, names="name" if rows_are_outer else None)
    if content and any("loss" in str(key) for key in content):
        return _records(path, [content])
    return _records(path, None)


def _is_wrapped(pair: tuple[str, Any]) -> bool:
    """Whether the one key of an object holds its records."""
    name, rows = pair
    return name in WRAPPERS and isinstance(rows, list) and all(isinstance(r, dict) for r in rows)


def _trainer_state(path: Path, content: dict[str, Any]) -> pd.DataFrame:
    """The loss curve in a Hugging Face `trainer_state.json`: columns step, lr, loss,
    eval_loss, ...
    """
    table = _records(path, content["log_history"])
    if "learning_rate" in table:
        table = table.rename(columns={"learning_rate": "lr"})
    for name in ("total_flos", "num_input_tokens_seen"):
        if content.get(name) and name not in table:
            table[name] = content[name]
    table.attrs[CURVE] = "a Hugging Face trainer_state.json: the loss curve of one run"
    return table


def _records(path: Path, records: Any) -> pd.DataFrame:
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ScalingError(
            "not a list of objects",
            where=str(path),
            remedy='write [{"N": 1e6, "D": 2e7, "loss": 3.2}, ...]',
        )
    try:
        return pd.DataFrame(records)
    except OverflowError as error:
        raise _not_json(path, "", error) from None
