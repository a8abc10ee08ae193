"""Position encodings: what each adds to embeddings, queries and keys, or attention scores.

A new one is an entry of `ENCODINGS` and a word of `ModelConfig.pos`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

ROPE_BASE = 10_000.0


@functools.lru_cache(maxsize=16)
def _angles(length: int, width: int) -> np.ndarray:
    """position x base^(-2i / width), float64 (length, width / 2).

    The angles of sinusoids and rotations alike.
    """
    return np.arange(length)[:, None] * ROPE_BASE ** (-np.arange(0, width, 2) / width)


def sinusoids_TM(length: int, d_model: int) -> np.ndarray:
    """Fixed position vectors: sines, then cosines (Vaswani 2017, section 3.5, up to order)."""
    angles = _angles(length, d_model)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def rotation_TK(length: int, d_head: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and signed sines of the rotary angles, each (length, d_head), for `rotate`."""
    angles = _angles(length, d_head)
    cos, sin = np.cos(angles), np.sin(angles)
    tables = np.concatenate([cos, cos], axis=1), np.concatenate([-sin, sin], axis=1)
    return tables[0].astype(np.float32), tables[1].astype(np.float32)


def rotate(x_BTHK: Array, cos_TK: Array, sin_TK: Array) -> Array:
    """Rotate each pair (i, i + d_head / 2) by its position's angle (Su 2021, eq. 34).

    Then q . k depends on distance alone.
    """
    half = x_BTHK.shape[-1] // 2
    swapped = jnp.concatenate([x_BTHK[..., half:], x_BTHK[..., :half]], axis=-1)
    return x_BTHK * cos_TK[:, None, :] + swapped * sin_TK[:, None, :]


def rotate_halves(x_BTHK: Array, cos_TK: Array, sin_TK: Array) -> Array:
    """`rotate`, half by half: compilers of accelerators fuse it with what comes before."""
    half = x_BTHK.shape[-1] // 2
    a, b = x_BTHK[..., :half], x_BTHK[..., half:]
    cos, sin = cos_TK[:, None, :half], sin_TK[:, None, half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def alibi_slopes_H(n_heads: int) -> np.ndarray:
    """Penalty per token of distance and head: 2^(-8 h / n_heads) (Press 2022, section 3).

    Where n_heads is no power of two: the slopes of the power below, then every second one of the
    power above.
    """
    below = 2 ** int(np.log2(n_heads))
    slopes = 2.0 ** (-8.0 * np.arange(1, below + 1) / below)
    between = 2.0 ** (-4.0 * np.arange(1, 2 * below + 1, 2) / below)
    return np.concatenate([slopes, between])[:n_heads].astype(np.float32)


class Encoding(NamedTuple):
    """What a position encoding does, in parts that may be absent.

    `added(length, d_model)` is a table that is added to the embeddings, `learned` says that such a
    table is a parameter; `rotation(length, d_head)` gives the tables of `rotate`;
    `slopes(n_heads)` what each head's scores lose per token of distance.
    """

    added: Callable[[int, int], np.ndarray] | None = None
    learned: bool = False
    rotation: Callable[[int, int], tuple[np.ndarray, np.ndarray]] | None = None
    slopes: Callable[[int], np.ndarray] | None = None


ENCODINGS = {
    "none": Encoding(),
    "learned": Encoding(learned=True),
    "sinusoidal": Encoding(added=sinusoids_TM),
    "rope": Encoding(rotation=rotation_TK),
    "alibi": Encoding(slopes=alibi_slopes_H),
}
