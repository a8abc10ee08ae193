"""Rows that are not one finished run each: unfinished runs, copies, checkpoints, hyper-parameter
sweeps.

Each function returns the rows to keep (a mask over those of the table) with the reason and a
warning; what is left out is always counted and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.points.columns import plain_name
from scaling.warning import ResultWarning, WarningCode

_STATE_COLUMNS_WORDS = (
    "state status run_state run_status lifecycle lifecycle_state lifecycle_stage job_state "
    "job_status outcome run_outcome exit_status completion completion_status"
)
STATE_COLUMNS = frozenset(_STATE_COLUMNS_WORDS.split())
_FINISHED_WORDS = "finished finish done complete completed success succeeded successful ok passed"
FINISHED = frozenset(_FINISHED_WORDS.split())
_UNFINISHED_WORDS = (
    "crashed crash failed failure fail running killed preempted preempting pending queued waiting "
    "cancelled canceled aborted abort stopped timeout timed_out oom out_of_memory node_fail error "
    "errored diverged interrupted incomplete unfinished scheduled starting submitted suspended "
    "terminated deleted paused initializing"
)
UNFINISHED = frozenset(_UNFINISHED_WORDS.split())
_DONE_FLAGS_WORDS = "finished is_finished completed is_completed complete done is_done"
DONE_FLAGS = frozenset(_DONE_FLAGS_WORDS.split())
_BAD_FLAGS_WORDS = (
    "crashed failed diverged preempted outlier is_outlier is_crashed has_diverged is_failed"
)
BAD_FLAGS = frozenset(_BAD_FLAGS_WORDS.split())
EXIT_CODES = ("exit_code", "exitcode", "return_code", "returncode", "exit_status")
TRUE, FALSE = {"1", "1.0", "true", "yes", "y", "t"}, {"0", "0.0", "false", "no", "n", "f"}
RUN_COLUMNS = ("run_id", "run", "run_name", "runid", "display_name", "trial", "trial_id", "name")
STEP_COLUMNS = ("step", "steps", "global_step", "iteration", "iter", "checkpoint_step", "epoch")
SEED_COLUMNS = ("seed", "random_seed", "data_seed", "init_seed", "replicate")
CHECKPOINT = re.compile(
    r"[-_/@:. ]*(global_?)?(steps?|iter(ation)?|ckpt|checkpoint)[-_= ]?\d+[kKmM]?$", re.I
)  # at the end of a run's name
SWEPT = re.compile(
    r"(peak_|max_|base_|init_|initial_)?(lr|learning_rate|eta)(_peak|_max)?|(global_|train_)?"
    r"(batch(_size|_tokens|size)?|bs|bsz|gbs|gbsz)(_tokens)?|weight_decay|wd|warmup(_\w+)?"
    r"|(adam_)?beta_?[12]|momentum|optimi[sz]er(_\w+)?|(lr_)?schedul(e|er)(_type)?|dropout"
    r"|init_(std|scale)"
    r"|label_smoothing|clip(ping)?|grad_clip|aspect_ratio|depth|width|n_layers?|d_model"
)
_MIXED_WORDS = (
    "tokenizer tokeniser unit loss_unit corpus dataset config split metric data data_mix "
    "data_mixture mixture data_source dataset_name domain language eval_set eval_dataset "
    "validation_set source corpora train_data training_data tokenizer_name"
)
MIXED = frozenset(_MIXED_WORDS.split())  # columns whose several values say: do not compare
SAME_CELL = 0.01  # N and D within 1 % are one cell
MIN_CHECKPOINTS = 6  # equally spaced rows of one N that look like checkpoints


@dataclass(frozen=True)
class Reduction:
    """Rows to keep (mask), why the others are left out, and the warning about it."""

    keep: np.ndarray
    reason: str = ""
    warning: ResultWarning | None = None


def _last(name: object) -> str:
    return plain_name(re.split(r"[/.]", str(name))[-1])


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(str).str.strip().str.lower()


def run_states(path: Path, table: pd.DataFrame, where: str | None) -> Iterator[Reduction]:
    """Runs that did not finish, by a column of states or a yes/no column, unless `--where` names
    it.

    Raises ScalingError where no run is finished.
    """
    for name in table.columns:
        plain = _last(name)
        if where and re.search(rf"(?<!\w){re.escape(str(name))}(?!\w)", where):
            continue
        if plain in BAD_FLAGS | DONE_FLAGS and set(_texts(table[name])) <= TRUE | FALSE | {
            "",
            "nan",
        }:
            marked = _texts(table[name]).isin(TRUE).to_numpy(bool)
            keep = marked if plain in DONE_FLAGS else ~marked
            yield Reduction(keep, f"marked in column {str(name)!r}")
        elif plain in EXIT_CODES and (codes := pd.to_numeric(table[name], "coerce")).eq(0).any():
            yield Reduction(codes.eq(0).to_numpy(), f"ended with an error by {str(name)!r}")
        elif plain in STATE_COLUMNS:
            yield from _states(path, table, str(name))


def _states(path: Path, table: pd.DataFrame, name: str) -> Iterator[Reduction]:
    words = _texts(table[name]).str.replace(r"[^\w.]+", "_", regex=True).str.strip("_")
    words = words.str.replace(r"^\w+\.", "", regex=True)
    if not words.isin(FINISHED | UNFINISHED).any():
        shown = ", ".join(repr(str(word)) for word in table[name].unique()[:8])
        if table[name].nunique() > 1:
            message = (
                f"column {name!r} holds no word that is known as a run's state ({shown}): all rows "
                f'are used; choose runs with --where "`{name}` == ..."'
            )
            unread = ResultWarning(code=WarningCode.RUN_STATE, message=message)
            yield Reduction(np.ones(len(table), bool), "", unread)
        return
    keep = words.isin(FINISHED).to_numpy(bool)
    if not keep.any():
        listed = ", ".join(sorted(map(str, table[name].unique()))[:8])
        raise ScalingError(
            f"column {name!r} calls no run finished: {listed}",
            where=str(path),
            remedy=f'choose the runs yourself: --where "`{name}` == ..."',
        )
    unknown = sorted(
        {str(value) for value in table[name][~words.isin(FINISHED | UNFINISHED)].unique()}
    )
    warning = None
    if unknown:
        shown = ", ".join(repr(word) for word in unknown[:8])
        warning = ResultWarning(
            code=WarningCode.RUN_STATE,
            message=f"column {name!r} holds unknown states, left out as not finished: {shown}; "
            f'choose runs with --where "`{name}` == ..."',
            data={"column": name, "states": unknown[:50]},
        )
    yield Reduction(keep, f"not finished by column {name!r}", warning)


def copies(table: pd.DataFrame) -> Reduction:
    """Rows equal to an earlier one in every column."""
    again = table.astype(str).duplicated().to_numpy()
    count = int(again.sum())
    warning = ResultWarning(
        code=WarningCode.REPEATED_ROWS,
        message=f"{count} of {len(table)} rows are exact copies of others: one of each is used",
        data={"rows": count},
    )
    return Reduction(~again, "exact copy of another row", warning if count else None)


def last_of_runs(
    path: Path, table: pd.DataFrame, numbers: Mapping[str, np.ndarray], used: Sequence[str]
) -> Reduction:
    """The last row of each run where a column of run names repeats and tokens or steps grow within
    it.

    Raises ScalingError for a `run_id` that stands twice with different numbers at the same place.
    """
    everything = Reduction(np.ones(len(table), bool))
    plain = {_last(name): str(name) for name in reversed(list(table.columns))}
    label = next((plain[name] for name in RUN_COLUMNS if name in plain), None)
    if label is None or label in used:
        return everything
    runs = table[label].astype(str).str.replace(CHECKPOINT, "", regex=True).to_numpy(str)
    repeats = pd.Series(runs).duplicated(keep=False).to_numpy() & (runs != "")
    if not repeats.any():
        return everything
    step = next((plain[name] for name in STEP_COLUMNS if name in plain), None)
    clock = pd.to_numeric(table[step], errors="coerce").to_numpy(float) if step else None
    for order in (numbers.get("D"), clock, numbers.get("C")):
        if order is not None and _grows(runs, repeats, order, numbers.get("N")):
            last = pd.Series(order).groupby(runs).idxmax(skipna=True)
            keep = ~repeats
            keep[last.dropna().astype(int).to_numpy()] = True
            count = int(pd.Series(runs[repeats]).value_counts().median())
            kept = int(keep.sum())
            return Reduction(
                keep,
                f"not the last row of its run ({label!r})",
                ResultWarning(
                    code=WarningCode.REPEATED_ROWS,
                    message=f"column {label!r} has {count} rows per run: {kept} of "
                    f"{len(table)} rows "
                    "are used, the last of each run (a checkpoint's loss is not that of a "
                    "finished run)",
                    data={"column": label, "rows_per_run": count, "used": kept, "rows": len(table)},
                ),
            )
    if plain_name(label) == "run_id":
        row = int(np.flatnonzero(pd.Series(runs).duplicated().to_numpy() & repeats)[0])
        first = int(np.flatnonzero(runs == runs[row])[0])
        numbers_row = [str(table.index[place] + 1) for place in (first, row)]
        raise ScalingError(
            f"run_id {runs[row][:40]!r} stands in rows {' and '.join(numbers_row)} "
            "with different numbers",
            where=str(path),
            remedy="keep one row for each run, or rename the column",
        )
    return everything


def _grows(
    runs: np.ndarray, repeats: np.ndarray, order: np.ndarray, sizes: np.ndarray | None
) -> bool:
    """Whether within each repeated run one N holds and `order` takes a new value in each row."""
    frame = pd.DataFrame({"run": runs, "order": order})[repeats]
    frame = frame.dropna()
    if frame.empty or frame.duplicated().any() or frame.groupby("run")["order"].size().max() < 2:
        return False
    if sizes is None:
        return True
    spread = pd.Series(np.log(np.where(sizes > 0, sizes, np.nan))[repeats]).groupby(runs[repeats])
    return bool(((spread.max() - spread.min()).fillna(0.0) < SAME_CELL).all())


def near_groups(values: np.ndarray) -> np.ndarray:
    """Labels of values that lie within 1 % of the smallest of their group."""
    order = np.argsort(values, kind="stable")
    labels, label, start = np.zeros(len(values), int), -1, -np.inf
    for position in order:
        log_value = float(np.log(max(values[position], 1e-300)))
        if log_value - start > SAME_CELL:
            label, start = label + 1, log_value
        labels[position] = label
    return labels


def seed_column(table: pd.DataFrame) -> str | None:
    """The column of seeds, where it has several values."""
    for name in table.columns:
        if _last(name) in SEED_COLUMNS and table[name].nunique() > 1:
            return str(name)
    return None


def best_of_cells(
    table: pd.DataFrame, numbers: Mapping[str, np.ndarray], used: Sequence[str]
) -> Reduction:
    """The lowest loss of each cell (one N, D, ... and seed) where hyper-parameters vary within
    cells.

    Where rows of a cell differ in nothing that is known, all are kept as repeated runs, and that is
    said.
    """
    inputs = [name for name in numbers if name not in ("L", "W", "SE", "Y", "X")]
    everything = Reduction(np.ones(len(table), bool))
    if "N" not in inputs and "C" not in inputs:
        return everything
    labels = pd.DataFrame({name: near_groups(numbers[name]) for name in inputs})
    seed = seed_column(table)
    if seed is not None:
        labels["seed"] = table[seed].astype(str).to_numpy(str)
    cell = labels.groupby(list(labels.columns), sort=False).ngroup().to_numpy()
    counts = np.bincount(cell)
    several = int((counts > 1).sum())
    if not several:
        return everything
    varying = [
        str(name)
        for name in table.columns
        if str(name) not in used
        and SWEPT.fullmatch(_last(name))
        and table[name].astype(str).groupby(cell).nunique().max() > 1
    ]
    rows = int(np.median(counts[counts > 1]))
    data = {"cells": several, "rows_per_cell": rows, "columns": varying}
    what = f"{several} of {len(counts)} cells of equal {' and '.join(inputs)} hold {rows} rows"
    has_several_corpora = any(
        _last(name) in MIXED and table[name].astype(str).groupby(cell).nunique().max() > 1
        for name in table.columns
    )
    if not varying and (several < 3 or 5 * several < len(counts) or has_several_corpora):
        return everything
    if not varying:
        message = f"{what}, and no column says why: all are used"
        code = WarningCode.REPEATED_ROWS
        return Reduction(everything.keep, "", ResultWarning(code=code, message=message, data=data))
    order = np.lexsort((numbers["L"], cell))
    keep = np.zeros(len(table), bool)
    keep[order[np.unique(cell[order], return_index=True)[1]]] = True
    listed = " and ".join(map(repr, varying))
    return Reduction(
        keep,
        f"not the best of its cell ({listed} varies)",
        ResultWarning(
            code=WarningCode.HYPERPARAMETERS_VARY,
            message=f"{listed} {'vary' if len(varying) > 1 else 'varies'}: {what}; the best "
            f"of each "
            f"cell is used, {int(keep.sum())} of {len(table)} rows (the lowest of several "
            f"noisy losses "
            "lies below their mean; at the end of a grid it is no optimum)",
            data=data,
        ),
    )


def looks_like_checkpoints(numbers: Mapping[str, np.ndarray]) -> ResultWarning | None:
    """A warning where the rows of most sizes are equally spaced in tokens, as checkpoints of one
    run are.
    """
    n, d = numbers.get("N"), numbers.get("D")
    if n is None or d is None or len(n) < MIN_CHECKPOINTS:
        return None
    spaced, label = 0, near_groups(n)
    for group in range(label.max() + 1):
        tokens = np.sort(d[label == group])
        gaps = np.diff(tokens)
        if len(tokens) >= MIN_CHECKPOINTS and gaps.min() > 0 and gaps.max() < 1.05 * gaps.min():
            spaced += int((label == group).sum())
    if 2 * spaced < len(n):
        return None
    return ResultWarning(
        code=WarningCode.REPEATED_ROWS,
        message=f"{spaced} of {len(n)} rows are equally spaced in tokens at one N, as the "
        f"checkpoints of "
        "one run are: losses before the end of a schedule are not those of finished runs",
        data={"rows": spaced},
    )
