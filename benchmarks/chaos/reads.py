"""Readers beside a writer: runs are published and merged without a pause while others read; no read
may fail.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from scaling.execute.lease import Lease
from scaling.execute.simulated import simulate
from scaling.execute.status import read_status
from scaling.execute.sweep_folder import SweepFolder
from scaling.execute.worker import publish
from scaling.plan import Plan
from scaling.store import compaction, run_files
from scaling.store.rows import Provenance

MERGE_EVERY = 7


def write(folder: Path, plan: Plan, over: Any) -> None:
    """Publish all runs and merge them now and then; start again with single files when there are no
    more.
    """
    source = Provenance("simulated", None, "0")
    with Lease(folder) as lease:
        while not over.is_set():
            for count, item in enumerate(plan.runs):
                publish(
                    SweepFolder(folder),
                    plan.sweep.name,
                    item.run,
                    simulate(item.run),
                    source,
                    lease.path,
                )
                if count % MERGE_EVERY == 0:
                    compaction.compact(folder, lease.locked)
                if over.is_set():
                    return
            _split_again(folder)


def _split_again(folder: Path) -> None:
    """Publish the merged runs as single files, then remove the merged ones: no run is ever gone."""
    for path in run_files.merged_files(folder):
        table = run_files.read_parquet(path)
        for run_id in table["run_id"].unique().to_pylist():
            run_files.write_run(folder, table.filter(pc.equal(table["run_id"], run_id)))
        path.unlink()


def read(folder: Path, plan: Plan, reads: int) -> list[str]:
    """Failures of so many reads during writes, counted from the first run on; every read must give
    each run that an earlier one gave, whole.
    """
    over = multiprocessing.get_context("fork").Event()
    writer = multiprocessing.get_context("fork").Process(target=write, args=(folder, plan, over))
    writer.start()
    rows = {item.run_id: len(simulate(item.run).measured) for item in plan.runs}
    failures: list[str] = []
    seen: set[str] = set()
    done = 0
    try:
        while done < reads and writer.is_alive():
            failures += _one(folder, seen, rows, done)
            done += bool(seen)
    finally:
        over.set()
        writer.join()
    if writer.exitcode or done < reads:
        failures.append(f"the writer ended with {writer.exitcode}")
    return failures


def _one(folder: Path, seen: set[str], rows: dict[str, int], number: int) -> list[str]:
    """One read: the rows, and every tenth time the status."""
    try:
        held = run_files.read_folder(folder, ["run_id", "step", "metric"])
        if number % 10 == 0:
            read_status(SweepFolder(folder))
    except Exception as error:  # noqa: BLE001 - any exception of a reader is what is looked for
        return [f"read {number}: {type(error).__name__}: {error}"]
    ids = held.table.column("run_id").to_pylist()
    found = set(ids)
    failures = [f"read {number}: {damage}" for damage in held.corrupt_files]
    failures += [f"read {number}: run {run_id} was gone" for run_id in seen - found]
    failures += [
        f"read {number}: run {run_id} had {ids.count(run_id)} rows of {rows[run_id]}"
        for run_id in found
        if ids.count(run_id) != rows[run_id]
    ]
    seen |= found
    return failures
