"""Compiled programs of a run: training steps, and evaluation of all held-out windows.

A program serves every run of one `ProgramKey`: learning rate, decay, horizon and clipping are
traced values. A pack is several runs with one key in one program, their states stacked along a
leading axis; they read the same batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from scaling.config import Execution, ModelConfig, Precision, RunConfig
from scaling.config.optim import OptimizerName
from scaling.train import optim
from scaling.train.model.forward import make_backbone, stack, unstack
from scaling.train.model.loss import LMHead, head_loss, token_nll, token_scores
from scaling.train.model.operations import compute_of
from scaling.train.model.transformer import init
from scaling.train.sharding import Devices, Sharder

AVERAGE_POWER = 8.0  # the mean age of the average is a tenth of the steps so far


class ProgramKey(NamedTuple):
    """What a program is compiled for; everything else about a run is traced."""

    model: ModelConfig
    seq_len: int
    schedule: str
    precision: Precision = "float32"
    averaged: bool = False
    target_positions: tuple[int, ...] | None = None
    document_separator: int | None = None
    optimizer: OptimizerName = "adamw"


class TrainState(NamedTuple):
    """State from step to step; `step` counts finished updates, `average` is () or like `params`."""

    params: Any
    moments: Any
    step: jax.Array
    average: Any = ()


def program_key(run: RunConfig) -> ProgramKey:
    """The key of a run's programs."""
    return ProgramKey(
        model=run.model,
        seq_len=run.task.seq_len,
        schedule=run.optim.schedule,
        precision=run.precision,
        averaged=run.evals.averaged,
        target_positions=run.task.target_positions,
        document_separator=getattr(run.task, "document_separator", None),
        optimizer=run.optim.name,
    )


def initial_state(key: ProgramKey, seed: int, execution: Execution) -> TrainState:
    """Parameters drawn from `seed`, zero moments, step 0; arrays lie where the mesh wants them."""
    draw = make_initial_state(key, execution)
    return Sharder(execution).init_sharded(draw, np.uint32(seed))  # type: ignore[no-any-return]


def make_initial_state(key: ProgramKey, execution: Execution) -> Callable[[Any], TrainState]:
    """The function of a seed; blocks are stacked if the layers are scanned."""

    def draw(seed: Any) -> TrainState:
        params = init(key.model, key.seq_len, jax.random.key(seed))
        if execution.layers == "scan":
            params = stack(params)
        zeros = optim.OptimHyperparams(*([jnp.float32(0.0)] * len(optim.OptimHyperparams._fields)))
        flat = _has_flat_moments(key, execution)
        optimizer = optim.make_optimizer(zeros, 0.0, name=key.optimizer, flat=flat, model=key.model)
        moments = optimizer.init(params)
        average = jax.tree.map(jnp.zeros_like, params) if key.averaged else ()
        return TrainState(params, moments, jnp.int32(0), average)

    return draw


def _has_flat_moments(key: ProgramKey, execution: Execution) -> bool:
    """Adam's moments as two flat vectors are faster on a CPU, but cannot be sharded with the
    parameters.

    On accelerators they cost two copies of all gradients.
    """
    on_cpu = execution.mesh.n_devices == 1 and not execution.on_accelerator
    return on_cpu and key.optimizer != "muon"


def change_layout(key: ProgramKey, was: Execution, now: Execution, state: TrainState) -> TrainState:
    """A state of one execution as another one keeps it: blocks stacked or not, moments flat or
    not.
    """

    def layout(execution: Execution) -> tuple[bool, bool]:
        return execution.layers == "scan", _has_flat_moments(key, execution)

    def map_trees(change: Callable[[Any], Any], tree: Any) -> Any:
        """Change parameters, and what is laid out as they are."""
        is_params = lambda node: isinstance(node, dict) and "blocks" in node  # noqa: E731
        return jax.tree.map(
            lambda node: change(node) if is_params(node) else node, tree, is_leaf=is_params
        )

    if layout(was) == layout(now):
        return state
    if _has_flat_moments(key, was):
        unravel = ravel_pytree(state.params)[1]
        moments = jax.tree.map(lambda leaf: unravel(leaf) if leaf.ndim else leaf, state.moments)
        state = state._replace(moments=moments)
    if was.layers == "scan":
        state = map_trees(lambda tree: unstack(tree, key.model.n_layers), state)
    if now.layers == "scan":
        state = map_trees(stack, state)
    if _has_flat_moments(key, now):
        moments = map_trees(lambda tree: ravel_pytree(tree)[0], state.moments)
        state = state._replace(moments=moments)
    return state


