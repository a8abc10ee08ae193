"""Points: what a law is fitted to, one per run; how a source is read, and what was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling.accounting import FlopsConvention, NConvention
from scaling.errors import ScalingError

if TYPE_CHECKING:  # a prediction needs no tables
    import pandas as pd

    from scaling.warning import ResultWarning

ARRAYS = ("loss", "n", "d", "c", "weight", "group", "cell", "budget", "row")  # fields of `Points`
IN_MEMORY = Path("DataFrame")  # the location of a table in memory, in messages
FOLDER = "scaling.folder"  # the attribute of a table that holds the results folder it came from
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
        arrays = {name: getattr(self, name) for name in ARRAYS}
        picked: dict[str, Any] = {n: a[keep] for n, a in arrays.items() if a is not None}
        others = {name: array[keep] for name, array in self.others.items()}
        kept = replace(self, **picked, others=others)
        if dropped := (len(self) - len(kept)) * bool(reason):
            kept = replace(kept, excluded=(*self.excluded, (reason, dropped)))
        return kept

    @classmethod
    def concatenate(cls, parts: Sequence[Points]) -> Points:
        """Points of several tables as one; labels of groups that are equal stay one group, cells of
        different tables are different.
        """
        if len(parts) == 1:
            return parts[0]

        def joined(arrays: Sequence[Any]) -> Any:
            return None if any(each is None for each in arrays) else np.concatenate(arrays)

        arrays = {name: [getattr(part, name) for part in parts] for name in ARRAYS}
        arrays["cell"] = [
            None if cell is None else [f"{table} {label}" for label in cell]
            for table, cell in enumerate(arrays["cell"])
        ]
        arrays["row"] = [None]
        return replace(
            parts[0],
            **{name: joined(each) for name, each in arrays.items()},
            others={key: joined([part.others[key] for part in parts]) for key in parts[0].others},
            excluded=tuple(item for part in parts for item in part.excluded),
        )


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


def origin(frame: pd.DataFrame) -> Path | None:
    """The results folder that a table was loaded from, where it still says so."""
    folder = frame.attrs.get(FOLDER)
    return Path(folder) if isinstance(folder, str) else None


def source_name(source: Path | pd.DataFrame) -> str:
    """What a source is called in documents and messages."""
    if isinstance(source, Path):
        return str(source)
    return f"{IN_MEMORY} of {folder}" if (folder := origin(source)) else str(IN_MEMORY)


def source_label(sources: Iterable[Path | pd.DataFrame]) -> str:
    """Several sources, with commas between them."""
    return ", ".join(map(source_name, sources))
