"""Every path of every own document is replaced by a wrong value: readers reject it in three short
lines within a second, or read what is left.
"""

from __future__ import annotations

import copy
import json
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import errors
from scaling import files
from scaling.config.sweep_file import dump_sweep, load_sweep
from scaling.errors import ScalingError
from scaling.execute.lease import Heartbeats, Lease, peers
from scaling.execute.ledger import summarize
from scaling.execute.status import read_status
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.verify import inspect
from scaling.fit.result import FitResult
from scaling.store import run_files
from scaling.tuning.document import load_tuned
from tests.sweep_files import tiny

pytestmark = pytest.mark.slow

LAW = errors.LAW
DELETED = object()
VALUES = (DELETED, None, True, -1, 1e300, "x", "\x1b[31m" * 4000, [], {}, [[1]], {"a": None})
SECONDS = 3.0  # a second on a machine with nothing else to do


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned, simulated sweep with a fit and merged runs."""
    root = tmp_path_factory.mktemp("fuzz")
    sweep, out = root / "sweep.toml", root / "out"
    tuning = [{"field": "optim.lr", "short_run_frac": 0.5}]
    design = {"kind": "grid", "sizes": ["2k", "6k", "20k"], "tokens": ["20k", "40k", "80k"]}
    sweep.write_text(dump_sweep(tiny(design=design, tuning=tuning)))
    simulated = ("--out", out, "--simulate", LAW)
    assert errors.invoke("run", sweep, *simulated, allowed=(0, 3)) == ""
    assert errors.invoke("fit", out, "--bootstrap", "20") == ""
    assert errors.invoke("results", "compact", out) == ""
    return out


def paths_of(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path; of a list only its first element."""
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from paths_of(value, (*path, key))
    elif isinstance(document, list) and document:
        yield from paths_of(document[0], (*path, 0))


def mutants(document: dict[str, Any], count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """At most `count` documents with one wrong value each, drawn with a fixed seed."""
    cases = [(path, value) for path in paths_of(document) if path for value in VALUES]
    for path, value in random.Random(0).sample(cases, min(count, len(cases))):
        changed = copy.deepcopy(document)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if value is DELETED:
            del parent[path[-1]]
        else:
            parent[path[-1]] = value
        yield f"{'.'.join(map(str, path))} = {str(value)[:20]}", changed


def check(read: Callable[[], Any], where: str) -> None:
    """Reading gives something, or an error of three short lines, within a second."""
    began, message = time.process_time(), ""
    try:
        read()
    except ScalingError as error:
        message = str(error)
    assert len(message.splitlines()) <= 3, where
    assert max(map(len, message.splitlines()), default=0) <= 400, where
    assert "\x1b" not in message, where
    assert time.process_time() - began < SECONDS, where


def read_mutants(path: Path, read: Callable[[], Any], count: int = 150) -> None:
    before = path.read_bytes()
    document = files.read_json(path)
    try:
        for where, changed in mutants(document, count):
            files.write_json(path, changed)
            check(read, where)
    finally:
        path.write_bytes(before)


def test_wrong_values_in_a_plan(folder: Path) -> None:
    read_mutants(folder / "plan.json", lambda: read_status(SweepFolder(folder)))


def test_a_plan_of_a_former_version_is_read(folder: Path) -> None:
    path = folder / "plan.json"
    before, want = path.read_bytes(), read_status(SweepFolder(folder))
    document = files.read_json(path)
    document["refused"] = document.pop("infeasible")
    del document["schema"], document["flops"]
    files.write_json(path, document)
    assert read_status(SweepFolder(folder)) == want
    path.write_bytes(before)


def test_wrong_values_in_a_fit(folder: Path) -> None:
    path = folder / "fits" / "chinchilla.json"
    read_mutants(path, lambda: FitResult.load(path), 300)


def test_wrong_values_in_a_tuning(folder: Path) -> None:
    sweep = load_sweep(folder.parent / "sweep.toml")
    read_mutants(folder / "tuning.json", lambda: load_tuned(folder, sweep, LAW))


def test_wrong_values_in_leases_and_their_progress(folder: Path) -> None:
    with Lease(folder) as lease:
        lease.publish_progress([], 3.0)
        live = lease.path.with_suffix(".live.json")
        for path in (lease.path, live):
            read_mutants(path, lambda: peers(folder, Heartbeats()))


def test_wrong_values_in_a_ledger(folder: Path) -> None:
    (path,) = (folder / "ledger").glob("*.jsonl")
    before = path.read_bytes()
    entry = {"event": "done", "run_ids": ["aaaaaaaaaaaa"], "seconds": 1.0, "flops": 2.0}
    whole = summarize(folder)
    for where, changed in mutants(entry, 150):
        text = json.dumps(changed).encode()
        path.write_bytes(before + b"\n%08x %s\n" % (zlib.crc32(text), text))
        check(lambda: summarize(folder), where)
        assert summarize(folder).attempts == whole.attempts, where
    path.write_bytes(before)


def test_wrong_values_in_the_metadata_of_merged_runs(folder: Path) -> None:
    (path,) = run_files.merged_files(folder)
    before, table = path.read_bytes(), run_files.read_parquet(path)
    index = json.loads(table.schema.metadata[run_files.INDEX])
    for where, changed in mutants(index, 60):
        metadata = {**table.schema.metadata, run_files.INDEX: json.dumps(changed).encode()}
        del metadata[b"scaling.checksum"]
        run_files.pq.write_table(table.replace_schema_metadata(metadata), path)
        check(lambda: run_files.read_folder(folder), where)
        check(lambda: inspect(folder), where)
        check(lambda: run_files.finished_run_ids(folder), where)
    path.write_bytes(before)


@pytest.mark.parametrize("column", ["run_id", "sweep", "config", "value"])
def test_wrong_values_in_a_merged_file(folder: Path, column: str) -> None:
    (path,) = run_files.merged_files(folder)
    before, table = path.read_bytes(), run_files.read_parquet(path)
    place, count = table.column_names.index(column), table.num_rows
    for wrong in ([None] * count, [3] * count, [["x"]] * count, [b"\xff"] * count):
        changed = table.set_column(place, column, run_files.pa.array(wrong))
        run_files.pq.write_table(changed.replace_schema_metadata(None), path)
        check(lambda: run_files.read_folder(folder), column)
        check(lambda: inspect(folder), column)
        check(lambda: run_files.finished_run_ids(folder), column)
    path.write_bytes(before)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '"x"', "[[1, 2]]", json.dumps({"/etc/passwd": "0" * 64, "../../../../x": "0" * 64})],
)
def test_odd_entries_of_a_manifest_are_left_out(folder: Path, text: str) -> None:
    path = folder / "checkpoints" / "x.sharded" / "1" / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    check(lambda: inspect(folder), text)
    assert not any("passwd" in item.path or ".." in item.path for item in inspect(folder))
    path.unlink()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to itself", "dangling link"])
@pytest.mark.parametrize(
    "name", ["plan.json", "tuning.json", "fits/chinchilla.json", "leases/x.json", "ledger/x.jsonl"]
)
def test_what_is_no_file_is_rejected_or_left_out(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    before = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "link to itself" else folder / "nothing")
    sweep = load_sweep(folder.parent / "sweep.toml")
    try:
        check(lambda: read_status(SweepFolder(folder)), name)
        check(lambda: load_tuned(folder, sweep, LAW), name)
        check(lambda: inspect(folder), name)
        if name.startswith("fits"):
            check(lambda: FitResult.load(path), name)
    finally:
        path.rmdir() if kind == "folder" else path.unlink()
        if before is not None:
            path.write_bytes(before)
