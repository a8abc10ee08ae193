"""The runs of this program as points: N and C under any convention, nuisance axes minimised,
curves, and shared prefixes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling import accounting
from scaling.config import (
    FlopsConvention,
    ListDesign,
    NConvention,
    RunConfig,
    SyntheticTask,
    TaskConfig,
    TextTask,
)
from scaling.config.model import ModelConfig, differing_parts
from scaling.config.sweep_file import load_run, load_sweep
from scaling.errors import ScalingError, unknown_choice
from scaling.formatting import flatten
from scaling.points.points import Points, Source, SourceOptions
from scaling.store import run_files
from scaling.store.rows import DIVERGED, SEED
from scaling.warning import ResultWarning, WarningCode, warn

MIN_PREFIXES = 10  # fewer clusters than this cannot be resampled


def read_runs(
    parts: Sequence[pd.DataFrame], folders: Sequence[Path], options: SourceOptions
) -> Source:
    """Everything that a fit asks of the rows of results folders, nuisance axes minimised.

    With the schedule `wsd` a run's loss falls in its cooldown only: its evaluations are no
    `curves`, which compete with finished runs. Raises ScalingError.
    """
    if options.columns:
        raise ScalingError(
            "--columns is for foreign tables; a results folder has its own",
            remedy="use --params and --flops",
        )
    if options.checkpoints == "all":
        raise ScalingError(
            "--checkpoints is for foreign tables; of a results folder each run's end is used",
            remedy="leave it out",
        )
    params, flops = options.params, options.flops
    table = pd.concat(parts, ignore_index=True)
    excluded: dict[str, int] = {}
    warnings: list[ResultWarning] = []
    corrupt, unplanned, unfinished = (
        [each for part in parts for each in part.attrs.get(name, ())]
        for name in ("corrupt", "unplanned", "unfinished")
    )
    for file in corrupt:
        message = f"{file}; its run is left out, and `scaling run` retrains it"
        warnings.append(warn(WarningCode.CORRUPT_FILE, message, file=str(file)))
    if count := len(unplanned):
        message = f"{count} finished runs are left out: the folder's plan no longer asks for them"
        warnings.append(warn(WarningCode.UNPLANNED_RUNS, message, runs=count))
    if count := len(unfinished):
        planned = count + table["run_id"].nunique()
        message = f"{count} of {planned} planned runs are not trained: `scaling run` trains them"
        warnings.append(warn(WarningCode.UNFINISHED_SWEEP, message, runs=count))
    excluded |= {"no longer in the plan": len(unplanned), "in a corrupt file": len(corrupt)}
    if options.eval_set:
        table = losses_of_eval_set(table, options.eval_set)
    if options.where:
        from scaling.points.row_filter import select_rows

        kept = table[select_rows(options.where, {str(name): table[name] for name in table})]
        count = table["run_id"].nunique() - kept["run_id"].nunique()
        table, excluded[f"--where {options.where}"] = kept, count
    points, runs = _final_points(table, params, flops)
    if names := [name for name in variant_fields(table) if name not in options.inputs]:
        message = (
            f"the runs differ in {', '.join(names)}, which one law of N and D does not span: fit "
            "each kind by itself (--where)"
        )
        warnings.append(warn(WarningCode.MIXED_DATA, message, columns=names))
    group, few = _shared_noise(runs, options.cluster)
    texts = [text for text in map(run_files.planned_text, folders) if text is not None]
    if texts and points.d is not None:
        passes = float(points.d.max()) / max(text.train_tokens for text in texts)
        if passes > 1:
            message = (
                f"the largest run reads the text {passes:.3g} times, and the laws count every "
                "token as new"
            )
            warnings.append(warn(WarningCode.REPEATED_DATA, message, passes=passes))
    warnings += few
    fields = _nuisance_fields([folder / "sweep.toml" for folder in folders])
    points = replace(
        points,
        group=group,
        excluded=(*((why, n) for why, n in excluded.items() if n), *points.excluded),
    )
    keep = np.arange(len(runs))
    if fields:  # each seed keeps its own best: seeds differ in the lowest loss, however reached
        cell = np.unique(_cells(runs, ("seed", *fields)), return_inverse=True)[1]
        points = replace(points, cell=cell)
        keep, at_edge = _best_of_nuisance(runs, fields)
        warnings += at_edge
    models = {name: table[name].unique() for name in ("vocab_size", "seq_len")}
    evaluations = curves(table, params, flops)
    decayed = any(config["optim"].get("schedule") == "wsd" for config in runs["config"])
    return Source(
        points.take(keep, "not the best of its nuisance axes"),
        folders=tuple(folders),
        evaluations=evaluations,
        curves=None if decayed else evaluations,
        runs=runs.iloc[keep].reset_index(drop=True),
        notes=(f"losses on the evaluation set {options.eval_set}",) if options.eval_set else (),
        warnings=tuple(warnings),
        model={name: int(values[0]) for name, values in models.items() if len(values) == 1},
    )


def losses_of_eval_set(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows with the losses on an evaluation set in place of those on the held-out split."""
    names = [split.removeprefix("val:") for split in table["split"].unique()]
    names = sorted(set(names) - {"train", "val"})
    if name not in names:
        raise unknown_choice("evaluation set", name, names, where="--eval-set")
    table = table[table["split"] != "val"]
    return table.assign(split=table["split"].replace(f"val:{name}", "val"))


