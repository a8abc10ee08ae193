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
from scaling.points.points import (
    Source,
    SourceOptions,
    origin,
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
        from scaling.points.user_table import read_user_tables

        source = read_user_tables(foreign, options)
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
    contents: dict[bytes, int] = {}
    for path in sources:
        if isinstance(path, Path) and path.is_dir() and run_files.has_runs(path):
            rows.append(run_files.load(path, planned_only=True))
            digest.update(_content(rows[-1]))
            continue
        from scaling.points.readers import read_tables

        for place, table, content in read_tables(path):
            ours = {"run_id", "metric", "value", "split", "step", "config"} <= set(table.columns)
            rows.append(table) if ours else foreign.append((place, table))
            if content is None and ours:
                content = _content(table)
            elif content is None:
                content = table.to_csv(index=False).encode("utf-8", "replace")
            if not ours and contents.setdefault(content, len(foreign)) < len(foreign):
                what = f"holds what {foreign[contents[content] - 1][0]} holds"
                raise ScalingError(what, where=place, remedy="name it once")
            digest.update(content)
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


def _content(rows: pd.DataFrame) -> bytes:
    """What was measured, whatever files it lies in."""
    ordered = rows.sort_values(["run_id", "step", "split", "metric"], kind="stable")
    texts = "\n".join(
        ordered[name].astype(str).str.cat(sep=" ") for name in ("run_id", "split", "metric")
    )
    return texts.encode() + b"".join(
        ordered[name].to_numpy(float).tobytes() for name in ("step", "at", "value")
    )
