"""Any source of runs becomes `Points`: a results folder, or a stranger's tables with their own column names.

What is guessed is noted, what is left out is counted with its reason, what is ambiguous is an error that lists the choices.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.config import FlopsConvention, NConvention
from scaling.errors import ScalingError, unknown_choice
from scaling.points.columns import cell, cells_of, header, resolve
from scaling.points.points import Points
from scaling.points.readers import (
    HELD,
    READERS,
    named_one,
    normalize_frame,
    origin,
    read_bytes,
    read_table,
    source_label,
)
from scaling.points.row_filter import select
from scaling.points.run_tables import assemble, constant_lr_losses, is_rows
from scaling.points.tracker_logs import find, is_tracked, read_runs
from scaling.store import run_files

MISSING = {"", "nan", "na", "n/a", "none", "null", "-", "inf", "+inf", "infinity", "diverged"}
MIXED = (
    "tokenizer",
    "tokeniser",
    "unit",
    "loss_unit",
    "corpus",
    "dataset",
    "config",
    "split",
    "metric",
)
FAR = 10.0  # a column C this many times off 6 N D counts other things than training


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read: columns by letter, the conventions of a results folder, and the filters."""

    columns: Mapping[str, str] = field(default_factory=dict)
    params: NConvention = "with_head"
    flops: FlopsConvention = "exact"
    where: str | None = None
    drop_highest: int = 0
    cluster: str | None = None
    readout: str | None = None


@dataclass(frozen=True)
class Source:
    """What was read. `kaplan` holds the same runs by Kaplan's counting, `curves` every intermediate evaluation (results
    folders whose schedule lets them compete with finished runs); `columns` maps letters to the columns used; `notes` say
    what was guessed or derived; `model` holds the vocab_size and seq_len that all runs of a results folder share, `trails` all
    their evaluations, `runs` one row for each point, `diverged` one for each run that diverged.
    """

    paths: tuple[str, ...]
    digest: str
    points: Points
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    kaplan: Points | None = None
    curves: Points | None = None
    model: Mapping[str, int] = field(default_factory=dict)
    trails: Points | None = None
    runs: pd.DataFrame | None = None
    diverged: pd.DataFrame | None = None


Given = Path | pd.DataFrame


def read_source(sources: Sequence[Given], options: SourceOptions) -> Source:
    """The points of one or several sources of one kind. Raises ScalingError that names the file and the fault."""
    if not sources:
        raise ScalingError(
            "no source is given",
            remedy="name a results folder or a table, for example results/demo",
        )
    if options.drop_highest < 0:
        raise ScalingError(
            f"--drop-highest {options.drop_highest} is negative",
            remedy="give the number of runs to leave out",
        )
    rows, foreign, digest = read_rows(sources)
    if rows and foreign:
        raise ScalingError(
            "results of this program and foreign tables do not mix",
            where=str(foreign[0][0]),
            remedy="fit them one by one",
        )
    if rows:
        folders = [origin(each) if isinstance(each, pd.DataFrame) else each for each in sources]
        source = _from_results(
            source_label(sources),
            [folder for folder in folders if folder is not None],
            rows,
            options,
        )
    else:
        source = _from_tables(foreign, options)
    return replace(
        drop_highest(source, options.drop_highest),
        paths=tuple(map(named_one, sources)),
        digest=digest,
    )


def read_rows(
    sources: Sequence[Given],
) -> tuple[list[pd.DataFrame], list[tuple[Path, pd.DataFrame]], str]:
    """Tables as they stand, this program's rows apart from foreign ones, and the digest of their content."""
    digest = hashlib.sha256()
    rows: list[pd.DataFrame] = []
    foreign: list[tuple[Path, pd.DataFrame]] = []
    for path in sources:
        if isinstance(path, pd.DataFrame):
            table = normalize_frame(path)
            ours = is_rows(table)
            digest.update(
                _content(table) if ours else table.to_csv(index=False).encode("utf-8", "replace")
            )
            rows.append(table) if ours else foreign.append((HELD, table))
            continue
        files = _files(path)
        logged = [file for file in files if is_tracked(file)]
        if logged:
            foreign.append((path, read_runs(logged)))
        for file in files:
            data = read_bytes(file)
            digest.update(data)
            if is_tracked(file):
                continue
            table = read_table(file, data)
            rows.append(table) if is_rows(table) else foreign.append((file, table))
        if path.is_dir() and run_files.has_runs(path):
            rows.append(run_files.load(path, planned_only=True))
            digest.update(_content(rows[-1]))
    return rows, foreign, digest.hexdigest()


