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
from jax import Array
from jax.flatten_util import ravel_pytree

from scaling.train import optim
from scaling.train.model.forward import make_backbone, stack, unstack
from scaling.train.model.loss import LMHead, head_loss, token_nll, token_scores
from scaling.train.model.transformer import init
from scaling.train.program import ProgramKey

AVERAGE_POWER = 8.0  # the mean age of the average is a tenth of the steps so far


class TrainState(NamedTuple):
    """State from step to step; `step` counts finished updates, `average` is () or like `params`."""

    params: Any
    moments: Any
    step: Array
    average: Any = ()


def initial_state(key: ProgramKey, seed: int) -> TrainState:
    """Parameters drawn from `seed`, zero moments, step 0; arrays lie where the mesh wants them.

    A device holds its shards and, for a moment, the one vector that all parameters are drawn from
    (4 bytes per parameter).
    """
    draw, drawn = functools.partial(draw_state, key), np.uint32(seed)
    if not key.sharder.is_sharded:
        return draw(drawn)
    shardings = key.sharder.shardings(jax.eval_shape(draw, drawn))
    return jax.jit(draw, out_shardings=shardings)(drawn)  # type: ignore[no-any-return]


def draw_state(key: ProgramKey, seed: Any) -> TrainState:
    """The initial state of a traced seed; blocks are stacked if the layers are scanned."""
    params = init(key.model, key.seq_len, jax.random.key(seed))
    if key.execution.layers == "scan":
        params = stack(params)
    zeros = optim.OptimHyperparams(*jnp.zeros(len(optim.OptimHyperparams._fields)))
    moments = optim.make_optimizer(key, zeros, 0.0).init(params)
    average = jax.tree.map(jnp.zeros_like, params) if key.averaged else ()
    return TrainState(params, moments, jnp.int32(0), average)


def change_layout(was: ProgramKey, now: ProgramKey, state: TrainState) -> TrainState:
    """A state of one execution as another one keeps it: blocks stacked or not, moments flat or
    not.
    """

    def layout(key: ProgramKey) -> tuple[bool, bool]:
        return key.execution.layers == "scan", key.has_flat_moments

    def map_trees(change: Callable[[Any], Any], tree: Any) -> Any:
        """Change parameters, and what is laid out as they are."""
        is_params = lambda node: isinstance(node, dict) and "blocks" in node  # noqa: E731
        return jax.tree.map(
            lambda node: change(node) if is_params(node) else node, tree, is_leaf=is_params
        )

    (was_stacked, was_flat), (is_stacked, is_flat) = layout(was), layout(now)
    if layout(was) == layout(now):
        return state
    if was_flat:
        unravel = ravel_pytree(state.params)[1]
        moments = jax.tree.map(lambda leaf: unravel(leaf) if leaf.ndim else leaf, state.moments)
        state = state._replace(moments=moments)
    if was_stacked:
        state = map_trees(lambda tree: unstack(tree, was.model.n_layers), state)
    if is_stacked:
        state = map_trees(stack, state)
    if is_flat:
        moments = map_trees(lambda tree: ravel_pytree(tree)[0], state.moments)
        state = state._replace(moments=moments)
    return state


