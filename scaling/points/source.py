"""Any source of runs becomes `Points`: a results folder, or tables of other programs.

What is guessed is noted, what is left out is counted with its reason, what is ambiguous is an error
that lists the choices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.config import FlopsConvention, NConvention
from scaling.errors import ScalingError, unknown_choice
from scaling.points.points import Points
from scaling.points.readers import (
    ENCODING,
    IN_MEMORY,
    is_table_file,
    normalize_frame,
    origin,
    read_bytes,
    read_table,
    source_label,
    source_name,
)
from scaling.points.run_tables import assemble, constant_lr_losses, is_rows
from scaling.points.tracker_logs import find, is_tracked, read_runs
from scaling.points.user_table import read_user_table, select_rows
from scaling.store import run_files
from scaling.warning import ResultWarning, WarningCode


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read: columns by letter, the conventions of a results folder, and the
    filters.

    `inputs` are the letters of the law that will be fitted.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    params: NConvention = "with_head"
    flops: FlopsConvention = "exact"
    where: str | None = None
    drop_highest: int = 0
    cluster: str | None = None
    readout: str | None = None
    eval_set: str | None = None
    inputs: tuple[str, ...] = ()
    signed: bool = False  # losses below zero are no fault


@dataclass(frozen=True)
class Source:
    """What was read.

    `kaplan` holds the same runs by Kaplan's counting; `curves` every intermediate evaluation where
    those compete with finished runs; `evaluations` all evaluations; `runs` one row for each point
    and `diverged` one for each run that diverged; `model` the vocab_size and seq_len that all runs
    share (all of results folders). `columns` maps letters to the columns used, `notes` say what was
    guessed, converted or derived.
    """

    paths: tuple[str, ...]
    digest: str
    points: Points
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[ResultWarning, ...] = ()
    kaplan: Points | None = None
    curves: Points | None = None
    model: Mapping[str, int] = field(default_factory=dict)
    evaluations: Points | None = None
    runs: pd.DataFrame | None = None
    diverged: pd.DataFrame | None = None


Input = Path | pd.DataFrame


def read_source(sources: Sequence[Input], options: SourceOptions) -> Source:
    """The points of one or several sources of one kind. Raises ScalingError that names the file and
    the fault.
    """
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
        folders = [origin(part) if isinstance(part, pd.DataFrame) else part for part in sources]
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
        paths=tuple(map(source_name, sources)),
        digest=digest,
    )


def read_rows(
    sources: Sequence[Input],
) -> tuple[list[pd.DataFrame], list[tuple[Path, pd.DataFrame]], str]:
    """Tables as they stand, this program's rows apart from foreign ones, and the digest of their
    content.
    """
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
            rows.append(table) if ours else foreign.append((IN_MEMORY, table))
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
    """The files of a source that are tables: itself, or those of a folder that is no results
    folder.
    """
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
    tables = sorted(
        file for file in path.iterdir() if is_table_file(file) and not file.name.startswith(".")
    )
    tables = tables or find(path)
    if not tables:
        raise ScalingError(
            "holds neither runs nor tables",
            where=str(path),
            remedy="name a folder with runs/*.parquet, or with tables",
        )
    return tables


def drop_highest(source: Source, count: int) -> Source:
    """Keep the runs whose loss lies below the `count`-th largest, as Besiroglu et al. 2024 do with
    5 of 245.
    """
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


def losses_of_eval_set(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows with the losses on an evaluation set in place of those on the readout-out split."""
    names = [split.removeprefix("val:") for split in table["split"].unique()]
    names = sorted(set(names) - {"train", "val"})
    if name not in names:
        raise unknown_choice("evaluation set", name, names, where="--eval-set")
    table = table[table["split"] != "val"]
    return table.assign(split=table["split"].replace(f"val:{name}", "val"))