def stack_states(states: Sequence[TrainState]) -> TrainState:
    """The states of a pack as one, with a leading axis of runs."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack_state(state: TrainState, index: int) -> TrainState:
    """The state of one run of a pack."""
    return jax.tree.map(lambda leaf: leaf[index], state)


@functools.lru_cache(maxsize=64)
def train_program(
    key: ProgramKey, execution: Execution, pack: int | None = None, devices: Devices = ()
) -> Any:
    """`run(state, hyper, tokens_KBT1, n) -> state, losses_K, norms_K`: the first n <= K batches.

    n is traced, so one compilation serves every dispatch, and where a dispatch ends cannot change
    the bits. Losses are nats per token without the z-loss term; entries from n on are zero. With
    `pack` runs, state, hyper, losses and norms have a leading axis of runs. `devices` may be those
    of a machine that is not here, to compile for it.
    """
    sharder = Sharder(execution, devices)
    compute_grads = make_grad_fn(key, execution, devices)
    flat = _has_flat_moments(key, execution)

    def train_step(
        state: TrainState, h: optim.OptimHyperparams, tokens_BT1: jax.Array
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        grads, loss = compute_grads(state.params, tokens_BT1, h.z_loss)
        lr = optim.learning_rate(key.schedule, h, state.step)
        optimizer = optim.make_optimizer(h, lr, name=key.optimizer, flat=flat, model=key.model)
        params, moments, norm = optim.update(optimizer, h.clip, state.params, state.moments, grads)
        average = update_average(state.average, params, state.step) if key.averaged else ()
        return TrainState(params, moments, state.step + 1, average), loss, norm

    def run(
        state: TrainState, h: optim.OptimHyperparams, tokens_KBT1: jax.Array, n: jax.Array
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        def body(i: jax.Array, carry: tuple[TrainState, jax.Array, jax.Array]) -> Any:
            state, losses_K, norms_K = carry
            tokens_BT1 = jax.lax.dynamic_index_in_dim(tokens_KBT1, i, keepdims=False)
            state, loss, norm = train_step(state, h, tokens_BT1.astype(jnp.int32))
            return sharder.constrain(state), losses_K.at[i].set(loss), norms_K.at[i].set(norm)

        zeros_K = jnp.zeros(tokens_KBT1.shape[0], jnp.float32)
        with sharder.in_mesh():
            state, losses_K, norms_K = jax.lax.fori_loop(0, n, body, (state, zeros_K, zeros_K))
        return sharder.constrain(state), *sharder.replicate((losses_K, norms_K))

    program = run if pack is None else jax.vmap(run, in_axes=(0, 0, None, None))
    return jax.jit(program, donate_argnums=0)


def make_grad_fn(key: ProgramKey, execution: Execution, devices: Devices = ()) -> Any:
    """`(params, tokens_BT1, z_loss) -> grads, loss`, in slices of `execution.micro_batch`
    sequences.
    """
    backbone = make_backbone(
        key.model, key.seq_len, key.precision, execution, key.document_separator
    )
    sharder, tied = Sharder(execution, devices), key.model.tie_embeddings
    chunk = execution.loss_chunk and max(1, execution.loss_chunk // sharder.n_batch_shards)
    head = LMHead(compute_of(key.precision, execution), tied, chunk)
    mean_loss = sharder.mean_over_devices(
        functools.partial(head_loss, head=head), "embedding" if tied else "unembedding"
    )

    def objective(
        params: Any, tokens_BT1: jax.Array, z_loss: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        x_NM, weight, balance = backbone(params, tokens_BT1[:, :-1])
        x_NM, target_N = _select_targets(key, x_NM, tokens_BT1)
        total, loss = mean_loss(x_NM, weight, target_N, z_loss)
        return total if balance is None else total + key.model.load_balance * balance, loss

    grad = jax.grad(objective, has_aux=True)

    def accumulated_grad(
        params: Any, tokens_BT1: jax.Array, z_loss: jax.Array
    ) -> tuple[Any, jax.Array]:
        B, length = tokens_BT1.shape
        count = B // (execution.micro_batch or B)
        if count == 1:
            return grad(params, tokens_BT1, z_loss)

        def add(sums: Any, tokens: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, grad(params, tokens, z_loss)), None

        # strided slices, so that every device of a sharded batch has its share of each
        slices = tokens_BT1.reshape(B // count, count, length).swapaxes(0, 1)
        zeros = jax.tree.map(jnp.zeros_like, params), jnp.float32(0.0)
        sums, _ = jax.lax.scan(add, zeros, slices)
        return jax.tree.map(lambda total: total / count, sums)

    return accumulated_grad


def _select_targets(
    key: ProgramKey, x_NM: jax.Array, tokens_BT1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The head's inputs and the targets at the positions that are predicted."""
    target_BT = tokens_BT1[:, 1:]
    if key.target_positions is None:
        return x_NM, target_BT.reshape(-1)
    positions = np.array(key.target_positions)
    x_BTM = x_NM.reshape(*target_BT.shape, -1)
    return x_BTM[:, positions].reshape(-1, x_BTM.shape[-1]), target_BT[:, positions].reshape(-1)


