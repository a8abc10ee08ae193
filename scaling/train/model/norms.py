"""Sums over rows, and RMS and layer normalisation with the backward pass written out for speed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

EPS = 1e-6


def row_sum(x: jax.Array) -> jax.Array:
    """Sum over the last axis, which is kept; on a CPU as a product with a column of ones, which is faster than a reduction."""
    if jax.default_backend() != "cpu":
        return x.sum(axis=-1, keepdims=True)
    return jnp.dot(x, jnp.ones((x.shape[-1], 1), x.dtype))


def _row_mean(x: jax.Array) -> jax.Array:
    return row_sum(x) * (1.0 / x.shape[-1])


@jax.custom_vjp
def rms_normalise(x: jax.Array) -> jax.Array:
    """x / sqrt(mean(x^2) + 1e-6) over the last axis (Zhang and Sennrich 2019, eq. 4)."""
    return _rms_forward(x)[0]


def _rms_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    scale = jax.lax.rsqrt(_row_mean(jnp.square(x)) + EPS)
    y = x * scale
    return y, (y, scale)


def _rms_backward(kept: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array]:
    y, scale = kept
    return (scale * (grad - y * _row_mean(grad * y)),)


rms_normalise.defvjp(_rms_forward, _rms_backward)


def layer_normalise(x: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-6) over the last axis (Ba 2016, eq. 4)."""
    return rms_normalise(x - _row_mean(x))
