"""The runs of this program as points: all conventions side by side, nuisance axes minimised,
curves, and shared prefixes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.config import FlopsConvention, ListDesign, NConvention
from scaling.config.sweep_file import load_sweep
from scaling.errors import ScalingError, unknown_choice
from scaling.formatting import flatten
from scaling.points.points import Points, Source, SourceOptions, counted_runs, final_runs
from scaling.warning import ResultWarning, WarningCode, warn

MIN_PREFIXES = 10  # fewer clusters than this cannot be resampled


def assemble(table: pd.DataFrame, sweeps: Sequence[Path], options: SourceOptions) -> Source:
    """Everything that a fit asks of a results table, nuisance axes minimised.

    With the schedule `wsd` a run's loss falls in its cooldown only: its evaluations are no
    `curves`, which compete with finished runs. Raises ScalingError.
    """
    params, flops = options.params, options.flops
    final = table[(table["split"] == "val") & (table["metric"] == "loss")]
    distinct = final.drop_duplicates(["run_id", "step", "at", "value"])
    conflicting = distinct.loc[distinct.duplicated(["run_id", "step", "at"]), "run_id"]
    if len(conflicting):
        raise ScalingError(
            f"run {conflicting.iloc[0]} stands here twice with different losses",
            remedy="fit the folders one by one, or delete one copy",
        )
    points, runs = final_runs(table, params, flops)
    group, group_warnings = _groups(runs, options.cluster)
    points = replace(points, group=group)
    decayed = any(config["optim"].get("schedule") == "wsd" for config in runs["config"])
    fields = _nuisance_fields(sweeps)
    keep, warnings = _best_of_nuisance(runs, fields)
    if fields:  # each seed keeps its own best: seeds differ in the lowest loss, however reached
        points = replace(
            points, cell=np.unique(_cells(runs, ("seed", *fields)), return_inverse=True)[1]
        )
    reason = "not the best of its nuisance axes"
    evaluations = curves(table, params, flops)
    return Source(
        points.take(keep, reason),
        evaluations=evaluations,
        curves=None if decayed else evaluations,
        runs=runs.iloc[keep].reset_index(drop=True),
        warnings=(*group_warnings, *warnings),
    )


def _groups(
    runs: pd.DataFrame, cluster: str | None
) -> tuple[np.ndarray | None, list[ResultWarning]]:
    """Labels of runs that share noise: a column, or the prefix that `wsd` budgets branch off. None
    when nothing is shared.
    """
    if cluster is not None and cluster != "prefix":
        if cluster not in runs.columns or cluster == "config":
            raise unknown_choice("column", cluster, ["prefix", *runs.columns], where="--cluster")
        return runs[cluster].astype(str).to_numpy(str), []
    if cluster is None and not all(
        config["optim"].get("schedule") == "wsd" for config in runs["config"]
    ):
        return None, []
    prefixes = np.array([_key(config, ("n_steps", "evals")) for config in runs["config"]])
    count = len(set(prefixes))
    if cluster is None and count < MIN_PREFIXES and count < len(prefixes):
        message = (
            f"the runs branch off {count} shared prefixes, too few to resample whole: intervals "
            "may be too narrow"
        )
        few = warn(WarningCode.FEW_PREFIXES, message, prefixes=count, runs=len(prefixes))
        return None, [few]
    return prefixes if cluster or count < len(prefixes) else None, []


def _key(config: dict[str, Any], without: Sequence[str]) -> str:
    kept = {
        name: value
        for name, value in flatten(config)
        if not {name, name.split(".")[0]} & set(without)
    }
    return json.dumps(kept, sort_keys=True)


def _nuisance_fields(sweeps: Sequence[Path]) -> list[str]:
    """The fields of nuisance axes, and those that the cells of a list set for themselves (grid
    values of `scaling tune`).
    """
    loaded = [load_sweep(path) for path in sweeps if path.exists()]
    axes = {
        axis.field
        for sweep in loaded
        for axis in sweep.axes
        if axis.role == "nuisance" and len(axis.values) > 1
    }
    lists = [sweep.design for sweep in loaded if isinstance(sweep.design, ListDesign)]
    return sorted(
        axes | {field for design in lists for cell in design.cells for field in cell.settings}
    )


def _cells(runs: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    """What tells runs apart that differ in more than some (dotted) fields; batches may differ at
    the same D, up to whole steps.
    """
    if "batch_size" not in fields:
        return [_key(config, fields) for config in runs["config"]]
    cells = [_key(config, (*fields, "n_steps")) for config in runs["config"]]
    return [
        f"{cell} {round(4 * np.log2(tokens))}"
        for cell, tokens in zip(cells, runs["tokens"], strict=True)
    ]


def _best_of_nuisance(
    runs: pd.DataFrame, fields: Sequence[str]
) -> tuple[np.ndarray, list[ResultWarning]]:
    """Indices of the run with the lowest loss in each cell of N, D and seed, and a warning for
    optima at an axis' edge.
    """
    if not fields:
        return np.arange(len(runs)), []
    cells = pd.Series(_cells(runs, fields))
    best = np.sort(runs["value"].groupby(cells).idxmin().to_numpy())
    settings = pd.DataFrame([dict(flatten(config)) for config in runs["config"]])
    warnings = []
    for name in fields:
        by_cell = settings[name].groupby(cells)
        ends = pd.DataFrame({how: by_cell.transform(how) for how in ("min", "max", "nunique")})
        is_end = settings[name].eq(ends["min"]) | settings[name].eq(ends["max"])
        edge = int((is_end & (ends["nunique"] > 2))[best].sum())
        if edge:
            message = (
                f"the best {name} lies at the end of its axis in {edge} of {len(best)} cells: "
                "widen the axis"
            )
            warnings.append(
                warn(WarningCode.GRID_EDGE, message, field=name, at_edge=edge, cells=len(best))
            )
    return best, warnings


def curves(
    table: pd.DataFrame, params: NConvention = "with_head", flops: FlopsConvention = "exact"
) -> Points:
    """Every finite validation loss after step 0, N and C under a convention; `group` is the run."""
    is_loss = (table["split"] == "val") & (table["metric"] == "loss")
    losses = table[is_loss & (table["step"] > 0) & np.isfinite(table["value"])]
    counted = counted_runs(losses, params, flops)
    costs = {run_id: (run.n, run.c / run.config.tokens) for run_id, run in counted.items()}
    n, cost = np.array([costs[each] for each in losses["run_id"]], float).reshape(-1, 2).T
    d = losses["tokens"].to_numpy(float)
    return Points(
        loss=losses["value"].to_numpy(float),
        n=n,
        d=d,
        c=cost * d,
        group=losses["run_id"].to_numpy(str),
        convention={"params": params, "flops": flops},
    )
