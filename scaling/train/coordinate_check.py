"""Coordinate check: do activations keep their size while width or depth grows?

Yang 2022, Tensor Programs V, appendix D.1. Models of growing width are trained for a few steps at
one learning rate. If the parametrisation is right, the mean absolute size of every kind of
activation, and of its change since step 0, does not depend on the width; if it is wrong, some grow
as a power of it. It takes seconds on a CPU, a learning-rate sweep over widths hours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from scaling.config import Execution, ModelConfig, RunConfig
from scaling.tasks import Task
from scaling.train import optim
from scaling.train.model.loss import LMHead, logits_NV
from scaling.train.model.operations import Compute
from scaling.train.model.transformer import Transformer
from scaling.train.program import program_key
from scaling.train.step import initial_state, train_program

ACTIVATIONS = ("embedding", "attention", "feed-forward", "residual", "logits")
# Of a slope of log size against log width: finite widths and few steps give up to 0.1.
MAX_FLAT_SLOPE = 0.2
N_SEQUENCES = 8  # held-out sequences whose activations are measured
PLAIN = Execution(layers="unrolled", attention="own")
FAST_COMPILE = {  # a quarter of the time to compile, for five steps
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
}


@dataclass(frozen=True)
class Curve:
    """Mean absolute size of one kind of activation at each width or depth.

    After the last step, or of its `change` since step 0.
    """

    kind: str
    change: bool
    sizes: tuple[float, ...]
    slope: float

    @property
    def name(self) -> str:
        """The label in tables."""
        return f"change of {self.kind}" if self.change else self.kind

    @property
    def flat(self) -> bool:
        """Whether the size depends neither on width nor on depth.

        Logits, and their change, may fall as width^-0.5: the initial ones do, and training first
        has to undo that.
        """
        low = -0.5 if self.kind == "logits" else 0.0
        return low - MAX_FLAT_SLOPE < self.slope < MAX_FLAT_SLOPE


def curves(
    runs: Mapping[int, RunConfig], task: Task, steps: int, seeds: int = 1
) -> tuple[Curve, ...]:
    """The curves of runs by their width or depth, sizes averaged over seeds 0 .. seeds - 1."""
    means_QX = np.array([measure(run, task, steps, seeds) for run in runs.values()]).mean(axis=1).T
    names = [(kind, change) for change in (False, True) for kind in ACTIVATIONS]
    at = tuple(runs)
    return tuple(
        Curve(*name, tuple(map(float, sizes)), slope(at, sizes))
        for name, sizes in zip(names, means_QX, strict=True)
    )


def slope(at: Sequence[int], sizes: Sequence[float] | np.ndarray) -> float:
    """Least-squares slope of log size on log width or depth; NaN if a size is 0 or not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log(np.asarray(sizes, float))
    return float(np.polyfit(np.log(at), y, 1)[0]) if np.isfinite(y).all() else math.nan


def measure(run: RunConfig, task: Task, steps: int, seeds: int) -> np.ndarray:
    """Mean absolute activations after `steps` steps, then of their change.

    (seeds, 2 x ACTIVATIONS).
    """

    def quick(program: Any, *arguments: Any) -> Any:
        """A jitted program, compiled for these arguments without optimising."""
        return program.lower(*arguments).compile(compiler_options=FAST_COMPILE)

    tokens_BT = task.batch("val", 0, min(N_SEQUENCES, task.n_windows("val")))[:, :-1]
    batches_KBT1 = np.stack([task.batch("train", step, run.batch_size) for step in range(steps)])
    rest = optim.hyper(run.optim, run.n_steps), batches_KBT1, np.int32(steps)
    key = program_key(run, PLAIN)
    state = initial_state(key, 0)
    activations = jax.jit(make_activations(run.model, run.task.seq_len))
    activations = quick(activations, state.params, tokens_BT)
    program = quick(train_program(key), state, *rest)
    sizes = []
    for seed in range(seeds):
        state = initial_state(key, seed)
        before = activations(state.params, tokens_BT)
        after = activations(program(state, *rest)[0].params, tokens_BT)
        changes = [after[kind] - before[kind] for kind in ACTIVATIONS]
        arrays = [*(after[kind] for kind in ACTIVATIONS), *changes]
        sizes.append([float(jnp.abs(array).mean()) for array in arrays])
    return np.array(sizes)


def make_activations(cfg: ModelConfig, seq_len: int) -> Any:
    """The function `(params, tokens_BT) -> {kind: array}`.

    Branches are (L, N, M) before their multiplier, the residual stream (N, M) before the first and
    after the last block, logits (N, V).
    """
    graph = nnx.graphdef(Transformer(cfg, seq_len, Compute()))

    def activations(params: Any, tokens_BT: Array) -> dict[str, Array]:
        model = nnx.merge(graph, params)
        first_NM, context = model.embed(tokens_BT, tokens_BT.shape[1])
        x_NM, mixed, fed = first_NM, [], []
        for block in model.blocks:
            mixed.append(block.attention(block.attention_norm(x_NM), context, None)[0])
            x_NM = block.add_residual(x_NM, mixed[-1])
            fed.append(block.ffn(block.ffn_norm(x_NM))[0])
            x_NM = block.add_residual(x_NM, fed[-1])
        head = LMHead(Compute(), cfg.tie_embeddings)
        logits = logits_NV(model.final_hidden(x_NM), model.output_embedding, head)
        arrays = (first_NM, jnp.stack(mixed), jnp.stack(fed), x_NM, logits)
        return dict(zip(ACTIVATIONS, arrays, strict=True))

    return activations