def points(
    table: pd.DataFrame, params: NConvention = "with_head", flops: FlopsConvention = "exact"
) -> Points:
    """The final validation loss of each run of a results table, N and C recomputed from `config`
    under a convention.

    Where a run's corpus was limited, `others` holds the unique tokens U of every run, which are D
    for a run without a limit. Nuisance axes are not minimised here. Raises ScalingError when the
    table mixes corpora or tasks, or holds no loss.
    """
    return _final_points(table, params, flops)[0]


def _final_points(
    table: pd.DataFrame, params: NConvention, flops: FlopsConvention
) -> tuple[Points, pd.DataFrame]:
    """The points of the runs, and the row of each final loss with `config` as a dictionary."""
    losses = table[(table["split"] == "val") & (table["metric"] == "loss")]
    distinct = losses.drop_duplicates(["run_id", "step", "at", "value"])
    conflicting = distinct.loc[distinct.duplicated(["run_id", "step", "at"]), "run_id"]
    if len(conflicting):
        raise ScalingError(
            f"run {conflicting.iloc[0]} stands here twice with different losses",
            remedy="fit the folders one by one, or delete one copy",
        )
    runs = _counted_runs(table, params, flops)
    check_same_origin(runs["run"])
    corpora = sorted({data_id(run.task) for run in runs["run"]})
    if len(corpora) > 1:
        raise ScalingError(
            f"the runs were trained on {len(corpora)} different corpora or tasks: "
            f"{', '.join(corpora)[:120]}",
            remedy="losses on different data do not compare: fit each folder by itself, or use "
            "--where",
        )
    ended = runs[~runs["run_id"].isin(table.loc[table["metric"] == DIVERGED, "run_id"])]
    last = losses.drop_duplicates(["run_id", "step"], keep="last")
    final = ended.merge(last, on=["run_id", "step"])
    is_loss = np.isfinite(final["value"]) & (final["value"] > 0)
    excluded = {
        "diverged": len(runs) - len(ended),
        "no final validation loss": len(ended) - len(final),
        "loss not finite and positive": int((~is_loss).sum()),
    }
    final = final[is_loss]
    if final.empty:
        raise ScalingError(
            "no run has a finite final validation loss", remedy="see failures/ for the reasons"
        )
    names = ("value", "n", "d", "c", "unique")
    loss, n, d, c, unique = (final[name].to_numpy(float) for name in names)
    is_limited = not runs["unique"].isna().all()
    result = Points(
        *(loss, n, d, c),
        cell=np.unique(final["cell"].to_numpy(str), return_inverse=True)[1],
        others={"U": np.where(np.isnan(unique), d, unique)} if is_limited else {},
        convention={"params": params, "flops": flops},
        excluded=tuple((why, count) for why, count in excluded.items() if count),
    )
    configs = [json.loads(text) for text in final["config"]]
    return result, final[list(table.columns)].assign(config=configs).reset_index(drop=True)


