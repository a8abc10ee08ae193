"""The one place that counts parameters, FLOPs and bytes, each under a named convention, in exact
integers.

The exponent of the compute-optimal N moves from 0.84 to 0.5 with the convention alone (Porian 2024;
Pearce and Song 2024), so every number of the project says which one it uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scaling.errors import ScalingError, unknown_choice

if TYPE_CHECKING:  # the command line reads DEVICES before it needs pydantic
    from scaling.config import ModelConfig

NConvention = Literal["with_head", "total", "nonembedding", "active"]
FlopsConvention = Literal["exact", "6nd", "kaplan", "chinchilla"]
BYTES = {"float32": 4, "bfloat16": 2}


def parameter_groups(model: ModelConfig, seq_len: int, *, active: bool = False) -> dict[str, int]:
    """Parameters by group: embedding, unembedding, position, attention, ffn, norm. `seq_len` sizes
    learned positions. The feed-forward part of a mixture has all its experts, or with `active` the
    `top_k` of a token, and its router.
    """
    d, f, layers, bias = model.d_model, model.d_ff, model.n_layers, int(model.bias)
    q_width, kv_width = model.n_heads * model.d_head, model.n_kv_heads * model.d_head
    attention = d * (q_width + 2 * kv_width) + q_width * d + bias * (q_width + 2 * kv_width + d)
    matrices = 3 if model.ffn == "swiglu" else 2
    experts = model.top_k if active else model.n_experts
    ffn = experts * matrices * d * f + bias * ((matrices - 1) * f + d) + _router(model)
    gain = d * (int(model.gains) + (bias if model.norm == "layernorm" else 0))
    qk_gain = 2 * model.d_head * int(model.qk_norm)
    return {
        "embedding": model.vocab_size * d,
        "unembedding": 0 if model.tie_embeddings else model.vocab_size * d,
        "position": seq_len * d if model.pos == "learned" else 0,
        "attention": layers * attention,
        "ffn": layers * ffn,
        "norm": layers * (2 * gain + qk_gain) + gain,
    }


def _router(model: ModelConfig) -> int:
    """Weights of a layer's router; a single expert has none."""
    return model.d_model * model.n_experts if model.n_experts > 1 else 0


def n_params(model: ModelConfig, seq_len: int, convention: NConvention = "with_head") -> int:
    """N under a convention: `total`; `nonembedding` (Kaplan 2020, table 1); `with_head`, the blocks
    and the output matrix; `active`, the same with only the experts that a token takes.

    A tied output matrix is counted as the head: it takes part in the last matmul.
    """
    groups = parameter_groups(model, seq_len, active=convention == "active")
    blocks = groups["attention"] + groups["ffn"] + groups["norm"]
    if convention == "nonembedding":
        return blocks
    if convention in ("with_head", "active"):
        return blocks + model.vocab_size * model.d_model
    return sum(groups.values())


def train_flops(
    model: ModelConfig, seq_len: int, tokens: int, convention: FlopsConvention = "exact"
) -> float:
    """Training FLOPs C for `tokens` tokens in sequences of `seq_len`, forward and backward (3x the
    forward).

    `exact`: matmuls, QK^T and attention x V over the unmasked half, seq_len (seq_len + 1) / 2 pairs
    a head, and the output matrix at every place, also where a task predicts only some; of experts
    those that a token takes. `6nd`: 6 N D with N = active, which is with_head without experts.
    `kaplan`: 6 N D with N = nonembedding (Kaplan 2020, eq. 2.2 without its context term, as used
    for C throughout the paper), of active experts. `chinchilla`: Hoffmann 2022, appendix F, with
    embedding and softmax, attention unmasked. A float: N D overflows 64 bits at the scale of
    published models.
    """
    if convention in ("6nd", "kaplan"):
        head = model.vocab_size * model.d_model if convention == "kaplan" else 0
        return 6.0 * (n_params(model, seq_len, "active") - head) * tokens
    d, q_width, pairs = model.d_model, model.n_heads * model.d_head, seq_len * (seq_len + 1) // 2
    attention = 2 * d * q_width + 2 * d * model.n_kv_heads * model.d_head
    ffn = (3 if model.ffn == "swiglu" else 2) * d * model.d_ff * model.top_k + _router(model)
    # 2 per weight and token
    forward = 2 * seq_len * (model.n_layers * (attention + ffn) + d * model.vocab_size)
    if convention == "chinchilla":
        pairs = seq_len**2
        softmax = 3 * model.n_layers * model.n_heads * pairs
        forward += softmax + 2 * seq_len * model.vocab_size * model.d_model
    forward += attention_flops(model, pairs)
    return 3 * forward / seq_len * tokens


