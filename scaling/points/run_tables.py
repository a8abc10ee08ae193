"""The runs of this program as points: all conventions side by side, nuisance axes minimised,
curves, and shared prefixs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling import accounting
from scaling.config import FlopsConvention, ListDesign, NConvention
from scaling.config.sweep_file import load_run, load_sweep
from scaling.errors import ScalingError, unknown_choice
from scaling.points.points import Points, cached_run_loader
from scaling.points.points import points as points_of
from scaling.store import rows
from scaling.warning import ResultWarning, WarningCode

MIN_PREFIXES = 10  # fewer clusters than this cannot be resampled


def is_rows(table: pd.DataFrame) -> bool:
    """Whether a table has this program's row schema."""
    return {"run_id", "metric", "value", "split", "step", "config"} <= set(table.columns)


@dataclass(frozen=True)
class RunTables:
    """A results table as points, the same by Kaplan's counting, and every evaluation of every run
    (`evaluations`).

    `curves` are those evaluations where they compete with finished runs; with the schedule `wsd` a
    run's loss falls in its cooldown only, and they do not. `runs` holds one row a point, in their
    order, with its configuration as a dictionary, and `diverged` one row for each run that
    diverged, at the step where it did.
    """

    points: Points
    kaplan: Points
    evaluations: Points
    curves: Points | None
    runs: pd.DataFrame
    diverged: pd.DataFrame
    warnings: list[ResultWarning]


def assemble(
    table: pd.DataFrame,
    sweeps: Sequence[Path],
    params: NConvention,
    flops: FlopsConvention,
    cluster: str | None,
) -> RunTables:
    """Everything that a fit asks of a results table, nuisance axes minimised. Raises
    ScalingError.
    """
    _check_repeats(table)
    points = points_of(table, params, flops)
    runs = _aligned(table, points)
    group, group_warnings = _groups(runs, cluster)
    points = replace(points, group=group)
    kaplan = _with_kaplan_counts(points, runs)
    decayed = any(config["optim"].get("schedule") == "wsd" for config in runs["config"])
    fields = _nuisance_fields(sweeps)
    keep, warnings = _best_of_nuisance(runs, fields)
    if fields:  # each seed keeps its own best: seeds differ in the lowest loss, however reached
        points = replace(
            points, cell=np.unique(_cells(runs, ("seed", *fields)), return_inverse=True)[1]
        )
    reason = "not the best of its nuisance axes"
    evaluations = curves(table, params, flops)
    return RunTables(
        points.take(keep, reason),
        kaplan.take(keep, reason),
        evaluations,
        None if decayed else evaluations,
        runs.iloc[keep].reset_index(drop=True),
        _diverged(table, params),
        [*group_warnings, *warnings],
    )


def _diverged(table: pd.DataFrame, params: NConvention) -> pd.DataFrame:
    """One row for each run that diverged: its columns where it did, its configuration as a
    dictionary, N (`n`) and D (`d`) as planned.
    """
    gone = table[table["metric"] == rows.DIVERGED].drop_duplicates("run_id").reset_index(drop=True)
    planned = [
        load_run(text, f"run {run_id}")
        for run_id, text in zip(gone["run_id"], gone["config"], strict=True)
    ]
    n = [accounting.n_params(run.model, run.task.seq_len, params) for run in planned]
    return gone.assign(
        config=[json.loads(text) for text in gone["config"]], n=n, d=[run.tokens for run in planned]
    )


def _with_kaplan_counts(points: Points, runs: pd.DataFrame) -> Points:
    """The same points with N without embeddings and C = 6 N D (Kaplan 2020, section 2.1)."""
    n = runs["n_params_nonembedding"].to_numpy(float)
    d = np.asarray(points.d, float)
    return replace(
        points, n=n, c=6.0 * n * d, convention={"params": "nonembedding", "flops": "kaplan"}
    )


def _check_repeats(table: pd.DataFrame) -> None:
    """One run in two folders must have one loss."""
    final = table[(table["split"] == "val") & (table["metric"] == "loss")]
    distinct = final.drop_duplicates(["run_id", "step", "at", "value"])
    twice = distinct[distinct.duplicated(["run_id", "step", "at"])]
    if len(twice):
        run_id = twice["run_id"].iloc[0]
        raise ScalingError(
            f"run {run_id} stands here twice with different losses",
            remedy="fit the folders one by one, or delete one copy",
        )


