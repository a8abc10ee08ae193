"""A table of runs that another program trained becomes `Points`.

Its columns are recognised, its units read, rows that are no finished run left out, and N, D or C
derived. Whatever was guessed or converted is noted, what is left out is counted with its reason,
what cannot be known is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, unknown_choice
from scaling.points.columns import LETTERS, Columns, candidates, plain_name, resolve
from scaling.points.derived_counts import points_from_numbers, with_tokens
from scaling.points.flat_cells import flatten_cells, pivoted
from scaling.points.json_tables import CURVE
from scaling.points.points import Points
from scaling.points.repeated_rows import (
    MIXED,
    Reduction,
    best_of_cells,
    copies,
    last_of_runs,
    looks_like_checkpoints,
    run_states,
    seed_column,
)
from scaling.points.row_filter import select
from scaling.points.units import (
    COUNTED,
    MAX_VALUE,
    QUANTITIES,
    Quantity,
    Unit,
    parse_cell,
    read_header,
)
from scaling.warning import ResultWarning, WarningCode

MISSING = {"", "nan", "na", "n/a", "none", "null", "-", "inf", "+inf", "infinity", "diverged"}
MISSING |= {"nat", "<na>", "#n/a", "-inf", "-nan", "oom", "crashed", "failed"}
MAY_BE_ZERO = ("Y", "W")


@dataclass(frozen=True)
class UserTable:
    """The points of one table, the column of each letter, notes on what was read and derived,
    warnings.
    """

    points: Points
    columns: Mapping[str, str]
    notes: tuple[str, ...]
    warnings: tuple[ResultWarning, ...]


def read_user_table(
    path: Path,
    table: pd.DataFrame,
    given: Mapping[str, str],
    where: str | None = None,
    cluster: str | None = None,
    inputs: Sequence[str] = (),
    signed: bool = False,
) -> UserTable:
    """The points of a table; `given` names columns by letter, `inputs` are those of the law: one
    that is no known letter is the column of its own name. A `signed` loss may lie below zero.

    Raises ScalingError that names the file, the column and the rows at fault.
    """
    table, made = with_tokens(pivoted(flatten_cells(table)), given, inputs)
    given = {**{name: name for name in inputs if name not in LETTERS}, **given}
    if CURVE in table.attrs:
        table = _end_of_curve(path, table)
    names = [str(name) for name in table.columns]
    columns = resolve(path, names, given, lambda same: _are_equal(table, same), inputs)
    excluded: list[tuple[str, int]] = []
    warnings: list[ResultWarning] = []

    def reduce(rows: pd.DataFrame, reduction: Reduction) -> pd.DataFrame:
        if reduction.warning:
            warnings.append(reduction.warning)
        if not reduction.keep.all():
            excluded.append((reduction.reason, int((~reduction.keep).sum())))
        return rows[reduction.keep]

    if where:
        known = {letter: table[name] for letter, name in columns.names.items()}
        known |= {str(name): table[name] for name in table.columns}
        keep = select_rows(where, known, str(path))
        table = reduce(table, Reduction(keep, f"--where {where}"))
    started = table
    for state in run_states(path, started, where):
        keep = pd.Series(state.keep, started.index).loc[table.index].to_numpy(bool)
        table = reduce(table, replace(state, keep=keep))
    table = reduce(table, copies(table))
    numbers = _numbers(path, table, columns, signed)
    usable = np.logical_and.reduce([np.isfinite(values) for values in numbers.values()])
    if not usable.any():
        raise ScalingError(
            "no row holds finite numbers in all columns used",
            where=str(path),
            remedy=_used(columns),
        )
    lacking = "loss" if not np.isfinite(numbers["L"]).all() else "a column"
    steps = (
        lambda rows: Reduction(usable, f"{lacking} missing or not finite"),
        lambda rows: last_of_runs(path, rows, numbers, list(columns.names.values())),
        lambda rows: best_of_cells(rows, numbers, list(columns.names.values())),
    )
    for step in steps:
        reduction = step(table)
        table = reduce(table, reduction)
        numbers = {letter: values[reduction.keep] for letter, values in numbers.items()}
    if spaced := looks_like_checkpoints(numbers):
        warnings.append(spaced)
    points, notes, derived = points_from_numbers(path, numbers, columns, given)
    used = [letter for letter in columns.names if letter != "C" or points.c is numbers.get("C")]
    points = replace(
        points,
        group=_labels(path, table, cluster),
        cell=_seed_cells(table, numbers),
        budget=_nominal(path, table, columns),
        excluded=tuple(excluded),
    )
    return UserTable(
        points,
        {letter: columns.names[letter] for letter in used},
        (*columns.notes(used), *made, *notes),
        (*warnings, *derived, *_mixed_data(table)),
    )


def _end_of_curve(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The loss curve of one run as one row: the last value of each column. Raises ScalingError
    without N.
    """
    last = {str(name): table[name].dropna().iloc[-1:].tolist() for name in table.columns}
    row = pd.DataFrame({name: values for name, values in last.items() if values})
    if any(name in row for name in ("eval_loss", "loss")):
        row = row.drop(columns=[name for name in ("loss",) if "eval_loss" in row])
    if not candidates("N", list(row.columns)):
        raise ScalingError(
            f"{table.attrs[CURVE]}, without its parameters",
            where=str(path),
            remedy=(
                "fit the curve with --law lr-annealing, or collect N, D and the last "
                "loss of each run"
            ),
        )
    return row


