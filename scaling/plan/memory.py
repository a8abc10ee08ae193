"""What a run holds in a device's memory at its peak, present or not: an estimate from shapes alone,
term by term. No jax here.

The terms are what XLA keeps (read from its buffer assignments on a CPU, and from the TPU compiler
for what other devices keep), so they follow `train/model/`: a change of what a layer keeps for its
backward pass changes `_layer_words` too; `tests/plan/test_memory_against_xla.py` compares both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from scaling import accounting
from scaling.config import EvalConfig, Execution, ModelConfig, Precision, RunConfig
from scaling.config.resolve_execution import (
    EVAL_SEQUENCES,
    READ_AHEAD_BYTES,
    Kind,
    attention_blocks,
    dispatch_steps,
    noise_group,
    resolve,
)

WORD = 4  # bytes of a float32 or an int32
PROCESS_BYTES = 540 * 2**20  # Python, jax and its compiler before the model: benchmarks/memory.py


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one device holds at the peak of a run, by what they are.

    `activations` are those kept for the backward pass and what one layer needs besides; `loss` is
    what the head and its logits need beyond that, `update` and `evaluation` what these need beyond
    the peak of the gradient.
    """

    parameters: int
    moments: int
    average: int
    gradients: int
    activations: int
    loss: int
    update: int
    evaluation: int
    data: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())

    @property
    def temporary(self) -> int:
        """What exists only while a step or an evaluation is computed."""
        return self.gradients + self.activations + self.loss + self.update + self.evaluation


@dataclass(frozen=True)
class _DeviceShare:
    """The share of one device: widths of a layer after `tensor`, tokens after `data` and `fsdp`,
    and how they are computed.

    Args:
        tokens: in one pass.
        half: words of an operand of a product.
        unrolled: XLA on a CPU fuses as it likes among layers, and merges what is computed again
            with the first time.
        heads, kv: widths of all queries and of all keys.
        inner: columns of the first matrix of the feed-forward part.
        scores: unmasked scores of a token in all heads, as blocks of queries compute them; none in
            fused attention.
    """

    run: RunConfig
    execution: Execution
    kind: Kind
    batch_shares: int
    tokens: float
    half: float
    unrolled: bool
    heads: float
    kv: float
    ffn: float
    inner: float
    scores: float

    def divided(self, width: float) -> float:
        """A width that `tensor` divides."""
        return width / self.execution.mesh.tensor


def _device_share(run: RunConfig, execution: Execution, kind: Kind) -> _DeviceShare:
    model, seq_len, mesh = run.model, run.task.seq_len, execution.mesh
    shares, blocks = mesh.data * mesh.fsdp, attention_blocks(seq_len)
    scores = model.n_heads * seq_len * (blocks + 1) / (2 * blocks)
    ffn = model.d_ff / mesh.tensor
    return _DeviceShare(
        run=run,
        execution=execution,
        kind=kind,
        batch_shares=shares,
        tokens=(execution.micro_batch or run.batch_size) * seq_len / shares,
        half=0.5 if run.precision == "bfloat16" else 1.0,
        unrolled=kind == "cpu" and execution.layers == "unrolled",
        heads=model.n_heads * model.d_head / mesh.tensor,
        kv=model.n_kv_heads * model.d_head / mesh.tensor,
        ffn=ffn,
        inner=ffn * (2 if model.ffn == "swiglu" else 1),
        scores=0.0 if execution.attention == "fused" else scores / mesh.tensor,
    )


@dataclass(frozen=True)
class _Shape:
    """All of a run that decides its memory: horizon, seed and optimiser do not. `run` is one run of
    that shape.
    """

    model: ModelConfig
    seq_len: int
    batch_size: int
    precision: Precision
    evals: EvalConfig
    run: RunConfig = field(compare=False, repr=False)


def estimate(
    run: RunConfig, execution: Execution | None = None, kind: Kind = "cpu"
) -> MemoryEstimate:
    """What one device of a `kind` holds at the peak of training `run` under `execution`, in bytes.

    Within 10 % of what XLA plans for the models of docs/memory.md. A process needs more: its code,
    the compiler, the batches read ahead; see `process_bytes`.
    """
    return _estimated(
        _Shape(run.model, run.task.seq_len, run.batch_size, run.precision, run.evals, run),
        execution or Execution(),
        kind,
    )


