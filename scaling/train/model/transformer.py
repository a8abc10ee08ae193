"""The decoder-only transformer: a `ModelConfig` becomes modules and parameters, and `forward` makes
functions of them.

Pre-norm blocks (Xiong 2020) in Flax NNX. Activations are flattened to (N, M), N = B x T, for every
projection: on a CPU that doubles the speed of a step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from scaling.config import ModelConfig
from scaling.train.model import mup, positions
from scaling.train.model.attention import Cache, attend, attend_fused
from scaling.train.model.experts import apply_experts
from scaling.train.model.operations import Compute, matmul, normalize, recompute
from scaling.train.sharding import BATCH, TENSOR, axis_size, constrain_activation, look_up


def _parameter(*shape: int, mean: float = 0.0, std: float = 0.0) -> nnx.Param:
    """The shape of a float32 array, and how `init` fills it: mean + std x normal numbers."""
    return nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32), mean=mean, std=std)


class Dense(nnx.Module):
    """x W + b: operands in the compute dtype, sums in float32, the result as `matmul` has it.

    Stored as (d_in, d_out), or as (d_out, d_in) when the output is the narrower side: the gradient
    of a wide matrix is twice as fast to compute on a CPU.
    """

    def __init__(self, d_in: int, d_out: int, std: float, *, bias: bool, compute: Compute) -> None:
        self.kernel = _parameter(min(d_in, d_out), max(d_in, d_out), std=std)
        self.bias = _parameter(d_out) if bias else None
        self.transposed, self.compute = d_out < d_in, compute

    def __call__(self, x_NI: Array) -> Array:
        """(N, d_in) to (N, d_out)."""
        y_NO = matmul(x_NI, self.kernel[...], self.compute, self.transposed)
        return y_NO if self.bias is None else y_NO + self.bias[...].astype(y_NO.dtype)

    def parts(self, x_NI: Array, *widths: int, separate: bool = False) -> list[Array]:
        """The result, split into columns of these widths.

        On accelerators each part is a product of its own if `separate` or where `tensor` divides
        the columns, so that every device has its share of each part: a split of one product would
        move activations.
        """
        if self.compute.on_cpu or not (separate or axis_size(TENSOR) > 1):
            return jnp.split(self(x_NI), np.cumsum(widths)[:-1].tolist(), axis=1)
        axis, parts = int(not self.transposed), []
        axes = (TENSOR, "fsdp") if self.transposed else ("fsdp", TENSOR)
        for last, width in zip(np.cumsum(widths).tolist(), widths, strict=True):
            w = jax.lax.slice_in_dim(self.kernel[...], last - width, last, axis=axis)
            y_NO = matmul(x_NI, constrain_activation(w, *axes), self.compute, self.transposed)
            if self.bias is not None:
                y_NO += self.bias[...][last - width : last].astype(y_NO.dtype)
            parts.append(constrain_activation(y_NO, BATCH, TENSOR))
        return parts


class Norm(nnx.Module):
    """RMSNorm (Zhang and Sennrich 2019), or LayerNorm (Ba 2016) with an optional bias.

    Both have a gain unless `cfg.gains` is false; a bias of LayerNorm stays.
    """

    def __init__(self, cfg: ModelConfig, compute: Compute) -> None:
        self.centred, self.compute = cfg.norm == "layernorm", compute
        self.gain = _parameter(cfg.d_model, mean=1.0) if cfg.gains else None
        self.bias = _parameter(cfg.d_model) if self.centred and cfg.bias else None

    def __call__(self, x_NM: Array) -> Array:
        """(N, M) to (N, M), computed in float32."""

        def norm(x_NM: Array) -> Array:
            y_NM = normalize(x_NM, self.compute, self.centred)
            y_NM = y_NM if self.gain is None else y_NM * self.gain[...]
            y_NM = y_NM if self.bias is None else y_NM + self.bias[...]
            return y_NM.astype(self.compute.stream_dtype)

        return recompute(norm, self.compute)(x_NM)


class QKNorm(nnx.Module):
    """QK-norm.

    RMSNorm of each query and key over its head, one gain for queries and one for keys (Dehghani
    2023).

    Its gains stay where `cfg.gains` is false: without them |q| |k| is fixed and no head could learn
    the sharpness of its attention. The norms' gains spoil the transfer because d_model of them,
    moving together, change the input of the next matrix; here there are d_head at any width, shared
    by all heads, and under `transfer` their step is the same at every width.
    """

    def __init__(self, cfg: ModelConfig, compute: Compute) -> None:
        self.compute = compute
        self.q_gain = _parameter(cfg.d_head, mean=1.0)
        self.k_gain = _parameter(cfg.d_head, mean=1.0)

    def __call__(self, qk_NAK: Array, n_heads: int) -> Array:
        """Queries and keys together, (N, H + G, K); the first `n_heads` are queries."""
        kinds_A1 = (jnp.arange(qk_NAK.shape[1]) < n_heads)[:, None]
        return normalize(qk_NAK, self.compute) * jnp.where(
            kinds_A1, self.q_gain[...], self.k_gain[...]
        )


class Attention(nnx.Module):
    """Causal self-attention with one fused matrix for queries, keys and values."""

    def __init__(self, cfg: ModelConfig, compute: Compute) -> None:
        self.cfg, self.compute = cfg, compute
        width, kv_width = cfg.n_heads * cfg.d_head, cfg.n_kv_heads * cfg.d_head
        dense = functools.partial(Dense, bias=cfg.bias, compute=compute)
        self.qkv = dense(cfg.d_model, width + 2 * kv_width, cfg.d_model**-0.5)
        self.out = dense(width, cfg.d_model, (2 * mup.initial_depth(cfg) * width) ** -0.5)
        self.qk_norm = QKNorm(cfg, compute) if cfg.qk_norm else None

    def __call__(
        self, x_NM: Array, context: AttentionContext, cache: Cache | None
    ) -> tuple[Array, Cache | None]:
        """(N, M) to (N, M), and the cache with the keys and values of these tokens."""
        cfg, compute, B = self.cfg, self.compute, context.batch
        T, H, G, K = x_NM.shape[0] // B, cfg.n_heads, cfg.n_kv_heads, cfg.d_head
        if compute.on_cpu:
            qk_NX, v_NX = self.qkv.parts(x_NM, (H + G) * K, G * K)
            q_BTHK, k_BTGK = jnp.split(self._place(qk_NX, H, context), [H], axis=2)
        else:  # a split of one product would copy all three, and their gradients
            q_NX, k_NX, v_NX = self.qkv.parts(x_NM, H * K, G * K, G * K, separate=True)
            q_BTHK, k_BTGK = self._place(q_NX, H, context), self._place(k_NX, 0, context)
        v_BTGK = v_NX.reshape(B, T, G, K).astype(compute.precision)
        if cache is not None:
            cache = k_BTGK, v_BTGK = cache.write(k_BTGK, v_BTGK, context.start)
        scale = mup.attention_scale(cfg)
        if context.fused:
            mixed_BTHK = attend_fused(q_BTHK, k_BTGK, v_BTGK, scale, compute, context.document_BT)
        else:
            mixed_BTHK = attend(
                q_BTHK,
                k_BTGK,
                v_BTGK,
                positions.ENCODINGS[cfg.pos].slopes,
                None if cache is None else context.start,
                scale,
                on_cpu=compute.on_cpu,
                document_BT=context.document_BT,
            )
        mixed_NX = mixed_BTHK.reshape(B * T, H * K).astype(compute.stream_dtype)
        return self.out(mixed_NX), cache

    def _place(self, qk_NX: Array, n_queries: int, context: AttentionContext) -> Array:
        """Normalised and rotated heads (B, T, A, K); the first of them are queries, others keys."""

        def place(qk_NX: Array) -> Array:
            qk_NAK = qk_NX.reshape(qk_NX.shape[0], -1, self.cfg.d_head)
            if self.qk_norm is not None:
                qk_NAK = self.qk_norm(qk_NAK, n_queries)
            qk_BTAK = qk_NAK.reshape(context.batch, -1, *qk_NAK.shape[1:])
            if context.rotation is not None:
                rotate = positions.rotate if self.compute.on_cpu else positions.rotate_halves
                qk_BTAK = rotate(qk_BTAK, *context.rotation)
            return qk_BTAK.astype(self.compute.precision)

        return recompute(place, self.compute)(qk_NX)  # type: ignore[no-any-return]


class AttentionContext(NamedTuple):
    """Shared by all layers: sequences in the batch, position of the first token, rotary tables.

    `fused`: by the device's own kernel. `document_BT`: the number of each token's document in its
    window, where attention stays within documents.
    """

    batch: int
    start: Array | int
    rotation: tuple[Array, Array] | None
    fused: bool = False
    document_BT: Array | None = None


# GELU (Hendrycks 2016), squared ReLU (So 2021), SwiGLU (Shazeer 2020)
ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "gelu": jax.nn.gelu,
    "relu2": lambda x_NF: jnp.square(jax.nn.relu(x_NF)),
    "swiglu": lambda gate_NF, value_NF: jax.nn.silu(gate_NF) * value_NF,
}


class FeedForward(nnx.Module):
    """Up, activation, down; the gate and the value of SwiGLU come from one matrix."""

    def __init__(self, cfg: ModelConfig, compute: Compute) -> None:
        self.cfg, self.compute = cfg, compute
        inner = 2 * cfg.d_ff if cfg.ffn == "swiglu" else cfg.d_ff
        dense = functools.partial(Dense, bias=cfg.bias, compute=compute)
        self.up = dense(cfg.d_model, inner, cfg.d_model**-0.5)
        self.down = dense(cfg.d_ff, cfg.d_model, (2 * mup.initial_depth(cfg) * cfg.d_ff) ** -0.5)

    def __call__(self, x_NM: Array) -> tuple[Array, None]:
        """(N, M) to (N, M)."""
        widths = [self.cfg.d_ff] * (2 if self.cfg.ffn == "swiglu" else 1)
        activate = _activation(self.cfg, self.compute)
        return self.down(activate(*self.up.parts(x_NM, *widths))), None


def _activation(cfg: ModelConfig, compute: Compute) -> Callable[..., Array]:
    """The activation function of (gate and) value, computed in float32."""

    def activate(*x_NF: Array) -> Array:
        y_NF = ACTIVATIONS[cfg.ffn](*(x.astype(jnp.float32) for x in x_NF))
        return y_NF.astype(compute.stream_dtype)

    return recompute(activate, compute)


class ExpertKernel(nnx.Module):
    """The matrices (d_in, d_out) of all experts."""

    def __init__(self, n_experts: int, d_in: int, d_out: int, std: float) -> None:
        self.kernel = _parameter(n_experts, d_in, d_out, std=std)


class MixtureOfExperts(nnx.Module):
    """`top_k` of `n_experts` feed-forward parts for each token, weighted by the router, dropless.

    The router's softmax, in float32, is over all experts and is not normalised again over those
    that are chosen (Switch: Fedus 2021, eq. 2; OLMoE: Muennighoff 2024, eq. 2): normalised after
    the choice, as in Mixtral, one expert would have weight 1 and the router no gradient.
    """

    def __init__(self, cfg: ModelConfig, compute: Compute) -> None:
        self.cfg, self.compute = cfg, compute
        E, std, exact = cfg.n_experts, cfg.d_model**-0.5, compute._replace(precision="float32")
        self.router = Dense(cfg.d_model, E, std, bias=False, compute=exact)
        shape = (E, cfg.d_model, cfg.d_ff)
        self.expert_gate = ExpertKernel(*shape, std) if cfg.ffn == "swiglu" else None
        self.expert_up = ExpertKernel(*shape, std)
        std = (2 * mup.initial_depth(cfg) * cfg.d_ff) ** -0.5
        self.expert_down = ExpertKernel(E, cfg.d_ff, cfg.d_model, std)

    def __call__(self, x_NM: Array) -> tuple[Array, Array]:
        """(N, M) to (N, M), and the load-balance loss: E sum_e f_e P_e (Fedus 2021, eq. 4-6).

        f_e is the share of the choices that fall on an expert, P_e its mean probability; 1 where
        they are even.
        """
        cfg, E = self.cfg, self.cfg.n_experts
        p_NE = jax.nn.softmax(self.router(x_NM.astype(jnp.float32)))
        gate_NK, expert_NK = jax.lax.top_k(p_NE, cfg.top_k)
        share_E = (expert_NK.reshape(-1, 1) == jnp.arange(E)).mean(axis=0)
        experts = (self.expert_gate, self.expert_up, self.expert_down)
        y_NM = apply_experts(
            x_NM,
            gate_NK,
            expert_NK,
            [expert.kernel[...] for expert in experts if expert is not None],
            _activation(cfg, self.compute),
            self.compute,
        )
        return y_NM.astype(self.compute.stream_dtype), E * jnp.sum(share_E * p_NE.mean(axis=0))


class Block(nnx.Module):
    """Attention and feed-forward, each reading a normalised copy of the residual stream.

    Each adds its output times `branch_multiplier`.
    """

    def __init__(self, cfg: ModelConfig, compute: Compute) -> None:
        self.branch_multiplier = mup.depth_multiplier(cfg)
        self.attention_norm, self.attention = Norm(cfg, compute), Attention(cfg, compute)
        self.ffn_norm = Norm(cfg, compute)
        self.ffn = (MixtureOfExperts if cfg.n_experts > 1 else FeedForward)(cfg, compute)

    def __call__(
        self, x_NM: Array, context: AttentionContext, cache: Cache | None
    ) -> tuple[Array, Cache | None, Array | None]:
        """(N, M) to (N, M), the cache (see Attention), the load-balance loss of experts."""
        mixed_NM, cache = self.attention(self.attention_norm(x_NM), context, cache)
        x_NM = self.add_residual(x_NM, mixed_NM)
        fed_NM, balance = self.ffn(self.ffn_norm(x_NM))
        return self.add_residual(x_NM, fed_NM), cache, balance

    def add_residual(self, x_NM: Array, branch_NM: Array) -> Array:
        """The residual stream plus a branch times its multiplier."""
        scale = self.branch_multiplier
        return x_NM + (branch_NM if scale == 1.0 else scale * branch_NM)


class Transformer(nnx.Module):
    """Embedding, blocks, final norm, head: the parts that `forward` joins.

    Matrices start with variance 1 / inputs (LeCun 1998), those that write to the residual stream
    divided by 2 n_layers (Radford 2019). Embeddings start at 1, or at the head's scale when they
    are also the head or share the sum with learned positions. With `cfg.transfer` depth and the
    head's width are those of the base (see `mup`). At 25k and 100k parameters on bytes a head that
    starts at 0 or 0.02 costs 0.06 to 0.15 nats after 700k tokens, embeddings at 0.02 up to 0.06,
    positions at 0.02 another 0.1.
    """

    def __init__(
        self, cfg: ModelConfig, seq_len: int, compute: Compute, *, with_blocks: bool = True
    ) -> None:
        self.cfg, self.compute = cfg, compute
        self.encoding, head_std = positions.ENCODINGS[cfg.pos], mup.head_width(cfg) ** -0.5
        learned = self.encoding.learned
        std = head_std if cfg.tie_embeddings or learned else 1.0
        self.embedding = _parameter(cfg.vocab_size, cfg.d_model, std=std)
        self.position = _parameter(seq_len, cfg.d_model, std=std) if learned else None
        self.blocks = (
            nnx.List([Block(cfg, compute) for _ in range(cfg.n_layers)]) if with_blocks else None
        )
        self.final_norm = Norm(cfg, compute)
        self.unembedding = (
            None if cfg.tie_embeddings else _parameter(cfg.d_model, cfg.vocab_size, std=head_std)
        )

    def embed(
        self, tokens_BT: Array, length: int, start: Array | int = 0
    ) -> tuple[Array, AttentionContext]:
        """The residual stream (N, M) before the first block, for tokens from `start` of `length`
        on.
        """
        B, T = tokens_BT.shape
        x_NM = look_up(self.embedding[...], tokens_BT.reshape(-1))
        table_SM: Array | np.ndarray | None = None
        if self.position is not None:
            table_SM = self.position[...]
        elif self.encoding.added is not None:
            table_SM = self.encoding.added(length, self.cfg.d_model)
        if table_SM is not None:
            x_NM = (x_NM.reshape(B, T, -1) + _rows(table_SM, start, T)).reshape(x_NM.shape)
        x_NM = x_NM.astype(self.compute.stream_dtype)
        if self.encoding.rotation is None:
            return x_NM, AttentionContext(B, start, None)
        cos_SK, sin_SK = self.encoding.rotation(length, self.cfg.d_head)
        return x_NM, AttentionContext(B, start, (_rows(cos_SK, start, T), _rows(sin_SK, start, T)))

    def final_hidden(self, x_NM: Array) -> Array:
        """The head's input (N, M).

        The normalised residual stream, over m at m times the base width.
        """
        y_NM, m = self.final_norm(x_NM), mup.width_multiplier(self.cfg)
        return y_NM if m == 1.0 else y_NM * (1.0 / m)

    @property
    def output_embedding(self) -> Array:
        """The head's matrix (M, V), or the embedding (V, M) when tied."""
        return self.embedding[...] if self.unembedding is None else self.unembedding[...]


