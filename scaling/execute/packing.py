"""How many runs of a shape share one program: measured, shape by shape, and kept only where it pays.

A GPU or TPU is idle most of the time on a small model, so runs side by side in one program cost little more than one. A
CPU core is busy with one: there single-threaded processes side by side are the better pack, and the trial says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from scaling import accounting, files
from scaling.config import Execution, RunConfig
from scaling.config.run_groups import RunGroup, group_runs, pack_groups
from scaling.errors import ScalingError
from scaling.execute.options import OnMessage
from scaling.execute.timing import Trial, timed

LARGEST = 256
WORTH_TIMING = 2e12  # FLOPs of training, a minute or two on a CPU, below which trials cost more than they can save
WORTH = 1.1  # a pack must train a tenth more tokens a second, for it ties the fates of its runs together


@dataclass(frozen=True)
class PackDecision:
    """The runs of one program, the tokens a second that this gains (1.0: none; None: not measured), and why."""

    size: int = 1
    gain: float | None = None
    reason: str = "no other run has its shape"

    def notes(self) -> dict[str, Any]:
        """As it is kept in the metadata of the rows."""
        return {"pack_limit": self.size, "pack_gain": self.gain, "pack_reason": self.reason}


@dataclass(frozen=True)
class Packing:
    """A choice for each shape; shapes that are not named stay alone."""

    choices: Mapping[str, PackDecision] = field(default_factory=dict)

    def of(self, family: RunGroup) -> PackDecision:
        """The choice for the shape of a family."""
        return self.choices.get(_shape(family.runs[0]), PackDecision())

    def size(self, family: RunGroup) -> int:
        """The most runs of its shape in one program."""
        return self.of(family).size

    def write(self, path: Path) -> None:
        """Keep the choices: a sweep that goes on must not choose again, for a pack changes the last bits."""
        files.write_json(path, {key: asdict(choice) for key, choice in self.choices.items()})


def read(path: Path) -> Packing:
    """What `Packing.write` kept. Raises ScalingError where it is damaged."""
    try:
        return Packing(
            {key: PackDecision(**choice) for key, choice in files.read_json(path).items()}
        )
    except (files.ChecksumError, ValueError, TypeError, AttributeError) as error:
        remedy = "delete it: packs are then timed again, and unfinished runs start anew"
        raise ScalingError(f"is corrupt: {error}", where=str(path), remedy=remedy) from None


def _shape(run: RunConfig) -> str:
    fields = [run.model.model_dump_json(), run.task.seq_len, run.batch_size, run.precision]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def fixed(runs: Sequence[RunConfig], size: int) -> Packing:
    """Packs of `size` for every shape, unmeasured."""
    return Packing({_shape(run): PackDecision(size, None, "asked for with --pack") for run in runs})


def measure_packs(
    runs: Sequence[RunConfig], workers: int, how: Execution, on_message: OnMessage
) -> Packing:
    """Trials of the shapes that several runs share, from the smallest up; larger ones are not tried once one has gained nothing."""
    most = _most(runs) if how.mesh.n_devices == 1 else {}
    if sum(_flops(family) for family in most.values()) < WORTH_TIMING:
        return Packing(
            {shape: PackDecision(1, None, "not measured: too little work") for shape in most}
        )
    on_message(
        "timing how many runs of a shape should share a program (cached; --pack 1 skips it) ..."
    )
    choices: dict[str, PackDecision] = {}
    pays = True
    for shape, family in sorted(most.items(), key=lambda item: _n_params(item[1].runs[0])):
        choices[shape] = (
            best(family.runs[0], len(family.runs), workers, how)
            if pays
            else PackDecision(1, None, "a smaller shape gained nothing")
        )
        pays = pays and choices[shape].size > 1
    return Packing(choices)


def _most(runs: Sequence[RunConfig]) -> dict[str, RunGroup]:
    """The largest pack that could be made of each shape, where it holds more than one run."""
    together = pack_groups(group_runs(runs), lambda family: LARGEST)
    return {
        _shape(family.runs[0]): family
        for family in sorted(together, key=lambda family: len(family.runs))
        if len(family.runs) > 1
    }


def _flops(family: RunGroup) -> float:
    run = family.runs[0]
    return sum(
        accounting.train_flops(run.model, run.task.seq_len, steps * run.batch_tokens, "exact")
        for _, steps in family.incremental_steps()
    )


def _n_params(run: RunConfig) -> int:
    return accounting.n_params(run.model, run.task.seq_len, "total")


def best(run: RunConfig, limit: int, workers: int, how: Execution) -> PackDecision:
    """Double the pack as long as that trains a tenth more tokens a second, up to `limit` runs."""
    alone = timed([Trial(run, how)], workers)[0][1]
    size, gain, why = 1, 1.0, f"no more than {limit} runs have its shape"
    while 2 * size <= limit:
        seconds = _seconds(Trial(run, how, 2 * size), workers)
        if seconds is None:
            why = f"{2 * size} do not fit the device's memory"
            break
        now = 2 * size * alone / seconds
        if now < gain * WORTH:
            why = f"{2 * size} train {now:.2f} times the tokens a second of one"
            break
        size, gain = 2 * size, now
    return PackDecision(
        size,
        round(gain, 3),
        f"measured: {size} train {gain:.2f} times the tokens a second of one; {why}",
    )


def _seconds(trial: Trial, workers: int) -> float | None:
    """Seconds of a step; None where the pack does not fit the device."""
    try:
        return timed([trial], workers)[0][1]
    except ScalingError as error:
        if "RESOURCE_EXHAUSTED" in error.what or "out of memory" in error.what.lower():
            return None
        raise


def choose_packing(
    pack: int | Literal["auto"],
    runs: Sequence[RunConfig],
    workers: int,
    execution: Execution,
    path: Path,
    on_message: OnMessage,
) -> Packing:
    """Packs of a given size, or with "auto" those that the sweep has stored at `path`; where it
    has none, they are timed and stored. Raises ScalingError for a pack on a mesh.
    """
    if pack == "auto":
        packing = (
            read(path) if path.exists() else measure_packs(runs, workers, execution, on_message)
        )
        if packing.choices:
            packing.write(path)
        return packing
    if pack > 1 and execution.mesh.n_devices > 1:
        raise ScalingError(
            f"a pack of {pack} runs and a mesh exclude each other",
            where="--pack",
            remedy="leave out one of the two",
        )
    return fixed(runs, pack) if pack > 1 else Packing()
