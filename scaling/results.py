"""The Parquet row, where the two halves of the line meet: one measurement of one run at one step.

A run's file is its completion marker: it is written to a temporary name, synced and renamed, and carries the SHA-256 of
its rows. Readers open a file once (a second opening may see another version) and verify page checksums.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from scaling import accounting
from scaling.config import FlopsConvention, NConvention, RunConfig
from scaling.errors import DISK, ScalingError
from scaling.sweepfile import load_run

SCHEMA_VERSION = 1
_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()
SCHEMA = pa.schema(
    [("sweep", _TEXT), ("run_id", _TEXT), ("seed", _INT), ("task", _TEXT)]
    + [(name, _INT) for name in ("n_params", "n_params_nonembedding", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff")]
    + [("seq_len", _INT), ("vocab_size", _INT), ("norm", _TEXT), ("pos", _TEXT), ("ffn", _TEXT)]
    + [("batch_tokens", _INT), ("lr", _REAL), ("weight_decay", _REAL)]
    + [("step", _INT), ("tokens", _INT), ("flops", _REAL)]
    + [("split", _TEXT), ("metric", _TEXT), ("at", _REAL), ("value", _REAL), ("stderr", _REAL)]
    + [("seconds", _REAL), ("device", _TEXT), ("commit", _TEXT), ("version", _TEXT), ("config", _TEXT)]
)
DIVERGED = "diverged_at_step"


@dataclass(frozen=True)
class Measurement:
    """One number of a run: `metric` on `split` after `step` steps; `at` is the metric's argument (position, k)."""

    step: int
    split: str
    metric: str
    value: float
    stderr: float | None = None
    at: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Provenance:
    """Where a run's numbers come from.

    `fingerprint` holds what decides the bits (versions, cores, flags), `notes` how the run was carried out (its pack, why).
    """

    device: str
    commit: str | None
    version: str
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


def rows(sweep: str, run: RunConfig, measured: Iterable[Measurement], source: Provenance) -> pa.Table:
    """The rows of one run in the fixed schema; `n_params` is the total, `flops` the exact count up to `step`."""
    model, seq_len = run.model, run.task.seq_len
    constant = {
        "sweep": sweep, "run_id": run.run_id, "seed": run.seed, "task": run.task.kind,
        "n_params": accounting.n_params(model, seq_len, "total"),
        "n_params_nonembedding": accounting.n_params(model, seq_len, "nonembedding"),
        "n_layers": model.n_layers, "d_model": model.d_model, "n_heads": model.n_heads, "n_kv_heads": model.n_kv_heads,
        "d_ff": model.d_ff, "seq_len": seq_len, "vocab_size": model.vocab_size,
        "norm": model.norm, "pos": model.pos, "ffn": model.ffn,
        "batch_tokens": run.batch_tokens, "lr": run.optim.lr, "weight_decay": run.optim.weight_decay,
        "device": source.device, "commit": source.commit, "version": source.version, "config": run.model_dump_json(),
    }  # fmt: skip
    table = [constant | _measured_cells(run, item) for item in measured]
    metadata = {"scaling.schema": str(SCHEMA_VERSION)}
    for name, facts in (("fingerprint", source.fingerprint), ("execution", source.notes)):
        metadata[f"scaling.{name}"] = json.dumps(dict(facts), sort_keys=True)
    return pa.Table.from_pylist(table, schema=SCHEMA.with_metadata(metadata))


def _measured_cells(run: RunConfig, item: Measurement) -> dict[str, Any]:
    tokens = item.step * run.batch_tokens
    flops = accounting.train_flops(run.model, run.task.seq_len, tokens, "exact")
    measured = {name: getattr(item, name) for name in ("step", "split", "metric", "at", "value", "stderr", "seconds")}
    return measured | {"tokens": tokens, "flops": flops}


def write_run(folder: Path, table: pa.Table) -> Path:
    """Publish one run's rows as `folder/runs/<run_id>.parquet`, whole or not at all. Raises ScalingError (74)."""
    run_id = table.column("run_id")[0].as_py()
    target = folder / "runs" / f"{run_id}.parquet"
    write_atomically(target, lambda path: pq.write_table(table, path, compression="zstd", write_page_checksum=True))
    return target


def write_atomically(target: Path, write: Any) -> None:
    """Call `write(temporary path)` in the target's folder, sync, and rename; readers never see half a file."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
        sync(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ScalingError(
            f"cannot write: {reason}", where=str(target), remedy="free space or mend the permissions, then run again", exit_code=DISK
        ) from error
    finally:
        with contextlib.suppress(NotADirectoryError):  # a parent is a file: said above
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Return when a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Publish a text file whole or not at all."""
    write_atomically(target, lambda path: path.write_text(text, encoding="utf-8"))


def read_parquet(path: Path) -> pa.Table:
    """One Parquet file, opened once and verified. Raises ScalingError that names the file when it is damaged.

    Arrow reads it without threads and without Python's memory: a thread of its pool that drops the last reference to a
    Python buffer while the interpreter ends aborts the process ("terminate called without an active exception").
    """
    try:
        with pa.OSFile(str(path)) as file:
            return pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=False).read(use_threads=False)
    except FileNotFoundError:
        raise ScalingError("no such file", where=str(path), remedy="name an existing table or results folder") from None
    except PermissionError as error:
        raise ScalingError(f"cannot read: {error.strerror}", where=str(path), remedy="mend the permissions", exit_code=DISK) from None
    except Exception as error:  # a damaged footer raises errors of many types (JSON, key, Unicode, Arrow)
        with open(path, "rb") as handle:
            start = handle.read(8)
        what = f"not a readable Parquet file: {type(error).__name__} (it starts with {start!r})"
        raise ScalingError(what, where=str(path), remedy="delete it and run the sweep again, or restore it from a copy") from error


