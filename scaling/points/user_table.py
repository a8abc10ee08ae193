"""A table of runs that another program trained becomes `Points`.

Its columns are recognised, its units read, rows that are no finished run left out, and N, D or C
derived. Whatever was guessed or converted is noted, what is left out is counted with its reason,
what cannot be known is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, unknown_choice
from scaling.points.columns import (
    LETTERS,
    Columns,
    candidates,
    last_name,
    letter_for_units,
    resolve,
)
from scaling.points.derived_counts import nominal_groups, points_from_numbers, with_tokens
from scaling.points.flat_cells import flatten_cells, pivoted, without_numpy
from scaling.points.json_tables import CURVE
from scaling.points.mixed_data import data_columns, mixed_data, mixed_data_warnings
from scaling.points.points import Source, SourceOptions
from scaling.points.repeated_rows import (
    RUN_WORDS,
    best_of_cells,
    copies,
    is_curve,
    last_of_runs,
    seed_column,
)
from scaling.points.row_filter import select_rows
from scaling.points.run_states import Reduction, run_states
from scaling.points.units import (
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
from scaling.warning import ResultWarning

MISSING = word_set(
    "nan na n/a none null - inf +inf infinity diverged nat <na> #n/a -inf -nan oom crashed failed"
) | {""}


@dataclass
class _Rows:
    """The rows that are left, their numbers by letter, what was left out and why, and warnings."""

    table: pd.DataFrame
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    excluded: list[tuple[str, int]] = field(default_factory=list)
    warnings: list[ResultWarning] = field(default_factory=list)

    def reduce(self, reduction: Reduction) -> None:
        """Keep the rows of a reduction, and note it."""
        keep = reduction.keep
        self.warnings += [reduction.warning] if reduction.warning else []
        self.excluded += [] if keep.all() else [(reduction.reason, int((~keep).sum()))]
        self.table = self.table[keep]
        self.numbers = {letter: values[keep] for letter, values in self.numbers.items()}


def read_user_table(table: pd.DataFrame, options: SourceOptions) -> Source:
    """The points of a table, with notes on what was read and derived.

    An input of the law that is no known letter is the column of its own name. Raises ScalingError
    that names the column and the rows at fault.
    """
    inputs = options.inputs
    given = {name: name for name in inputs if name not in LETTERS} | dict(options.columns)
    kind = table.attrs.get(CURVE, "the loss curve of one run")
    n_rows = len(table)
    table, made = with_tokens(pivoted(flatten_cells(table)), given, inputs)
    has_file_rows = len(table) == n_rows and table.index.dtype.kind == "i"
    needs_n = "N" in inputs and "N" not in given
    if needs_n and is_curve(table) and not candidates("N", list(map(str, table.columns))):
        raise ScalingError(
            f"{kind}, without its parameters",
            remedy="fit the curve with --law lr-annealing, or collect N, D and the last loss of "
            "each run",
        )
    columns = resolve(table, given, inputs)
    used = list(columns.names.values())
    rows = _Rows(table)
    if options.where:
        known = {letter: table[name] for letter, name in columns.names.items()}
        for letter in set(re.findall(r"\w+", options.where)) & known.keys():
            quantity, unit = letter_for_units(letter, columns.names[letter]), columns.unit(letter)
            plain = numeric(table, columns.names[letter], quantity, unit, True, signed=True)
            known[letter] = pd.Series(plain, table.index)
        known |= {str(name): table[name] for name in table.columns}
        keep = select_rows(options.where, known)
        rows.reduce(Reduction(keep, f"--where {options.where}"))
    started = rows.table
    for state in run_states(started, options.where):
        keep = pd.Series(state.keep, started.index).loc[rows.table.index].to_numpy(bool)
        rows.reduce(replace(state, keep=keep))
    rows.reduce(copies(rows.table, used))
    rows.numbers = _numbers(rows.table, columns, options.signed, made)
    kept = [name for name in table.columns if name in used or name == options.cluster]
    rows.table = rows.table[[*kept, *_with_repeats(rows.table, kept)]]
    is_known = np.isfinite(rows.numbers.get("C", np.ones(1)))
    needs_no_c = {"N", "D"} <= set(rows.numbers) and not ("C" in given and is_known.any())
    if needs_no_c and not is_known.all():
        made.append(f"{columns.names['C']!r} has gaps and is not used")
        del rows.numbers["C"]
    usable = np.logical_and.reduce([np.isfinite(values) for values in rows.numbers.values()])
    if not usable.any():
        shown = ", ".join(f"{letter} = {name!r}" for letter, name in columns.names.items())
        raise ScalingError(
            "no row holds finite numbers in all columns used", remedy=f"columns used: {shown}"
        )
    gaps = [
        "loss" if letter == "L" else repr(columns.names.get(letter))
        for letter, values in rows.numbers.items()
        if not np.isfinite(values).all()
    ]
    rows.reduce(Reduction(usable, f"{' or '.join(gaps)} missing or not finite"))
    rows.reduce(last_of_runs(rows.table, rows.numbers, used, options.checkpoints))
    mixed = data_columns(rows.table, used)
    rows.reduce(best_of_cells(rows.table, rows.numbers, used, mixed))
    points, notes, derived = points_from_numbers(rows.numbers, columns, given)
    budget, about_budgets = nominal_groups(rows.table, columns, points)
    letters = [each for each in columns.names if each != "C" or points.c is rows.numbers.get("C")]
    return Source(
        replace(
            points,
            group=_labels(rows.table, options.cluster),
            cell=_seed_cells(rows.table, rows.numbers),
            budget=budget,
            row=rows.table.index.to_numpy() + 1 if has_file_rows else None,
            excluded=tuple(rows.excluded),
        ),
        columns={letter: columns.names[letter] for letter in letters},
        notes=(*columns.notes(letters), *made, *notes, *about_budgets),
        warnings=(
            *rows.warnings,
            *derived,
            *mixed_data(rows.table, mixed),
            *mixed_data_warnings(rows.table, rows.numbers, [*used, *mixed]),
        ),
    )


def _with_repeats(table: pd.DataFrame, used: Collection[str]) -> list[str]:
    """The columns that may say which rows belong together: several values, or names of rows."""
    names = []
    for name in (name for name in map(str, table.columns) if name not in used):
        count = table[name].astype(str).nunique()
        is_number = pd.to_numeric(table[name], errors="coerce").notna().all()
        is_name = not is_number or bool(RUN_WORDS & set(last_name(name).split("_")))
        names += [name] if count > 1 and (count < len(table) or is_name) else []
    return names


def _numbers(
    table: pd.DataFrame, columns: Columns, signed: bool, notes: list[str]
) -> dict[str, np.ndarray]:
    """The columns used in plain units, by letter; accuracies (the law sigmoid) are losses."""
    numbers = {
        letter: numeric(
            table,
            name,
            letter_for_units(letter, name),
            columns.unit(letter),
            allow_zero=letter in ("Y", "W"),
            signed=letter not in LETTERS or (signed and letter == "L"),
            notes=notes,
        )
        for letter, name in columns.names.items()
    }
    if "Y" in numbers and np.nanmax(numbers["Y"]) > 1:
        raise ScalingError(
            f"column {columns.names['Y']!r} holds accuracies up to {np.nanmax(numbers['Y']):.4g}",
            remedy="they are fractions of 1; of percentages write --columns "
            f'"Y={columns.names["Y"]} [%]"',
        )
    return numbers if "L" in numbers else numbers | {"L": numbers.pop("Y")}


def numeric(
    table: pd.DataFrame,
    column: str,
    letter: str = "",
    unit: Unit | None = None,
    allow_zero: bool = False,
    signed: bool = False,
    notes: list[str] | None = None,
) -> np.ndarray:
    """A column as positive numbers in plain units, NaN where a cell is missing. Raises ScalingError
    naming rows.

    A cell with a unit of its own (70B, 2.1 bits) does not follow the unit of the header; `notes`
    takes a sentence on such units.
    """
    cells = table[column]
    unit = unit or read_header(column, letter).unit
    quantity = QUANTITIES.get(letter, Quantity.NUMBER)
    values = pd.to_numeric(cells, errors="coerce").to_numpy(float, na_value=np.nan).copy()
    is_bool = cells.map(type).isin([bool, np.bool_]).to_numpy()
    unread = np.isnan(values) | is_bool | np.isposinf(values)
    is_decimal = _has_decimal_commas(cells[unread], quantity, values)
    sign = "" if is_decimal else _thousands_sign(cells[unread], quantity, values)
    faults: dict[int, ValueError | None] = {}
    own_units: dict[int, Unit] = {}
    for position in np.flatnonzero(unread).tolist():
        try:
            cell = cells.iloc[position]
            if is_decimal and isinstance(cell, str):
                cell = cell.replace(".", "").replace(",", ".")
            values[position], own = _cell(cell, quantity, sign)
            own_units |= {position: own} if own else {}
        except ValueError as error:
            faults[position] = error
    if unit is not None:
        follows = ~np.isin(np.arange(len(values)), list(own_units))
        values = np.where(follows, unit.to_plain(values), values)
    if notes is not None and is_decimal:
        notes.append(f"cells of {column!r} are read with decimal commas")
    if notes is not None and own_units:
        shown = list(dict.fromkeys(map(str, own_units.values())))
        notes.append(f"cells of {column!r} are read in {', '.join(shown[:4])}")
    if letter == "C" and notes is not None and (values == 0).any():
        notes.append(f"zeros of {column!r} are gaps")
        values[values == 0] = np.nan
    low = np.isneginf(values) if signed else values < 0 if allow_zero else values <= 0
    faults |= dict.fromkeys(np.flatnonzero(low | (values > MAX_VALUE)).tolist())
    if faults:
        raise _bad_cells(cells, sorted(faults), next(iter(faults.values())))
    return values


_SIGNS = r",.\s'_\u00a0\u202f\u2009"
_GROUPED = re.compile(  # in threes, or India's: 2,00,00,000
    rf"(\d{{1,3}})(([{_SIGNS}])(?:\d{{3}}(?:\3\d{{3}})*|\d\d(?:\3\d\d)*\3\d{{3}}))"
    r"(\.\d+)?(\s*[^\W\d]\D*)?"
)
_DECIMAL = re.compile(r"\s*[+-]?(\d+|\d{1,3}(?:\.\d{3})+),(\d+)(?:e[+-]?\d+)?\s*", re.I)


def _cell(value: object, quantity: Quantity, sign: str) -> tuple[float, Unit | None]:
    """A cell that is no plain number, and the unit of its own: NaN when it says that it is missing.
    `sign` separates thousands.

    Raises ValueError when it is neither a number nor missing.
    """
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return np.nan, None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_VALUE:
        raise ValueError("a number above 1e30")
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:24]!r} is not a number")
    text = without_numpy(value.strip())
    if text.lower() in MISSING:
        return np.nan, None
    if sign and (grouped := _GROUPED.fullmatch(text)):
        whole = grouped[1] + grouped[2].replace(sign, "")
        text = whole + (grouped[4] or "") + (grouped[5] or "")
    number, unit = parse_cell(text, quantity)
    if not np.isfinite(number):
        raise ValueError("a number above 1e30")
    return number, unit


def _has_decimal_commas(texts: pd.Series, quantity: Quantity, values: np.ndarray) -> bool:
    """Whether all cells that are no plain number hold a decimal comma, and one of them no comma
    between thousands: not three digits behind it, more before it, or no count.
    """
    written = [text for text in texts if isinstance(text, str) and text.lower() not in MISSING]
    cells = [_DECIMAL.fullmatch(text) for text in written]
    plain = values[np.isfinite(values)]
    if not cells or not all(cells) or (plain != np.round(plain)).any():
        return False
    return quantity is Quantity.LOSS or any(
        cell and (len(cell[2]) != 3 or len(cell[1]) > 3) for cell in cells
    )


def _thousands_sign(texts: pd.Series, quantity: Quantity, values: np.ndarray) -> str:
    """The sign between thousands in a column of counts, where it cannot be a decimal sign: it
    stands twice in a cell, or before decimals, or every other number is whole. Else "".
    """
    written = [text.strip() for text in texts if isinstance(text, str)]
    cells = [_GROUPED.fullmatch(text) for text in written if text.lower() not in MISSING]
    groups = [cell for cell in cells if cell]
    if quantity not in NOUNS or not groups or len(groups) < len(cells):
        return ""
    sign, plain = groups[0][3], values[np.isfinite(values)]
    is_sure = any(cell[2].count(sign) > 1 or cell[4] for cell in groups)
    if any(cell[3] != sign for cell in groups) or (sign == "." and (plain.size or not is_sure)):
        return ""
    return sign if is_sure or (plain == np.round(plain)).all() else ""


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
    elif any(re.fullmatch(r"\s*-\d{17,}\s*", cell) for _, cell in rows):
        remedy = (
            "a product beyond 9.2e18 wrapped round in 64 bits: write it as a float, or leave it out"
        )
    elif isinstance(reason, UnknownUnit):
        remedy = f"{reason}: write plain numbers"
    count = f"{len(rows)} cells that are not positive numbers up to 1e30"
    what = count if len(rows) > 1 else "a cell that is not a positive number up to 1e30"
    return ScalingError(f"column {cells.name!r} holds {what} ({shown})", remedy=remedy)


def _labels(table: pd.DataFrame, cluster: str | None) -> np.ndarray | None:
    if cluster is None:
        return None
    if cluster not in table.columns:
        raise unknown_choice("column", cluster, list(map(str, table.columns)), where="--cluster")
    return table[cluster].astype(str).to_numpy(str)


def _seed_cells(table: pd.DataFrame, numbers: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The cell of each row, where a column of seeds says that its rows are replicates."""
    if seed_column(table) is None:
        return None
    inputs = [values for letter, values in numbers.items() if letter not in ("L", "W", "SE")]
    return np.unique(np.transpose(inputs), axis=0, return_inverse=True)[1].ravel()
