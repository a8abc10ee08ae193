"""Cells of a table as numbers in plain units, whatever signs, units and words they were written
with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.units import (
    MAX_VALUE,
    NOUNS,
    QUANTITIES,
    Quantity,
    Unit,
    UnknownUnit,
    parse_cell,
    read_header,
    word_set,
)

MISSING = word_set(
    "nan na n/a n.a. none null nil - -- --- \u2013 \u2014 ? ??? tbd tba missing unknown pending "
    "inf +inf infinity -inf -nan nat <na> diverged oom crashed failed "
    "#n/a #div/0! #ref! #value! #num! #name?"
) | {"", "not run", "not available", "not applicable"}
_SIGNS = r",.\s'\u2019_\u00a0\u202f\u2009"
_GROUPED = re.compile(  # in threes, or India's: 2,00,00,000
    rf"([1-9]\d{{0,2}})(([{_SIGNS}])(?:\d{{3}}(?:\3\d{{3}})*|\d\d(?:\3\d\d)*\3\d{{3}}))"
    r"(\.\d+)?(\s*[^\W\d]\D*)?"
)
_DECIMAL = re.compile(r"\s*[+-]?(\d+|\d{1,3}(?:\.\d{3})+),(\d+)(?:e[+-]?\d+)?\s*", re.I)


def numeric(
    table: pd.DataFrame,
    column: str,
    letter: str = "",
    unit: Unit | None = None,
    *,
    allow_zero: bool = False,
    signed: bool = False,
    lenient: bool = False,
    comma: bool = False,
    notes: list[str] | None = None,
) -> np.ndarray:
    """A column as positive numbers in plain units, NaN where a cell is missing. Raises ScalingError
    naming rows; `lenient`, a cell that is no number is missing, and every number will do.

    A cell with a unit of its own (70B, 2.1 bits) does not follow the unit of the header; `notes`
    takes a sentence on such units. `comma`: other columns of the table have decimal commas.
    """
    cells, notes = table[column], [] if notes is None else notes
    unit = unit or read_header(column, letter).unit
    quantity = QUANTITIES.get(letter, Quantity.NUMBER)
    values = pd.to_numeric(cells, errors="coerce").to_numpy(float, na_value=np.nan).copy()
    is_bool = cells.map(type).isin([bool, np.bool_]).to_numpy()
    unread = np.isnan(values) | is_bool | np.isposinf(values)
    decimal, thousands = _separators(cells[unread], quantity, values[np.isfinite(values)], comma)
    faults: dict[int, ValueError | None] = {}
    own_units: dict[int, Unit] = {}
    for position in np.flatnonzero(unread).tolist():
        try:
            values[position], own = _cell(cells.iloc[position], quantity, decimal, thousands)
            own_units |= {position: own} if own else {}
        except ValueError as error:
            faults[position] = error
    if unit is not None:
        follows = ~np.isin(np.arange(len(values)), list(own_units))
        values = np.where(follows, unit.to_plain(values), values)
    if lenient:
        return values
    if decimal == ",":
        notes.append(f"cells of {column!r} are read with decimal commas")
    if own_units:
        shown = list(dict.fromkeys(map(str, own_units.values())))
        notes.append(f"cells of {column!r} are read in {', '.join(shown[:4])}")
    if letter == "C" and (values == 0).any():
        notes.append(f"zeros of {column!r} are gaps")
        values[values == 0] = np.nan
    low = np.isneginf(values) if signed else values < 0 if allow_zero else values <= 0
    faults |= dict.fromkeys(np.flatnonzero(low | (values > MAX_VALUE)).tolist())
    if faults:
        raise _bad_cells(cells, sorted(faults), next(iter(faults.values())))
    return values


def _cell(
    value: object, quantity: Quantity, decimal: str, thousands: str
) -> tuple[float, Unit | None]:
    """A cell that is no plain number, and the unit of its own: NaN when it says that it is missing.

    Raises ValueError when it is neither a number nor missing.
    """
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return np.nan, None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_VALUE:
        raise ValueError("a number above 1e30")
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:24]!r} is not a number")
    text = re.sub(r"^(\*\*|\$|`)(.*)\1$", r"\2", without_numpy(value.strip()))  # bold, LaTeX
    if text.lower() in MISSING:
        return np.nan, None
    if decimal == ",":
        text = text.replace(".", "").replace(",", ".")
    elif thousands and (grouped := _GROUPED.fullmatch(text)):
        whole = grouped[1] + grouped[2].replace(thousands, "")
        text = whole + (grouped[4] or "") + (grouped[5] or "")
    number, unit = parse_cell(text, quantity)
    if not np.isfinite(number):
        raise ValueError("a number above 1e30")
    return number, unit


def without_numpy(text: str) -> str:
    """A text in which `np.float64(3.2)`, as numpy prints a number, is the number."""
    return re.sub(r"\b(?:np|numpy)\.\w+\(([^()]*)\)", r"\1", text)


def has_decimal_commas(cells: pd.Series, letter: str) -> bool:
    """Whether a column of a letter has decimal commas for sure."""
    if not any(isinstance(cell, str) and "," in cell for cell in cells):
        return False
    return _separators(cells, QUANTITIES.get(letter, Quantity.NUMBER), np.empty(0))[0] == ","


def _separators(
    cells: pd.Series, quantity: Quantity, plain: np.ndarray, comma: bool = False
) -> tuple[str, str]:
    """The decimal sign of cells that are no plain numbers, and the sign between their thousands (""
    without one).

    A comma is decimal where all have one, and one of them cannot stand between thousands: not three
    digits behind it, more or a lone zero before it, or no count. A sign parts the thousands of
    counts where it cannot be decimal: it stands twice in a cell, or before decimals, or every other
    number is whole.
    """
    texts = [text.strip() for text in cells if isinstance(text, str)]
    texts = [text for text in texts if text.lower() not in MISSING]
    all_whole = bool((plain == np.round(plain)).all())
    decimals = [match for text in texts if (match := _DECIMAL.fullmatch(text))]
    is_sure = (
        comma
        or quantity is Quantity.LOSS
        or any(len(d[2]) != 3 or len(d[1]) > 3 or d[1] == "0" for d in decimals)
    )
    if texts and len(decimals) == len(texts) and all_whole and is_sure:
        return ",", "."
    groups = [match for text in texts if (match := _GROUPED.fullmatch(text))]
    signs = {group[3] for group in groups}
    if quantity in NOUNS and len(groups) == len(texts) and len(signs) == 1:
        (sign,) = signs
        is_sure = any(group[2].count(sign) > 1 or group[4] for group in groups)
        if (is_sure and not plain.size) if sign == "." else (is_sure or all_whole):
            return ".", sign
    return ".", ""


def _bad_cells(cells: pd.Series, bad: Sequence[int], reason: ValueError | None) -> ScalingError:
    rows = [(int(cells.index[place]) + 1, str(cells.iloc[place])) for place in bad]
    shown = ", ".join(f"row {row}: {cell[:24]!r}" for row, cell in rows[:4])
    shown += ", ..." if len(rows) > 4 else ""
    quoted = f"{cells.name}" if str(cells.name).isidentifier() else f"`{cells.name}`"
    remedy = f'fix the rows, or leave them out, as in --where "{quoted} > 0"'
    if all(cell.startswith("[") for _, cell in rows):
        remedy = "a cell holds a list, as of a curve: write its last value"
    elif any(re.fullmatch(r"\s*-?[\d.]+,\d+\s*", cell) for _, cell in rows):
        remedy = "write decimal points, not commas"
    elif isinstance(reason, UnknownUnit):
        remedy = f"{reason}: write plain numbers"
    count = f"{len(rows)} cells that are not positive numbers up to 1e30"
    what = count if len(rows) > 1 else "a cell that is not a positive number up to 1e30"
    return ScalingError(f"column {cells.name!r} holds {what} ({shown})", remedy=remedy)