def kv_cache_bytes(model: ModelConfig, tokens: int, batch: int = 1, value_bytes: int = 2) -> int:
    """Bytes of the key and value cache: 2 n_layers n_kv_heads d_head tokens batch width (Ainslie
    2023).
    """
    return 2 * model.n_layers * model.n_kv_heads * model.d_head * tokens * batch * value_bytes


@dataclass(frozen=True)
class Device:
    """Peak dense bf16 FLOP/s and memory bandwidth from the maker's data sheet, and what XLA calls
    it.
    """

    flops_per_second: float
    bytes_per_second: float
    memory_bytes: float
    kind: str


DEVICES = {
    "a100": Device(312e12, 2.039e12, 80e9, "A100"),
    "h100": Device(989e12, 3.35e12, 80e9, "H100"),
    "h200": Device(989e12, 4.8e12, 141e9, "H200"),
    "tpu-v4": Device(275e12, 1.228e12, 32e9, "TPU v4"),
    "tpu-v5e": Device(197e12, 0.819e12, 16e9, "TPU v5 lite"),
    "tpu-v5p": Device(459e12, 2.765e12, 95e9, "TPU v5"),
}


def device_of_kind(kind: str) -> Device | None:
    """The device that XLA calls `kind`, as in "NVIDIA H100 80GB HBM3"; None if it is not listed."""
    return next((device for device in DEVICES.values() if device.kind in kind), None)


@dataclass(frozen=True)
class DeviceTime:
    """Training on `count` devices of `DEVICES` at a model FLOPs utilisation `mfu`, a share of their
    peak. Raises ScalingError for what is none.
    """

    device: str
    count: int = 1
    mfu: float = 0.4

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise unknown_choice("device", self.device, DEVICES, where="--device")
        if self.count < 1:
            raise ScalingError(f"{self.count} devices", where="--count", remedy="give 1 or more")
        if not 0 < self.mfu <= 1:
            raise ScalingError(
                f"must be above 0 and at most 1, not {self.mfu:g}",
                where="--mfu",
                remedy="give a share of the peak, such as 0.4",
            )

    @property
    def flops_per_second(self) -> float:
        """FLOPs of training that all devices do in a second."""
        return self.count * self.mfu * DEVICES[self.device].flops_per_second

    def flops_of(self, hours: float) -> float:
        """FLOPs of some hours. Raises ScalingError for no time."""
        if not 0 < hours <= 1e7:
            raise ScalingError(
                f"{hours:g} hours", where="--hours", remedy="give a positive number of hours"
            )
        return 3600.0 * hours * self.flops_per_second

    def hours_for(self, flops: float) -> float:
        """Hours that some FLOPs take."""
        return flops / self.flops_per_second / 3600.0


def attention_flops(model: ModelConfig, tokens: int) -> int:
    """FLOPs of QK^T and attention x V for one new token after `tokens` others."""
    return 4 * model.n_layers * model.n_heads * model.d_head * tokens


def decode_tokens_per_second(model: ModelConfig, seq_len: int, batch: int, device: Device) -> float:
    """Roofline of decoding one token a sequence in bf16: the slower of arithmetic, and of reading
    the weights once for all and the cache of each sequence.
    """
    n = n_params(model, seq_len, "active")
    read = 2 * n + kv_cache_bytes(model, seq_len, batch)
    flops = batch * (2 * n + attention_flops(model, seq_len))
    return batch / max(flops / device.flops_per_second, read / device.bytes_per_second)


def attention_forms(model: ModelConfig) -> dict[str, ModelConfig]:
    """The model itself with all heads (MHA), grouped (GQA), and with one kv head (MQA).

    Grouped (Ainslie 2023) is its own grouping, or the divisor of n_heads nearest to a quarter of
    them.
    """
    from scaling.config.base import divisors

    heads, grouped = model.n_heads, model.n_kv_heads
    if not 1 < grouped < heads:
        grouped = min(divisors(heads), key=lambda kv: abs(kv - heads / 4))
    forms = {"MHA": heads, f"GQA-{grouped}": grouped, "MQA": 1}
    return {name: model.model_copy(update={"n_kv_heads": kv}) for name, kv in forms.items()}
