"""A few training steps on meshes of eight forced devices, compared with one device.

Run by test_sharding as a child.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np

from scaling.config import (
    Execution,
    MeshShape,
    MuP,
    OptimConfig,
    RunConfig,
    SyntheticTask,
)
from scaling.config.resolve_execution import dispatch_steps, resolve
from scaling.config.run_groups import RunGroup
from scaling.store.rows import measurement_steps
from scaling.tasks import open_task
from scaling.train import optim, trainer
from scaling.train.program import program_key
from scaling.train.sharding import Sharder
from scaling.train.step import eval_program, initial_state, train_program
from scaling.train.trainer import Trainer
from tests.models import small_model
from tests.train.test_trainer import one_run

SCANNED = {"n_kv_heads": 2, "d_ff": 64, "vocab_size": 64, "ffn": "swiglu"}
MODELS = {
    "scan": small_model(32, 4, **SCANNED, bias=True),
    "unrolled": small_model(
        32,
        8,
        n_layers=1,
        n_kv_heads=1,
        d_head=8,
        d_ff=16,
        vocab_size=65,
        pos="learned",
        tie_embeddings=True,
        gains=False,
        transfer=MuP(base_width=16),
    ),
    "experts": small_model(32, 4, **SCANNED, n_experts=4, top_k=2),
}
STEPS = 3
CASES = {
    "scan": {
        "data=8": {"mesh": MeshShape(data=8)},
        "tensor=4, micro": {"mesh": MeshShape(tensor=4), "micro_batch": 8, "loss_chunk": 32},
        "2x2x2": {"mesh": MeshShape(data=2, fsdp=2, tensor=2), "loss_chunk": 64},
        "2x2x2 of a GPU program": {
            "mesh": MeshShape(data=2, fsdp=2, tensor=2),
            "loss_chunk": 64,
            "kind": "gpu",
        },
    },
    "unrolled": {
        "fsdp=8": {"mesh": MeshShape(fsdp=8), "remat": "block"},
        "2x2x2, micro": {"mesh": MeshShape(data=2, fsdp=2, tensor=2), "micro_batch": 8},
        "fsdp=8 of a GPU program": {"mesh": MeshShape(fsdp=8), "kind": "gpu", "remat": "block"},
        "fsdp=8 of a TPU program": {"mesh": MeshShape(fsdp=8), "kind": "tpu", "remat": "block"},
        "2x2x2 of a TPU program": {"mesh": MeshShape(data=2, fsdp=2, tensor=2), "kind": "tpu"},
    },
    "experts": {
        "2x2x2": {"mesh": MeshShape(data=2, fsdp=2, tensor=2)},
        "tensor=4 of a GPU program": {"mesh": MeshShape(tensor=4), "kind": "gpu"},
        "fsdp=4 of a TPU program": {"mesh": MeshShape(data=2, fsdp=4), "kind": "tpu"},
    },
}


def run_of(layers):
    """A run whose model is of the kind that is scanned, or unrolled."""
    task = SyntheticTask(kind="synthetic", seq_len=8)
    return RunConfig(
        model=MODELS[layers],
        task=task,
        optim=OptimConfig(lr=1e-2),
        batch_size=16,
        n_steps=100,
    )


def trained(layers, execution):
    """State, losses, gradient norms and held-out losses after a few steps.

    The last held-out batch is no multiple of eight.
    """
    run, sharder = run_of(layers), Sharder(execution)
    shape = program_key(run, execution)
    tokens = (
        np.random.default_rng(0)
        .integers(0, run.model.vocab_size, (STEPS, run.batch_size, 9))
        .astype(np.int32)
    )
    state, losses, norms = train_program(shape)(
        initial_state(shape, 0),
        optim.hyper(run.optim, run.n_steps),
        sharder.put_tokens(tokens),
        STEPS,
    )
    held_out = (
        eval_program(shape)(state.params, sharder.put_tokens(tokens[:, :10]))[0]
        if execution.loss_chunk or execution.mesh.n_devices == 1
        else None
    )
    return state, np.asarray(losses), np.asarray(norms), held_out


def moments(state):
    """The first moments as one vector: averages of the gradients."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.moments[0].mu)])


def shards(tree):
    """Shape and shape of a shard of every leaf, by its path."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): [leaf.shape, leaf.addressable_shards[0].data.shape]
        for path, leaf in found
    }


def host_events():
    """What the host of a GPU program does on eight devices, in dispatches of two steps: copies
    tokens to so many devices, or reads the losses of a dispatch that ended at a step.
    """
    run, events = one_run("10k"), []
    read, put = Trainer._read_losses, Sharder.put_tokens

    def recorded_read(self, in_flight):
        events.extend(["read", dispatch.step + dispatch.n_steps] for dispatch in in_flight)
        read(self, in_flight)

    def recorded_put(self, tokens, batch_size=None):
        placed = put(self, tokens, batch_size)
        if len(tokens) == dispatch_steps(run):  # else of an evaluation
            events.append(["copied", len(placed.sharding.device_set)])
        return placed

    Trainer._read_losses, Sharder.put_tokens = recorded_read, recorded_put
    trainer.dispatch_steps = lambda run: 2
    execution = resolve(run, Execution(mesh=MeshShape(data=2, fsdp=4)), "gpu")
    task = open_task(run.task)
    with TemporaryDirectory() as folder:  # a slow machine saves on the way
        path = Path(folder) / "state"
        Trainer(RunGroup((run,)), task, lambda _: path, execution, lambda: False).run(False)
    return {"events": events[1:], "boundaries": measurement_steps(run)}  # the first compiles


def main():
    """Print what differs between each mesh and one device."""
    report = {}
    for layers, cases in CASES.items():
        how = {"layers": "scan" if layers == "experts" else layers}
        alone, losses, norms, held_out = trained(layers, Execution(**how))
        assert not any(leaf.committed for leaf in jax.tree.leaves(alone))
        for name, choices in cases.items():
            state, *found = trained(layers, Execution(**how, **choices))
            differences = [found[0] - losses, found[1] - norms, moments(state) - moments(alone)]
            differences += (
                [np.asarray(found[2]) - np.asarray(held_out)] if found[2] is not None else []
            )
            report[f"{layers} {name}"] = {
                "differences": [float(np.abs(difference).max()) for difference in differences],
                "whole": all(
                    numbers.sharding.is_fully_replicated
                    for numbers in found[2:]
                    if numbers is not None
                ),
                "params": shards(state.params),
                "mu": shards(state.moments[0].mu),
            }
    print(json.dumps(report | {"host": host_events()}))


if __name__ == "__main__":
    main()