def update_average(average: Any, params: Any, step: jax.Array) -> Any:
    """Polynomial-decay averaging (Shamir and Zhang 2013, eq. 10).

    Weights grow with the step, so old parameters are forgotten at any horizon.
    """
    weight = (AVERAGE_POWER + 1.0) / (step.astype(jnp.float32) + 1.0 + AVERAGE_POWER)
    return jax.tree.map(lambda old, new: old + weight * (new - old), average, params)


@functools.lru_cache(maxsize=64)
def eval_program(key: ProgramKey, execution: Execution, devices: Devices = ()) -> Any:
    """`nll(params, tokens_MBT1) -> nll_MB`: mean nats per token of every held-out window."""
    return _by_batch(key, execution, token_nll, lambda nll_BP: nll_BP.mean(axis=-1), devices)


@functools.lru_cache(maxsize=64)
def score_program(key: ProgramKey, execution: Execution) -> Any:
    """`score(params, tokens_MBT1, value_V) -> TokenScores` (M, B, P) of the predicted tokens."""
    return _by_batch(key, execution, token_scores, lambda scores_BP: scores_BP)


@functools.lru_cache(maxsize=64)
def balance_program(key: ProgramKey, execution: Execution) -> Any:
    """`balance(params, tokens_MBT1) -> balance_M`: the mean load-balance loss of the layers."""
    backbone = make_backbone(key.model, key.seq_len, key.precision, execution)
    sharder = Sharder(execution)

    def run(params: Any, tokens_MBT1: jax.Array) -> Any:
        def one(tokens_BT1: jax.Array) -> Any:
            _, _, balance = backbone(params, tokens_BT1[:, :-1].astype(jnp.int32))
            return balance / key.model.n_layers  # type: ignore[operator]

        with sharder.in_mesh():
            return sharder.replicate(jax.lax.map(one, tokens_MBT1))

    return jax.jit(run)


def _by_batch(
    key: ProgramKey,
    execution: Execution,
    measure: Callable[..., Any],
    reduce: Callable[[Any], Any],
    devices: Devices = (),
) -> Any:
    """`run(params, tokens_MBT1, ...)`: `measure` of the targets (B, P) of each batch, reduced."""
    plain = execution.model_copy(update={"remat": "none"})
    backbone = make_backbone(key.model, key.seq_len, key.precision, plain, key.document_separator)
    compute, sharder = compute_of(key.precision, execution), Sharder(execution, devices)
    head = LMHead(compute, key.model.tie_embeddings, execution.loss_chunk)

    def run(params: Any, tokens_MBT1: jax.Array, *values: jax.Array) -> Any:
        def one(tokens_BT1: jax.Array) -> Any:
            tokens_BT1 = tokens_BT1.astype(jnp.int32)
            x_NM, weight, _ = backbone(params, tokens_BT1[:, :-1])
            x_NM, target_N = _select_targets(key, x_NM, tokens_BT1)
            measured = measure(x_NM, weight, target_N, *values, head)
            B = len(tokens_BT1)
            return reduce(jax.tree.map(lambda array_N: array_N.reshape(B, -1), measured))

        with sharder.in_mesh():
            return sharder.replicate(jax.lax.map(one, tokens_MBT1))

    return jax.jit(run)