def _used(columns: Columns) -> str:
    return "columns used: " + ", ".join(f"{k} = {v!r}" for k, v in columns.names.items())


def _are_equal(table: pd.DataFrame, names: Sequence[str]) -> bool:
    """Whether columns hold the same numbers in every row."""
    first, *others = (pd.to_numeric(table[name], errors="coerce") for name in names)
    texts = [table[name].astype(str).str.strip() for name in names]
    return all(
        bool((other.eq(first) | text.eq(texts[0])).all())
        for other, text in zip(others, texts[1:], strict=True)
    )


def select_rows(expression: str, columns: Mapping[str, pd.Series], where: str) -> np.ndarray:
    """The rows that `--where` keeps. Raises ScalingError where it keeps none."""
    keep = select(expression, columns)
    if not keep.any():
        raise ScalingError(
            f"--where {expression[:80]!r} leaves no row", where=where, remedy="loosen the condition"
        )
    return keep


def _numbers(
    path: Path, table: pd.DataFrame, columns: Columns, signed: bool
) -> dict[str, np.ndarray]:
    """The columns used as numbers in plain units, by letter."""
    return {
        letter: numeric(
            path,
            table,
            name,
            letter,
            columns.unit(letter),
            signed=letter not in LETTERS or (signed and letter == "L"),
        )
        for letter, name in columns.names.items()
    }


def numeric(
    path: Path,
    table: pd.DataFrame,
    column: str,
    letter: str = "",
    unit: Unit | None = None,
    allow_zero: bool = False,
    signed: bool = False,
) -> np.ndarray:
    """A column as positive numbers in plain units, NaN where a cell is missing. Raises ScalingError
    naming rows.

    A cell with a unit of its own (70B, 2.1 bits) does not follow the unit of the header.
    """
    cells = table[column]
    unit = unit or read_header(column, letter).unit
    quantity = QUANTITIES.get(letter, Quantity.NUMBER)
    zero = allow_zero or letter in MAY_BE_ZERO
    values = pd.to_numeric(cells, errors="coerce").to_numpy(float, na_value=np.nan).copy()
    is_bool = (
        cells.map(type).isin([bool, np.bool_]).to_numpy()
        if cells.dtype in (bool, object)
        else False
    )
    unread = np.isnan(values) | is_bool | np.isposinf(values)
    grouped = _has_thousands(cells[unread], quantity, values)
    bad: list[int] = []
    own_unit = np.zeros(len(values), bool)
    reason = ""
    for position in np.flatnonzero(unread):
        value = cells.iloc[position]
        try:
            values[position], own_unit[position] = _cell(value, quantity, grouped)
        except ValueError as error:
            bad.append(int(position))
            reason = reason or str(error)
    if unit is not None:
        values = np.where(own_unit, values, unit.to_plain(values))
    low = np.isneginf(values) if signed else values < 0 if zero else values <= 0
    bad += [int(position) for position in np.flatnonzero(low | (values > MAX_VALUE))]
    if bad:
        raise _bad_cells(path, table, column, sorted(set(bad)), reason)
    return values


def _cell(value: object, quantity: Quantity, grouped: bool) -> tuple[float, bool]:
    """A cell that is no plain number, and whether it has a unit of its own: NaN when it says that
    it is missing.

    Raises ValueError when it is neither a number nor missing.
    """
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return np.nan, False
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_VALUE:
        raise ValueError("a number above 1e30")
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:24]!r} is not a number")
    text = value.strip()
    if text.lower() in MISSING:
        return np.nan, False
    if grouped:
        text = re.sub(r"[,\s'_\u00a0\u202f\u2009]", "", text)
    number, unit = parse_cell(text, quantity)
    if not np.isfinite(number):
        raise ValueError("a number above 1e30")
    return number, unit is not None