@lru_cache(maxsize=8192)  # a large sweep has few shapes; each kept one weighs about 2 kB
def _estimated(shape: _Shape, execution: Execution, kind: Kind) -> MemoryEstimate:
    run = shape.run
    part = _device_share(run, resolve(run, execution, kind), kind)
    own_words, averaged = _own_words(part), run.evals.averaged
    whole = _gathered_words(part)
    gradients = (
        own_words
        * (2 if part.execution.micro_batch and part.execution.micro_batch < run.batch_size else 1)
        + whole
    )
    kept = part.tokens * run.model.n_layers * _layer_words(part)
    backward, loss = part.tokens * _backward_words(part), _loss_words(part)
    if kind != "cpu":  # activations are freed while gradients grow, and matrices are cast once
        kept += _cast_words(part)
        gradients = max(0.0, gradients + backward - kept - max(backward, loss))
    step = gradients + kept + max(backward, loss)
    update = own_words * (2 if part.execution.mesh.n_devices == 1 else 1)
    evaluation = max(_evaluation_words(part), _noise_words(part))
    data = WORD * dispatch_steps(run) * run.batch_size * (run.task.seq_len + 1) / part.batch_shares
    return MemoryEstimate(
        parameters=_bytes(own_words),
        moments=_bytes(2 * own_words),
        average=_bytes(own_words * averaged),
        gradients=_bytes(gradients),
        activations=_bytes(kept + backward),
        loss=_bytes(max(0.0, loss - backward)),
        update=_bytes(max(0.0, update - step)),
        evaluation=_bytes(max(0.0, evaluation - max(step, update))),
        data=round(data),
    )


def n_params(run: RunConfig) -> int:
    """All parameters of a run's model."""
    return accounting.n_params(run.model, run.task.seq_len, "total")


def _bytes(words: float) -> int:
    return round(WORD * words)


def _own_words(part: _DeviceShare) -> float:
    """Parameters of one device: all, over `fsdp` and `tensor`."""
    return n_params(part.run) / (part.execution.mesh.fsdp * part.execution.mesh.tensor)


def _gathered_words(part: _DeviceShare) -> float:
    """Parameters of other devices that pass through: with `fsdp`, the embedding and the head with
    their gradients, and a layer's.
    """
    if part.execution.mesh.fsdp == 1:
        return 0.0
    model = part.run.model
    groups = accounting.parameter_groups(model, part.run.task.seq_len)
    vocabulary = 2 * (groups["embedding"] + groups["unembedding"])
    layer = 2 * (groups["attention"] + groups["ffn"]) / model.n_layers
    return part.divided(vocabulary + layer)


def _cast_words(part: _DeviceShare) -> float:
    """The blocks' matrices in the compute dtype, kept for the backward pass on accelerators."""
    groups = accounting.parameter_groups(part.run.model, part.run.task.seq_len)
    if part.half == 1 or part.execution.remat == "block":
        return 0.0
    return part.divided((groups["attention"] + groups["ffn"]) * part.half)


def _layer_words(part: _DeviceShare) -> float:
    """Words a token that a layer keeps for its backward pass."""
    d_model = part.run.model.d_model
    if part.kind != "cpu":
        return _accelerator_words(part)
    if part.unrolled:
        return _unrolled_words(part)
    if part.execution.remat == "block":
        return d_model
    if part.execution.remat == "products":
        return 2 * d_model + part.heads + 2 * part.kv + part.inner
    return _differentiated_words(part)


def _differentiated_words(part: _DeviceShare, half: float | None = None) -> float:
    """What differentiation keeps of a layer: each residual is an operand of some product, or the
    result of a non-linear step.
    """
    model, half = part.run.model, half or part.half
    norms = 2 * model.d_model * (1 + _operand(model, half))
    qk_norm = part.heads + part.kv if model.qk_norm else 0.0
    if part.execution.attention == "fused":
        attention = (2 * part.heads + 2 * part.kv) * half + part.divided(model.n_heads)
    else:
        attention = part.heads * (1 + 2 * half) + 2 * part.kv * half + part.scores * half
    ffn = part.ffn * (
        {"gelu": 5.0, "swiglu": 5.0, "relu2": 1.25}[model.ffn]
        + (half if part.kind == "cpu" else 0.0)
    )
    return norms + qk_norm + attention + ffn


def _accelerator_words(part: _DeviceShare) -> float:
    """What a layer keeps on a GPU or a TPU, in the compute dtype: operands of products, and the
    inputs of what is computed again (norms, rotations, activations).
    """
    model, half, fused = part.run.model, part.half, part.execution.attention == "fused"
    kept_by_kernel = part.heads * half + part.divided(model.n_heads) if fused else 0.0
    if part.execution.remat == "block":
        return model.d_model * half + kept_by_kernel
    products = part.heads + 2 * part.kv + part.inner
    if part.execution.remat == "products":
        return (2 * model.d_model + products) * half + kept_by_kernel
    attention = part.heads + 2 * part.kv
    own = 0.0 if fused else part.scores * half + part.heads * (2 + half)
    return (4 * model.d_model + products + attention + part.ffn) * half + kept_by_kernel + own


def _operand(model: ModelConfig, half: float) -> float:
    """Words of what a product reads behind a norm: nothing where that is the norm's own result, as
    it is and without a gain.
    """
    return half if model.gains or half < 1 else 0.0


