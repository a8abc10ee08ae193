"""Any source of runs becomes `Points`: a results folder, or tables of other programs.

What is guessed is noted, what is left out is counted with its reason, what is ambiguous is an error
that lists the choices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, with_location
from scaling.points.points import Points, Source, SourceOptions
from scaling.points.readers import (
    DOCUMENTS,
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
from scaling.store import run_files

Input = Path | pd.DataFrame
EXPERTS = r'"n_experts":(?P<n_experts>\d+),"top_k":(?P<top_k>\d+)'  # in the text of a configuration


def read_source(sources: Sequence[Input], options: SourceOptions) -> Source:
    """The points of one or several sources of one kind. Raises ScalingError that names the file and
    the fault.
    """
    if not sources:
        raise ScalingError(
            "no source is given",
            remedy="name a results folder or a table, for example results/demo",
        )
    rows, foreign, digest = read_rows(sources)
    if rows:
        from scaling.points.run_tables import read_runs

        folders = [each if isinstance(each, Path) else origin(each) for each in sources]
        with with_location(source_label(sources)):
            source = read_runs(rows, [each for each in folders if each is not None], options)
    else:
        source = _from_tables(foreign, options)
    if count := options.drop_highest:  # as Besiroglu et al. 2024 do with 5 of 245 runs
        loss = source.points.loss
        if count >= len(loss):
            raise ScalingError(
                f"--drop-highest {count} leaves none of {len(loss)} points", remedy="drop fewer"
            )
        keep = loss < np.sort(loss)[-count]
        source = replace(
            source,
            points=source.points.take(keep, f"among the {count} highest losses"),
            runs=None if source.runs is None else source.runs[keep].reset_index(drop=True),
        )
    return replace(source, paths=tuple(map(source_name, sources)), digest=digest)


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
            ours = _is_rows(table)
            digest.update(
                _content(table) if ours else table.to_csv(index=False).encode("utf-8", "replace")
            )
            rows.append(table) if ours else foreign.append((IN_MEMORY, table))
            continue
        files = _files(path)
        if logged := [file for file in files if _is_tracked(file)]:
            from scaling.points.tracker_logs import read_runs

            foreign.append((path, read_runs(logged)))
        for file in files:
            data = read_bytes(file)
            digest.update(data)
            if file not in logged:
                table = read_table(file, data)
                rows.append(table) if _is_rows(table) else foreign.append((file, table))
        if path.is_dir() and run_files.has_runs(path):
            rows.append(run_files.load(path, planned_only=True))
            digest.update(_content(rows[-1]))
    if rows and foreign:
        raise ScalingError(
            "results of this program and foreign tables do not mix",
            where=foreign[0][0],
            remedy="fit them one by one",
        )
    return list(map(_with_experts, rows)), foreign, digest.hexdigest()


def _with_experts(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of mixtures of experts with `n_experts` and `top_k`, which the schema lacks."""
    texts = pd.Index(rows["config"].unique())
    experts = texts.str.extract(EXPERTS).set_axis(texts).astype(float).fillna(1).astype(int)
    if experts.eq(1).all(axis=None):
        return rows
    return rows.assign(**{name: rows["config"].map(column) for name, column in experts.items()})


def _is_rows(table: pd.DataFrame) -> bool:
    return {"run_id", "metric", "value", "split", "step", "config"} <= set(table.columns)


def _is_tracked(path: Path) -> bool:
    return path.suffix == ".wandb" or "events.out.tfevents." in path.name


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
    """The tables of a source: itself, or those of a folder without results."""
    if not path.is_dir():
        return [path]
    if run_files.has_runs(path):
        return []
    if any((path / name).exists() for name in ("sweep.toml", "tuning.json")):
        raise ScalingError(
            "holds no finished runs",
            where=path,
            remedy="train them first: scaling run SWEEP.toml",
        )
    tables = sorted(
        file
        for file in path.iterdir()
        if is_table_file(file) and file.suffix not in DOCUMENTS and not file.name.startswith(".")
    )
    tables = tables or sorted(file for file in path.rglob("*") if _is_tracked(file))
    if not tables:
        raise ScalingError(
            "holds neither runs nor tables",
            where=path,
            remedy="name a folder with runs/*.parquet, or with tables",
        )
    return tables


def _from_tables(tables: list[tuple[Path, pd.DataFrame]], options: SourceOptions) -> Source:
    from scaling.points.user_table import read_user_table

    with with_location(", ".join(str(path) for path, _ in tables)):
        if options.eval_set:
            raise ScalingError(
                "--eval-set is for results folders",
                remedy="name the column of the loss with --columns",
            )
        parts = []
        for path, table in tables:
            with with_location(path):
                parts.append(read_user_table(table, options))
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
