"""Columns whose values part the runs into groups that no one law holds for: they name data, or the
losses differ between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scaling.points.columns import last_name
from scaling.points.repeated_rows import group_within_1_percent, seed_column
from scaling.points.units import word_set
from scaling.warning import ResultWarning, WarningCode, warn

DATA_WORDS = word_set(  # several values of such columns say: do not compare
    "tokenizer tokeniser unit corpus corpora dataset data mix mixture split metric source domain "
    "language lang vocab text"
)
DATA_NAMES = word_set("config train_set eval_set validation_set test_set vocab_size")
CONTENT = frozenset(word_set("name id type kind path value"))  # of a path that names data
MIN_GROUPED = 16  # runs, for a test whether groups of them differ


def data_columns(table: pd.DataFrame, used: Sequence[str]) -> list[str]:
    """Columns whose several values say that the losses do not compare: they name data, a
    tokenizer, a metric.
    """
    names = []
    for name in map(str, table.columns):
        plain = last_name(name, CONTENT)
        count = table[name].nunique()
        is_data = plain in DATA_NAMES or bool(DATA_WORDS & set(plain.split("_")))
        if name in used or not is_data or not 1 < count <= max(2, len(table) // 2):
            continue
        numbers = pd.to_numeric(table[name], errors="coerce")
        is_label = plain in DATA_WORDS and bool((numbers < 100).all())
        if numbers.isna().any() or "vocab" in plain or is_label:
            names.append(name)
    return names


def mixed_data(table: pd.DataFrame, columns: Sequence[str]) -> list[ResultWarning]:
    """A warning for each column whose several values say that the losses do not compare."""
    warnings = []
    for name in columns:
        quoted = name if name.isidentifier() else f"`{name}`"
        values = list(map(str, table[name].unique()))
        is_text = pd.to_numeric(table[name], errors="coerce").isna().any()
        first = repr(values[0][:40]) if is_text else values[0]
        message = (
            f"column {name!r} has {len(values)} values: losses of different {name}s do not "
            f'compare; choose one, as in --where "{quoted} == {first}"'
        )
        warnings.append(warn(WarningCode.MIXED_DATA, message, column=name, values=values[:50]))
    return warnings


def mixed_data_warnings(
    table: pd.DataFrame, numbers: Mapping[str, np.ndarray], used: Sequence[str]
) -> list[ResultWarning]:
    """A warning for each column whose few values part the runs into groups of other losses at equal
    N and D (F test of levels over a quadratic surface in log N and log D, 0.1 % for all columns).

    Not for columns that follow from N, D or C.
    """
    if not {"N", "D"} <= set(numbers) or len(table) < MIN_GROUPED:
        return []
    x, y, target = (np.log(numbers[letter]) for letter in "NDL")
    x, y = x - x.mean(), y - y.mean()
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    groups = [group_within_1_percent(np.exp(each)) for each in (x, y, x + y)]
    skipped = {*used, seed_column(table)}
    columns = []
    for name in map(str, table.columns):
        texts = table[name].astype(str)
        counts = texts.value_counts()
        if name in skipped or not 2 <= len(counts) <= len(table) // 6 or counts.min() < 3:
            continue
        if all(texts.groupby(group).nunique().max() > 1 for group in groups):
            columns.append((name, pd.get_dummies(texts).to_numpy(float)))
    warnings = []
    for name, levels in columns:
        design = np.concatenate([surface, levels[:, 1:]], 1)
        (_, rss, rank, _), (fitted, full, _, _) = (
            np.linalg.lstsq(each, target, rcond=None) for each in (surface, design)
        )
        freedom = len(target) - design.shape[1]
        if not len(full) or not len(rss) or freedom < 3:
            continue
        ratio = (rss[0] - full[0]) / levels[:, 1:].shape[1] / (full[0] / freedom)
        effect = float(np.ptp([0.0, *fitted[6:]]))
        if effect <= 0.01:
            continue
        from scipy.special import fdtrc  # 0.15 s

        if fdtrc(design.shape[1] - rank, freedom, ratio) * len(columns) < 1e-3:
            quoted = name if name.isidentifier() else f"`{name}`"
            first = repr(str(table[name].iloc[0])[:40])
            message = (
                f"losses differ by {100 * effect:.1f} % between the {levels.shape[1]} values of "
                f"column {name!r} at equal N and D: they do not follow one law; choose one, as in "
                f'--where "{quoted} == {first}"'
            )
            warnings.append(warn(WarningCode.MIXED_DATA, message, column=name, effect=effect))
    return warnings
