"""One of two processes with two devices each that train together.

Run by test_distributed as a child, once for each process.
"""

import itertools
import json
import shutil
import sys
from pathlib import Path

import jax

from scaling.config import Execution, MeshShape
from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.tasks import open_task
from scaling.train import checkpoint_files
from scaling.train.distributed import (
    DistributedConfig,
    broadcast_from_host0,
    initialize_distributed,
)
from scaling.train.trainer import train
from tests.train.test_trainer import numbers, one_run

HOW = Execution(mesh=MeshShape(data=2, fsdp=2))
READS = []  # of each training


def recorded_reads(task):
    """The task, and which parts of the first batch it is asked for: (index, size)."""
    read, original = [], task.batch

    def batch(split, index, size):
        if split == "train":
            read.append((index, size))
        return original(split, index, size)

    task.batch = batch
    return task, read


def trained(path, dispatches=None):
    """The outcome of the run, stopped by process 0 alone after some dispatches (a fast machine
    needs few for all of it).
    """
    run, count = one_run("5k"), itertools.count()
    stop = (
        (lambda: jax.process_index() == 0 and next(count) >= dispatches)
        if dispatches is not None
        else (lambda: False)
    )
    task, read = recorded_reads(open_task(run.task))
    READS.append(read)
    return train(RunGroup((run,)), task, lambda _: path, HOW, should_stop=stop)[run.run_id]


def refused(execution):
    """What is said to a mesh that leaves a process without devices."""
    try:
        train(RunGroup((one_run("5k"),)), None, lambda _: Path("never"), execution)
    except ScalingError as error:
        return str(error)
    return ""


def flip_a_bit_of_process_1(folder):
    """A copy of the checkpoint with one bit changed in what process 1 wrote last."""
    if jax.process_index() == 0:
        for file in checkpoint_files.all_files(folder / "parts.npz"):
            shutil.copy(file, folder / file.name.replace("parts", "flipped"))
        file = folder / "flipped.1.npz"
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
    broadcast_from_host0(0)


def main():
    """Train whole, then in two sittings; print what this process saw."""
    port, index, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    written, write = [], checkpoint_files._write

    def recorded_write(file, arrays, progress):
        write(file, arrays, progress)
        written.append(file.name)

    checkpoint_files._write = recorded_write
    with initialize_distributed(DistributedConfig(f"127.0.0.1:{port}", 2, index)):
        report = {
            "devices": [jax.device_count(), jax.local_device_count()],
            "agreed": broadcast_from_host0(index + 7, 3),
            "writes": jax.process_index() == 0,
            "refused": [refused(Execution()), refused(Execution(mesh=MeshShape(data=2)))],
            "whole": numbers(trained(folder / "whole.npz")),
            "stopped": trained(folder / "parts.npz", 1).kind,
            "saved": checkpoint_files.exists(folder / "parts.npz"),
            "files": [file.name for file in checkpoint_files.all_files(folder / "parts.npz")],
            "resumed": numbers(trained(folder / "parts.npz")),
            "flipped": flip_a_bit_of_process_1(folder),
            "after_flip": numbers(trained(folder / "flipped.npz")),
            "set_aside": len([*folder.rglob("*.damaged")]),
            "parts": [read for read in READS[0] if read[0] < 4],
            "sizes": sorted({size for _, size in READS[0]}),
            "batch": one_run("5k").batch_size,
            "written": sorted(set(written)),
        }
        checkpoint_files.discard(folder / "parts.npz")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
