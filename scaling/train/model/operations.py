"""Operations of the model for a kind of device: on a CPU its kernels, elsewhere what XLA fuses.

On accelerators a step is bound by memory traffic between products, so what stands between products
is in the compute dtype and cheap steps are computed again in the backward pass. Norms, softmax, the
loss, gradients of weights and the optimiser stay float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from scaling.config import Precision
from scaling.train.model import cpu_kernels
from scaling.train.sharding import BATCH, FSDP, axis_size, on_own_tokens

ATTENTION_KERNELS = frozenset(
    {"dot_product_attention_fwd", "dot_product_attention_fwd_wrapper", "pallas_call"}
)


class Compute(NamedTuple):
    """What products are computed in, and for which kind of device (`Execution.kind`)."""

    precision: Precision = "float32"
    kind: Literal["auto", "cpu", "gpu", "tpu"] = "cpu"

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU's kernels are used: also where no device has been chosen."""
        return self.kind in ("cpu", "auto")

    @property
    def stream_dtype(self) -> str:
        """The dtype of activations between products."""
        return "float32" if self.on_cpu else self.precision


FLOAT32 = Compute()


def recompute(step: Callable[..., Any], compute: Compute) -> Callable[..., Any]:
    """`step`, on accelerators computed again in the backward pass: its inputs alone are kept."""
    return step if compute.on_cpu else jax.checkpoint(step)


def matmul(x_NI: Array, w: Array, compute: Compute, transposed: bool = False) -> Array:
    """x W, or x W^T if `transposed`: operands in the compute dtype, sums float32.

    The result is float32 on a CPU, and of `stream_dtype` elsewhere.
    """
    if compute.on_cpu:
        return cpu_kernels.matmul(x_NI, w, compute.precision, transposed)
    return _device_matmul(x_NI, w, compute, transposed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _device_matmul(x_NI: Array, w: Array, compute: Compute, transposed: bool) -> Array:
    return _device_matmul_forward(x_NI, w, compute, transposed)[0]


def _device_matmul_forward(x_NI, w, compute, transposed):  # type: ignore[no-untyped-def]
    dtype = compute.precision
    x_NI, w = x_NI.astype(dtype), w.astype(dtype)

    def multiply(w: Array, x_NI: Array) -> Array:
        return jnp.dot(x_NI, w.T if transposed else w, preferred_element_type=dtype)

    y_NO = on_own_tokens(multiply, w, x_NI) if _gathers(x_NI, compute) else multiply(w, x_NI)
    return y_NO, (x_NI, w)


def _gathers(x_NI: Array, compute: Compute) -> bool:
    """Whether each device multiplies its own tokens by the whole matrix, gathered in the compute
    dtype: on TPUs with `fsdp`, where XLA would pass float32 parts around and multiply by each.
    """
    shards = axis_size(BATCH)
    return compute.kind == "tpu" and axis_size(FSDP) > 1 and x_NI.shape[0] % shards == 0


def _device_matmul_backward(compute, transposed, saved, grad_NO):  # type: ignore[no-untyped-def]
    """dX in the compute dtype, dW in float32: it is summed and goes to the optimiser.

    On TPUs with `fsdp` dX waits for dW: XLA would put dW off to the end of the backward pass and
    keep what it reads until then. It removes optimisation barriers, so dX gets 0 times a number of
    dW.
    """
    dtype, (x_NI, w) = compute.precision, saved
    gathers = _gathers(x_NI, compute)
    dot = functools.partial(jnp.dot, preferred_element_type=jnp.float32)

    def gradients(w: Array, x_NI: Array, grad_NO: Array) -> tuple[Array, Array]:
        grad_w = dot(grad_NO.T, x_NI) if transposed else dot(x_NI.T, grad_NO)
        grad_x = jnp.dot(grad_NO, w if transposed else w.T, preferred_element_type=dtype)
        return grad_x + (0.0 * grad_w[-1, -1]).astype(dtype) if gathers else grad_x, grad_w

    if gathers:
        return on_own_tokens(gradients, w, x_NI, grad_NO, sums_second=True)
    return gradients(w, x_NI, grad_NO)


_device_matmul.defvjp(_device_matmul_forward, _device_matmul_backward)


def normalize(x: Array, compute: Compute, centred: bool = False) -> Array:
    """RMSNorm over the last axis, or LayerNorm (Ba 2016, eq. 4) if `centred`; float32, without gain
    and bias.
    """
    if compute.on_cpu:
        return cpu_kernels.rms_normalize(x - cpu_kernels.row_mean(x) if centred else x)
    x = x.astype(jnp.float32)
    return cpu_kernels.rms_normalize_reference(x - x.mean(axis=-1, keepdims=True) if centred else x)


def keeps_attention(primitive: Any, *_: Any, **__: Any) -> bool:
    """Of rematerialisation: keep what the attention kernel of a GPU or a TPU returns."""
    return primitive.name in ATTENTION_KERNELS