def _from_results(
    where: str, folders: Sequence[Path], rows: list[pd.DataFrame], options: SourceOptions
) -> Source:
    if options.columns:
        raise ScalingError(
            "--columns is for foreign tables; a results folder has its own",
            where=where,
            remedy="use --params and --flops",
        )
    warnings = [
        ResultWarning(
            code=WarningCode.CORRUPT_FILE,
            message=f"{file}; its run is left out, and `scaling run` retrains it",
            data={"file": str(file)},
        )
        for part in rows
        for file in part.attrs.get("corrupt", ())
    ]
    table, filtered = pd.concat(rows, ignore_index=True), 0
    if options.eval_set:
        table = losses_of_eval_set(table, options.eval_set)
    if options.readout:
        table = constant_lr_losses(table, options.readout, where)
    if options.where:
        keep = select_rows(options.where, {str(name): table[name] for name in table.columns}, where)
        filtered = table["run_id"].nunique() - table.loc[keep, "run_id"].nunique()
        table = table[keep]
    sweeps = [path / "sweep.toml" for path in folders]
    tables = assemble(table, sweeps, options.params, options.flops, options.cluster)
    points, kaplan = tables.points, tables.kaplan
    if filtered:
        left_out = (f"--where {options.where}", filtered)
        points, kaplan = (
            replace(part, excluded=(left_out, *part.excluded)) for part in (points, kaplan)
        )
    shared = {
        name: int(table[name].iloc[0])
        for name in ("vocab_size", "seq_len")
        if table[name].nunique() == 1
    }
    if warnings:
        points = replace(points, excluded=(("in a corrupt file", len(warnings)), *points.excluded))
    unplanned = sum(len(part.attrs.get("unplanned", ())) for part in rows)
    if unplanned:
        points = replace(points, excluded=(("no longer in the plan", unplanned), *points.excluded))
        warnings.append(
            ResultWarning(
                code=WarningCode.UNPLANNED_RUNS,
                message=f"{unplanned} finished runs are left out: the folder's plan no longer asks "
                "for them",
                data={"runs": unplanned},
            )
        )
    return Source(
        (),
        "",
        points,
        notes=(f"losses on the evaluation set {options.eval_set}",) if options.eval_set else (),
        warnings=(*warnings, *tables.warnings),
        kaplan=kaplan,
        curves=tables.curves,
        model=shared,
        evaluations=tables.evaluations,
        runs=tables.runs,
        diverged=tables.diverged,
    )


def _from_tables(tables: list[tuple[Path, pd.DataFrame]], options: SourceOptions) -> Source:
    if options.readout or options.eval_set:
        where = ", ".join(str(path) for path, _ in tables)
        raise ScalingError(
            f"--{'readout' if options.readout else 'eval-set'} is for results folders",
            where=where,
            remedy="name the column of the loss with --columns",
        )
    parts = [
        read_user_table(
            path,
            table,
            options.columns,
            options.where,
            options.cluster,
            options.inputs,
            options.signed,
        )
        for path, table in tables
    ]
    letters = [sorted(part.points.others) for part in parts]
    if any(letter != letters[0] for letter in letters):
        raise ScalingError(
            "the tables do not hold the same columns",
            where=", ".join(str(path) for path, _ in tables),
            remedy="fit them one by one",
        )
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    warnings = {warning.message: warning for part in parts for warning in part.warnings}
    encodings = [table.attrs[ENCODING] for _, table in tables if ENCODING in table.attrs]
    return Source(
        (),
        "",
        concatenate([part.points for part in parts]),
        parts[0].columns,
        (*notes, *dict.fromkeys(encodings)),
        tuple(warnings.values()),
    )


def concatenate(parts: Sequence[Points]) -> Points:
    """Points of several tables as one; labels of groups that are equal stay one group."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    cell = None
    if all(part.cell is not None for part in parts):
        labels = [np.unique(np.asarray(part.cell), return_inverse=True)[1] for part in parts]
        starts = np.cumsum([0, *(int(label.max()) + 1 for label in labels)])
        cell = np.concatenate([label + start for label, start in zip(labels, starts, strict=False)])
    return Points(
        loss=joined("loss"),
        n=joined("n"),
        d=joined("d"),
        c=joined("c"),
        weight=joined("weight"),
        group=joined("group"),
        budget=joined("budget"),
        others={
            name: np.concatenate([part.others[name] for part in parts]) for name in parts[0].others
        },
        convention=parts[0].convention,
        excluded=tuple(item for part in parts for item in part.excluded),
        cell=cell,
    )