_GROUPED = re.compile(r"\d{1,3}(?:([,\s'\u00a0\u202f\u2009])\d{3})(?:\1\d{3})*(?:\.\d+)?")


def _has_thousands(texts: pd.Series, quantity: Quantity, values: np.ndarray) -> bool:
    """Whether a column of counts is written with thousands separators: every other number below
    1,000 or plain.
    """
    written = [text.strip() for text in texts if isinstance(text, str)]
    written = [text for text in written if text.lower() not in MISSING]
    if not written or quantity not in COUNTED or not all(map(_GROUPED.fullmatch, written)):
        return False
    plain = values[np.isfinite(values)]
    twice = any(len(re.findall(r"[,\s'\u00a0\u202f\u2009]\d{3}", text)) > 1 for text in written)
    return twice or bool((plain == np.round(plain)).all())


def _bad_cells(
    path: Path, table: pd.DataFrame, column: str, bad: Sequence[int], reason: str
) -> ScalingError:
    rows = [(int(table.index[place]) + 1, str(table[column].iloc[place])) for place in bad]
    shown = ", ".join(f"row {row}: {cell[:24]!r}" for row, cell in rows[:4])
    shown += ", ..." if len(rows) > 4 else ""
    remedy = "fix the rows, or leave them out with --where"
    if any(re.fullmatch(r"\s*-?[\d.]+,\d+\s*", cell) for _, cell in rows):
        remedy = "write decimal points, not commas"
    elif any(re.fullmatch(r"\s*-\d{17,}\s*", cell) for _, cell in rows):
        remedy = (
            "a product beyond 9.2e18 wrapped round in 64 bits: write it as a float, or leave it out"
        )
    elif "no unit" in reason:
        remedy = f"{reason}: write plain numbers"
    count = f"{len(rows)} cells that are not positive numbers"
    what = count if len(rows) > 1 else "a cell that is not a positive number"
    return ScalingError(f"column {column!r} holds {what} ({shown})", where=str(path), remedy=remedy)


def _labels(path: Path, table: pd.DataFrame, cluster: str | None) -> np.ndarray | None:
    if cluster is None:
        return None
    if cluster not in table.columns:
        raise unknown_choice(
            "column", cluster, [str(name) for name in table.columns], where=f"{path}: --cluster"
        )
    return table[cluster].astype(str).to_numpy(str)


def _seed_cells(table: pd.DataFrame, numbers: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The cell of each row, where a column of seeds says that rows of one N, D, ... are
    replicates.
    """
    if seed_column(table) is None:
        return None
    keys = pd.DataFrame(
        {letter: values for letter, values in numbers.items() if letter not in ("L", "W", "SE")}
    )
    return np.asarray(keys.groupby(list(keys.columns), sort=False).ngroup())


def _nominal(path: Path, table: pd.DataFrame, columns: Columns) -> np.ndarray | None:
    """The nominal budget of each row, where a column such as `flops_budget` gives it for all of
    them.
    """
    name = columns.nominal or ""
    name = name if name in table.columns else ""
    if not name:
        return None
    try:
        values = numeric(path, table, name, "C")
    except ScalingError:
        return None
    return values if np.isfinite(values).all() and len(np.unique(values)) > 1 else None


def _mixed_data(table: pd.DataFrame) -> list[ResultWarning]:
    """A warning for each column whose several values say that the losses do not compare."""
    warnings = []
    for name in table.columns:
        last = plain_name(re.split(r"[/.]", str(name))[-1])
        values = table[name].astype(str).unique()
        if last not in MIXED or not 1 < len(values) < max(2, len(table)) + 1:
            continue
        if pd.to_numeric(table[name], errors="coerce").notna().all():
            continue
        quoted = f"`{name}`" if not str(name).isidentifier() else str(name)
        warnings.append(
            ResultWarning(
                code=WarningCode.MIXED_DATA,
                message=f"column {str(name)!r} has {len(values)} values: losses of "
                f"different {name}s do "
                f'not compare; choose one, as in --where "{quoted} == {str(values[0])[:40]!r}"',
                data={"column": str(name), "values": [str(value) for value in values[:50]]},
            )
        )
    return warnings
