"""Maximal update parametrisation and CompleteP: factors that make hyper-parameters transfer.

With m = d_model / base_width and l = n_layers / base_depth (Yang 2022, Tensor Programs V, table 8
for Adam; Dey 2025, CompleteP, table 1 with alpha = 1):

| | hidden matrices | gains and biases of blocks | embedding, positions, head, last norm |
|---|---|---|---|
| learning rate | 1 / m (Muon 1 / sqrt(m)) | 1 | 1 |
| weight decay | m | none | 1 |
| Adam's eps | 1 / (m l) | 1 / (m l) | 1 / m |

Muon's step has one singular value, which grows as sqrt(m) at one root mean square; the product of
a matrix and an activation that it was made for must not grow (Yang 2023, condition 1). Adam's is
nearly of rank one, so that there it is m.

Logits are multiplied by 1 / m, branches by 1 / l, and attention by sqrt(base_head) / d_head. Hidden
matrices start with variance 1 / inputs at any width; the head, and an embedding that shares its
scale, as at the base. Every factor is exactly 1 at the base shape and without `transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scaling.config import ModelConfig


class Factors(NamedTuple):
    """Multipliers of learning rate and eps for one array; `weight_decay` is divided by `lr`."""

    lr: float = 1.0
    eps: float = 1.0


def width_multiplier(cfg: ModelConfig) -> float:
    """m: width over base width."""
    return cfg.d_model / cfg.transfer.base_width if cfg.transfer else 1.0


def depth_multiplier(cfg: ModelConfig) -> float:
    """1 / l: the multiplier of each residual branch; 1 without `base_depth`."""
    return initial_depth(cfg) / cfg.n_layers


def initial_depth(cfg: ModelConfig) -> int:
    """Layers that divide the initial variance of matrices that write to the residual stream."""
    return (cfg.transfer.base_depth if cfg.transfer else None) or cfg.n_layers


def head_width(cfg: ModelConfig) -> int:
    """The width whose inverse is the initial variance of the head."""
    return cfg.transfer.base_width if cfg.transfer else cfg.d_model


def attention_scale(cfg: ModelConfig) -> float:
    """Multiplier of q . k: 1 / sqrt(d_head), or sqrt(base_head) / d_head with `transfer`.

    q and k align in training (Yang 2022, definition 4.1).
    """
    base = (cfg.transfer.base_head if cfg.transfer else None) or cfg.d_head
    return float(cfg.d_head**-0.5 * (base / cfg.d_head) ** 0.5)


def factors(cfg: ModelConfig, names: Sequence[str]) -> Factors:
    """Factors of one array by the names in its path, as in ("blocks", "ffn", "up", "kernel").

    Gradients fall as 1 / m, those of blocks as 1 / (m l), and so must eps.
    """
    m = width_multiplier(cfg)
    if names[0] != "blocks":
        return Factors(eps=1.0 / m)
    return Factors(lr=1.0 / m if names[-1] == "kernel" else 1.0, eps=depth_multiplier(cfg) / m)
