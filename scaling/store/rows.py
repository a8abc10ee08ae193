"""The Parquet row, where training ends and fitting starts: one measurement of one run at one step.

`run_files` writes and reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from scaling import accounting

if TYPE_CHECKING:
    from scaling.config import RunConfig

SCHEMA_VERSION = 1
_TEXT, _INT, _REAL = pa.string(), pa.int64(), pa.float64()
MODEL_INTS = ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff")
MODEL_COLUMNS = (*MODEL_INTS, "vocab_size", "norm", "pos", "ffn")
SCHEMA = pa.schema(
    [("sweep", _TEXT), ("run_id", _TEXT), ("seed", _INT), ("task", _TEXT)]
    + [(name, _INT) for name in ("n_params", "n_params_nonembedding", *MODEL_INTS)]
    + [("seq_len", _INT), ("vocab_size", _INT), ("norm", _TEXT), ("pos", _TEXT), ("ffn", _TEXT)]
    + [("batch_tokens", _INT), ("lr", _REAL), ("weight_decay", _REAL)]
    + [("step", _INT), ("tokens", _INT), ("flops", _REAL)]
    + [("split", _TEXT), ("metric", _TEXT), ("at", _REAL), ("value", _REAL), ("stderr", _REAL)]
    + [("seconds", _REAL)]
    + [(name, _TEXT) for name in ("device", "commit", "version", "config")]
)
SEED = re.compile(
    r'"seed":(\d+),'
)  # in the text of a configuration: what differs between runs of one cell
DIVERGED = "diverged_at_step"
EndKind = Literal["done", "diverged", "failed", "stopped"]  # how a run ends in a session


@dataclass(frozen=True)
class Measurement:
    """One number of a run: `metric` on `split` after `step` steps; `at` is the metric's argument
    (position, k).
    """

    step: int
    split: str
    metric: str
    value: float
    stderr: float | None = None
    at: float | None = None
    seconds: float = 0.0


class MetricValue(NamedTuple):
    """What an examination says of a model, before it is placed in a run: see `Measurement`."""

    metric: str
    value: float
    stderr: float | None = None
    at: float | None = None
    split: str = "val"


@dataclass(frozen=True)
class Provenance:
    """Where a run's numbers come from.

    `fingerprint` holds what decides the bits (versions, cores, flags), `notes` how the run was
    carried out (its pack, why).
    """

    device: str
    commit: str | None
    version: str
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


def rows(
    sweep: str, run: RunConfig, measured: Iterable[Measurement], source: Provenance
) -> pa.Table:
    """The rows of one run in the fixed schema; `n_params` is the total, `flops` the exact count up
    to `step`.
    """
    model, seq_len = run.model, run.task.seq_len
    constant = {
        "sweep": sweep,
        "run_id": run.run_id,
        "seed": run.seed,
        "task": run.task.kind,
        "n_params": accounting.n_params(model, seq_len, "total"),
        "n_params_nonembedding": accounting.n_params(model, seq_len, "nonembedding"),
        **{name: getattr(model, name) for name in MODEL_COLUMNS},
        "seq_len": seq_len,
        "batch_tokens": run.batch_tokens,
        "lr": run.optim.lr,
        "weight_decay": run.optim.weight_decay,
        **{name: getattr(source, name) for name in ("device", "commit", "version")},
        "config": run.model_dump_json(),
    }
    table = []
    for item in measured:
        tokens = item.step * run.batch_tokens
        flops = accounting.train_flops(model, seq_len, tokens, "exact")
        table.append(constant | vars(item) | {"tokens": tokens, "flops": flops})
    metadata = {"scaling.schema": str(SCHEMA_VERSION)}
    for name, facts in (("fingerprint", source.fingerprint), ("execution", source.notes)):
        metadata[f"scaling.{name}"] = json.dumps(dict(facts), sort_keys=True)
    return pa.Table.from_pylist(table, schema=SCHEMA.with_metadata(metadata))


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `done`, `diverged` (a result, with its reason) or `stopped` (a checkpoint
    holds its state).
    """

    kind: Literal["done", "diverged", "stopped"]
    measured: tuple[Measurement, ...]
    reason: str = ""


def measurement_steps(run: RunConfig) -> list[int]:
    """The steps after which a run is evaluated: evenly spaced in log(step) from 2 % of the run to
    its end.
    """
    spaced = np.geomspace(max(1.0, 0.02 * run.n_steps), run.n_steps, run.evals.points)
    return sorted({int(round(step)) for step in spaced} | {run.n_steps})


def divergence(run: RunConfig, step: int, loss: float, seconds: float) -> tuple[Measurement, str]:
    """The row that says at which step a run diverged, and the reason: its training loss there
    (nats) and its learning rate.
    """
    where = f"diverged at step {step} of {run.n_steps}"
    reason = f"{where}: training loss {loss:.4g} nats at learning rate {run.optim.lr:.3g}"
    return Measurement(step, "train", DIVERGED, float(step), seconds=seconds), reason