def stack_runs(trees: Sequence[Any]) -> Any:
    """The states (or numbers) of a pack as one, with a leading axis of runs; one alone as it is."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@functools.lru_cache(maxsize=64)
def train_program(key: ProgramKey) -> Any:
    """`run(state, hyper, tokens_KBT1, n) -> state, losses_K, norms_K`: the first n <= K batches.

    n is traced, so one compilation serves every dispatch, and where a dispatch ends cannot change
    the bits. Losses are nats per token without the z-loss term; entries from n on are zero. Of a
    pack, state, hyper, losses and norms have a leading axis of runs.
    """
    sharder, compute_grads = key.sharder, make_grad_fn(key)

    def run(
        state: TrainState, h: optim.OptimHyperparams, tokens_KBT1: Array, n: Array
    ) -> tuple[TrainState, Array, Array]:
        def step(i: Array, carry: tuple[TrainState, Array, Array]) -> Any:
            state, losses_K, norms_K = carry
            tokens_BT1 = jax.lax.dynamic_index_in_dim(tokens_KBT1, i, keepdims=False)
            grads, loss = compute_grads(state.params, tokens_BT1.astype(jnp.int32), h.z_loss)
            lr = optim.learning_rate(key.schedule, h, state.step)
            optimizer = optim.make_optimizer(key, h, lr)
            params, moments, norm = optim.update(
                optimizer, h.clip, state.params, state.moments, grads
            )
            average = update_average(state.average, params, state.step) if key.averaged else ()
            state = TrainState(params, moments, state.step + 1, average)
            return sharder.constrain(state), losses_K.at[i].set(loss), norms_K.at[i].set(norm)

        zeros_K = jnp.zeros(tokens_KBT1.shape[0], jnp.float32)
        with sharder.in_mesh():
            state, losses_K, norms_K = jax.lax.fori_loop(0, n, step, (state, zeros_K, zeros_K))
        return sharder.constrain(state), *sharder.replicate((losses_K, norms_K))

    program = jax.vmap(run, in_axes=(0, 0, None, None)) if key.is_pack else run
    return jax.jit(program, donate_argnums=0)


def make_grad_fn(key: ProgramKey) -> Any:
    """`(params, tokens_BT1, z_loss) -> grads, loss`, in slices of `execution.micro_batch`
    sequences.
    """
    backbone, sharder, tied = make_backbone(key), key.sharder, key.model.tie_embeddings
    chunk = key.execution.loss_chunk
    head = LMHead(key.compute, tied, chunk and max(1, chunk // sharder.n_batch_shards))
    mean_loss = sharder.mean_over_devices(
        functools.partial(head_loss, head=head), "embedding" if tied else "unembedding"
    )

    def objective(params: Any, tokens_BT1: Array, z_loss: Array) -> tuple[Array, Array]:
        x_NM, weight, balance = backbone(params, tokens_BT1[:, :-1])
        total, loss = mean_loss(*_select_targets(key, x_NM, weight, tokens_BT1), z_loss)
        return total if balance is None else total + key.model.load_balance * balance, loss

    grad = jax.grad(objective, has_aux=True)

    def accumulated_grad(params: Any, tokens_BT1: Array, z_loss: Array) -> tuple[Any, Array]:
        B, length = tokens_BT1.shape
        count = B // (key.execution.micro_batch or B)
        if count == 1:
            return grad(params, tokens_BT1, z_loss)

        def add(sums: Any, tokens: Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, grad(params, tokens, z_loss)), None

        # strided slices, so that every device of a sharded batch has its share of each
        slices = tokens_BT1.reshape(B // count, count, length).swapaxes(0, 1)
        zeros = jax.tree.map(jnp.zeros_like, params), jnp.float32(0.0)
        sums, _ = jax.lax.scan(add, zeros, slices)
        return jax.tree.map(lambda total: total / count, sums)

    return accumulated_grad


def _select_targets(
    key: ProgramKey, x_NM: Array, weight: Array, tokens_BT1: Array
) -> tuple[Array, Array, Array]:
    """The head's inputs, its matrix, and the targets at the positions that are predicted."""
    target_BT = tokens_BT1[:, 1:]
    if key.target_positions is not None:
        positions = np.array(key.target_positions)
        x_BTM = x_NM.reshape(*target_BT.shape, -1)
        x_NM, target_BT = x_BTM[:, positions].reshape(-1, x_BTM.shape[-1]), target_BT[:, positions]
    return x_NM, weight, target_BT.reshape(-1)


def update_average(average: Any, params: Any, step: Array) -> Any:
    """Polynomial-decay averaging (Shamir and Zhang 2013, eq. 10).

    Weights grow with the step, so old parameters are forgotten at any horizon.
    """
    weight = (AVERAGE_POWER + 1.0) / (step.astype(jnp.float32) + 1.0 + AVERAGE_POWER)
    return jax.tree.map(lambda old, new: old + weight * (new - old), average, params)


@functools.lru_cache(maxsize=64)
def eval_program(key: ProgramKey) -> Any:
    """`run(params, tokens_MBT1) -> nll_MB, balance_M`: mean nats per token of every window; with
    experts the mean load-balance loss of the layers, otherwise None.
    """
    return _by_batch(key, token_nll, lambda nll_BP: nll_BP.mean(axis=-1))


@functools.lru_cache(maxsize=64)
def score_program(key: ProgramKey) -> Any:
    """`run(params, tokens_MBT1, value_V) -> TokenScores (M, B, P), balance_M`, of the predicted
    tokens.
    """
    return _by_batch(key, token_scores, lambda scores_BP: scores_BP)


def _by_batch(key: ProgramKey, measure: Callable[..., Any], reduce: Callable[[Any], Any]) -> Any:
    """`run(params, tokens_MBT1, ...)`: `measure` of the targets (B, P) of each batch, reduced."""
    backbone, sharder = make_backbone(key.with_execution(remat="none")), key.sharder
    head = LMHead(key.compute, key.model.tie_embeddings, key.execution.loss_chunk)

    def run(params: Any, tokens_MBT1: Array, *values: Array) -> Any:
        def one(tokens_BT1: Array) -> Any:
            tokens_BT1 = tokens_BT1.astype(jnp.int32)
            x_NM, weight, balance = backbone(params, tokens_BT1[:, :-1])
            measured = measure(*_select_targets(key, x_NM, weight, tokens_BT1), *values, head)
            measured = jax.tree.map(lambda x_N: x_N.reshape(len(tokens_BT1), -1), measured)
            return reduce(measured), None if balance is None else balance / key.model.n_layers

        with sharder.in_mesh():
            return sharder.replicate(jax.lax.map(one, tokens_MBT1))

    return jax.jit(run)
