"""Rows that are not one finished run each: unfinished runs, copies, checkpoints, hyper-parameter
sweeps.

Each function returns the rows to keep (a mask over those of the table) with the reason and a
warning; what is left out is always counted and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.points.columns import column_named, last_name
from scaling.points.units import word_set
from scaling.warning import ResultWarning, WarningCode, warn

STATE_WORDS = word_set("state status lifecycle phase outcome completion")
FINISHED = word_set(
    "finished finish done complete completed success succeeded successful ok passed converged"
)
UNFINISHED = word_set(
    "crashed crash failed failure fail running killed preempted preempting pending queued waiting "
    "cancelled canceled aborted abort stopped timeout timed_out oom out_of_memory node_fail error "
    "errored diverged interrupted incomplete unfinished scheduled starting submitted suspended "
    "terminated deleted paused initializing in_progress evicted outlier"
)
YES, NO = word_set("1 1.0 true yes y t"), word_set("0 0.0 false no n f")
EXIT_CODE = re.compile(r"(exit|return)_?(code|status)")
RUN_NAMES = word_set("run_id run run_name runid display_name trial trial_id name")
RUN_WORDS = word_set(
    "run id name model experiment exp trial job checkpoint ckpt path file folder dir"
)  # may name runs  # may name runs
STEP_NAMES = word_set("step steps global_step iteration iter checkpoint_step epoch")
SEED_NAMES = word_set("seed random_seed data_seed init_seed replicate repeat rep")
CHECKPOINT = re.compile(
    r"([-_/@:. ]*(global_?)?(steps?|iter(ation)?|ckpt|checkpoint)[-_= ]?|@)\d+[kKmM]?$", re.I
)  # at the end of a run's name
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
DATA_WORDS = word_set(  # several values of such columns say: do not compare
    "tokenizer tokeniser unit corpus corpora dataset data mix mixture split metric source domain "
    "language lang vocab text"
)
DATA_NAMES = word_set("config train_set eval_set validation_set test_set vocab_size")
SAME_CELL = 0.01  # N and D within 1 % are one cell
MIN_CHECKPOINTS = 6  # equally spaced rows of one N that look like checkpoints


@dataclass(frozen=True)
class Reduction:
    """Rows to keep (mask), why the others are left out, and the warning about it."""

    keep: np.ndarray
    reason: str = ""
    warning: ResultWarning | None = None


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(str).str.strip().str.lower()


def run_states(table: pd.DataFrame, where: str | None) -> Iterator[Reduction]:
    """Runs that did not finish, by a column of states, of exit codes, or of yes and no, unless
    `--where` names it.

    Raises ScalingError where no run is finished.
    """
    for name in map(str, table.columns):
        if where and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", where):
            continue
        plain, column = last_name(name), table[name]
        flag = re.sub("^(is|has|was)_", "", plain)
        is_named = bool(STATE_WORDS & set(plain.split("_")))
        if flag in FINISHED | UNFINISHED and set(_texts(column)) <= {*YES, *NO, "", "nan"}:
            keep = _texts(column).isin(YES).to_numpy(bool) == (flag in FINISHED)
            yield Reduction(keep, f"marked in column {name!r}")
        elif EXIT_CODE.search(plain) and (codes := _exit_codes(column)).eq(0).any():
            yield Reduction(codes.eq(0).to_numpy(), f"ended with an error by {name!r}")
        elif is_named or _state(column.iloc[0]) in FINISHED | UNFINISHED:
            yield from _states(column, is_named)


def _exit_codes(column: pd.Series) -> pd.Series:
    return pd.to_numeric(_texts(column).str.split(":").str[0], errors="coerce")


def _state(cell: object) -> str:
    """A cell as the word of a state: `JobState.FAILED` is failed."""
    word = re.sub(r"[^\w.]+", "_", str(cell).strip().lower()).strip("_")
    return re.sub(r"^\w+\.", "", word)


def _states(column: pd.Series, is_named: bool) -> Iterator[Reduction]:
    """The finished runs by a column of states: one that is named so, or holds nothing else."""
    name, words = column.name, column.map(_state)
    is_known = words.isin(FINISHED | UNFINISHED)
    choose = f'--where "`{name}` == ..."'
    if not is_named and not (is_known.all() and words.isin(UNFINISHED).any()):
        return
    if not is_known.any():
        shown = ", ".join(repr(str(word)) for word in column.unique()[:8])
        if column.nunique() > 1:
            message = (
                f"column {name!r} holds no word that is known as a run's state ({shown}): all rows "
                f"are used; choose runs with {choose}"
            )
            yield Reduction(np.ones(len(column), bool), "", warn(WarningCode.RUN_STATE, message))
        return
    keep = words.isin(FINISHED).to_numpy(bool)
    if not keep.any():
        listed = ", ".join(sorted(map(str, column.unique()))[:8])
        raise ScalingError(
            f"column {name!r} calls no run finished: {listed}",
            remedy=f"choose the runs yourself: {choose}",
        )
    unknown = sorted(set(column[~is_known].astype(str)))
    message = (
        f"column {name!r} holds unknown states, left out as not finished: "
        f"{', '.join(map(repr, unknown[:8]))}; choose runs with {choose}"
    )
    warning = warn(WarningCode.RUN_STATE, message, column=str(name), states=unknown[:50])
    yield Reduction(keep, f"not finished by column {name!r}", warning if unknown else None)


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
    table: pd.DataFrame, numbers: Mapping[str, np.ndarray], used: Sequence[str]
) -> Reduction:
    """The last row of each run where a column of run names repeats and tokens or steps grow within
    it.

    A column that may name something else (`model`, `experiment`) names runs where its names end in
    a step, or where runs of one size end at different places. Raises ScalingError for a `run_id`
    that stands twice with different numbers at the same place.
    """
    step, sure = column_named(table, STEP_NAMES), column_named(table, RUN_NAMES)
    clock = pd.to_numeric(table[step], errors="coerce").to_numpy(float) if step else None
    names = map(str, table.columns)
    maybe = [name for name in names if RUN_WORDS & set(last_name(name).split("_"))]
    sizes = near_groups(numbers["N"]) if "N" in numbers else np.zeros(len(table), int)
    for label in dict.fromkeys([sure, *maybe] if sure else maybe):
        runs = table[label].astype(str).str.replace(CHECKPOINT, "", regex=True).to_numpy(str)
        repeats = pd.Series(runs).duplicated(keep=False).to_numpy() & (runs != "")
        is_sure = label == sure or (runs != table[label].astype(str)).any()
        for order in (numbers.get("D"), clock, numbers.get("C")):
            rows = pd.DataFrame({"run": runs, "size": sizes, "order": order})[repeats].dropna()
            if label in used or rows.empty or rows[["run", "order"]].duplicated().any():
                continue
            each = rows.groupby("run").agg(
                last=("order", "idxmax"),
                end=("order", "max"),
                size=("size", "first"),
                sizes=("size", "nunique"),
                rows=("order", "size"),
            )
            are_runs = is_sure or (
                len(each) > each["size"].nunique() and not each[["size", "end"]].duplicated().any()
            )
            if each["rows"].max() < 2 or each["sizes"].max() > 1 or not are_runs:
                continue
            keep = ~repeats
            keep[each["last"]] = True
            count, kept = int(each["rows"].median()), int(keep.sum())
            message = (
                f"column {label!r} has {count} rows per run: {kept} of {len(table)} rows are used, "
                "the last of each run (a checkpoint's loss is not that of a finished run)"
            )
            data = {"column": label, "rows_per_run": count, "used": kept, "rows": len(table)}
            warning = warn(WarningCode.REPEATED_ROWS, message, **data)
            return Reduction(keep, f"not the last row of its run ({label!r})", warning)
        if last_name(sure) == last_name(label) == "run_id" and repeats.any() and label not in used:
            row = int(np.flatnonzero(pd.Series(runs).duplicated().to_numpy() & repeats)[0])
            first = int(np.flatnonzero(runs == runs[row])[0])
            raise ScalingError(
                f"run_id {runs[row][:40]!r} stands in rows {table.index[first] + 1} and "
                f"{table.index[row] + 1} with different numbers",
                remedy="keep one row for each run, or rename the column",
            )
    return Reduction(np.ones(len(table), bool))


def near_groups(values: np.ndarray) -> np.ndarray:
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


def data_columns(table: pd.DataFrame, used: Sequence[str]) -> list[str]:
    """Columns whose several values say that the losses do not compare: they name data, a
    tokenizer, a metric.
    """
    names = []
    for name in map(str, table.columns):
        plain = last_name(name, "name id type kind path value")
        count = table[name].nunique()
        is_data = plain in DATA_NAMES or bool(DATA_WORDS & set(plain.split("_")))
        if name in used or not is_data or not 1 < count <= max(2, len(table) // 2):
            continue
        numbers = pd.to_numeric(table[name], errors="coerce")
        is_label = plain in DATA_WORDS and bool((numbers < 100).all())
        if numbers.isna().any() or "vocab" in plain or is_label:
            names.append(name)
    return names


def best_of_cells(
    table: pd.DataFrame, numbers: Mapping[str, np.ndarray], used: Sequence[str]
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
    labels = pd.DataFrame({name: near_groups(numbers[name]) for name in inputs})
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
        vary = f"{' and '.join(map(repr, varying))} {'vary' if len(varying) > 1 else 'varies'}"
        message = (
            f"{vary}: {what}; the best of each cell is used, {int(keep.sum())} of {len(table)} "
            "rows (the lowest of several noisy losses lies below their mean; at the end of a grid "
            "it is no optimum)"
        )
        warning = warn(WarningCode.HYPERPARAMETERS_VARY, message, **data)
        return Reduction(keep, f"not the best of its cell ({vary})", warning)
    mixed = [name for name in data_columns(table, used) if inside.get(name, 1) > 1]
    if several < 3 or 5 * several < len(counts) or mixed:
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


def looks_like_checkpoints(numbers: Mapping[str, np.ndarray]) -> list[ResultWarning]:
    """A warning where the rows of most sizes are equally spaced in tokens, as checkpoints of one
    run are.
    """
    if not {"N", "D"} <= set(numbers):
        return []
    spaced = 0
    for _, rows in pd.Series(numbers["D"]).groupby(near_groups(numbers["N"])):
        gaps = np.diff(np.sort(rows))
        if len(rows) >= MIN_CHECKPOINTS and gaps.min() > 0 and gaps.max() < 1.05 * gaps.min():
            spaced += len(rows)
    if spaced < max(MIN_CHECKPOINTS, len(numbers["N"]) / 2):
        return []
    message = (
        f"{spaced} of {len(numbers['N'])} rows are equally spaced in tokens at one N, as the "
        "checkpoints of one run are: losses before the end of a schedule are not those of finished "
        "runs"
    )
    return [warn(WarningCode.REPEATED_ROWS, message, rows=spaced)]