def _aligned(table: pd.DataFrame, points: Points) -> pd.DataFrame:
    """One row a run in the order of `points`, with its last loss and its configuration as a
    dictionary.
    """
    losses = table[(table["split"] == "val") & (table["metric"] == "loss")].sort_values(
        ["run_id", "step"], kind="stable"
    )
    last = losses.groupby("run_id", sort=True).tail(1).reset_index(drop=True)
    pairs = iter(zip(last.index, last["tokens"], last["value"], strict=True))
    assert points.d is not None
    chosen = [
        next(row for row, tokens, value in pairs if tokens == d and value == loss)
        for d, loss in zip(points.d, points.loss, strict=True)
    ]
    runs = last.loc[chosen].reset_index(drop=True)
    return runs.assign(config=[json.loads(text) for text in runs["config"]])


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
        return None, [
            ResultWarning(
                code=WarningCode.FEW_PREFIXES,
                message=f"the runs branch off {count} shared prefixes, too few to resample whole: "
                "intervals may be too narrow",
                data={"prefixes": count, "runs": len(prefixes)},
            )
        ]
    return prefixes if cluster or count < len(prefixes) else None, []


def _key(config: dict[str, Any], fields: Sequence[str]) -> str:
    """The configuration without some (dotted) fields, as text."""
    kept = {name: dict(part) if isinstance(part, dict) else part for name, part in config.items()}
    for name in fields:
        part, _, inner = name.partition(".")
        if inner:
            kept[part].pop(inner, None)
        else:
            kept.pop(part, None)
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
    cells = _cells(runs, fields)
    order = runs.assign(cell=cells).sort_values("value", kind="stable")
    best = np.sort(order.drop_duplicates("cell").index.to_numpy())
    warnings = []
    for name in fields:
        part, _, inner = name.partition(".")
        values = pd.Series(
            [config[part][inner] if inner else config[part] for config in runs["config"]]
        )
        ends = (
            values.groupby(pd.Series(cells))
            .agg(["min", "max", "nunique"])
            .loc[[cells[row] for row in best]]
        )
        chosen = values.loc[best].to_numpy()
        edge = int(
            (((chosen == ends["min"]) | (chosen == ends["max"])) & (ends["nunique"] > 2)).sum()
        )
        if edge:
            warnings.append(
                ResultWarning(
                    code=WarningCode.GRID_EDGE,
                    message=f"the best {name} lies at the end of its axis in {edge} of "
                    f"{len(best)} cells: "
                    "widen the axis",
                    data={"field": name, "at_edge": edge, "cells": len(best)},
                )
            )
    return best, warnings


def curves(
    table: pd.DataFrame, params: NConvention = "with_head", flops: FlopsConvention = "exact"
) -> Points:
    """Every finite validation loss after step 0, N and C under a convention; `group` is the run."""
    losses = table[
        (table["split"] == "val")
        & (table["metric"] == "loss")
        & (table["step"] > 0)
        & np.isfinite(table["value"])
    ]
    counted: dict[str, tuple[float, float]] = {}
    read = cached_run_loader(params, flops)
    for run_id, text in losses.drop_duplicates("run_id").set_index("run_id")["config"].items():
        run, n_params, whole = read(text, f"run {run_id}")
        counted[str(run_id)] = (n_params, whole / run.tokens)
    ids = losses["run_id"].to_numpy(str)
    n, cost = np.array([counted[run_id] for run_id in ids], float).reshape(-1, 2).T
    d = losses["tokens"].to_numpy(float)
    return Points(
        loss=losses["value"].to_numpy(float),
        n=n,
        d=d,
        c=cost * d,
        group=ids,
        convention={"params": params, "flops": flops},
    )


READ_OUTS = ("constant", "averaged")


def constant_lr_losses(table: pd.DataFrame, kind: str, where: str) -> pd.DataFrame:
    """The rows of a results table in which each read-out is the final loss of a run of its own that
    ends there.

    Raises ScalingError where the runs hold none.
    """
    on_validation = table[table["split"] == "val"]
    read = on_validation.loc[on_validation["metric"] == "constant_loss", ["run_id", "step"]]
    readouts = on_validation[on_validation["metric"] == f"{kind}_loss"].merge(
        read.drop_duplicates(), on=["run_id", "step"]
    )
    if readouts.empty:
        remedy = "read-outs are made where budgets share a prefix" + (
            ", with [evals] averaged = true" if kind == "averaged" else ""
        )
        raise ScalingError(
            f"holds no {kind}-weights read-outs"
            if kind == "averaged"
            else "holds no constant-rate read-outs",
            where=where,
            remedy=f"{remedy}: schedule wsd or constant, several budgets of a size",
        )
    ends = [
        _ended(config, step)
        for config, step in zip(readouts["config"], readouts["step"], strict=True)
    ]
    names = [
        f"{run_id}@{step}"
        for run_id, step in zip(readouts["run_id"], readouts["step"], strict=True)
    ]
    return readouts.assign(run_id=names, metric="loss", config=ends)


def _ended(config: str, step: int) -> str:
    """The configuration of a run that ends at a step."""
    return json.dumps(json.loads(config) | {"n_steps": int(step)})