def _rows(table_SX: Array | np.ndarray, start: Array | int, count: int) -> Array:
    """Rows start .. start + count of a table; a constant when `start` is one."""
    return (
        jnp.asarray(table_SX[start : start + count])
        if isinstance(start, int)
        else jax.lax.dynamic_slice_in_dim(table_SX, start, count)
    )


@functools.lru_cache(maxsize=256)
def _state(cfg: ModelConfig, seq_len: int) -> Any:
    return nnx.split(Transformer(cfg, seq_len, Compute()))[1]


def shapes(cfg: ModelConfig, seq_len: int) -> dict[str, Any]:
    """The parameters' shapes and dtypes as a nested dict; `seq_len` sizes learned positions."""
    return nnx.to_pure_dict(_state(cfg, seq_len))


@functools.partial(jax.jit, static_argnums=(0, 1))
def init(cfg: ModelConfig, seq_len: int, key: Array) -> dict[str, Any]:
    """Float32 parameters drawn from `key`, of the structure of `shapes`.

    All normal numbers come from one draw, which compiles three times as fast as a draw for each
    matrix.
    """
    leaves = [leaf for _, leaf in nnx.to_flat_state(_state(cfg, seq_len))]
    random = [leaf.size if leaf.std else 0 for leaf in leaves]
    parts = jnp.split(
        jax.random.normal(key, (sum(random),), jnp.float32), np.cumsum(random)[:-1].tolist()
    )
    arrays = [
        leaf.mean + leaf.std * part.reshape(leaf.shape)
        if leaf.std
        else jnp.full(leaf.shape, leaf.mean, jnp.float32)
        for leaf, part in zip(leaves, parts, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes(cfg, seq_len)), arrays)
