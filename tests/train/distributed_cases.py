"""One of two processes with two devices each that train together.

Run by test_hosts as a child, once for each process.
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
from scaling.train import sharded_checkpoint
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


def manifest(path):
    """The names in the manifest of the last save."""
    last = max(sharded_checkpoint.folder(path).glob("[0-9]*/manifest.json"))
    return sorted(json.loads(last.read_text()))


def flip_a_bit_of_process_1(folder):
    """A copy of the checkpoint with one bit changed in what process 1 wrote; the file's name."""
    flipped = ""
    if jax.process_index() == 0:
        shutil.copytree(folder / "parts.sharded", folder / "flipped.sharded")
        files = (folder / "flipped.sharded").glob("[0-9]*/state/ocdbt.process_1/d/*")
        file = max(files, key=lambda item: (item.parts[-5], item.stat().st_size))
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
        flipped = str(file.relative_to(folder))
    broadcast_from_host0(0)
    return flipped


def main():
    """Train whole, then in two sittings; print what this process saw."""
    port, index, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    published, hashed = [], []
    show, sharded_checkpoint._make_visible = (
        sharded_checkpoint._make_visible,
        lambda *args: (published.append(1), show(*args)),
    )
    sums = sharded_checkpoint._sums

    def recorded_sums(save_folder, is_wanted):
        found = sums(save_folder, is_wanted)
        hashed.append(sorted(found))
        return found

    sharded_checkpoint._sums = recorded_sums
    with initialize_distributed(DistributedConfig(f"127.0.0.1:{port}", 2, index)):
        report = {
            "devices": [jax.device_count(), jax.local_device_count()],
            "agreed": broadcast_from_host0(index + 7, 3),
            "writes": jax.process_index() == 0,
            "refused": [refused(Execution()), refused(Execution(mesh=MeshShape(data=2)))],
            "whole": numbers(trained(folder / "whole.npz")),
            "stopped": trained(folder / "parts.npz", 1).kind,
            "saved": sharded_checkpoint.exists(folder / "parts.npz"),
            "hashed": hashed[-2:],
            "manifest": manifest(folder / "parts.npz"),
            "n_saves": len(hashed),
            "resumed": numbers(trained(folder / "parts.npz")),
            "flipped": flip_a_bit_of_process_1(folder),
            "after_flip": numbers(trained(folder / "flipped.npz")),
            "set_aside": len([*folder.rglob("0*.damaged")]),
            "parts": [read for read in READS[0] if read[0] < 4],
            "sizes": sorted({size for _, size in READS[0]}),
            "batch": one_run("5k").batch_size,
            "published": len(published),
        }
        report["checked"] = hashed[report["n_saves"]]
        sharded_checkpoint.discard(folder / "parts.npz")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
