"""Columns whose values part the runs into groups that no one law holds for: they name data, or the
losses differ between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scaling.formatting import format_percent
from scaling.points.columns import last_name
from scaling.points.repeated_rows import group_within_1_percent, seed_column
from scaling.points.table_rows import TableRows
from scaling.units import word_set
from scaling.warning import WarningCode

DATA_WORDS = word_set(  # several values of such columns say: do not compare
    "tokenizer tokeniser unit corpus corpora dataset data mix mixture split metric source domain "
    "language lang vocab text"
)
DATA_NAMES = word_set("config train_set eval_set validation_set test_set vocab_size")
CONTENT = frozenset(word_set("name id type kind path value"))  # of a path that names data
MIN_GROUPED = 16  # runs, for a test whether groups of them differ


def data_columns(rows: TableRows) -> list[str]:
    """Columns whose several values say that the losses do not compare: they name data, a
    tokenizer, a metric.
    """
    names = []
    for name in rows.free:
        plain, column = last_name(name, CONTENT), rows.table[name]
        is_data = plain in DATA_NAMES or bool(DATA_WORDS & set(plain.split("_")))
        if is_data and 1 < column.nunique() <= max(2, len(column) // 2):
            numbers = pd.to_numeric(column, errors="coerce")
            is_label = plain in DATA_WORDS and bool((numbers < 100).all())
            if numbers.isna().any() or "vocab" in plain or is_label:
                names.append(name)
    return names


def _one_value(table: pd.DataFrame, name: str) -> str:
    """How to choose the rows of one value of a column."""
    quoted, first = name if name.isidentifier() else f"`{name}`", str(table[name].iloc[0])[:40]
    is_text = pd.to_numeric(table[name], errors="coerce").isna().any()
    return f'choose one, as in --where "{quoted} == {repr(first) if is_text else first}"'


def warn_of_mixed_data(rows: TableRows, named: Sequence[str]) -> None:
    """Warn of each of the columns `named`, for they name data, and of each other column whose few
    values part the runs into groups of other losses at equal N and D (F test of levels over a
    quadratic surface in log N and log D, 0.1 % for all columns).

    Not of columns that follow from N, D or C.
    """
    table, numbers = rows.table, rows.numbers
    for name in named:
        values = list(map(str, table[name].unique()))
        message = (
            f"column {name!r} has {len(values)} values: losses of different {name}s do not "
            f"compare; {_one_value(table, name)}"
        )
        rows.warn(WarningCode.MIXED_DATA, message, column=name, values=values[:50])
    if not {"N", "D"} <= set(numbers) or len(table) < MIN_GROUPED:
        return
    x, y, target = (np.log(numbers[letter]) for letter in "NDL")
    x, y = x - x.mean(), y - y.mean()
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    places = [group_within_1_percent(np.exp(each)) for each in (x, y, x + y)]
    skipped = {*named, seed_column(table)}
    levels_of = {}
    for name in rows.free:
        texts = table[name].astype(str)
        counts = texts.value_counts()
        if name in skipped or not 2 <= len(counts) <= len(table) // 6 or counts.min() < 3:
            continue
        if all(texts.groupby(place).nunique().max() > 1 for place in places):
            levels_of[name] = pd.get_dummies(texts).to_numpy(float)[:, 1:]
    for name, levels in levels_of.items():
        fits = [np.linalg.lstsq(each, target) for each in (surface, np.hstack([surface, levels]))]
        (_, plain, rank, _), (coefficients, full, full_rank, _) = fits
        freedom = len(target) - full_rank
        effect = float(np.ptp([0.0, *coefficients[surface.shape[1] :]]))
        if not plain.size or not full.size or freedom < 3 or effect <= 0.01:
            continue
        from scipy.special import fdtrc  # 0.15 s

        ratio = float((plain[0] - full[0]) / levels.shape[1] / (full[0] / freedom))
        if fdtrc(full_rank - rank, freedom, ratio) * len(levels_of) < 1e-3:
            message = (
                f"losses differ by {format_percent(effect)} between the {levels.shape[1] + 1} "
                f"values of column {name!r} at equal N and D: they do not follow one law; "
                f"{_one_value(table, name)}"
            )
            rows.warn(WarningCode.MIXED_DATA, message, column=name, effect=effect)
