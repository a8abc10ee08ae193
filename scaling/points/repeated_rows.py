"""Rows that are not one run each: copies, checkpoints, hyper-parameter sweeps; what is left out is
always counted and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.points.columns import column_named, last_name
from scaling.points.table_rows import TableRows
from scaling.units import word_set
from scaling.warning import WarningCode

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
PERCENT = re.compile(r"[-_/@: ]\d+(\.\d+)?(%|pct|percent)", re.I)  # of a run, or of the data
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


def drop_copies(rows: TableRows) -> None:
    """Leave out rows equal to an earlier one in every column; where the columns used hold 6 digits
    and more, in every column but those that number the rows.
    """
    texts, used = rows.table.astype(str), set(rows.used.values())
    counts = dict(texts.nunique())
    if any(texts[name].str.len().min() > 6 for name in used):
        texts = texts[[n for n in texts if n in used or counts[n] < len(texts)]]
    again = texts.duplicated()
    if count := int(again.sum()):
        message = f"{count} of {len(texts)} rows are exact copies of others: one of each is used"
        rows.warn(WarningCode.REPEATED_ROWS, message, rows=count)
    rows.keep(~again, "exact copy of another row")


def keep_last_of_runs(rows: TableRows, rule: str = "auto") -> None:
    """Keep the last row of each run, where several rows are one run's.

    A column names runs where it is called so, where its names end in a step, or where it parts the
    rows of one size into runs that end at different places. Rows without names are runs by the
    order in the table, or by the steps of one N and D. `rule` is `all` for no such reduction, and
    `last` where the order alone decides. Raises ScalingError for a `run_id` that stands twice with
    different numbers at the same place.
    """
    if rule == "all":
        return
    table, numbers = rows.table, rows.numbers
    step, sure = column_named(table, STEP_NAMES), column_named(table, RUN_NAMES)
    clock = pd.to_numeric(table[step], errors="coerce").to_numpy(float) if step else None
    sizes = group_within_1_percent(numbers["N"]) if "N" in numbers else np.zeros(len(table), int)
    named = [name for name in rows.free if RUN_WORDS & set(last_name(name).split("_"))]
    others = [
        name
        for name in rows.free
        if sizes.max() + 1 < table[name].nunique() <= len(table) / 2
        and not SWEPT.fullmatch(last_name(name))
        and last_name(name) not in SEED_NAMES | STEP_NAMES
    ]
    first = [sure] if sure in rows.free else []
    for label in dict.fromkeys([*first, *named, *others]):
        written = table[label].astype(str).to_numpy(str)
        runs = pd.Series(written).str.replace(CHECKPOINT, "", regex=True).to_numpy(str)
        repeats = pd.Series(runs).duplicated(keep=False).to_numpy() & (runs != "")
        is_sure = label == sure or (runs != written).any()
        shares = pd.Series(runs).str.replace(PERCENT, "", regex=True)
        if shares.nunique() < len(set(runs)) and shares.nunique() > sizes.max() + 1:
            runs, is_sure = shares.to_numpy(str), False
            repeats = shares.duplicated(keep=False).to_numpy() & (runs != "")
        if label == sure and not repeats.any():
            return  # a row a run
        for order in (numbers.get("D"), clock, numbers.get("C")):
            each = pd.DataFrame({"run": runs, "size": sizes, "order": order})[repeats].dropna()
            if each.empty or each[["run", "order"]].duplicated().any():
                continue
            ends = _ends(each)
            are_runs = is_sure or (
                len(ends) > ends["size"].nunique() and not ends[["size", "end"]].duplicated().any()
            )
            if ends["rows"].max() > 1 and ends["sizes"].max() < 2 and are_runs:
                alone = np.flatnonzero(~repeats)
                why = f"column {label!r} has"
                _keep_last(rows, ends, why, repr(label), alone, column=label)
                return
        if last_name(sure) == last_name(label) == "run_id" and is_sure and repeats.any():
            row = int(np.flatnonzero(pd.Series(runs).duplicated().to_numpy() & repeats)[0])
            before = int(np.flatnonzero(runs == runs[row])[0])
            raise ScalingError(
                f"run_id {runs[row][:40]!r} stands in rows {table.index[before] + 1} and "
                f"{table.index[row] + 1} with different numbers",
                remedy="keep one row for each run, or rename the column",
            )
    if "D" in numbers and "N" in numbers and len(table) >= MIN_CHECKPOINTS:
        _keep_last_of_unnamed_runs(rows, clock, sizes, rule)


def _ends(rows: pd.DataFrame) -> pd.DataFrame:
    """The place and position of the last row of each run, its size, and how many sizes and rows."""
    return rows.groupby("run").agg(
        last=("order", "idxmax"),
        end=("order", "max"),
        size=("size", "first"),
        sizes=("size", "nunique"),
        rows=("order", "size"),
    )


def _keep_last(
    rows: TableRows,
    ends: pd.DataFrame,
    why: str,
    of: str,
    alone: Iterable[int] = (),
    **data: str,
) -> None:
    keep = np.zeros(len(rows.table), bool)
    keep[[*ends["last"], *alone]] = True
    count, kept = int(ends["rows"].median()), int(keep.sum())
    message = (
        f"{why} {count} rows per run: {kept} of {len(keep)} rows are used, the last of each run (a "
        "checkpoint's loss is not that of a finished run; --checkpoints all uses all)"
    )
    numbers = {"rows_per_run": count, "used": kept, "rows": len(keep)}
    rows.warn(WarningCode.REPEATED_ROWS, message, **data, **numbers)
    rows.keep(keep, f"not the last row of its run ({of})")


def _keep_last_of_unnamed_runs(
    rows: TableRows, clock: np.ndarray | None, sizes: np.ndarray, rule: str
) -> None:
    """Keep the last rows of runs that no column names.

    Steps that grow at one N and D, while the loss falls, are those of one run, whose tokens are
    planned. Rows of one N that follow each other with more and more tokens, equally spaced, and
    start again to end elsewhere, are runs: a grid of finished runs ends every row of sizes at the
    same tokens. Where nothing starts again, equal spacing alone is only warned about.
    """
    table, tokens, loss = rows.table, rows.numbers["D"], rows.numbers["L"]
    cells = _cells([sizes, group_within_1_percent(tokens)])
    swept = [name for name in map(str, table.columns) if SWEPT.fullmatch(last_name(name))]
    is_swept = any(table[name].astype(str).groupby(cells).nunique().max() > 1 for name in swept)
    if clock is not None and not is_swept and not np.isnan(clock).any():
        each = pd.DataFrame({"run": cells, "size": sizes, "order": clock})
        ends, starts = _ends(each), each.groupby("run")["order"].idxmin()
        falls = loss[ends["last"]] < loss[starts]
        if not each[["run", "order"]].duplicated().any() and falls.mean() > 0.8:
            why = "rows of one N and D differ in steps:"
            _keep_last(rows, ends, why, "N and D")
            return
    begins = (np.diff(sizes, prepend=-1) != 0) | (np.diff(tokens, prepend=np.inf) <= 0)
    each = pd.DataFrame({"run": np.cumsum(begins), "size": sizes, "order": tokens})
    ends = _ends(each)
    is_spaced, is_log_spaced = (
        (gaps["max"] - gaps["min"] < 0.05 * gaps["max"]) & (ends["rows"] > 2)
        for order in (each["order"], np.log(each["order"]))
        for gaps in [order.diff().mask(begins).groupby(each["run"]).agg(["min", "max"])]
    )
    restarts = len(ends) > 1.2 * ends["size"].nunique()
    places = [ends["size"].to_numpy(), group_within_1_percent(ends["end"].to_numpy())]
    ends_differ = len(np.unique(_cells(places))) == len(ends)
    falls = loss[ends["last"]] < loss[np.flatnonzero(begins)]
    spaced, log_spaced = (
        int(ends.loc[x & falls, "rows"].sum()) for x in (is_spaced, is_log_spaced)
    )
    if rule == "last" or (restarts and ends_differ and spaced >= 0.8 * len(table)):
        why = "rows of one N that start again in tokens are runs:"
        _keep_last(rows, ends, why, "by N and D")
        return
    is_long, half = ends["rows"] >= MIN_CHECKPOINTS, max(MIN_CHECKPOINTS, len(table) / 2)
    starts_again = restarts and ends_differ and log_spaced >= half
    if ends.loc[is_spaced & is_long, "rows"].sum() >= half or starts_again:
        spaced = max(spaced, log_spaced * starts_again)
        message = (
            f"{spaced} of {len(table)} rows are equally spaced in tokens (or their logarithm) at "
            "one N, as checkpoints of one run are, and no column names runs: all are used. If they "
            f"are checkpoints, give --checkpoints last ({len(ends)} runs); if they are finished "
            "runs, --checkpoints all"
        )
        rows.warn(WarningCode.REPEATED_ROWS, message, rows=spaced)


def group_within_1_percent(values: np.ndarray) -> np.ndarray:
    """Labels of values that lie within 1 % of the smallest of their group."""
    labels, label, start = np.zeros(len(values), int), -1, -np.inf
    logs = np.log(np.maximum(values, 1e-300))
    for position in np.argsort(values, kind="stable"):
        if logs[position] - start > SAME_CELL:
            label, start = label + 1, logs[position]
        labels[position] = label
    return labels


def _cells(labels: Sequence[np.ndarray]) -> np.ndarray:
    """A number for each row, the same for rows that share all labels."""
    table = pd.DataFrame(dict(enumerate(labels)))
    return table.groupby(list(table.columns), sort=False).ngroup().to_numpy()


def seed_column(table: pd.DataFrame) -> str | None:
    """The column of seeds, where it has several values."""
    names = (str(name) for name in table.columns if last_name(name) in SEED_NAMES)
    return next((name for name in names if table[name].nunique() > 1), None)


def keep_best_of_cells(rows: TableRows, mixed: Sequence[str]) -> None:
    """Keep the lowest loss of each cell (one N, D, ... and seed) where hyper-parameters vary within
    cells.

    Where rows of a cell differ in nothing that is known, or in data (the columns `mixed`), all are
    kept as repeated runs, and that is said.
    """
    table, numbers = rows.table, rows.numbers
    inputs = [name for name in numbers if name not in ("L", "W", "SE", "Y", "X")]
    if not {"N", "C"} & set(inputs):
        return
    labels, seed = [group_within_1_percent(numbers[name]) for name in inputs], seed_column(table)
    cell = _cells(labels if seed is None else [*labels, table[seed].astype(str).to_numpy(str)])
    counts = np.bincount(cell)
    several = int((counts > 1).sum())
    if not several:
        return
    texts = table[rows.free].astype(str)
    inside = texts.groupby(cell).nunique().max()
    free = [name for name in rows.free if inside[name] > 1]
    factors = [name for name in free if 2 * texts[name].nunique() <= len(table)]
    varying = [
        name
        for name in free
        if SWEPT.fullmatch(last_name(name))
        or (name in factors and SWEPT_WORDS & set(last_name(name).split("_")))
    ]
    each = int(np.median(counts[counts > 1]))
    data = {"cells": several, "rows_per_cell": each, "columns": varying}
    what = f"{several} of {len(counts)} cells of equal {' and '.join(inputs)} hold {each} rows"
    if varying:
        best = np.zeros(len(table), bool)
        best[pd.Series(numbers["L"]).groupby(cell).idxmin()] = True
        numeric = {n: pd.to_numeric(table[n], errors="coerce") for n in factors if n not in varying}
        varying += [name for name, values in numeric.items() if values.notna().all()]
        vary = f"{' and '.join(map(repr, varying))} {'vary' if len(varying) > 1 else 'varies'}"
        message = (
            f"{vary}: {what}; the best of each cell is used, {int(best.sum())} of {len(table)} "
            "rows (the lowest of several noisy losses lies below their mean; at the end of a grid "
            "it is not an optimum)"
        )
        rows.warn(WarningCode.HYPERPARAMETERS_VARY, message, **data)
        rows.keep(best, f"not the best of its cell ({vary})")
    elif several > 2 and 5 * several >= len(counts) and not set(mixed) & set(free):
        differing = f" that differ in {' and '.join(map(repr, factors[:4]))}"
        message = f"{what}{differing if factors else ', and no column says why'}: all are used"
        rows.warn(WarningCode.REPEATED_ROWS, message, **data)


def is_curve(table: pd.DataFrame) -> bool:
    """Whether the rows are steps of one run: they grow, and no column names runs."""
    step, run = column_named(table, STEP_NAMES), column_named(table, RUN_NAMES)
    if step is None or (run is not None and table[run].nunique() > 1):
        return False
    steps = pd.to_numeric(table[step], errors="coerce").dropna()
    return len(steps) >= MIN_CHECKPOINTS and steps.is_monotonic_increasing and steps.nunique() > 1
