"""What a run holds in a device's memory at its peak, present or not: an estimate from shapes alone,
term by term. No jax here.

The terms are what XLA keeps (read from its buffer assignments on a CPU, and from the TPU compiler
for what other devices keep), so they follow `train/model/`: a change of what a layer keeps for its
backward pass changes `layer_words` too; `tests/plan/test_memory_against_xla.py` compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from scaling import accounting
from scaling.config import Execution, RunConfig
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


class _DeviceShare:
    """What one device holds of a run, in words of four bytes.

    `tokens` are those of one pass after `data` and `fsdp`; widths of a layer are those after
    `tensor`: of all queries (`heads`), of all keys (`kv`), of the feed-forward part (`ffn`), of its
    first matrix (`inner`). `half` is the words of an operand of a product; `scores` the unmasked
    scores of a token in all heads, as blocks of queries compute them: none in fused attention.
    """

    def __init__(self, run: RunConfig, execution: Execution, kind: Kind) -> None:
        model, seq_len, mesh = run.model, run.task.seq_len, execution.mesh
        self.run, self.model, self.execution, self.kind = run, model, execution, kind
        self.batch_shares, self.tensor = mesh.data * mesh.fsdp, mesh.tensor
        self.blocks = attention_blocks(seq_len)
        self.tokens = (execution.micro_batch or run.batch_size) * seq_len / self.batch_shares
        self.half = 0.5 if run.precision == "bfloat16" else 1.0
        self.heads = model.n_heads * model.d_head / self.tensor
        self.kv = model.n_kv_heads * model.d_head / self.tensor
        self.ffn = model.d_ff / self.tensor
        self.expert_rows = 0.0  # what experts read and return
        if model.n_experts > 1:  # the rows of a token's experts, and half as many of padding
            self.ffn *= 1.5 * model.top_k
            self.expert_rows = (1.5 + 1) * model.top_k * model.d_model
        self.inner = self.ffn * (2 if model.ffn == "swiglu" else 1)
        self.is_fused = execution.attention == "fused"
        scores = model.n_heads * seq_len * (self.blocks + 1) / (2 * self.blocks)
        self.scores = 0.0 if self.is_fused else scores / self.tensor
        self.own_words = n_params(run) / (mesh.fsdp * mesh.tensor)  # its parameters
        self.groups = accounting.parameter_groups(model, seq_len)

    def gathered_words(self) -> float:
        """Parameters of other devices that pass through: with `fsdp`, the embedding and the head
        with their gradients, and a layer's.
        """
        if self.execution.mesh.fsdp == 1:
            return 0.0
        vocabulary = 2 * (self.groups["embedding"] + self.groups["unembedding"])
        layer = 2 * (self.groups["attention"] + self.groups["ffn"]) / self.model.n_layers
        return (vocabulary + layer) / self.tensor

    def kept_words(self) -> float:
        """Words that all layers keep for the backward pass.

        Besides activations each expert's matrices for its three blocks and, on accelerators, the
        blocks' matrices in the compute dtype. Splash attention with `fsdp` on a TPU leaves the sums
        of its softmax in 128 lanes, and three accumulators of one block of 512 queries.
        """
        model, (words, _) = self.model, self.layer_words()
        if self.kind == "tpu" and self.execution.mesh.fsdp > 1 and self.is_fused:
            seq_len = self.run.task.seq_len
            words += model.n_heads / self.tensor * 128 * (1 + 3 * 512 / seq_len)
        matrices = 3 * self.groups["ffn"] if model.n_experts > 1 else 0
        if self.kind != "cpu" and self.half < 1 and self.execution.remat != "block":
            matrices += self.groups["attention"] + self.groups["ffn"]
        return self.tokens * model.n_layers * words + matrices * self.half / self.tensor

    def layer_words(self) -> tuple[float, float]:
        """Words a token that a layer keeps for its backward pass, and those at the peak of that
        pass besides: gradients of activations, and a layer computed again or, where layers are
        scanned on a CPU, copied out.

        A GPU or a TPU keeps, in the compute dtype, operands of products and the inputs of what is
        computed again (norms, rotations, activations); of a layer that is computed again, its input
        and the result of fused attention. XLA's CPU compiler computes cheap steps again, and copies
        what products read in blocks; behind a norm without gain they read the norm's own result.
        """
        model, d_model, half = self.model, self.model.d_model, self.half
        heads, kv, ffn, inner = self.heads, self.kv, self.ffn, self.inner
        is_again = self.execution.remat == "block"
        if self.kind == "cpu":
            norms = d_model * (4 + (2 * half if model.gains or half < 1 else 0.0))
            qk_norm = 2 * heads + 3 * kv if model.qk_norm else 0.0
            attention = heads * (1 + 2 * half) + self.scores * half
            attention += kv * (1 + self.blocks * half)
            activation = {"gelu": 2.0, "swiglu": 4.0, "relu2": 1.0}[model.ffn]
            whole = norms + qk_norm + attention + ffn * (activation + half)
            if self.execution.layers == "unrolled":
                return whole, 2 * d_model + ffn * (2 - half)
            return d_model if is_again and self.execution.layers == "scan" else whole, whole
        of_kernel = heads * half + model.n_heads / self.tensor if self.is_fused else 0.0
        own = 0.0 if self.is_fused else self.scores * half + heads * (2 + half)
        layer = 4 * d_model + self.expert_rows + 2 * (heads + 2 * kv) + inner + ffn
        whole = layer * half + of_kernel + own
        kept = d_model * half + of_kernel if is_again else whole
        return kept, whole - kept + half * (3 * d_model + ffn + inner)

    def loss_words(self) -> float:
        """Words of the head and its loss: the last norm, both gradients of the last product, and
        the logits of a chunk.

        A CPU holds logits twice, as scores and as their exponentials; other devices have the second
        as their gradient in the compute dtype, and the matrix cast in both orders.
        """
        chunk = min(self.execution.loss_chunk or self.tokens, self.tokens)
        width, vocabulary = self.tokens * self.model.d_model, self.model.vocab_size / self.tensor
        head = vocabulary * self.model.d_model
        if self.kind == "cpu":
            return 5 * width + head + 2 * chunk * vocabulary
        chunk = min(chunk / self.batch_shares, self.tokens)
        logits = (1 + self.half) * chunk * vocabulary
        return 4 * width * self.half + head * (1 + 2 * self.half) + logits

    def evaluation_words(self) -> float:
        """Words of one held-out batch on its way forward."""
        seq_len, d_model = self.run.task.seq_len, self.model.d_model
        windows = max(1, min(EVAL_SEQUENCES, self.run.evals.tokens // seq_len))
        tokens = windows * seq_len / self.batch_shares
        attention = 2.4 * max(d_model, self.heads) + 2 * self.scores
        layer = max(2 * d_model + 2 * self.inner, attention)
        chunk = min(self.execution.loss_chunk or tokens, tokens)
        logits = chunk * self.model.vocab_size / self.tensor
        return max(tokens * layer, 2 * tokens * d_model + logits)

    def noise_words(self) -> float:
        """Words of the gradient noise scale where it is measured: the sum of all gradients, one of
        them, and its pass.
        """
        if not self.run.evals.noise_scale:
            return 0.0
        changes = {"micro_batch": noise_group(self.run, self.execution)}
        group = _DeviceShare(self.run, self.execution.model_copy(update=changes), self.kind)
        peak = max(group.tokens * group.layer_words()[1], group.loss_words())
        return 2 * group.own_words + group.gathered_words() + group.kept_words() + peak


def estimate(
    run: RunConfig, execution: Execution | None = None, kind: Kind = "cpu"
) -> MemoryEstimate:
    """What one device of a `kind` holds at the peak of training `run` under `execution`, in bytes.

    Within 10 % of what XLA plans for the models of docs/memory.md, within 20 % where layers are
    scanned on a CPU. A process needs more: its code,
    the compiler, the batches read ahead; see `process_bytes`.
    """
    shape = run.model_copy(update={"seed": 0, "n_steps": 0, "optim": None})  # of no weight here
    return _estimated(shape, execution or Execution(), kind)


@lru_cache(maxsize=8192)  # a large sweep has few shapes; each kept one weighs about 2 kB
def _estimated(run: RunConfig, execution: Execution, kind: Kind) -> MemoryEstimate:
    part = _DeviceShare(run, resolve(run, execution, kind), kind)
    own, micro_batch = part.own_words, part.execution.micro_batch
    gradients = own * (2 if micro_batch and micro_batch < run.batch_size else 1)
    gradients += part.gathered_words()
    kept = part.kept_words()
    backward, loss = part.tokens * part.layer_words()[1], part.loss_words()
    if kind != "cpu":  # activations are freed while gradients grow
        gradients = max(0.0, gradients + backward - kept - max(backward, loss))
    step = gradients + kept + max(backward, loss)
    update = own * (2 if part.execution.mesh.n_devices == 1 else 1)
    evaluation = max(part.evaluation_words(), part.noise_words())
    batches = dispatch_steps(run) * run.batch_size * (run.task.seq_len + 1)
    words = {
        "parameters": own,
        "moments": 2 * own,
        "average": own * run.evals.averaged,
        "gradients": gradients,
        "activations": kept + backward,
        "loss": max(0.0, loss - backward),
        "update": max(0.0, update - step),
        "evaluation": max(0.0, evaluation - max(step, update)),
        "data": batches / part.batch_shares,
    }
    return MemoryEstimate(**{name: round(WORD * count) for name, count in words.items()})


def n_params(run: RunConfig) -> int:
    """All parameters of a run's model."""
    return accounting.n_params(run.model, run.task.seq_len, "total")


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
