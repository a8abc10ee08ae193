"""Resolve the open (`auto`) fields of an `Execution` for a kind of device. No jax here."""

from __future__ import annotations

from typing import Literal

from scaling.config import Execution, ModelConfig, RunConfig

Kind = Literal["cpu", "gpu", "tpu"]
CPU_LOGIT_BYTES = 4 * 2**20  # logits that stay in a core's cache
DEVICE_LOSS_CHUNK = 4096  # tokens of a device: products large enough, logits of 0.8 GB at V 50304
DEEP = {"cpu": 16, "gpu": 64, "tpu": 48}  # layers from which unrolled programs compile too long
DISPATCH_STEPS = 64  # training steps in one dispatch at most: hides the dispatch of tiny models
DISPATCH_TOKENS = 2**22
READ_AHEAD_BYTES = 64 * 2**20  # of batches that wait for their step
EVAL_SEQUENCES = 64  # held-out windows that are measured at once
NOISE_GROUPS = (
    64  # groups of sequences that remain at least when their gradients are computed together
)


def resolve(run: RunConfig, execution: Execution, kind: Kind) -> Execution:
    """`execution` with its open choices made for a kind of device.

    Layers are unrolled up to a depth: a scan writes every residual twice. On a CPU they are scanned
    where activations are computed again: there XLA merges the second computation of unrolled layers
    with the first, and keeps everything. Logits come in chunks that fit.
    """
    changes: dict[str, object] = {"kind": kind}
    if execution.micro_batch and execution.micro_batch >= run.batch_size:
        changes["micro_batch"] = None  # one slice is the whole batch
    if execution.layers == "auto":
        changes["layers"] = (
            "unrolled"
            if run.model.n_layers < DEEP[kind] and (kind != "cpu" or execution.remat == "none")
            else "scan"
        )
    if execution.loss_chunk is None:
        if kind == "cpu":
            chunk = max(1, CPU_LOGIT_BYTES * execution.mesh.n_devices // (4 * run.model.vocab_size))
        else:
            chunk = DEVICE_LOSS_CHUNK * execution.mesh.data * execution.mesh.fsdp
        at_once = (execution.micro_batch or run.batch_size) * run.task.seq_len
        changes["loss_chunk"] = chunk if chunk < at_once else None
    if execution.attention == "auto":
        changes["attention"] = (
            "fused"
            if supports_fused_attention(run.model, run.precision, kind, run.task.seq_len)
            else "own"
        )
    return execution.model_copy(update=changes)


def supports_fused_attention(
    model: ModelConfig, precision: str, kind: Kind = "gpu", seq_len: int = 128
) -> bool:
    """Whether fused attention supports a model: bf16, no ALiBi, heads <= 128 in eights.

    That of a TPU has blocks of 128 tokens.
    """
    return (kind == "gpu" or (kind == "tpu" and seq_len % 128 == 0)) and (
        precision == "bfloat16"
        and model.pos != "alibi"
        and model.d_head % 8 == 0
        and model.d_head <= 128
    )


def dispatch_steps(run: RunConfig) -> int:
    """The most steps of a run in one dispatch: what a compiled program takes at once."""
    return max(1, min(DISPATCH_STEPS, DISPATCH_TOKENS // run.batch_tokens))


def noise_group(run: RunConfig, execution: Execution) -> int:
    """The most sequences whose gradient is computed at once for the noise scale: no more than a
    step's slice, so that memory suffices.
    """
    shares = execution.mesh.data * execution.mesh.fsdp
    return max(
        shares,
        min(execution.micro_batch or run.batch_size, run.evals.noise_sequences // NOISE_GROUPS),
    )


def attention_blocks(seq_len: int) -> int:
    """Blocks of queries of the program's own attention; two from 64 tokens on, four from 512."""
    return 1 if seq_len < 64 else 2 if seq_len < 512 else 4