def _content(rows: pd.DataFrame) -> bytes:
    """What was measured, whatever files it lies in."""
    ordered = rows.sort_values(["run_id", "step", "split", "metric"], kind="stable")
    texts = "\n".join(
        ordered[name].astype(str).str.cat(sep=" ") for name in ("run_id", "split", "metric")
    )
    return texts.encode() + b"".join(
        ordered[name].to_numpy(float).tobytes() for name in ("step", "at", "value")
    )


def _files(path: Path) -> list[Path]:
    """The files of a source that are tables: itself, or those of a folder that is no results folder."""
    if not path.is_dir():
        return [path]
    if run_files.has_runs(path):
        return []
    if any((path / name).exists() for name in ("sweep.toml", "tuning.json")):
        raise ScalingError(
            "holds no finished runs",
            where=str(path),
            remedy="train them first: scaling run SWEEP.toml",
        )
    found = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in READERS and not file.name.startswith(".")
    )
    found = found or find(path)
    if not found:
        raise ScalingError(
            "holds neither runs nor tables",
            where=str(path),
            remedy="name a folder with runs/*.parquet, or with tables",
        )
    return found


def drop_highest(source: Source, count: int) -> Source:
    """Keep the runs whose loss lies below the `count`-th largest, as Besiroglu et al. 2024 do with 5 of 245."""
    if not count:
        return source
    if count >= len(source.points):
        raise ScalingError(
            f"--drop-highest {count} leaves none of {len(source.points)} points",
            remedy="drop fewer",
        )
    keep = source.points.loss < np.sort(source.points.loss)[-count]
    reason = f"among the {count} highest losses"
    kaplan = source.kaplan.take(keep, reason) if source.kaplan is not None else None
    runs = source.runs[keep].reset_index(drop=True) if source.runs is not None else None
    return replace(source, points=source.points.take(keep, reason), kaplan=kaplan, runs=runs)


def _from_results(
    where: str, folders: Sequence[Path], rows: list[pd.DataFrame], options: SourceOptions
) -> Source:
    if options.columns:
        raise ScalingError(
            "--columns is for foreign tables; a results folder has its own",
            where=where,
            remedy="use --params and --flops",
        )
    damaged = [
        f"{file}; its run is left out, and `scaling run` redoes it"
        for part in rows
        for file in part.attrs.get("corrupt", ())
    ]
    table, filtered = pd.concat(rows, ignore_index=True), 0
    if options.readout:
        table = constant_lr_losses(table, options.readout, where)
    if options.where:
        keep = _select(options.where, {str(name): table[name] for name in table.columns}, where)
        filtered = table["run_id"].nunique() - table.loc[keep, "run_id"].nunique()
        table = table[keep]
    sweeps = [path / "sweep.toml" for path in folders]
    found = assemble(table, sweeps, options.params, options.flops, options.cluster)
    points, kaplan = found.points, found.kaplan
    if filtered:
        counted = (f"--where {options.where}", filtered)
        points, kaplan = (
            replace(each, excluded=(counted, *each.excluded)) for each in (points, kaplan)
        )
    shared = {
        name: int(table[name].iloc[0])
        for name in ("vocab_size", "seq_len")
        if table[name].nunique() == 1
    }
    if damaged:
        points = replace(points, excluded=(("in a corrupt file", len(damaged)), *points.excluded))
    unplanned = sum(len(part.attrs.get("unplanned", ())) for part in rows)
    if unplanned:
        points = replace(points, excluded=(("no longer in the plan", unplanned), *points.excluded))
        damaged.append(
            f"{unplanned} finished runs are left out: the folder's plan no longer asks for them"
        )
    warnings = (*damaged, *found.warnings)
    return Source(
        (),
        "",
        points,
        warnings=warnings,
        kaplan=kaplan,
        curves=found.curves,
        model=shared,
        trails=found.trails,
        runs=found.runs,
        diverged=found.diverged,
    )


def _select(expression: str, columns: Mapping[str, pd.Series], where: str) -> np.ndarray:
    keep = select(expression, columns)
    if not keep.any():
        raise ScalingError(
            f"--where {expression[:80]!r} leaves no row", where=where, remedy="loosen the condition"
        )
    return keep


def _from_tables(tables: list[tuple[Path, pd.DataFrame]], options: SourceOptions) -> Source:
    if options.readout:
        where = ", ".join(str(path) for path, _ in tables)
        raise ScalingError(
            "--readout is for results folders",
            where=where,
            remedy="name the column of the loss with --columns",
        )
    parts = [_one_table(path, table, options) for path, table in tables]
    first = parts[0]
    letters = [sorted(part.points.others) for part in parts]
    if any(letter != letters[0] for letter in letters):
        raise ScalingError(
            "the tables do not hold the same columns",
            where=", ".join(str(path) for path, _ in tables),
            remedy="fit them one by one",
        )
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    warnings = tuple(dict.fromkeys(text for part in parts for text in part.warnings))
    return replace(
        first, points=concatenate([part.points for part in parts]), notes=notes, warnings=warnings
    )


