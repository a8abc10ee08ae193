"""nanoGPT and NanoDO as contestants of `steps.py`: `PYTHON -m benchmarks.step_peers PEER FOLDER
CELL`.

PYTHON is any interpreter with torch (nanogpt) or jax, flax and optax (nanodo); FOLDER is a checkout
of the peer's
repository; CELL is JSON (see `steps.Cell`). Model and optimiser are the repository's own files;
what stands here is the step
of its train.py without logging, with its defaults: no biases, AdamW with weight decay 0.1, nanoGPT
clips gradients at 1.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.step_serve import seconds_per_step, serve

BATCHES = 8


def nanogpt(cell: dict[str, Any], variant: str) -> tuple[Callable[[int], object], dict[str, Any]]:
    """`model.py`'s GPT and its AdamW; eager, through `torch.compile`, or under bfloat16 autocast as
    its train.py has it.
    """
    import torch
    from model import GPT, GPTConfig

    torch.set_num_threads(cell["threads"])
    torch.manual_seed(0)
    config = GPTConfig(
        block_size=cell["seq_len"],
        vocab_size=cell["vocab_size"],
        n_layer=cell["n_layers"],
        n_head=cell["n_heads"],
        n_embd=cell["d_model"],
        dropout=0.0,
        bias=False,
    )
    model = GPT(config)
    adamw = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cpu")
    n_params = model.get_num_params() - model.lm_head.weight.numel()
    model = torch.compile(model) if variant == "compiled" else model
    precision = (
        torch.autocast("cpu", torch.bfloat16) if variant == "bfloat16" else contextlib.nullcontext()
    )
    tokens = torch.randint(cell["vocab_size"], (BATCHES, cell["batch"], cell["seq_len"] + 1))

    def take(count: int) -> None:
        for i in range(count):
            batch = tokens[i % BATCHES]
            with precision:
                _, loss = model(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adamw.step()
            adamw.zero_grad(set_to_none=True)

    return take, {"n_params": n_params, "versions": {"torch": torch.__version__}}


def nanodo(cell: dict[str, Any]) -> tuple[Callable[[int], object], dict[str, Any]]:
    """`nanodo/model.py` and `nanodo/optimizer.py`; the loss of `loss.py` and the step of `train.py`
    on one device, without metrics.
    """
    import flax
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax.training.train_state import TrainState
    from ml_collections import ConfigDict
    from nanodo import model, optimizer

    shape = model.DoConfig(
        D=cell["d_model"],
        H=cell["n_heads"],
        L=cell["seq_len"],
        N=cell["n_layers"],
        V=cell["vocab_size"],
        F=4 * cell["d_model"],
        dtype="float32",
        fsdp_enabled=False,
    )
    schedule = {
        "num_train_steps": 100_000,
        "peak_learning_rate": 0.0016,
        "init_learning_rate": 0.00016,
        "final_learning_rate": 0.00016,
        "warmup_steps": 1000,
        "decay_type": "cosine",
        "weight_decay": 0.1,
        "clip_by_global_norm": None,
        "optimizer": "adamw",
    }
    module, adamw = model.TransformerDo(shape), optimizer.get_optimizer(ConfigDict(schedule))
    tokens = np.random.default_rng(0).integers(
        1, cell["vocab_size"], (BATCHES, cell["batch"], cell["seq_len"]), dtype=np.int32
    )

    def loss(params: Any, tokens_BT: jax.Array) -> jax.Array:
        targets_BT = jnp.pad(tokens_BT[:, 1:], ((0, 0), (0, 1)))
        weights_BT = jnp.where(targets_BT != 0, 1, 0).astype(jnp.float32)
        nll_BT = optax.losses.softmax_cross_entropy_with_integer_labels(
            module.apply({"params": params}, tokens_BT), targets_BT
        )
        return jnp.sum(nll_BT * weights_BT) / weights_BT.sum()

    def step(state: TrainState, tokens_BT: jax.Array) -> tuple[TrainState, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(state.params, tokens_BT)
        updates, moments = state.tx.update(gradient, state.opt_state, state.params)
        return state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=moments,
        ), value

    params = jax.jit(module.init)(jax.random.PRNGKey(42), tokens[0])["params"]
    state, program = (
        TrainState.create(apply_fn=module.apply, params=params, tx=adamw),
        jax.jit(step, donate_argnums=0),
    )

    def take(count: int) -> None:
        nonlocal state
        for i in range(count):
            state, value = program(state, tokens[i % BATCHES])
        jax.block_until_ready((state, value))

    embeddings = {"embed", "pos_embed"}
    n_params = sum(
        leaf.size
        for name, part in params.items()
        if name not in embeddings
        for leaf in jax.tree.leaves(part)
    )
    return take, {
        "n_params": n_params,
        "versions": {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__},
    }


def main() -> None:
    """Get ready, warm up, serve."""
    peer, folder, cell = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    sys.path.insert(0, folder)
    with contextlib.redirect_stdout(sys.stderr):
        take, facts = nanodo(cell) if peer == "nanodo" else nanogpt(cell, peer.partition("-")[2])
        take(2)
    serve(lambda: seconds_per_step(take), facts)


if __name__ == "__main__":
    main()
