"""Nested cells: dictionaries in cells become columns with dotted names, lists become text."""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd

from scaling.formatting import flatten
from scaling.points.cells import without_numpy

MAX_METRICS = 1000  # of a long table
MAX_LITERAL = 100_000  # characters of a cell that is read as a dictionary
METRIC, VALUE = ("metric", "metric_name", "variable", "tag", "key"), ("value", "metric_value")
LISTS = (list, tuple, set, np.ndarray)


def flatten_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells are plain: `config` = {"lr": 1e-3} becomes the column `config.lr`.

    Text that is a dictionary, as `to_csv` writes one, is read as one; a column whose names clash
    keeps the first.
    """
    parts: dict[str, Any] = {}
    for name, column in table.items():
        if pd.api.types.is_numeric_dtype(column.dtype):
            parts.setdefault(str(name), column)
            continue
        cells = list(takewhile(lambda cell: isinstance(cell, Mapping), map(_mapping, column)))
        if len(cells) == len(column) and any(cells):
            records = [dict(flatten(cell, str(name))) for cell in cells]
            for key in dict.fromkeys(key for record in records for key in record):
                values = [_plain(record.get(key)) for record in records]
                parts.setdefault(key, pd.Series(values, index=table.index))
        elif any(isinstance(cell, LISTS) for cell in column):
            parts.setdefault(str(name), column.map(_plain))
        else:
            parts.setdefault(str(name), column)
    return pd.DataFrame(parts, index=table.index)


def pivoted(table: pd.DataFrame, given: Collection[str] = ()) -> pd.DataFrame:
    """A long table (columns such as `metric` and `value`) with a column for each metric; others
    as they are, and those of which the user named (`given`) one of the two.
    """
    names = {str(name).strip().lower(): name for name in table.columns}
    columns = [names[each] for words in (METRIC, VALUE) for each in words if each in names]
    if len(columns) != 2 or str(columns[1]).strip().lower() not in VALUE:
        return table
    metric, value = columns
    if {str(metric), str(value)} & set(given):
        return table
    keys = [name for name in table.columns if name not in (metric, value)]
    if not keys or table[metric].isna().any() or table[metric].nunique() > MAX_METRICS:
        return table
    wide = table.groupby([*keys, metric], sort=False, dropna=False)[value].last().unstack(metric)
    return wide.reset_index().rename_axis(columns=None)


def fill_merged_cells(table: pd.DataFrame, names: Sequence[str], notes: list[str]) -> pd.DataFrame:
    """A table in which a column that has a value in every k-th row only, as merged cells are
    exported, repeats it below, and a note that says so.
    """
    for name in names:
        is_empty = table[name].isna() | table[name].astype(str).str.strip().eq("")
        places = np.append(np.flatnonzero(~is_empty), len(table))
        steps = set(np.diff(places).tolist())
        if len(places) > 2 and places[0] == 0 and len(steps) == 1 and min(steps) > 1:
            table = table.assign(**{name: table[name].mask(is_empty).ffill()})
            notes.append(
                f"{name!r} has a value in one row of {min(steps)} (merged cells): repeated"
            )
    return table


def _plain(cell: Any) -> Any:
    if not isinstance(cell, LISTS):
        return cell
    return next(iter(cell)) if len(cell) == 1 else str(cell)


def _mapping(cell: Any) -> Any:
    """A dictionary, also from its text; {} for a missing cell; others as they are."""
    if cell is None or (isinstance(cell, (str, float)) and (cell == "" or cell != cell)):
        return {}
    if isinstance(cell, str) and cell.strip().startswith("{") and len(cell) < MAX_LITERAL:
        for parse in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                return _named(parse(without_numpy(cell)))
    return _named(cell)


def _named(cell: Any) -> Any:
    """A cell in which lists of {"key": ..., "value": ...}, as MLflow writes metrics and parameters,
    are dictionaries at any depth.
    """
    if isinstance(cell, Mapping):
        return {name: _named(value) for name, value in cell.items()}
    is_pairs = isinstance(cell, list) and all(
        isinstance(pair, Mapping) and {"key", "value"} <= set(pair) for pair in cell
    )
    return {str(pair["key"]): pair["value"] for pair in cell} if cell and is_pairs else cell
