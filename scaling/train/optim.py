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
from optax import contrib

from scaling.config import ModelConfig, OptimConfig
from scaling.config.optim import OptimizerName
from scaling.train.model import mup

MUON_BETA = 0.95  # of its Nesterov momentum
MUON_RMS = 0.2  # of its step, before the learning rate


class OptimHyperparams(NamedTuple):
    """The optimiser's numbers as traced scalars; `n_steps` is the horizon of the schedule."""

    lr: jax.Array
    warmup_steps: jax.Array
    n_steps: jax.Array
    cooldown_steps: jax.Array
    final_lr_frac: jax.Array
    weight_decay: jax.Array
    b1: jax.Array
    b2: jax.Array
    eps: jax.Array
    clip: jax.Array
    z_loss: jax.Array


def hyper(optim: OptimConfig, n_steps: int) -> OptimHyperparams:
    """The traced numbers of a configuration; no clipping is an infinite norm."""
    derived = {
        "n_steps": n_steps,
        "cooldown_steps": optim.cooldown(n_steps),
        "clip": optim.clip or float("inf"),
    }
    values = optim.model_dump() | derived
    return OptimHyperparams(*(jnp.float32(values[name]) for name in OptimHyperparams._fields))


def learning_rate(schedule: str, h: OptimHyperparams, step: jax.Array) -> jax.Array:
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
    h: OptimHyperparams,
    lr: jax.Array | float,
    *,
    name: OptimizerName = "adamw",
    flat: bool = True,
    model: ModelConfig | None = None,
) -> optax.GradientTransformation:
    """The optimiser with decoupled decay of the matrices only (gains and biases are not decayed).

    `flat` moments are two vectors: one fused update instead of one per leaf compiles faster and
    steps faster on a CPU. The `model`'s transfer multiplies the learning rate leaf by leaf, but not
    the decay, for lr x decay stays.
    """
    adam = optax.scale_by_adam(b1=h.b1, b2=h.b2, eps=h.eps)  # type: ignore[arg-type]
    if name == "muon":
        scale = _scale_by_muon(_scale_by_adam_mup(adam, model), model)
    else:
        scale = _scale_by_adam_mup(optax.flatten(adam) if flat else adam, model)

    def decayed(params: Any) -> Any:  # by name: in stacked blocks a vector has a second axis
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not path[-1].key.endswith(("gain", "bias")), params
        )

    decay = optax.add_decayed_weights(h.weight_decay, decayed)
    return optax.chain(scale, decay, optax.scale_by_learning_rate(lr))


def _scale_by_muon(
    adam: optax.GradientTransformation, model: ModelConfig | None
) -> optax.GradientTransformation:
    """Muon (Jordan 2024) for the blocks' matrices, `adam` for embeddings, head, gains and biases.

    Its step is scaled to the root mean square of Adam's, 0.2 (Liu 2025, eq. 4), so that learning
    rates and decays that suit AdamW suit it too. Queries, keys, values, gate and up are matrices of
    their own, and so is every layer of stacked blocks.
    """

    def dimensions(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1), tree
        )

    def split(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.split(leaf, *_parts(model, path[-2].key, leaf)), tree
        )

    def init(params: Any) -> Any:
        return muon.init(split(params))

    def update(gradient: Any, moments: Any, params: Any = None) -> tuple[Any, Any]:
        steps, moments = muon.update(split(gradient), moments)

        def join(path: Any, leaf: jax.Array, parts: list[jax.Array]) -> jax.Array:
            scaled = [MUON_RMS * max(part.shape[-2:]) ** 0.5 * part for part in parts]
            joined = jnp.concatenate(scaled, _parts(model, path[-2].key, leaf)[1])
            factor = mup.muon_lr(model) if model else 1.0
            return joined if factor == 1.0 else factor * joined

        return jax.tree_util.tree_map_with_path(join, gradient, steps), moments

    def label(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: (
                "muon" if path[0].key == "blocks" and path[-1].key == "kernel" else "adam"
            ),
            params,
        )

    muon = contrib.scale_by_muon(beta=MUON_BETA, weight_dimension_numbers=dimensions)
    matrices = optax.GradientTransformation(init, update)
    return optax.partition({"muon": matrices, "adam": adam}, label)


def _parts(model: ModelConfig | None, name: str, kernel: jax.Array) -> tuple[list[int], int]:
    """Where the columns of a fused matrix are split, and along which axis (see `Dense`)."""
    widths: list[int] = []
    if model is not None and name == "qkv":
        widths = [model.n_heads * model.d_head, *2 * [model.n_kv_heads * model.d_head]]
    elif model is not None and name == "up" and model.ffn == "swiglu":
        widths = 2 * [model.d_ff]
    axis = -2 if widths and kernel.shape[-1] != sum(widths) else -1
    return np.cumsum(widths)[:-1].tolist(), axis


def _scale_by_adam_mup(
    adam: optax.GradientTransformation, model: ModelConfig | None
) -> optax.GradientTransformation:
    """Adam with `mup.factors` for the eps and the learning rate of each leaf.

    Adam does not change when gradients and eps are multiplied by one number, so flat moments keep
    one eps: the gradient is divided by the factor.
    """
    if model is None or model.transfer is None:
        return adam

    def by_leaf(tree: Any, factor: Callable[[mup.Factors], float]) -> Any:
        def one(path: Any, leaf: jax.Array) -> jax.Array:
            number = factor(mup.factors(model, [key.key for key in path]))
            return leaf if number == 1.0 else leaf * number

        return jax.tree_util.tree_map_with_path(one, tree)

    def update(gradient: Any, moments: Any, params: Any = None) -> tuple[Any, Any]:
        changes, moments = adam.update(
            by_leaf(gradient, lambda factors: 1.0 / factors.eps), moments, params
        )
        return by_leaf(changes, lambda factors: factors.lr), moments

    return optax.GradientTransformation(adam.init, update)  # type: ignore[arg-type]


def update(
    optimizer: optax.GradientTransformation,
    clip: jax.Array,
    params: Any,
    moments: Any,
    gradient: Any,
) -> tuple[Any, Any, jax.Array]:
    """One clipped update: parameters, moments and the norm of the unclipped gradient."""
    norm = optax.tree.norm(gradient)
    scale = jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12))
    gradient = jax.tree.map(lambda leaf: leaf * scale, gradient)
    changes, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, changes), moments, norm