def curves(
    table: pd.DataFrame, params: NConvention = "with_head", flops: FlopsConvention = "exact"
) -> Points:
    """Every finite validation loss after step 0, N and C under a convention; `group` is the run."""
    is_loss = (table["split"] == "val") & (table["metric"] == "loss")
    losses = table[is_loss & (table["step"] > 0) & np.isfinite(table["value"])]
    runs = _counted_runs(losses, params, flops).set_index("run_id").loc[losses["run_id"]]
    d = losses["tokens"].to_numpy(float)
    return Points(
        loss=losses["value"].to_numpy(float),
        n=runs["n"].to_numpy(float),
        d=d,
        c=(runs["c"] / runs["d"]).to_numpy(float) * d,
        group=losses["run_id"].to_numpy(str),
        convention={"params": params, "flops": flops},
    )


def _counted_runs(table: pd.DataFrame, params: NConvention, flops: FlopsConvention) -> pd.DataFrame:
    """The runs of a results table in order of run_id: the `run`, its last `step`, N, D, C and its
    `unique` tokens (NaN: no limit). Those that differ in their seed alone share the text `cell`,
    and are read once.
    """
    runs = table[["run_id", "config"]].drop_duplicates("run_id").sort_values("run_id")
    cells: dict[str, tuple[Any, ...]] = {}
    for run_id, text in zip(runs["run_id"], runs["config"], strict=True):
        cell = SEED.sub("", text)
        if cell not in cells:
            run = load_run(text, f"run {run_id}")
            n = accounting.n_params(run.model, run.task.seq_len, params)
            c = accounting.train_flops(run.model, run.task.seq_len, run.tokens, flops)
            cells[cell] = (cell, run, run.n_steps, n, run.tokens, c, _unique_tokens(run))
    counted = [cells[SEED.sub("", text)] for text in runs["config"]]
    names = ["cell", "run", "step", "n", "d", "c", "unique"]
    return pd.DataFrame(counted, columns=names).assign(run_id=runs["run_id"].to_numpy())


