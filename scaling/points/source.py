"""Any source of runs becomes `Points`: a results folder, or tables of other programs.

What is guessed is noted, what is left out is counted with its reason, what is ambiguous is an error
that lists the choices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, unknown_choice, with_location
from scaling.points.points import Points, Source, SourceOptions
from scaling.points.readers import (
    DOCUMENTS,
    ENCODING,
    IN_MEMORY,
    MAX_ROWS,
    is_table_file,
    normalize_frame,
    origin,
    read_bytes,
    read_table,
    source_label,
    source_name,
)
from scaling.store import run_files
from scaling.warning import WarningCode, warn

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
    rows, foreign, digest = read_rows(sources)
    if rows:
        with with_location(source_label(sources)):
            source = _from_results(sources, rows, options)
    else:
        source = _from_tables(foreign, options)
    return replace(
        _without_highest(source, options.drop_highest),
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
    texts = rows["config"].unique()
    if all('"n_experts":1,' in text or '"n_experts"' not in text for text in texts):
        return rows
    models = {text: json.loads(text)["model"] for text in texts}
    columns = {
        name: rows["config"].map({text: model.get(name, 1) for text, model in models.items()})
        for name in ("n_experts", "top_k")
    }
    return rows.assign(**columns)


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


def _without_highest(source: Source, count: int) -> Source:
    """As Besiroglu et al. 2024 do with 5 of 245 runs."""
    if not count:
        return source
    if count >= len(source.points):
        raise ScalingError(
            f"--drop-highest {count} leaves none of {len(source.points)} points",
            remedy="drop fewer",
        )
    keep = source.points.loss < np.sort(source.points.loss)[-count]
    reason = f"among the {count} highest losses"
    return replace(
        source,
        points=source.points.take(keep, reason),
        runs=None if source.runs is None else source.runs[keep].reset_index(drop=True),
    )


def losses_of_eval_set(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows with the losses on an evaluation set in place of those on the held-out split."""
    names = [split.removeprefix("val:") for split in table["split"].unique()]
    names = sorted(set(names) - {"train", "val"})
    if name not in names:
        raise unknown_choice("evaluation set", name, names, where="--eval-set")
    table = table[table["split"] != "val"]
    return table.assign(split=table["split"].replace(f"val:{name}", "val"))


def _from_results(
    sources: Sequence[Input], rows: list[pd.DataFrame], options: SourceOptions
) -> Source:
    if options.columns:
        raise ScalingError(
            "--columns is for foreign tables; a results folder has its own",
            remedy="use --params and --flops",
        )
    from scaling.points.run_tables import assemble

    origins = [origin(part) if isinstance(part, pd.DataFrame) else part for part in sources]
    folders = tuple(folder for folder in origins if folder is not None)
    table = pd.concat(rows, ignore_index=True)
    corrupt, unplanned, unfinished = (
        [each for part in rows for each in part.attrs.get(name, ())]
        for name in ("corrupt", "unplanned", "unfinished")
    )
    warnings = [
        warn(
            WarningCode.CORRUPT_FILE,
            f"{file}; its run is left out, and `scaling run` retrains it",
            file=str(file),
        )
        for file in corrupt
    ]
    if count := len(unplanned):
        message = f"{count} finished runs are left out: the folder's plan no longer asks for them"
        warnings.append(warn(WarningCode.UNPLANNED_RUNS, message, runs=count))
    if count := len(unfinished):
        planned = count + table["run_id"].nunique()
        message = f"{count} of {planned} planned runs are not trained: `scaling run` trains them"
        warnings.append(warn(WarningCode.UNFINISHED_SWEEP, message, runs=count))
    if options.eval_set:
        table = losses_of_eval_set(table, options.eval_set)
    filtered = 0
    if options.where:
        from scaling.points.row_filter import select_rows

        keep = select_rows(options.where, {str(name): table[name] for name in table.columns})
        filtered = table["run_id"].nunique() - table.loc[keep, "run_id"].nunique()
        table = table[keep]
    source = assemble(table, [folder / "sweep.toml" for folder in folders], options)
    excluded = (
        ("no longer in the plan", len(unplanned)),
        ("in a corrupt file", len(corrupt)),
        (f"--where {options.where}", filtered),
    )

    texts = [text for text in map(run_files.planned_text, folders) if text is not None]
    if texts and source.points.d is not None:
        passes = float(source.points.d.max()) / max(text.train_tokens for text in texts)
        if passes > 1:
            message = (
                f"the largest run reads the text {passes:.3g} times, and the laws count every "
                "token as new"
            )
            warnings.append(warn(WarningCode.REPEATED_DATA, message, passes=passes))
    filtered_out = (each for each in excluded if each[1])
    return replace(
        source,
        points=replace(source.points, excluded=(*filtered_out, *source.points.excluded)),
        folders=folders,
        notes=(f"losses on the evaluation set {options.eval_set}",) if options.eval_set else (),
        warnings=(*warnings, *source.warnings),
        model={
            name: int(table[name].iloc[0])
            for name in ("vocab_size", "seq_len")
            if table[name].nunique() == 1
        },
    )


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
        points=_concatenated([part.points for part in parts]),
        notes=tuple(dict.fromkeys(notes)),
        warnings=tuple(warnings.values()),
    )


def _concatenated(parts: Sequence[Points]) -> Points:
    """Points of several tables as one; labels of groups that are equal stay one group, cells of
    different tables are different.
    """
    if len(parts) == 1:
        return parts[0]

    def joined(arrays: list[Any]) -> Any:
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    names = ("loss", "n", "d", "c", "weight", "group", "budget")
    cells = [
        None if part.cell is None else part.cell + MAX_ROWS * place
        for place, part in enumerate(parts)
    ]
    return replace(
        parts[0],
        **{name: joined([getattr(part, name) for part in parts]) for name in names},
        others={name: joined([part.others[name] for part in parts]) for name in parts[0].others},
        excluded=tuple(item for part in parts for item in part.excluded),
        row=None,
        cell=joined(cells),
    )