def concatenate(parts: Sequence[Points]) -> Points:
    """Points of several tables as one; labels of groups that are equal stay one group."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    n, d, c, weight, group = (joined(name) for name in ("n", "d", "c", "weight", "group"))
    held = [part.cell for part in parts if part.cell is not None]
    firsts = np.cumsum(
        [0, *(len(part) for part in parts)]
    )  # more than the labels of the tables before
    cell = (
        np.concatenate([each + first for each, first in zip(held, firsts, strict=False)])
        if len(held) == len(parts)
        else None
    )
    others = {
        name: np.concatenate([part.others[name] for part in parts]) for name in parts[0].others
    }
    excluded = tuple(item for part in parts for item in part.excluded)
    return Points(
        joined("loss"), n, d, c, weight, group, others, parts[0].convention, excluded, cell
    )


def _one_table(path: Path, table: pd.DataFrame, options: SourceOptions) -> Source:
    columns, notes = resolve(path, [str(name) for name in table.columns], options.columns)
    excluded: list[tuple[str, int]] = []
    for keep, reason in _row_filters(path, table, columns, options):
        if not keep.all():
            excluded.append((reason, int((~keep).sum())))
        table = table[keep[table.index]]
    numbers = {letter: numeric(path, table, column) for letter, column in columns.items()}
    usable = np.logical_and.reduce([np.isfinite(values) for values in numbers.values()])
    for letter in ("L", *(letter for letter in numbers if letter != "L")):
        lost = int(
            (~np.isfinite(numbers[letter]) & (np.isfinite(numbers["L"]) | (letter == "L"))).sum()
        )
        if lost:
            excluded.append((f"{columns[letter]} missing or not finite", lost))
    if not usable.any():
        raise ScalingError(
            "no row holds all of its numbers",
            where=str(path),
            remedy=f"needed: {', '.join(columns.values())}",
        )
    numbers = {letter: values[usable] for letter, values in numbers.items()}
    points, derived, warnings = _points(path, numbers, columns, named="C" in options.columns)
    group = _labels(path, table, options.cluster)
    cell = cells_of(table, numbers, usable)
    points = replace(
        points, group=None if group is None else group[usable], excluded=tuple(excluded), cell=cell
    )
    return Source(
        (),
        "",
        points,
        columns,
        (*notes, *derived),
        (*warnings, *_mixed_data_warnings(table[usable])),
    )


def _row_filters(
    path: Path, table: pd.DataFrame, columns: Mapping[str, str], options: SourceOptions
) -> list[tuple[np.ndarray, str]]:
    """Masks over the rows of the file, each with the reason it gives to the rows that it leaves out."""
    filters = []
    if options.where:
        known = {letter: table[name] for letter, name in columns.items()} | {
            str(name): table[name] for name in table.columns
        }
        filters.append((_select(options.where, known, str(path)), f"--where {options.where}"))
    flag = next(
        (name for name in table.columns if str(name).strip().lower() in ("outlier", "is_outlier")),
        None,
    )
    if flag is not None:
        marked = (
            table[flag]
            .astype(str)
            .str.strip()
            .str.lower()
            .isin(["1", "1.0", "true", "yes", "y", "t"])
        )
        filters.append((~marked.to_numpy(bool), f"marked in column {flag!r}"))
    state = next((name for name in table.columns if str(name).strip().lower() == "state"), None)
    if (
        state is not None
        and table[state]
        .astype(str)
        .str.lower()
        .isin(["finished", "crashed", "failed", "running", "killed"])
        .all()
    ):
        filters.append(
            (
                table[state].astype(str).str.lower().eq("finished").to_numpy(bool),
                "runs that did not finish",
            )
        )
    repeated = _repeated_runs(path, table, columns)
    if repeated is not None:
        filters.append((~repeated, "the same run_id with the same numbers again"))
    return filters


def _repeated_runs(
    path: Path, table: pd.DataFrame, columns: Mapping[str, str]
) -> np.ndarray | None:
    """Rows that repeat a run_id with equal numbers. Raises ScalingError naming both rows when the numbers differ."""
    if "run_id" not in table.columns:
        return None
    again = table.duplicated("run_id").to_numpy()
    clash = again & ~table.duplicated(["run_id", *columns.values()]).to_numpy()
    if clash.any():
        row = int(np.flatnonzero(clash)[0])
        label = table["run_id"].iloc[row]
        first = int(np.flatnonzero((table["run_id"] == label).to_numpy())[0])
        what = f"run_id {str(label)[:40]!r} stands in rows {first + 1} and {row + 1} with different numbers"
        raise ScalingError(
            what, where=str(path), remedy="keep one row for each run, or rename the column"
        )
    return again


def numeric(path: Path, table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as positive numbers, NaN where a cell is missing. Counts such as 70B are read. Raises ScalingError naming rows."""
    cells = table[column]
    values = pd.to_numeric(cells, errors="coerce").to_numpy(float, na_value=np.nan).copy()
    unread = np.isnan(values) | (
        cells.map(type).isin([bool, np.bool_]).to_numpy()
        if cells.dtype in (bool, object)
        else False
    )
    bad: list[int] = []
    for position in np.flatnonzero(unread):
        try:
            values[position] = _number(cells.iloc[position])
        except ValueError:
            bad.append(int(position))
    values[np.isposinf(values)] = np.nan
    bad += [int(position) for position in np.flatnonzero((values <= 0) | (values > 1e30))]
    if bad:
        rows = [
            (int(table.index[position]) + 1, str(cells.iloc[position])) for position in sorted(bad)
        ]
        shown = ", ".join(f"row {row}: {cell[:24]!r}" for row, cell in rows[:4]) + (
            ", ..." if len(rows) > 4 else ""
        )
        comma = any(re.fullmatch(r"\s*-?\d+,\d+\s*", cell) for _, cell in rows)
        remedy = (
            "write decimal points, not commas"
            if comma
            else "mend the rows, or leave them out with --where"
        )
        wrapped = any(re.fullmatch(r"\s*-\d{17,}\s*", cell) for _, cell in rows)
        remedy = (
            "a product beyond 9.2e18 wrapped round in 64 bits: write it as a float, or leave the column out"
            if wrapped
            else remedy
        )
        held = (
            f"{len(rows)} cells that are not positive numbers"
            if len(rows) > 1
            else "a cell that is not a positive number"
        )
        raise ScalingError(
            f"column {column!r} holds {held} ({shown})", where=str(path), remedy=remedy
        )
    return values * header(column)[1]