def _unrolled_words(part: _DeviceShare) -> float:
    """What XLA's CPU compiler keeps of an unrolled layer: it computes cheap steps again, and copies
    what products read in blocks.
    """
    model, half, blocks = part.run.model, part.half, attention_blocks(part.run.task.seq_len)
    norms = model.d_model * (4 + 2 * _operand(model, half))
    qk_norm = 2 * part.heads + 3 * part.kv if model.qk_norm else 0.0
    attention = part.heads * (1 + 2 * half) + part.kv * (1 + blocks * half) + part.scores * half
    ffn = part.ffn * ({"gelu": 2.0, "swiglu": 4.0, "relu2": 1.0}[model.ffn] + half)
    return norms + qk_norm + attention + ffn


def _backward_words(part: _DeviceShare) -> float:
    """Words a token at the peak of the backward pass besides what is kept: gradients of
    activations, and a layer computed again.
    """
    d_model = part.run.model.d_model
    if part.unrolled:
        return 2 * d_model + part.ffn * (2 - part.half)
    if part.kind != "cpu":
        again = 0.0
        if part.execution.remat != "none":
            plain = part.execution.model_copy(update={"remat": "none"})
            again = _accelerator_words(
                _device_share(part.run, plain, part.kind)
            ) - _accelerator_words(part)
        return again + part.half * (3 * d_model + part.ffn + part.inner)
    if (
        part.execution.remat == "none"
    ):  # the layer's share of what is kept is copied out, in float32
        return _differentiated_words(part, 1.0) * (0.7 if part.half == 1 else 1.0)
    again = _unrolled_words(part) + (
        part.ffn if part.half < 1 or part.run.model.ffn == "relu2" else 0.0
    )
    return again - (part.inner + d_model if part.execution.remat == "products" else 0.0)


def _loss_words(part: _DeviceShare) -> float:
    """Words of the head and its loss: the last norm, both gradients of the last product, and the
    logits of a chunk.

    A CPU holds logits twice, as scores and as their exponentials; other devices have the second as
    their gradient in the compute dtype, and the matrix cast in both orders.
    """
    model = part.run.model
    chunk = min(part.execution.loss_chunk or part.tokens, part.tokens)
    head = part.divided(model.vocab_size * model.d_model)
    copies = 2.0 if part.kind == "cpu" else 1.0 + part.half
    if part.kind != "cpu":
        chunk = min(chunk / part.batch_shares, part.tokens)
        cast = 2 * part.half * head
        logits = copies * chunk * part.divided(model.vocab_size)
        return part.tokens * 4 * model.d_model * part.half + head + cast + logits
    return part.tokens * 5 * model.d_model + head + copies * chunk * part.divided(model.vocab_size)


def _evaluation_words(part: _DeviceShare) -> float:
    """Words of one held-out batch on its way forward."""
    run = part.run
    windows = max(1, min(EVAL_SEQUENCES, run.evals.tokens // run.task.seq_len))
    tokens = windows * run.task.seq_len / part.batch_shares
    layer = max(
        2 * run.model.d_model + 2 * part.inner,
        2.4 * max(run.model.d_model, part.heads) + 2 * part.scores,
    )
    chunk = min(part.execution.loss_chunk or tokens, tokens)
    return max(
        tokens * layer, 2 * tokens * run.model.d_model + chunk * part.divided(run.model.vocab_size)
    )


def _noise_words(part: _DeviceShare) -> float:
    """Words of the gradient noise scale where it is measured: the sum of all gradients, one of
    them, and its pass.
    """
    if not part.run.evals.noise_scale:
        return 0.0
    changes = {"micro_batch": noise_group(part.run, part.execution)}
    group = _device_share(part.run, part.execution.model_copy(update=changes), part.kind)
    kept = group.tokens * group.run.model.n_layers * _layer_words(group)
    return (
        2 * _own_words(group)
        + _gathered_words(group)
        + kept
        + max(group.tokens * _backward_words(group), _loss_words(group))
    )


def read_ahead_bytes(run: RunConfig) -> int:
    """Batches that a process holds besides those on its device: read ahead, and put together for a
    dispatch.
    """
    batch = WORD * run.batch_size * (run.task.seq_len + 1)
    steps = dispatch_steps(run)
    return batch * (steps + max(2, min(2 * steps, READ_AHEAD_BYTES // batch)))


def process_bytes(run: RunConfig, execution: Execution | None = None) -> int:
    """The least that a training process on a CPU needs at its peak: PROCESS_BYTES, all devices of
    its mesh, the batches read ahead.

    It may hold `estimate(...).temporary` bytes more: what it frees it keeps
    (`execute.environment.ALLOCATOR`), and glibc before 2.38 may find no space for a large aligned
    buffer where an equal one was.
    """
    devices = execution.mesh.n_devices if execution else 1
    return PROCESS_BYTES + read_ahead_bytes(run) + devices * estimate(run, execution, "cpu").total