def run_files(folder: Path) -> list[Path]:
    """The published run files of a sweep folder, in order of run_id; names that start with a dot are unfinished."""
    return sorted(path for path in (folder / "runs").glob("*.parquet") if not path.name.startswith("."))


def load(folder: Path) -> pd.DataFrame:
    """All rows of a sweep folder as one table. Raises ScalingError when there is none or a file is damaged."""
    files = run_files(folder)
    if not files:
        raise ScalingError("holds no finished runs", where=str(folder), remedy=f"train them first: scaling run sweeps/{folder.name}.toml")
    return pa.concat_tables(_checked(path) for path in files).to_pandas(use_threads=False)


def _checked(path: Path) -> pa.Table:
    table = read_parquet(path)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise ScalingError(
            f"is no run file: columns missing: {', '.join(missing)}", where=str(path), remedy="fit it as a foreign table, or move it away"
        )
    version = int((table.schema.metadata or {}).get(b"scaling.schema", b"1"))
    if version > SCHEMA_VERSION:
        raise ScalingError(
            f"written with row schema {version}, this program reads {SCHEMA_VERSION}", where=str(path), remedy="update scaling"
        )
    if table.num_rows == 0 or set(table.column("run_id").unique().to_pylist()) != {path.stem}:
        raise ScalingError(
            "its rows do not belong to the run that it is named after", where=str(path), remedy="delete it and run the sweep again"
        )
    return table.select(SCHEMA.names).replace_schema_metadata(None)


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: one point a run, at its last step, all arrays of shape (n,).

    `n` parameters and `c` FLOPs under the named conventions, `d` training tokens, `loss` in nats per token, `weight`
    relative, `group` the trunk or seed that points share noise through (None: independent). `others` holds further
    inputs of a law (U unique tokens, S steps, ...). What the table does not hold is None. `excluded` says how many rows
    were left out, and why.
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

    def __len__(self) -> int:
        return len(self.loss)

    def inputs(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays a law asks for by letter (N, D, C, U, ...). Raises ScalingError for one the table lacks."""
        held = {"N": self.n, "D": self.d, "C": self.c} | dict(self.others)
        absent = [name for name in names if held.get(name) is None]
        if absent:
            raise ScalingError(f"the table has no {', '.join(absent)}", remedy=f'name its column: --columns "{absent[0]}=...,L=..."')
        return {name: np.asarray(held[name], float) for name in names}

    def take(self, keep: np.ndarray, reason: str = "") -> Points:
        """The points where `keep` (mask or indices, with repeats for a resample); a reason counts those left out."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ("loss", "n", "d", "c", "weight", "group")}
        picked: dict[str, Any] = {name: None if array is None else array[keep] for name, array in arrays.items()}
        kept = replace(self, **picked, others={name: array[keep] for name, array in self.others.items()})
        dropped = len(self) - len(kept)
        return replace(kept, excluded=(*self.excluded, (reason, dropped))) if reason and dropped else kept


def points(table: pd.DataFrame, params: NConvention = "with_head", flops: FlopsConvention = "exact") -> Points:
    """The final validation loss of each run of a results table, N and C recomputed from `config` under a convention.

    Nuisance axes are not minimised here. Raises ScalingError when the table mixes corpora or tasks, or holds no loss.
    """
    excluded: Counter[str] = Counter()
    found: list[tuple[float, float, float, float]] = []
    corpora: set[str] = set()
    for _, run_rows in table.groupby("run_id", sort=True):
        run = load_run(run_rows["config"].iloc[0], f"run {run_rows['run_id'].iloc[0]}")
        corpora.add(getattr(run.task, "digest", None) or run.task.kind)
        loss = _final_loss(run_rows, run)
        if isinstance(loss, str):
            excluded[loss] += 1
            continue
        counted = accounting.n_params(run.model, run.task.seq_len, params)
        found.append((counted, run.tokens, accounting.train_flops(run.model, run.task.seq_len, run.tokens, flops), loss))
    if len(corpora) > 1:
        raise ScalingError(f"the runs were trained on {len(corpora)} different corpora or tasks: {', '.join(sorted(corpora))[:120]}",
                           remedy="losses on different data do not compare: fit each folder by itself, or use --where")  # fmt: skip
    if not found:
        raise ScalingError("no run has a finite final validation loss", remedy="see failures/ for the reasons")
    n, d, c, losses = np.array(found, float).T
    return Points(loss=losses, n=n, d=d, c=c, convention={"params": params, "flops": flops}, excluded=tuple(excluded.items()))


def _final_loss(run_rows: pd.DataFrame, run: RunConfig) -> float | str:
    """The last validation loss, or the reason why there is none."""
    if (run_rows["metric"] == DIVERGED).any():
        return "diverged"
    last = run_rows[(run_rows["split"] == "val") & (run_rows["metric"] == "loss") & (run_rows["step"] == run.n_steps)]
    if last.empty:
        return "no final validation loss"
    value = float(last["value"].iloc[-1])
    return value if np.isfinite(value) and value > 0 else "loss not finite and positive"


def iter_fingerprints(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(run_id, fingerprint) of each published run, from the file's metadata alone."""
    for path in run_files(folder):
        metadata = pq.read_metadata(path).metadata or {}
        yield path.stem, json.loads(metadata.get(b"scaling.fingerprint", b"{}"))
