"""AdamW, Muon and their schedules with every number traced.

One compiled step serves all learning rates, decays and horizons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from optax import contrib

from scaling.config import ModelConfig, OptimConfig
from scaling.train.model import mup
from scaling.train.program import ProgramKey

MUON_BETA = 0.95  # of its Nesterov momentum
MUON_RMS = 0.2  # of its step, before the learning rate


class OptimHyperparams(NamedTuple):
    """The optimiser's numbers as traced scalars; `n_steps` is the horizon of the schedule."""

    lr: Array
    warmup_steps: Array
    n_steps: Array
    cooldown_steps: Array
    final_lr_frac: Array
    weight_decay: Array
    b1: Array
    b2: Array
    eps: Array
    clip: Array
    z_loss: Array


def hyper(optim: OptimConfig, n_steps: int) -> OptimHyperparams:
    """The traced numbers of a configuration; no clipping is an infinite norm."""
    derived = {
        "n_steps": n_steps,
        "cooldown_steps": optim.cooldown(n_steps),
        "clip": optim.clip or float("inf"),
    }
    values = optim.model_dump() | derived
    return OptimHyperparams(*(jnp.float32(values[name]) for name in OptimHyperparams._fields))


def learning_rate(schedule: str, h: OptimHyperparams, step: Array) -> Array:
    """The learning rate of the update that follows `step` finished ones.

    Linear warm-up, then: `constant`; `cosine` to final_lr_frac at n_steps (Loshchilov and Hutter
    2017); `wsd`, constant until the last cooldown_frac of the steps and then 1 - sqrt (Hagele 2024,
    eq. 2).
    """
    now = step.astype(jnp.float32)
    warm = jnp.minimum(1.0, (now + 1.0) / jnp.maximum(h.warmup_steps, 1.0))
    if schedule == "constant":
        return h.lr * warm
    if schedule == "cosine":
        done = (now - h.warmup_steps) / jnp.maximum(h.n_steps - h.warmup_steps, 1.0)
        shape = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(done, 0.0, 1.0)))
    else:
        done = (now + 1.0 - (h.n_steps - h.cooldown_steps)) / (h.cooldown_steps + 1.0)
        shape = 1.0 - jnp.sqrt(jnp.clip(done, 0.0, 1.0))
    return h.lr * warm * (h.final_lr_frac + (1.0 - h.final_lr_frac) * shape)


def make_optimizer(
    key: ProgramKey, h: OptimHyperparams, lr: Array | float
) -> optax.GradientTransformation:
    """The optimiser with decoupled decay of the matrices only (gains and biases are not decayed).

    Flat moments are two vectors: one fused update instead of one per leaf compiles faster and
    steps faster on a CPU. The model's transfer multiplies the learning rate leaf by leaf, but not
    the decay, for lr x decay stays. With Muon, Adam is for embeddings, head, gains and biases.
    """
    adam = optax.scale_by_adam(b1=h.b1, b2=h.b2, eps=h.eps)  # type: ignore[arg-type]
    scale = _with_transfer(optax.flatten(adam) if key.has_flat_moments else adam, key.model)
    if key.optimizer == "muon":

        def label(path: Any, leaf: Array) -> str:
            return "muon" if path[0].key == "blocks" and path[-1].key == "kernel" else "adam"

        parts = {"muon": _scale_by_muon(key.model), "adam": scale}
        scale = optax.partition(parts, lambda params: jax.tree.map_with_path(label, params))

    def decayed(params: Any) -> Any:  # by name: in stacked blocks a vector has a second axis
        return jax.tree.map_with_path(
            lambda path, _: not path[-1].key.endswith(("gain", "bias")), params
        )

    decay = optax.add_decayed_weights(h.weight_decay, decayed)
    return optax.chain(scale, decay, optax.scale_by_learning_rate(lr))


def _scale_by_muon(model: ModelConfig) -> optax.GradientTransformation:
    """Muon (Jordan 2024) for the blocks' matrices.

    Its step is scaled to the root mean square of Adam's, 0.2 (Liu 2025, eq. 4), so that learning
    rates and decays that suit AdamW suit it too. Queries, keys, values, gate and up are matrices of
    their own, and so is every layer of stacked blocks.
    """
    heads = [model.n_heads * model.d_head, *2 * [model.n_kv_heads * model.d_head]]
    fused = {"qkv": heads, "up": 2 * [model.d_ff] if model.ffn == "swiglu" else []}
    lr = mup.width_multiplier(model) ** -0.5  # its step has one root mean square at any width

    def places(path: Any, kernel: Array) -> tuple[list[int], int]:
        """Where the columns of a fused matrix are split, and along which axis (see `Dense`)."""
        widths = fused.get(path[-2].key, [])
        axis = -2 if widths and kernel.shape[-1] != sum(widths) else -1
        return np.cumsum(widths, dtype=int)[:-1].tolist(), axis

    def split(tree: Any) -> Any:
        return jax.tree.map_with_path(lambda path, leaf: jnp.split(leaf, *places(path, leaf)), tree)

    def dimensions(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1), tree
        )

    def update(gradient: Any, moments: Any, params: Any = None) -> tuple[Any, Any]:
        steps, moments = muon.update(split(gradient), moments)

        def join(path: Any, leaf: Array, parts: list[Array]) -> Array:
            scaled = [MUON_RMS * max(part.shape[-2:]) ** 0.5 * part for part in parts]
            joined = jnp.concatenate(scaled, places(path, leaf)[1])
            return joined if lr == 1.0 else lr * joined

        return jax.tree.map_with_path(join, gradient, steps), moments

    muon = contrib.scale_by_muon(beta=MUON_BETA, weight_dimension_numbers=dimensions)
    return optax.GradientTransformation(lambda params: muon.init(split(params)), update)


def _with_transfer(
    adam: optax.GradientTransformation, model: ModelConfig
) -> optax.GradientTransformation:
    """Adam with `mup.factors` for the eps and the learning rate of each leaf.

    Adam does not change when gradients and eps are multiplied by one number, so flat moments keep
    one eps: the gradient is divided by the factor.
    """
    if model.transfer is None:
        return adam

    def by_leaf(tree: Any, factor: Callable[[mup.Factors], float]) -> Any:
        def one(path: Any, leaf: Array) -> Array:
            number = factor(mup.factors(model, [key.key for key in path]))
            return leaf if number == 1.0 else leaf * number

        return jax.tree.map_with_path(one, tree)

    def update(gradient: Any, moments: Any, params: Any = None) -> tuple[Any, Any]:
        scaled = by_leaf(gradient, lambda factors: 1.0 / factors.eps)
        changes, moments = adam.update(scaled, moments, params)
        return by_leaf(changes, lambda factors: factors.lr), moments

    return optax.GradientTransformation(adam.init, update)  # type: ignore[arg-type]


def update(
    optimizer: optax.GradientTransformation,
    clip: Array,
    params: Any,
    moments: Any,
    gradient: Any,
) -> tuple[Any, Any, Array]:
    """One clipped update: parameters, moments and the norm of the unclipped gradient."""
    norm = optax.tree.norm(gradient)
    scale = jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12))
    gradient = jax.tree.map(lambda leaf: leaf * scale, gradient)
    changes, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, changes), moments, norm
