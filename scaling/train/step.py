"""The compiled programs of a run: many training steps in one dispatch, and one evaluation over all held-out windows.

A program serves every run of one `ProgramKey`: learning rate, decay, horizon and clipping are traced values. A pack is several
runs of a shape in one program, their states stacked along a leading axis; they read the same batches.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config import Execution, ModelConfig, Precision, RunConfig
from scaling.train import optim
from scaling.train.model.forward import make_backbone, stack
from scaling.train.model.loss import LMHead, TokenScores, head_loss, token_nll, token_scores
from scaling.train.model.transformer import init
from scaling.train.sharding import Sharder

AVERAGE_POWER = 8.0  # the average's mean age is a tenth of the steps so far


class ProgramKey(NamedTuple):
    """What a program is compiled for; everything else about a run is traced."""

    model: ModelConfig
    seq_len: int
    schedule: str
    precision: Precision = "float32"
    averaged: bool = False
    predicted: tuple[int, ...] | None = None


class TrainState(NamedTuple):
    """What a run carries from step to step; `step` counts finished updates, `average` is () or like `params`."""

    params: Any
    moments: Any
    step: jax.Array
    average: Any = ()


def shape_of(run: RunConfig) -> ProgramKey:
    """The shape of a run's programs."""
    return ProgramKey(
        run.model,
        run.task.seq_len,
        run.optim.schedule,
        run.precision,
        run.evals.averaged,
        run.task.target_positions,
    )


def initial_state(shape: ProgramKey, seed: int, how: Execution) -> TrainState:
    """Parameters drawn from `seed`, zero moments, step 0; blocks stacked where the layers are scanned, arrays where the mesh wants them."""
    return Sharder(how).born(functools.partial(_init_state, shape, how), np.uint32(seed))


def _init_state(shape: ProgramKey, how: Execution, seed: Any) -> TrainState:
    params = init(shape.model, shape.seq_len, jax.random.key(seed))
    if how.layers == "scan":
        params = stack(params)
    blank = optim.OptimHyperparams(*([jnp.float32(0.0)] * len(optim.OptimHyperparams._fields)))
    average = jax.tree.map(jnp.zeros_like, params) if shape.averaged else ()
    return TrainState(
        params, optim.make_adamw(blank, 0.0, flat=_flat(how)).init(params), jnp.int32(0), average
    )


def _flat(how: Execution) -> bool:
    """Whether the moments are two flat vectors: a single device updates them faster, but they cannot be sharded with the parameters."""
    return how.mesh.n_devices == 1


def stack_states(states: Sequence[TrainState]) -> TrainState:
    """The states of a pack as one, with a leading axis of runs."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack_state(state: TrainState, index: int) -> TrainState:
    """One run's state out of a pack's."""
    return jax.tree.map(lambda leaf: leaf[index], state)


@functools.lru_cache(maxsize=64)
def train_program(shape: ProgramKey, how: Execution, pack: int | None = None) -> Any:
    """`run(state, hyper, tokens_KBT1, n) -> state, losses_K, norms_K`: the first n <= K batches, one update each.

    n is traced, so one compilation serves every stretch between two measurements, and where a stretch ends cannot change
    the bits. Losses are nats per token without the z-loss term; entries beyond n are zero. With `pack` runs, state, hyper,
    losses and norms have a leading axis of runs.
    """
    gradient, place = make_grad_fn(shape, how), Sharder(how)

    def run(
        state: TrainState, h: optim.OptimHyperparams, tokens_KBT1: jax.Array, n: jax.Array
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        def one(
            i: jax.Array, carry: tuple[TrainState, jax.Array, jax.Array]
        ) -> tuple[TrainState, jax.Array, jax.Array]:
            state, losses_K, norms_K = carry
            tokens_BT1 = jax.lax.dynamic_index_in_dim(tokens_KBT1, i, keepdims=False).astype(
                jnp.int32
            )
            grads, loss = gradient(state.params, tokens_BT1, h.z_loss)
            params, moments, norm = optim.update(
                shape.schedule,
                h,
                state.params,
                state.moments,
                grads,
                state.step,
                flat=_flat(how),
                model=shape.model,
            )
            average = _averaged(state.average, params, state.step) if shape.averaged else ()
            return (
                place.held(TrainState(params, moments, state.step + 1, average)),
                losses_K.at[i].set(loss),
                norms_K.at[i].set(norm),
            )

        blank_K = jnp.zeros(tokens_KBT1.shape[0], jnp.float32)
        with place.traced():
            state, losses_K, norms_K = jax.lax.fori_loop(0, n, one, (state, blank_K, blank_K))
        return place.held(state), *place.whole((losses_K, norms_K))

    return jax.jit(
        run if pack is None else jax.vmap(run, in_axes=(0, 0, None, None)), donate_argnums=0
    )


def make_grad_fn(shape: ProgramKey, how: Execution) -> Any:
    """`(params, tokens_BT1, z_loss) -> gradient, loss`, the batch in slices of `how.micro_batch` sequences."""
    through = make_backbone(shape.model, shape.seq_len, shape.precision, how)
    place = Sharder(how)
    head = LMHead(shape.precision, shape.model.tie_embeddings, place.share(how.loss_chunk))
    measure = place.mean_by_share(functools.partial(head_loss, how=head))

    def objective(
        params: Any, tokens_BT1: jax.Array, z_loss: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        x_NM, weight = through(params, tokens_BT1[:, :-1])
        x_NM, target_N = _select_targets(shape, x_NM, tokens_BT1)
        return measure(x_NM, weight, target_N, z_loss)

    gradient = jax.grad(objective, has_aux=True)

    def accumulated(params: Any, tokens_BT1: jax.Array, z_loss: jax.Array) -> tuple[Any, jax.Array]:
        B, length = tokens_BT1.shape
        count = B // (how.micro_batch or B)
        if count == 1:
            return gradient(params, tokens_BT1, z_loss)

        def add(sums: Any, tokens: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, sums, gradient(params, tokens, z_loss)), None

        slices = tokens_BT1.reshape(B // count, count, length).swapaxes(
            0, 1
        )  # every device of a sharded batch has its share of each
        sums, _ = jax.lax.scan(
            add, (jax.tree.map(jnp.zeros_like, params), jnp.float32(0.0)), slices
        )
        return jax.tree.map(lambda total: total / count, sums)

    return accumulated


def _select_targets(
    shape: ProgramKey, x_NM: jax.Array, tokens_BT1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What the head reads and the targets, at the places that are predicted."""
    target_BT = tokens_BT1[:, 1:]
    if shape.predicted is None:
        return x_NM, target_BT.reshape(-1)
    places = np.array(shape.predicted)
    x_BTM = x_NM.reshape(*target_BT.shape, -1)
    return x_BTM[:, places].reshape(-1, x_BTM.shape[-1]), target_BT[:, places].reshape(-1)


