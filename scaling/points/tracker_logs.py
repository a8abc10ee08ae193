"""Runs as trackers keep them: offline W&B files (`run-*.wandb`) and TensorBoard event files, one
row a run.

A row holds the configuration and the last value of every metric; which columns are N, D and the
loss is decided as for any table. Both need an optional package, for the protobuf messages inside:
`pip install -e ".[trackers]"`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.errors import ScalingError
from scaling.formatting import flatten

BLOCK = 32768  # of a W&B log, as in LevelDB's
HEAD = 7  # bytes before the first record, and of each record's own header
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_runs(files: Iterable[Path]) -> pd.DataFrame:
    """One row a run: a `.wandb` file, or the event files of one folder. Raises ScalingError that
    names file and remedy.
    """
    rows: dict[Path, dict[str, Any]] = {}
    for path in files:
        if path.suffix != ".wandb":  # the files of one run share a folder
            rows.setdefault(path.parent, {"run_id": path.parent.name}).update(_tensorboard(path))
            continue
        is_offline = path.parent.name.startswith("offline-run-")  # one such folder each session
        place = path.parents[1] / path.name if is_offline else path
        rows.setdefault(place, {"run_id": path.stem}).update(_wandb(path))
    return pd.DataFrame(list(rows.values()))


def _need(package: str, path: Path) -> ScalingError:
    return ScalingError(
        f"reading this file needs the package {package}",
        where=path,
        remedy=f"pip install {package}, or export a CSV table",
    )


def _wandb(path: Path) -> dict[str, Any]:
    """Configuration and last values of one offline run; a run that was cut off gives what it had
    written. Raises ScalingError where the file is none or the package is missing.
    """
    try:
        from google.protobuf import message
        from wandb.proto import wandb_internal_pb2 as messages
    except ImportError:
        raise _need("wandb", path) from None
    row: dict[str, Any] = {}
    try:
        for payload in _records(path.read_bytes(), path):
            record = messages.Record()
            record.ParseFromString(payload)
            items = {
                "run": record.run.config.update,
                "config": record.config.update,
                "history": record.history.item,
                "summary": record.summary.update,
            }
            row |= _values(items.get(record.WhichOneof("record_type"), []))
    except (ValueError, OSError, message.DecodeError) as error:
        raise ScalingError(
            f"not a readable W&B file: {str(error)[:120]}",
            where=path,
            remedy="leave it out, or export a CSV table",
        ) from None
    return row


def _values(items: Iterable[Any]) -> dict[str, Any]:
    """Numbers and texts by dotted names; lists, switches and what is absent are left out."""
    values: dict[str, Any] = {}
    for item in items:
        name = item.key or ".".join(item.nested_key)
        if not name.startswith("_"):
            leaves = flatten(json.loads(item.value_json), name)
            values |= {
                key: value
                for key, value in leaves
                if isinstance(value, (int, float, str)) and not isinstance(value, bool)
            }
    return values


def _records(data: bytes, path: Path) -> Iterator[bytes]:
    """The payloads of a log in LevelDB's framing: blocks of 32 KiB, records that may span several
    of them.
    """
    if not data.startswith(b":W&B"):
        raise ScalingError(
            f"not a W&B file (it starts with {data[:8]!r})",
            where=path,
            remedy="name run-*.wandb files",
        )
    place, parts = HEAD, b""
    while place + HEAD <= len(data):
        if BLOCK - place % BLOCK < HEAD:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEAD])
        if kind not in (FULL, FIRST, MIDDLE, LAST) or place + HEAD + length > len(data):
            return  # the run was cut off here
        payload = data[place + HEAD : place + HEAD + length]
        place += HEAD + length
        parts = payload if kind in (FULL, FIRST) else parts + payload
        if kind in (FULL, LAST):
            yield parts


def _tensorboard(path: Path) -> dict[str, Any]:
    """Hyper-parameters and the last value of every scalar of one event file, and its
    last `step`.
    """
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.plugins.hparams import metadata
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise _need("tensorboard", path) from None
    row: dict[str, Any] = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            plugin = value.metadata.plugin_data
            if plugin.plugin_name == "hparams" and value.tag == metadata.SESSION_START_INFO_TAG:
                started = metadata.parse_session_start_info_plugin_data(plugin.content)
                for name, entry in started.hparams.items():
                    row[name] = entry.number_value or entry.string_value
            elif value.HasField("tensor"):
                array = make_ndarray(value.tensor)
                if array.size == 1 and array.dtype.kind in "fiu":
                    row |= {value.tag: float(array.reshape(())), "step": float(event.step)}
    return row
