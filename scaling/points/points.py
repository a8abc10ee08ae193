"""Points: what a law is fitted to, one per run, and the final losses of this program's own runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scaling import accounting
from scaling.errors import ScalingError

if TYPE_CHECKING:  # a prediction needs no tables, a foreign table no configuration
    import pandas as pd

    from scaling.config import FlopsConvention, NConvention, RunConfig, TaskConfig
    from scaling.warning import ResultWarning

LAWS_OF_ONE = {"C": "power", "N": "kaplan-n", "D": "kaplan-d"}


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: one point a run, at its last step, all arrays of shape (n,).

    `n` parameters and `c` FLOPs under the named conventions, `d` training tokens, `loss` in nats
    per token, `weight` relative, `group` the prefix or seed that points share noise through (None:
    independent), `cell` the same label for runs that differ in their seed alone (None: nothing is
    known of seeds). `others` holds further inputs of a law (U unique tokens, S steps, ...). What
    the table does not hold is None. `row` counts the rows of one table from one. `excluded` says
    how many rows were left out, and why.
    """

    loss: np.ndarray
    n: np.ndarray | None = None
    d: np.ndarray | None = None
    c: np.ndarray | None = None
    weight: np.ndarray | None = None
    group: np.ndarray | None = None
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    convention: Mapping[str, str] = field(default_factory=dict)
    excluded: tuple[tuple[str, int], ...] = ()
    cell: np.ndarray | None = None
    budget: np.ndarray | None = None
    row: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def row_numbers(self) -> np.ndarray:
        """Rows of the table (n,), or places among the points where that is not one table."""
        return np.arange(1, len(self) + 1) if self.row is None else self.row

    def inputs(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays a law asks for by letter (N, D, C, U, ...). Raises ScalingError for one the
        table lacks.
        """
        known = {"N": self.n, "D": self.d, "C": self.c} | dict(self.others)
        absent = [name for name in names if known.get(name) is None]
        if absent:
            alone = next((name for name in LAWS_OF_ONE if known.get(name) is not None), None)
            hint = f", or fit a law of {alone} alone: --law {LAWS_OF_ONE[alone]}" if alone else ""
            raise ScalingError(
                f"the table has no {', '.join(absent)}",
                remedy=f'name its column: --columns "{absent[0]}=...,L=..."{hint}',
            )
        return {name: np.asarray(known[name], float) for name in names}

    def take(self, keep: np.ndarray, reason: str = "") -> Points:
        """The points where `keep` (mask or indices, with repeats for a resample); a reason counts
        those left out.
        """
        names = [
            each.name for each in fields(self) if isinstance(getattr(self, each.name), np.ndarray)
        ]
        picked: dict[str, Any] = {name: getattr(self, name)[keep] for name in names}
        others = {name: array[keep] for name, array in self.others.items()}
        kept = replace(self, **picked, others=others)
        if dropped := (len(self) - len(kept)) * bool(reason):
            kept = replace(kept, excluded=(*self.excluded, (reason, dropped)))
        return kept


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read: columns by letter, the conventions of a results folder, and the
    filters.

    `inputs` are the letters of the law that will be fitted.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    params: NConvention = "with_head"
    flops: FlopsConvention = "exact"
    where: str | None = None
    drop_highest: int = 0
    cluster: str | None = None
    eval_set: str | None = None
    inputs: tuple[str, ...] = ()
    signed: bool = False  # losses below zero are no fault
    checkpoints: str = "auto"  # all: every row is a run; last: the order of rows says which are one


@dataclass(frozen=True)
class Source:
    """What was read.

    `folders` are the results folders that rows come from, also through a table in memory;
    `curves` holds every intermediate evaluation where those compete with finished runs;
    `evaluations` all evaluations; `runs` one row for each point; `model` the vocab_size and seq_len
    that all runs share (all of results folders). `columns` maps letters to the columns used,
    `notes` say what was guessed, converted or derived.
    """

    points: Points
    paths: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    digest: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[ResultWarning, ...] = ()
    curves: Points | None = None
    model: Mapping[str, int] = field(default_factory=dict)
    evaluations: Points | None = None
    runs: pd.DataFrame | None = None


def points(
    table: pd.DataFrame, params: NConvention = "with_head", flops: FlopsConvention = "exact"
) -> Points:
    """The final validation loss of each run of a results table: the points of `final_runs`."""
    return final_runs(table, params, flops)[0]


def final_runs(
    table: pd.DataFrame, params: NConvention, flops: FlopsConvention
) -> tuple[Points, pd.DataFrame]:
    """The final validation loss of each run of a results table, N and C recomputed from `config`
    under a convention, and its row of the table with `config` as a dictionary.

    Where a run's corpus was limited, `others` holds the unique tokens U of every run, which are D
    for a run without a limit. Nuisance axes are not minimised here. Raises ScalingError when the
    table mixes corpora or tasks, or holds no loss.
    """
    from scaling.store.rows import DIVERGED

    is_loss = (table["split"] == "val") & (table["metric"] == "loss")
    ends = table[is_loss].drop_duplicates(["run_id", "step"], keep="last")
    ends = ends.set_index(["run_id", "step"], drop=False)
    losses = ends["value"].astype(float).to_dict()
    diverged = set(table.loc[table["metric"] == DIVERGED, "run_id"])
    excluded: Counter[str] = Counter()
    counts: list[tuple[float, float, float, float, float]] = []
    cells: list[str] = []
    keys: list[tuple[str, int]] = []
    counted = counted_runs(table, params, flops)
    for run_id, (run, n, c, cell) in counted.items():
        key = (run_id, run.n_steps)
        if run_id in diverged:
            excluded["diverged"] += 1
        elif key not in losses:
            excluded["no final validation loss"] += 1
        elif not (np.isfinite(losses[key]) and losses[key] > 0):
            excluded["loss not finite and positive"] += 1
        else:
            keys.append(key)
            counts.append((losses[key], n, run.tokens, c, unique_tokens(run) or run.tokens))
            cells.append(cell)
    runs = [each.config for each in counted.values()]
    check_same_origin(runs)
    corpora = sorted({data_id(run.task) for run in runs})
    if len(corpora) > 1:
        raise ScalingError(
            f"the runs were trained on {len(corpora)} different corpora or tasks: "
            f"{', '.join(corpora)[:120]}",
            remedy="losses on different data do not compare: fit each folder by itself, or use "
            "--where",
        )
    if not counts:
        raise ScalingError(
            "no run has a finite final validation loss", remedy="see failures/ for the reasons"
        )
    loss, n, d, c, unique = np.array(counts, float).T
    final = ends.loc[keys].reset_index(drop=True)
    result = Points(
        *(loss, n, d, c),
        cell=np.unique(cells, return_inverse=True)[1],
        others={"U": unique} if any(unique_tokens(run) is not None for run in runs) else {},
        convention={"params": params, "flops": flops},
        excluded=tuple(excluded.items()),
    )
    return result, final.assign(config=[json.loads(text) for text in final["config"]])


def unique_tokens(run: RunConfig) -> int | None:
    """The unique tokens of a run on a limited corpus, in whole windows as training reads them; None
    without a limit.
    """
    from scaling.config import TextTask

    if not isinstance(run.task, TextTask) or run.task.unique_tokens is None:
        return None
    return min(run.task.unique_tokens // run.task.seq_len * run.task.seq_len, run.tokens)


def data_id(task: TaskConfig) -> str:
    """What runs must share for their losses to compare: the digest of a corpus, whatever the limit,
    or the language.
    """
    from scaling.config import SyntheticTask, TextTask

    if isinstance(task, SyntheticTask):
        return (
            f"synthetic ({task.n_facts} facts, zipf {task.zipf:g}, {task.n_symbols} symbols, "
            f"data_seed {task.data_seed})"
        )
    if isinstance(task, TextTask):
        return task.digest or task.kind
    return f"{task.kind} {task.canonical()}"


class CountedRun(NamedTuple):
    """A run with its N and its C; `cell` is the text of its configuration without the seed."""

    config: RunConfig
    n: float
    c: float
    cell: str


def counted_runs(
    table: pd.DataFrame, params: NConvention, flops: FlopsConvention
) -> dict[str, CountedRun]:
    """The runs of a results table by run_id; those that differ in their seed alone are read
    once.
    """
    from scaling.config.sweep_file import load_run
    from scaling.store.rows import SEED

    cells: dict[str, CountedRun] = {}
    counted: dict[str, CountedRun] = {}
    firsts = table[["run_id", "config"]].drop_duplicates("run_id").sort_values("run_id")
    for run_id, text in zip(firsts["run_id"], firsts["config"], strict=True):
        cell = SEED.sub("", text)
        if cell not in cells:
            run = load_run(text, f"run {run_id}")
            n = accounting.n_params(run.model, run.task.seq_len, params)
            c = accounting.train_flops(run.model, run.task.seq_len, run.tokens, flops)
            cells[cell] = CountedRun(run, n, c, cell)
        counted[run_id] = cells[cell]
    return counted


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
