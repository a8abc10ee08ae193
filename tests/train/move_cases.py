"""Runs that are stopped on one device and go on on a mesh, and back, among four forced devices.

Run by test_sharded_checkpoint as a child.
"""

import itertools
import json
import sys
from pathlib import Path

import jax
import numpy as np

from scaling.config import Execution, MeshShape, OptimConfig
from scaling.config.run_groups import RunGroup
from scaling.errors import ScalingError
from scaling.tasks import open_task
from scaling.train import sharded_checkpoint, step, trainer
from scaling.train.program import program_key
from tests.train.test_trainer import one_run

ALONE, MESH = Execution(), Execution(mesh=MeshShape(data=2, fsdp=2))
SCANNED, WIDE = Execution(layers="scan"), Execution(layers="scan", mesh=MeshShape(data=4))
MOVES = {
    "mesh and back": (ALONE, MESH, ALONE),
    "one device and back": (MESH, ALONE, MESH),
    "scanned and back": (ALONE, WIDE, SCANNED, MESH),
}
RUNS = {
    "adamw": one_run("10k"),
    "muon": one_run("10k").model_copy(update={"optim": OptimConfig(lr=1e-2, name="muon")}),
}
RUNS["averaged"] = RUNS["adamw"].model_copy(
    update={"evals": RUNS["adamw"].evals.model_copy(update={"averaged": True})}
)


def trained(run, path, execution, dispatches=None, allow_changes=True):
    """The outcome of a run, stopped after some dispatches."""
    count = itertools.count()
    return trainer.train(
        RunGroup((run,)),
        open_task(run.task),
        lambda group: path,
        execution,
        should_stop=lambda: dispatches is not None and next(count) >= dispatches,
        allow_changes=allow_changes,
    )[run.run_id]


def numbers(outcome):
    """Step, name and value of all that does not depend on the clock."""
    return [
        [m.step, f"{m.split} {m.metric}", m.value]
        for m in outcome.measured
        if m.metric != "tokens_per_second"
    ]


def moved(run, path, executions):
    """What came of a run that was stopped under each execution but the last: steps at which it was
    taken up, checkpoints that were there, and the numbers of its end.
    """
    kept = []
    for execution in executions[:-1]:
        trained(run, path, execution, dispatches=1)
        kept.append([path.exists(), path.with_suffix(".sharded").exists()])
    return {"kept": kept, "numbers": numbers(trained(run, path, executions[-1]))}


def layout_is_kept(run):
    """Whether a state comes back to the bit from every layout to every other one."""
    keys = [
        program_key(run, how.model_copy(update={"kind": "cpu"}))
        for how in (ALONE, MESH, SCANNED, WIDE)
    ]
    states = [
        jax.tree.map(lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape), state)
        for key in keys
        for state in [step.draw_state(key, 0)]
    ]
    results = []
    for was, state in zip(keys, states, strict=True):
        for now, other in zip(keys, states, strict=True):
            there = step.change_layout(was, now, state)
            back = step.change_layout(now, was, there)
            pairs = zip(jax.tree.leaves(state), jax.tree.leaves(back), strict=True)
            results.append(
                jax.tree.structure(there) == jax.tree.structure(other)
                and jax.tree.map(np.shape, there) == jax.tree.map(np.shape, other)
                and all((np.float32(a) == np.float32(b)).all() for a, b in pairs)
            )
    return results


def main():
    """Print every move next to the undisturbed run."""
    folder, report = Path(sys.argv[1]), {}
    for name, run in RUNS.items():
        report[name] = {"undisturbed": numbers(trained(run, folder / f"{name}.npz", ALONE))}
        for move, executions in MOVES.items():
            if name == "adamw" or move == "mesh and back":
                path = folder / f"{name}-{move}.npz"
                report[name][move] = moved(run, path, executions)
        report[name]["layouts"] = layout_is_kept(run)
    path = folder / "asked.npz"
    trained(RUNS["adamw"], path, ALONE, dispatches=1)
    try:
        trained(RUNS["adamw"], path, MESH, allow_changes=False)
    except ScalingError as error:
        report["asked"] = [str(error), error.remedy, path.exists()]
    report["saved"] = sharded_checkpoint.exists(path)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
