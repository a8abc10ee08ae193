"""Nested cells: dictionaries in cells become columns with dotted names, lists become text."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from scaling.formatting import flatten

MAX_METRICS = 1000  # of a long table
MAX_LITERAL = 100_000  # characters of a cell that is read as a dictionary


def flatten_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells are plain: `config` = {"lr": 1e-3} becomes the column `config.lr`.

    Text that is a dictionary, as `to_csv` writes one, is read as one; a column whose names clash
    keeps the first.
    """
    nested = {
        name: column for name in table.columns if (column := _mappings(table[name])) is not None
    }
    lists = [
        name
        for name in table.columns
        if name not in nested
        and table[name].dtype == object
        and table[name].map(lambda cell: isinstance(cell, (list, tuple, set, np.ndarray))).any()
    ]
    if not nested and not lists:
        return table
    parts: dict[str, Any] = {}
    for name in table.columns:
        if name not in nested:
            cells_kept = table[name].map(str) if name in lists else table[name]
            parts.setdefault(str(name), cells_kept)
            continue
        records = [dict(flatten(_named(cell), str(name))) if cell else {} for cell in nested[name]]
        for key in dict.fromkeys(key for record in records for key in record):
            cells = [_plain(record.get(key)) for record in records]
            parts.setdefault(key, pd.Series(cells, index=table.index))
    flat = pd.DataFrame(parts, index=table.index)
    flat.attrs = dict(table.attrs)
    return flat


def pivoted(table: pd.DataFrame) -> pd.DataFrame:
    """A long table (columns `metric` and `value`) with a column for each metric; others as they
    are.
    """
    names = {str(name).strip().lower(): name for name in table.columns}
    if not {"metric", "value"} <= set(names):
        return table
    metric, value = names["metric"], names["value"]
    keys = [name for name in table.columns if name not in (metric, value)]
    if not keys or table[metric].isna().any() or table[metric].nunique() > MAX_METRICS:
        return table
    wide = table.groupby([*keys, metric], sort=False, dropna=False)[value].last().unstack(metric)
    return wide.reset_index().rename_axis(columns=None)


def _plain(cell: Any) -> Any:
    return str(cell) if isinstance(cell, (list, tuple, set, np.ndarray)) else cell


def _mappings(column: pd.Series) -> list[Any] | None:
    """The cells of a column of dictionaries (None where a cell is missing); None for any other
    column.
    """
    if column.dtype != object and not pd.api.types.is_string_dtype(column.dtype):
        return None
    cells: list[Any] = []
    for cell in column:
        if isinstance(cell, Mapping):
            cells.append(cell)
        elif _is_pairs(cell):
            cells.append(_named(cell))
        elif isinstance(cell, str) and cell.strip().startswith("{") and len(cell) < MAX_LITERAL:
            read = _literal(cell)
            if read is None:
                return None
            cells.append(read)
        elif cell is None or cell == "" or (isinstance(cell, float) and np.isnan(cell)):
            cells.append(None)
        else:
            return None
    return cells if any(cell is not None for cell in cells) else None


def _named(cell: Any) -> Any:
    """A cell in which lists of pairs, at any depth, are dictionaries."""
    if _is_pairs(cell):
        return {str(pair["key"]): pair["value"] for pair in cell}
    if isinstance(cell, Mapping):
        return {name: _named(value) for name, value in cell.items()}
    return cell


def _is_pairs(cell: Any) -> bool:
    """Whether a cell is a list of {"key": ..., "value": ...}, as MLflow writes metrics and
    parameters.
    """
    return (
        isinstance(cell, list)
        and bool(cell)
        and all(isinstance(pair, Mapping) and {"key", "value"} <= set(pair) for pair in cell)
    )


def _literal(text: str) -> Mapping[str, Any] | None:
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        return value if isinstance(value, Mapping) else None
    return None