def _averaged(average: Any, params: Any, step: jax.Array) -> Any:
    """Polynomial-decay averaging (Shamir and Zhang 2013, eq. 10): weights grow with the step, so old ones are forgotten at any horizon."""
    share = (AVERAGE_POWER + 1.0) / (step.astype(jnp.float32) + 1.0 + AVERAGE_POWER)
    return jax.tree.map(lambda old, new: old + share * (new - old), average, params)


@functools.lru_cache(maxsize=64)
def eval_program(shape: ProgramKey, how: Execution) -> Any:
    """`measure(params, tokens_MBT1) -> nll_MB`: mean nats per token of every held-out window."""
    through = make_backbone(
        shape.model, shape.seq_len, shape.precision, how.model_copy(update={"remat": "none"})
    )
    head, place = LMHead(shape.precision, shape.model.tie_embeddings, how.loss_chunk), Sharder(how)

    def one(params: Any, tokens_BT1: jax.Array) -> jax.Array:
        tokens_BT1 = tokens_BT1.astype(jnp.int32)
        x_NM, weight = through(params, tokens_BT1[:, :-1])
        x_NM, target_N = _select_targets(shape, x_NM, tokens_BT1)
        nll_N = token_nll(x_NM, weight, target_N, head)
        return nll_N.reshape(len(tokens_BT1), -1).mean(axis=-1)

    def measure(params: Any, tokens_MBT1: jax.Array) -> jax.Array:
        with place.traced():
            return place.whole(jax.lax.map(functools.partial(one, params), tokens_MBT1))

    return jax.jit(measure)


@functools.lru_cache(maxsize=64)
def score_program(shape: ProgramKey, how: Execution) -> Any:
    """`measure(params, tokens_MBT1, worth_V) -> TokenScores` of (M, B, P): each of the P predicted tokens of every window."""
    through = make_backbone(
        shape.model, shape.seq_len, shape.precision, how.model_copy(update={"remat": "none"})
    )
    head, place = LMHead(shape.precision, shape.model.tie_embeddings, how.loss_chunk), Sharder(how)

    def one(params: Any, worth_V: jax.Array, tokens_BT1: jax.Array) -> TokenScores:
        tokens_BT1 = tokens_BT1.astype(jnp.int32)
        x_NM, weight = through(params, tokens_BT1[:, :-1])
        x_NM, target_N = _select_targets(shape, x_NM, tokens_BT1)
        found = token_scores(x_NM, weight, target_N, worth_V, head)
        return TokenScores(*(part_N.reshape(len(tokens_BT1), -1) for part_N in found))

    def measure(params: Any, tokens_MBT1: jax.Array, worth_V: jax.Array) -> TokenScores:
        with place.traced():
            found = jax.lax.map(functools.partial(one, params, worth_V), tokens_MBT1)
            return TokenScores(*place.whole(tuple(found)))

    return jax.jit(measure)
