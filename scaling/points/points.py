"""Points: what a law is fitted to, one per run, and the final losses of this program's own runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from scaling import accounting
from scaling.config import (
    FlopsConvention,
    NConvention,
    RunConfig,
    SyntheticTask,
    TaskConfig,
    TextTask,
)
from scaling.config.sweep_file import load_run
from scaling.errors import ScalingError
from scaling.store.rows import DIVERGED, SEED

LAWS_OF_ONE = {"C": "power", "N": "kaplan-n", "D": "kaplan-d"}


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: one point a run, at its last step, all arrays of shape (n,).

    `n` parameters and `c` FLOPs under the named conventions, `d` training tokens, `loss` in nats
    per token, `weight` relative, `group` the prefix or seed that points share noise through (None:
    independent), `cell` the same label for runs that differ in their seed alone (None: nothing is
    known of seeds). `others` holds further inputs of a law (U unique tokens, S steps, ...). What
    the table does not hold is None. `excluded` says how many rows were left out, and why.
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

    def __len__(self) -> int:
        return len(self.loss)

    def inputs(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays a law asks for by letter (N, D, C, U, ...). Raises ScalingError for one the
        table lacks.
        """
        known = {"N": self.n, "D": self.d, "C": self.c} | dict(self.others)
        absent = [name for name in names if known.get(name) is None]
        if absent:
            alone = [name for name in LAWS_OF_ONE if known.get(name) is not None]
            hint = (
                f", or fit a law of {alone[0]} alone: --law {LAWS_OF_ONE[alone[0]]}"
                if alone
                else ""
            )
            raise ScalingError(
                f"the table has no {', '.join(absent)}",
                remedy=f'name its column: --columns "{absent[0]}=...,L=..."{hint}',
            )
        return {name: np.asarray(known[name], float) for name in names}

    def take(self, keep: np.ndarray, reason: str = "") -> Points:
        """The points where `keep` (mask or indices, with repeats for a resample); a reason counts
        those left out.
        """
        arrays: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("loss", "n", "d", "c", "weight", "group", "cell", "budget")
        }
        picked: dict[str, Any] = {
            name: None if array is None else array[keep] for name, array in arrays.items()
        }
        kept = replace(
            self, **picked, others={name: array[keep] for name, array in self.others.items()}
        )
        dropped = len(self) - len(kept)
        return (
            replace(kept, excluded=(*self.excluded, (reason, dropped)))
            if reason and dropped
            else kept
        )


def points(
    table: pd.DataFrame, params: NConvention = "with_head", flops: FlopsConvention = "exact"
) -> Points:
    """The final validation loss of each run of a results table, N and C recomputed from `config`
    under a convention.

    Where a run's corpus was limited, `others` holds the unique tokens U of every run, which are D
    for a run without a limit. Nuisance axes are not minimised here. Raises ScalingError when the
    table mixes corpora or tasks, or holds no loss.
    """
    excluded: Counter[str] = Counter()
    kept: list[tuple[float, float, float, float]] = []
    unique: list[int | None] = []
    corpora: set[str] = set()
    runs: list[RunConfig] = []
    cells: list[str] = []
    losses, diverged, read = (
        _last_losses(table),
        set(table.loc[table["metric"] == DIVERGED, "run_id"]),
        cached_run_loader(params, flops),
    )
    firsts = table[["run_id", "config"]].drop_duplicates("run_id").sort_values("run_id")
    for run_id, text in zip(firsts["run_id"], firsts["config"], strict=True):
        run, n, c = read(text, f"run {run_id}")
        cell = SEED.sub("", text)
        runs.append(run)
        corpora.add(data_id(run.task))
        loss = (
            "diverged"
            if run_id in diverged
            else losses.get((run_id, run.n_steps), "no final validation loss")
        )
        if not isinstance(loss, str) and not (np.isfinite(loss) and loss > 0):
            loss = "loss not finite and positive"
        if isinstance(loss, str):
            excluded[loss] += 1
        else:
            kept.append((n, run.tokens, c, loss))
            cells.append(cell)
            unique.append(_limit(run))
    check_same_origin(runs)
    if len(corpora) > 1:
        raise ScalingError(
            f"the runs were trained on {len(corpora)} different corpora or tasks: "
            f"{', '.join(sorted(corpora))[:120]}",
            remedy=(
                "losses on different data do not compare: fit each folder by itself, or use --where"
            ),
        )
    if not kept:
        raise ScalingError(
            "no run has a finite final validation loss", remedy="see failures/ for the reasons"
        )
    n, d, c, losses = np.array(kept, float).T
    labels = np.unique(cells, return_inverse=True)[1]
    limited = any(limit is not None for limit in unique)
    others = (
        {"U": np.array([limit or tokens for limit, tokens in zip(unique, d, strict=True)], float)}
        if limited
        else {}
    )
    convention = {"params": params, "flops": flops}
    return Points(
        loss=losses,
        n=n,
        d=d,
        c=c,
        cell=labels,
        others=others,
        convention=convention,
        excluded=tuple(excluded.items()),
    )


def _limit(run: RunConfig) -> int | None:
    """The unique tokens of a run on a limited corpus, in whole windows as training reads them; None
    without a limit.
    """
    if not isinstance(run.task, TextTask) or run.task.unique_tokens is None:
        return None
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
    return (
        (task.digest or task.kind)
        if isinstance(task, TextTask)
        else f"{task.kind} {task.canonical()}"
    )


def _last_losses(table: pd.DataFrame) -> dict[tuple[str, int], Any]:
    """The last validation loss of each run at each step."""
    seen = table[["run_id", "step", "value"]][
        (table["split"] == "val") & (table["metric"] == "loss")
    ]
    return dict(
        zip(
            zip(seen["run_id"], seen["step"], strict=True), seen["value"].astype(float), strict=True
        )
    )


def cached_run_loader(
    params: NConvention, flops: FlopsConvention
) -> Callable[[str, str], tuple[RunConfig, float, float]]:
    """A run, its N and its C from the text of its config; runs that differ in their seed alone are
    read and counted once.
    """
    known: dict[str, tuple[RunConfig, float, float]] = {}

    def read(text: str, where: str) -> tuple[RunConfig, float, float]:
        key = SEED.sub("", text)
        if key not in known:
            run = load_run(text, where)
            n = accounting.n_params(run.model, run.task.seq_len, params)
            known[key] = (
                run,
                n,
                accounting.train_flops(run.model, run.task.seq_len, run.tokens, flops),
            )
        return known[key]

    return read


def check_same_origin(configs: Iterable[RunConfig]) -> None:
    """Raise ScalingError where simulated runs stand next to real ones, or to those of another
    simulated law.
    """
    origins = Counter(run.simulated for run in configs)
    if len(origins) < 2:
        return
    counts = [
        f"{count:,} {f'simulated from {law}' if law else 'trained'}"
        for law, count in sorted(origins.items(), key=_real_first)
    ]
    raise ScalingError(
        f"the table mixes runs of different origins: {', '.join(counts)}",
        remedy=(
            "losses of a law and losses of a training do not compare: keep each "
            "simulation in a folder of its own (--out DIR)"
        ),
    )


def _real_first(origin: tuple[str | None, int]) -> str:
    return origin[0] or ""
