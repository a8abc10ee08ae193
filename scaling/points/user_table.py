"""A table of runs that another program trained becomes `Points`.

Its columns are recognised, its units read, rows that are no finished run left out, and N, D or C
derived. Whatever was guessed or converted is noted, what is left out is counted with its reason,
what cannot be known is refused.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, unknown_choice, with_location
from scaling.points.cells import has_decimal_commas
from scaling.points.columns import Columns, candidates, resolve
from scaling.points.derived_counts import (
    nominal_groups,
    points_of_rows,
    warn_of_unlikely_numbers,
    with_tokens,
)
from scaling.points.flat_cells import fill_merged_cells, flatten_cells, pivoted
from scaling.points.json_tables import CURVE
from scaling.points.letters import LETTERS
from scaling.points.mixed_data import data_columns, warn_of_mixed_data
from scaling.points.points import Points, Source, SourceOptions
from scaling.points.readers import ENCODING
from scaling.points.repeated_rows import (
    drop_copies,
    is_curve,
    keep_best_of_cells,
    keep_last_of_runs,
    seed_column,
)
from scaling.points.row_filter import select_rows
from scaling.points.run_states import drop_unfinished
from scaling.points.table_rows import TableRows


def read_user_tables(tables: list[tuple[Path, pd.DataFrame]], options: SourceOptions) -> Source:
    """The points of tables that other programs wrote, as one. Raises ScalingError."""
    with with_location(", ".join(str(path) for path, _ in tables)):
        of_folders = {
            "eval-set": options.eval_set,
            "params": options.params != SourceOptions.params,
            "flops": options.flops != SourceOptions.flops,
        }
        if names := [name for name, given in of_folders.items() if given]:
            raise ScalingError(
                f"--{names[0]} is for results folders",
                remedy="choose the columns of N, C and the loss with --columns",
            )
        parts = []
        for path, table in tables:
            with with_location(path):
                parts.append(_read_user_table(table, options))
        if any(set(part.points.others) != set(parts[0].points.others) for part in parts):
            raise ScalingError(
                "the tables do not hold the same columns", remedy="fit them one by one"
            )
    notes = [note for part in parts for note in part.notes]
    notes += [table.attrs[ENCODING] for _, table in tables if ENCODING in table.attrs]
    warnings = {warning.message: warning for part in parts for warning in part.warnings}
    return replace(
        parts[0],
        points=Points.concatenate([part.points for part in parts]),
        notes=tuple(dict.fromkeys(notes)),
        warnings=tuple(warnings.values()),
    )


def _read_user_table(table: pd.DataFrame, options: SourceOptions) -> Source:
    """The points of a table, with notes on what was read and derived.

    An input of the law that is no known letter is the column of its own name. Raises ScalingError
    that names the column and the rows at fault.
    """
    inputs, cluster = options.inputs, options.cluster
    given = {name: name for name in inputs if name not in LETTERS} | dict(options.columns)
    kind = table.attrs.get(CURVE, "the loss curve of one run")
    flat = flatten_cells(table)
    long = pivoted(flat, given.values())
    has_file_rows = long is flat and table.index.dtype.kind == "i"
    table, notes = with_tokens(long, given, inputs)
    needs_n = "N" in inputs and "N" not in given
    if needs_n and is_curve(table) and not candidates("N", list(map(str, table.columns))):
        raise ScalingError(
            f"{kind}, without its parameters",
            remedy="fit the curve with --law lr-annealing, or collect N, D and the last loss of "
            "each run",
        )
    columns = resolve(table, given, inputs)
    counts = "ND" if {"N", "D"} <= set(columns.names) else "NDC"  # gaps of C then do no harm
    merged = [columns.names[letter] for letter in counts if letter in columns.names]
    table = fill_merged_cells(table, merged, notes)
    rows = TableRows(table, columns.names, notes=notes)
    if options.where:
        letters = set(re.findall(r"\w+", options.where)) & set(columns.names)
        known = {
            letter: pd.Series(
                columns.numbers(table, letter, allow_zero=True, signed=True), table.index
            )
            for letter in letters
        }
        known |= {str(name): table[name] for name in table.columns}
        rows.keep(select_rows(options.where, known), f"--where {options.where}")
    drop_unfinished(rows, options.where, options.checkpoints == "all")
    drop_copies(rows)
    if cluster is not None and cluster not in table.columns:
        raise unknown_choice("column", cluster, list(map(str, table.columns)), where="--cluster")
    _read_numbers(rows, columns, options.signed, is_c_given="C" in given)
    keep_last_of_runs(rows, options.checkpoints)
    named = data_columns(rows)
    keep_best_of_cells(rows, named)
    points = points_of_rows(rows, columns, given)
    warn_of_unlikely_numbers(rows, columns)
    budget = nominal_groups(rows, columns.nominal, points.c)
    warn_of_mixed_data(rows, named)
    used = [each for each in columns.names if each != "C" or points.c is rows.numbers.get("C")]
    cell = None  # of each row, where a column of seeds says that its rows are replicates
    if seed_column(rows.table) is not None:
        counted = [each for name, each in rows.numbers.items() if name not in ("L", "W", "SE")]
        cell = np.unique(np.transpose(counted), axis=0, return_inverse=True)[1].ravel()
    return Source(
        replace(
            points,
            group=None if cluster is None else rows.table[cluster].astype(str).to_numpy(str),
            cell=cell,
            budget=budget,
            row=rows.table.index.to_numpy() + 1 if has_file_rows else None,
            excluded=tuple(rows.excluded),
        ),
        columns={letter: columns.names[letter] for letter in used},
        notes=(*columns.notes(used), *rows.notes),
        warnings=tuple(rows.warnings),
    )


def _read_numbers(rows: TableRows, columns: Columns, signed: bool, is_c_given: bool) -> None:
    """Read the columns used in plain units, by letter, and keep the rows that have all of them;
    accuracies (the law sigmoid) are losses.
    """
    numbers, table = rows.numbers, rows.table
    comma = any(has_decimal_commas(table[name], letter) for letter, name in columns.names.items())
    needs_no_c = {"N", "D"} <= set(columns.names) and not is_c_given
    for letter, name in columns.names.items():
        if (
            letter == "C"
            and needs_no_c
            and np.isnan(columns.numbers(table, "C", lenient=True)).all()
        ):
            rows.notes.append(f"{name!r} has gaps and is not used")
            continue
        numbers[letter] = columns.numbers(
            table,
            letter,
            comma=comma,
            allow_zero=letter in ("Y", "W"),
            signed=letter not in LETTERS or (signed and letter == "L"),
            notes=rows.notes,
        )
    if "Y" in numbers and np.nanmax(numbers["Y"]) > 1:
        raise ScalingError(
            f"column {columns.names['Y']!r} holds accuracies up to {np.nanmax(numbers['Y']):.4g}",
            remedy="they are fractions of 1; of percentages write --columns "
            f'"Y={columns.names["Y"]} [%]"',
        )
    if "L" not in numbers:
        numbers["L"] = numbers.pop("Y")
    is_known = np.isfinite(numbers.get("C", np.ones(1)))
    needs_no_c = {"N", "D"} <= set(numbers) and not (is_c_given and is_known.any())
    if needs_no_c and not is_known.all():
        rows.notes.append(f"{columns.names['C']!r} has gaps and is not used")
        del numbers["C"]
    usable = np.logical_and.reduce([np.isfinite(values) for values in numbers.values()])
    if not usable.any():
        shown = ", ".join(f"{letter} = {name!r}" for letter, name in columns.names.items())
        raise ScalingError(
            "no row holds finite numbers in all columns used", remedy=f"columns used: {shown}"
        )
    gaps = [
        "loss" if letter == "L" else repr(columns.names.get(letter))
        for letter, values in numbers.items()
        if not np.isfinite(values).all()
    ]
    rows.keep(usable, f"{' or '.join(gaps)} missing or not finite")