def _number(value: Any) -> float:
    """A cell that is no plain number: NaN when it says that it is missing, else a count; ValueError when it is neither."""
    missing = value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
    return (
        np.nan
        if missing or (isinstance(value, str) and value.strip().lower() in MISSING)
        else cell(value)
    )


def _points(
    path: Path, numbers: dict[str, np.ndarray], columns: Mapping[str, str], named: bool
) -> tuple[Points, list[str], list[str]]:
    """Points with D and C derived by C = 6 N D where the table lacks one of them."""
    notes: list[str] = []
    warnings: list[str] = []
    n, d, c = (numbers.get(letter) for letter in "NDC")
    convention = {"params": "as given", "flops": "as given"}
    if n is not None and d is not None and c is not None:
        off = np.abs(np.log(c / (6.0 * n * d))) > np.log(FAR)
        if off.any():
            what = f"column {columns['C']!r} differs from 6 N D by more than {FAR:g} times in {off.sum()} of {len(n)} rows"
            if named:
                raise ScalingError(
                    what,
                    where=str(path),
                    remedy="leave C out of --columns (then C = 6 N D), or mend the rows",
                )
            warnings.append(f"{what}: it is not used, C = 6 N D")
            c = None
    if n is not None and d is None and c is not None:
        d = c / (6.0 * n)
        notes.append("tokens derived: D = C / (6 N)")
    if n is not None and d is not None and c is None:
        c = 6.0 * n * d
        convention["flops"] = "6nd"
        notes.append("FLOPs derived: C = 6 N D")
    if n is not None and np.median(n) < 1e4:
        warnings.append(
            f"the median N is {np.median(n):.3g}: are parameters written in thousands or millions? Exponents do not change, N* does"
        )
    others = {
        letter: values
        for letter, values in numbers.items()
        if letter not in ("N", "D", "C", "L", "W", "SE")
    }
    weight = numbers["SE"] ** -2 if "SE" in numbers else numbers.get("W")
    return (
        Points(
            loss=numbers["L"], n=n, d=d, c=c, weight=weight, others=others, convention=convention
        ),
        notes,
        warnings,
    )


def _labels(path: Path, table: pd.DataFrame, cluster: str | None) -> np.ndarray | None:
    if cluster is None:
        return None
    if cluster not in table.columns:
        raise unknown_choice(
            "column", cluster, [str(name) for name in table.columns], where=f"{path}: --cluster"
        )
    return table[cluster].astype(str).to_numpy(str)


def _mixed_data_warnings(table: pd.DataFrame) -> list[str]:
    """A warning for each column whose several values say that the losses do not compare."""
    found = [
        name
        for name in table.columns
        if str(name).strip().lower() in MIXED and table[name].nunique() > 1
    ]
    return [
        f"column {name!r} has {table[name].nunique()} values: losses of different {name}s do not compare; choose one with --where"
        for name in found
    ]
