"""JSON tables: lists of objects or of rows, objects of lists, JSON lines, and what trainers and
evaluators write.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.errors import ScalingError
from scaling.store.run_files import MODEL_DESCRIPTION

MAX_DIGITS = 300  # of a whole number that a float can still hold
CURVE = "scaling.curve"  # the attribute of a table that is the loss curve of one run
SCORE = re.compile(r"acc|exact_match|f1|mcc|bits_per|(word|byte)_perplexity")
WRAPPERS = ("runs", "data", "rows", "results", "records", "points")


def read_json(text: str, is_lines: bool = False) -> pd.DataFrame:
    """A list of objects, one object of equally long lists, pandas' other forms, a trainer's state,
    or one object in each line; `is_lines`, a single object is a row.
    """
    content: Any
    try:
        content = _parse(text)
    except (ValueError, RecursionError) as error:
        lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
        are_objects = len(lines) > 1 and all(line.lstrip()[0] == "{" for _, line in lines)
        if not are_objects and getattr(error, "msg", "") != "Extra data":
            raise _not_json("", error) from None
        content, is_lines = [_parse_line(*each) for each in lines], False
    try:
        return _table([content] if is_lines and isinstance(content, dict) else content)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _not_json("", error) from None


def _parse_line(number: int, line: str) -> Any:
    try:
        return _parse(line)
    except json.JSONDecodeError as error:
        raise _not_json(f"line {number}: ", f"{error.msg}: column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise _not_json(f"line {number}: ", error) from None


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique, parse_int=_whole)


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"a key stands twice in one object: {[key for key, _ in pairs][:20]}")
    return record


def _not_json(line: str, error: Exception | str) -> ScalingError:
    return ScalingError(
        f"{line}not a table in JSON: {str(error)[:160]}", remedy="write one object for each run"
    )


def _table(content: Any) -> pd.DataFrame:
    """The table that a document holds. Raises ScalingError where it holds none."""
    table = None
    if isinstance(content, dict):
        table = _from_object(content)
    elif isinstance(content, list) and content:
        header = content[0]
        if all(isinstance(record, dict) for record in content):
            table = pd.DataFrame(content)
        elif all(isinstance(row, list) for row in content):
            is_header = all(isinstance(name, str) for name in header)
            table = pd.DataFrame(content[1:], columns=header) if is_header else None
    if table is None:
        raise ScalingError(
            "not a list of objects", remedy='write [{"N": 1e6, "D": 2e7, "loss": 3.2}, ...]'
        )
    return table


def _from_object(content: dict[str, Any]) -> pd.DataFrame | None:
    if {"law", "approaches", "params"} <= set(content):
        what, remedy = "is a fit and no table of runs", "ask it: scaling predict FIT.json --flops C"
        raise ScalingError(what, remedy=remedy)
    if isinstance(content.get("log_history"), list):
        table = _table(content["log_history"]).rename(columns={"learning_rate": "lr"})
        for name in ("total_flos", "num_input_tokens_seen"):
            if content.get(name) and name not in table:
                table[name] = content[name]
        table.attrs[CURVE] = "a Hugging Face trainer_state.json: the loss curve of one run"
        return table
    objects = {name: value for name, value in content.items() if isinstance(value, dict)}
    results = [each for each in objects.get("results", {}).values() if isinstance(each, dict)]
    scores = [str(name) for each in results for name in each]
    if any(map(SCORE.match, scores)) and not any("loss" in name for name in scores):
        return _evaluation(content)
    if {"columns", "data"} <= set(content) and isinstance(content["data"], list):
        return pd.DataFrame(content["data"], columns=content["columns"])
    lists = {name: value for name, value in content.items() if isinstance(value, list) and value}
    wrapped = [name for name, value in lists.items() if isinstance(value[0], dict)]
    wrapped = [name for name in WRAPPERS if name in wrapped][:1] or wrapped
    if len(wrapped) == 1:
        return _table(lists[wrapped[0]])
    records = [record for each in lists.values() for record in each]
    if (
        len(wrapped) == len(content)
        and all(isinstance(record, dict) for record in records)
        and records
        and set.intersection(*map(set, records))  # else parts of the same runs
    ):
        records = [{"group": name, **each} for name in wrapped for each in lists[name]]
        return pd.DataFrame(records)
    if len(lists) == len(content):
        return pd.DataFrame(content)
    has_loss = any("loss" in str(name) for name in content)
    if len(objects) == len(content) and len(set(map(frozenset, objects.values()))) == 1:
        names = set(next(iter(objects.values())))
        if any("loss" in str(name) for name in names) or {"N", "D"} & names:
            return pd.DataFrame.from_dict(content, orient="index").reset_index(names="name")
        if len(objects) > 1:
            return pd.DataFrame(content)
    inner = map(_from_object, objects.values())
    whole = pd.DataFrame([content]) if has_loss else None
    return next((each for each in inner if each is not None), whole)


def _evaluation(content: dict[str, Any]) -> pd.DataFrame:
    """A row for each task of an lm-eval result: accuracy there, and N (with_head), D and loss of
    the run, which `results export-model --format hf` has written into the model's folder.
    """
    arguments = content.get("config", {}).get("model_args") or ""
    if isinstance(arguments, str):
        arguments = dict(part.partition("=")[::2] for part in arguments.split(","))
    try:
        run = json.loads((Path(arguments["pretrained"]) / MODEL_DESCRIPTION).read_text("utf-8"))
        counts = {"params": run["n_params"]["with_head"], "tokens": run["tokens"]}
        measured = counts | {"loss": run["loss"]["value"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise ScalingError(
            "an lm-eval result: scores of one model, without its parameters, tokens and loss",
            remedy="evaluate the folder of `results export-model --format hf`, or join scores, N, "
            "D and loss in one table (--law two-stage)",
        ) from None
    return pd.DataFrame(
        [
            {"model": run["run_id"], "task": task, **measured, "accuracy": scores["acc,none"]}
            for task, scores in content["results"].items()
            if "acc,none" in scores
        ]
    )
