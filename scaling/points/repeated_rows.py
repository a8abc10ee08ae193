"""Rows that are not one run each: copies, checkpoints, hyper-parameter sweeps.

Each function returns the rows to keep (a mask over those of the table) with the reason and a
warning; what is left out is always counted and said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.points.columns import column_named, last_name
from scaling.points.run_states import Reduction
from scaling.points.units import word_set
from scaling.warning import WarningCode, warn

RUN_NAMES = word_set("run_id run run_name runid display_name trial trial_id name")
RUN_WORDS = word_set(  # may name runs
    "run id name model experiment exp trial job checkpoint ckpt path file folder dir"
)
STEP_NAMES = word_set("step steps global_step iteration iter checkpoint_step epoch")
SEED_NAMES = word_set("seed random_seed data_seed init_seed replicate repeat rep")
CHECKPOINT = re.compile(  # in a run's name
    r"([-_/@:. ]*(global_?)?(steps?|iter(ation)?|ckpt|checkpoint)[-_= ]?|@)\d+[km]?(?![a-z\d])",
    re.I,
)
SWEPT = re.compile(
    r"(peak_|max_|base_|init_|initial_)?(lr|learning_rate|eta)(_peak|_max)?|(global_|train_)?"
    r"(batch(_size|_tokens|size)?|bs|bsz|gbs|gbsz)(_tokens)?|weight_decay|wd|warmup(_\w+)?"
    r"|(adam_)?beta_?[12]|momentum|optimi[sz]er(_\w+)?|(lr_)?schedul(e|er)(_type)?|dropout"
    r"|init_(std|scale)"
    r"|label_smoothing|clip(ping)?|grad_clip|aspect_ratio|depth|width|n_layers?|d_model"
)
SWEPT_WORDS = word_set(
    "lr learning batch bs bsz gbs wd decay warmup beta1 beta2 momentum optimizer optimiser "
    "schedule scheduler dropout init smoothing clip clipping aspect depth width layers hidden "
    "heads eps epsilon"
)
SAME_CELL = 0.01  # N and D within 1 % are one cell
MIN_CHECKPOINTS = 6  # equally spaced rows of one N that look like checkpoints


def copies(table: pd.DataFrame, used: Sequence[str]) -> Reduction:
    """Rows equal to an earlier one in every column; where the columns used hold 6 digits and more,
    in every column but those that number the rows.
    """
    texts = table.astype(str)
    counts = dict(texts.nunique())
    if any(texts[name].str.len().min() > 6 for name in used):
        texts = texts[[n for n in texts if n in used or counts[n] < len(table)]]
    again = texts.duplicated().to_numpy()
    count = int(again.sum())
    message = f"{count} of {len(table)} rows are exact copies of others: one of each is used"
    warning = warn(WarningCode.REPEATED_ROWS, message, rows=count)
    return Reduction(~again, "exact copy of another row", warning if count else None)


def last_of_runs(
    table: pd.DataFrame, numbers: Mapping[str, np.ndarray], used: Sequence[str], rule: str = "auto"
) -> Reduction:
    """The last row of each run, where several rows are one run's.

    A column names runs where it is called so, where its names end in a step, or where it parts the
    rows of one size into runs that end at different places. Rows without names are runs by the
    order in the table, or by the steps of one N and D. `rule` is `all` for no such reduction, and
    `last` where the order alone decides. Raises ScalingError for a `run_id` that stands twice with
    different numbers at the same place.
    """
    everything = np.ones(len(table), bool)
    step, sure = column_named(table, STEP_NAMES), column_named(table, RUN_NAMES)
    clock = pd.to_numeric(table[step], errors="coerce").to_numpy(float) if step else None
    sizes = group_within_1_percent(numbers["N"]) if "N" in numbers else np.zeros(len(table), int)
    if rule == "all":
        return Reduction(everything)
    for label in _run_columns(table, sure, used, sizes):
        runs = table[label].astype(str).str.replace(CHECKPOINT, "", regex=True).to_numpy(str)
        repeats = pd.Series(runs).duplicated(keep=False).to_numpy() & (runs != "")
        is_sure = label == sure or (runs != table[label].astype(str)).any()
        if label == sure and not repeats.any():
            return Reduction(everything)  # a row a run
        for order in (numbers.get("D"), clock, numbers.get("C")):
            rows = pd.DataFrame({"run": runs, "size": sizes, "order": order})[repeats].dropna()
            if rows.empty or rows[["run", "order"]].duplicated().any():
                continue
            each = _ends(rows)
            are_runs = is_sure or (
                len(each) > each["size"].nunique() and not each[["size", "end"]].duplicated().any()
            )
            if each["rows"].max() < 2 or each["sizes"].max() > 1 or not are_runs:
                continue
            keep = ~repeats
            keep[each["last"]] = True
            return _last_rows(keep, each, f"column {label!r} has", repr(label), column=label)
        if last_name(sure) == last_name(label) == "run_id" and repeats.any() and label not in used:
            row = int(np.flatnonzero(pd.Series(runs).duplicated().to_numpy() & repeats)[0])
            first = int(np.flatnonzero(runs == runs[row])[0])
            raise ScalingError(
                f"run_id {runs[row][:40]!r} stands in rows {table.index[first] + 1} and "
                f"{table.index[row] + 1} with different numbers",
                remedy="keep one row for each run, or rename the column",
            )
    return _last_of_unnamed_runs(table, numbers, clock, sizes, rule)


def _run_columns(
    table: pd.DataFrame, sure: str | None, used: Sequence[str], sizes: np.ndarray
) -> list[str]:
    names = [name for name in map(str, table.columns) if name not in used]
    named = [name for name in names if RUN_WORDS & set(last_name(name).split("_"))]
    others = [
        name
        for name in names
        if sizes.max() + 1 < table[name].nunique() <= len(table) / 2
        and not SWEPT.fullmatch(last_name(name))
        and last_name(name) not in SEED_NAMES | STEP_NAMES
    ]
    return list(dict.fromkeys([sure, *named, *others] if sure in names else [*named, *others]))


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """The place and position of the last row of each run, its size, and how many sizes and rows."""
    return rows.groupby("run").agg(
        last=("order", "idxmax"),
        end=("order", "max"),
        size=("size", "first"),
        sizes=("size", "nunique"),
        rows=("order", "size"),
    )


def _last_rows(keep: np.ndarray, each: pd.DataFrame, why: str, of: str, **data: str) -> Reduction:
    count, kept = int(each["rows"].median()), int(keep.sum())
    message = (
        f"{why} {count} rows per run: {kept} of {len(keep)} rows are used, the last of each run (a "
        "checkpoint's loss is not that of a finished run; --checkpoints all uses all)"
    )
    numbers = {"rows_per_run": count, "used": kept, "rows": len(keep)}
    warning = warn(WarningCode.REPEATED_ROWS, message, **data, **numbers)
    return Reduction(keep, f"not the last row of its run ({of})", warning)


def _last_of_unnamed_runs(
    table: pd.DataFrame,
    numbers: Mapping[str, np.ndarray],
    clock: np.ndarray | None,
    sizes: np.ndarray,
    rule: str,
) -> Reduction:
    """The last rows of runs that no column names.

    Steps that grow at one N and D, while the loss falls, are those of one run, whose tokens are
    planned. Rows of one N that follow each other with more and more tokens, equally spaced, and
    start again to end elsewhere, are runs: a grid of finished runs ends every row of sizes at the
    same tokens. Where nothing starts again, equal spacing alone is only warned about.
    """
    everything = np.ones(len(table), bool)
    tokens, loss = numbers.get("D"), numbers["L"]
    if tokens is None or "N" not in numbers or len(table) < MIN_CHECKPOINTS:
        return Reduction(everything)
    cells = (
        pd.DataFrame({"n": sizes, "d": group_within_1_percent(tokens)}).groupby(["n", "d"]).ngroup()
    )
    swept = [name for name in map(str, table.columns) if SWEPT.fullmatch(last_name(name))]
    is_swept = any(table[name].astype(str).groupby(cells).nunique().max() > 1 for name in swept)
    if clock is not None and not is_swept and not np.isnan(clock).any():
        rows = pd.DataFrame({"run": cells.to_numpy(), "size": sizes, "order": clock, "loss": loss})
        each = _ends(rows)
        first = rows.loc[rows.groupby("run")["order"].idxmin(), "loss"].to_numpy()
        falls = loss[each["last"]] < first
        if not rows[["run", "order"]].duplicated().any() and falls.mean() > 0.8:
            keep = ~everything
            keep[each["last"]] = True
            return _last_rows(keep, each, "rows of one N and D differ in steps:", "N and D")
    starts = (np.diff(sizes, prepend=-1) != 0) | (np.diff(tokens, prepend=np.inf) <= 0)
    rows = pd.DataFrame({"run": np.cumsum(starts), "size": sizes, "order": tokens})
    each = _ends(rows)
    gaps = rows["order"].diff().mask(starts).groupby(rows["run"]).agg(["min", "max"])
    is_even = (gaps["max"] - gaps["min"]).to_numpy() < 0.05 * gaps["max"].to_numpy()
    is_spaced = is_even & (each["rows"] > 2).to_numpy()
    restarts = len(each) > 1.2 * each["size"].nunique()
    ends_differ = (
        not pd.DataFrame(
            {"size": each["size"], "end": group_within_1_percent(each["end"].to_numpy())}
        )
        .duplicated()
        .any()
    )
    falls = loss[each["last"]] < loss[np.flatnonzero(starts)]
    spaced = int(each.loc[is_spaced & falls, "rows"].sum())
    keep = ~everything
    keep[each["last"]] = True
    if rule == "last" or (restarts and ends_differ and spaced >= 0.8 * len(table)):
        return _last_rows(
            keep, each, "rows of one N that start again in tokens are runs:", "by N and D"
        )
    longest = each["rows"] >= MIN_CHECKPOINTS
    if each.loc[is_spaced & longest, "rows"].sum() < max(MIN_CHECKPOINTS, len(table) / 2):
        return Reduction(everything)
    message = (
        f"{spaced} of {len(table)} rows are equally spaced in tokens at one N, as checkpoints of "
        "one run are, and no column names runs: all are used. If they are checkpoints, give "
        f"--checkpoints last ({keep.sum()} runs); if they are finished runs, --checkpoints all"
    )
    return Reduction(everything, "", warn(WarningCode.REPEATED_ROWS, message, rows=spaced))


def group_within_1_percent(values: np.ndarray) -> np.ndarray:
    """Labels of values that lie within 1 % of the smallest of their group."""
    labels, label, start = np.zeros(len(values), int), -1, -np.inf
    logs = np.log(np.maximum(values, 1e-300))
    for position in np.argsort(values, kind="stable"):
        if logs[position] - start > SAME_CELL:
            label, start = label + 1, logs[position]
        labels[position] = label
    return labels


def seed_column(table: pd.DataFrame) -> str | None:
    """The column of seeds, where it has several values."""
    names = (str(name) for name in table.columns if last_name(name) in SEED_NAMES)
    return next((name for name in names if table[name].nunique() > 1), None)


def best_of_cells(
    table: pd.DataFrame,
    numbers: Mapping[str, np.ndarray],
    used: Sequence[str],
    mixed: Sequence[str],
) -> Reduction:
    """The lowest loss of each cell (one N, D, ... and seed) where hyper-parameters vary within
    cells.

    Where rows of a cell differ in nothing that is known, all are kept as repeated runs, and that is
    said.
    """
    everything = np.ones(len(table), bool)
    inputs = [name for name in numbers if name not in ("L", "W", "SE", "Y", "X")]
    if not {"N", "C"} & set(inputs):
        return Reduction(everything)
    labels = pd.DataFrame({name: group_within_1_percent(numbers[name]) for name in inputs})
    seed = seed_column(table)
    if seed is not None:
        labels["seed"] = table[seed].astype(str).to_numpy(str)
    cell = labels.groupby(list(labels.columns), sort=False).ngroup().to_numpy()
    counts = np.bincount(cell)
    several = int((counts > 1).sum())
    free = [str(name) for name in table.columns if str(name) not in used]
    texts = table[free].astype(str)
    inside = texts.groupby(cell).nunique().max() if several else pd.Series(1, free)
    factors = [n for n in free if inside[n] > 1 and 2 * texts[n].nunique() <= len(table)]
    varying = [
        name
        for name in free
        if inside[name] > 1
        and (
            SWEPT.fullmatch(last_name(name))
            or (name in factors and SWEPT_WORDS & set(last_name(name).split("_")))
        )
    ]
    rows = int(np.median(counts[counts > 1])) if several else 1
    data = {"cells": several, "rows_per_cell": rows, "columns": varying}
    what = f"{several} of {len(counts)} cells of equal {' and '.join(inputs)} hold {rows} rows"
    if varying:
        order = np.lexsort((numbers["L"], cell))
        keep = ~everything
        keep[order[np.unique(cell[order], return_index=True)[1]]] = True
        numeric = pd.DataFrame({n: pd.to_numeric(table[n], errors="coerce") for n in factors})
        varying += [n for n in factors if n not in varying and numeric[n].notna().all()]
        vary = f"{' and '.join(map(repr, varying))} {'vary' if len(varying) > 1 else 'varies'}"
        message = (
            f"{vary}: {what}; the best of each cell is used, {int(keep.sum())} of {len(table)} "
            "rows (the lowest of several noisy losses lies below their mean; at the end of a grid "
            "it is not an optimum)"
        )
        warning = warn(WarningCode.HYPERPARAMETERS_VARY, message, **data)
        return Reduction(keep, f"not the best of its cell ({vary})", warning)
    is_mixed = any(inside.get(name, 1) > 1 for name in mixed)
    if several < 3 or 5 * several < len(counts) or is_mixed:
        return Reduction(everything)
    differing = f" that differ in {' and '.join(map(repr, factors[:4]))}"
    message = f"{what}{differing if factors else ', and no column says why'}: all are used"
    return Reduction(everything, "", warn(WarningCode.REPEATED_ROWS, message, **data))


def is_curve(table: pd.DataFrame) -> bool:
    """Whether the rows are steps of one run: they grow, and no column names runs."""
    step, run = column_named(table, STEP_NAMES), column_named(table, RUN_NAMES)
    if step is None or (run is not None and table[run].nunique() > 1):
        return False
    steps = pd.to_numeric(table[step], errors="coerce").dropna()
    return len(steps) >= MIN_CHECKPOINTS and steps.is_monotonic_increasing and steps.nunique() > 1