def _unique_tokens(run: RunConfig) -> float:
    """The unique tokens of a run on a limited corpus, in whole windows as training reads them; NaN
    without a limit.
    """
    if not isinstance(run.task, TextTask) or run.task.unique_tokens is None:
        return np.nan
    return min(run.task.unique_tokens // run.task.seq_len * run.task.seq_len, run.tokens)


def data_id(task: TaskConfig) -> str:
    """What runs must share for their losses to compare: the digest of a corpus, whatever the limit,
    or the language.
    """
    if isinstance(task, SyntheticTask):
        return (
            f"synthetic ({task.n_facts} facts, zipf {task.zipf:g}, {task.n_symbols} symbols, "
            f"data_seed {task.data_seed})"
        )
    if isinstance(task, TextTask):
        return task.digest or task.kind
    return f"{task.kind} {task.canonical()}"


def variant_fields(table: pd.DataFrame) -> tuple[str, ...]:
    """The parts of the architecture in which the runs of a results table differ."""
    by_model = {text.partition('"task":')[0]: text for text in table["config"].unique()}
    models = (json.loads(text)["model"] for text in by_model.values())
    return differing_parts(map(ModelConfig.model_validate, models))


def check_same_origin(configs: Iterable[RunConfig]) -> None:
    """Raise ScalingError where simulated runs stand next to real ones, or to those of another
    simulated law.
    """
    origins = Counter(f"simulated from {run.simulated}" * bool(run.simulated) for run in configs)
    if len(origins) > 1:
        counts = [f"{count:,} {law or 'trained'}" for law, count in sorted(origins.items())]
        raise ScalingError(
            f"the table mixes runs of different origins: {', '.join(counts)}",
            remedy="losses of a law and losses of a training do not compare: keep each simulation "
            "in a folder of its own (--out DIR)",
        )


def _shared_noise(
    runs: pd.DataFrame, cluster: str | None
) -> tuple[np.ndarray | None, list[ResultWarning]]:
    """Labels of runs that share noise: a column, or the prefix that `wsd` budgets branch off. None
    when nothing is shared.
    """
    if cluster is not None and cluster != "prefix":
        if cluster not in runs.columns or cluster == "config":
            raise unknown_choice(
                "column", cluster, ["prefix", *runs.columns.drop("config")], where="--cluster"
            )
        return runs[cluster].astype(str).to_numpy(str), []
    if cluster is None and not all(
        config["optim"].get("schedule") == "wsd" for config in runs["config"]
    ):
        return None, []
    prefixes = np.array(_cells(runs, ("n_steps", "evals")))
    count = len(set(prefixes))
    if cluster is None and count < MIN_PREFIXES and count < len(prefixes):
        message = (
            f"the runs branch off {count} shared prefixes, too few to resample whole: intervals "
            "may be too narrow"
        )
        few = warn(WarningCode.FEW_PREFIXES, message, prefixes=count, runs=len(prefixes))
        return None, [few]
    return prefixes if cluster or count < len(prefixes) else None, []


def _cells(runs: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    """What tells runs apart that differ in more than some (dotted) fields or tables; batches may
    differ at the same D, up to whole steps.
    """
    is_batch = "batch_size" in fields
    ignored, cells = {*fields, "n_steps"} if is_batch else set(fields), []
    for config, tokens in zip(runs["config"], runs["tokens"], strict=True):
        leaves = {k: v for k, v in flatten(config) if not {k, k.split(".")[0]} & ignored}
        amount = f" {round(4 * np.log2(tokens))}" if is_batch else ""
        cells.append(json.dumps(leaves, sort_keys=True) + amount)
    return cells


def _nuisance_fields(sweeps: Iterable[Path]) -> list[str]:
    """The fields of nuisance axes, and those that the cells of a list set for themselves (grid
    values of `scaling tune`).
    """
    fields: set[str] = set()
    for sweep in [load_sweep(path) for path in sweeps if path.exists()]:
        nuisance = (axis for axis in sweep.axes if axis.role == "nuisance" and len(axis.values) > 1)
        fields |= {axis.field for axis in nuisance}
        if isinstance(sweep.design, ListDesign):
            fields |= {field for cell in sweep.design.cells for field in cell.settings}
    return sorted(fields)


def _best_of_nuisance(
    runs: pd.DataFrame, fields: Sequence[str]
) -> tuple[np.ndarray, list[ResultWarning]]:
    """Indices of the run with the lowest loss in each cell of N, D and seed, and a warning for
    optima at an axis' edge.
    """
    cells = pd.Series(_cells(runs, fields))
    best = np.sort(runs["value"].groupby(cells).idxmin().to_numpy())
    settings = pd.DataFrame([dict(flatten(config)) for config in runs["config"]])
    warnings = []
    for name in fields:
        by_cell, values = settings[name].groupby(cells), settings[name]
        is_end = values.eq(by_cell.transform("min")) | values.eq(by_cell.transform("max"))
        at_edge = int((is_end & (by_cell.transform("nunique") > 2))[best].sum())
        if at_edge:
            message = (
                f"the best {name} lies at the end of its axis in {at_edge} of {len(best)} cells: "
                "widen the axis"
            )
            data = {"field": name, "at_edge": at_edge, "cells": len(best)}
            warnings.append(warn(WarningCode.GRID_EDGE, message, **data))
    return best, warnings
