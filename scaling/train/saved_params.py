"""Parameters of finished runs: saved in a checksummed file, loaded by name.

Names are the paths of the parameters (`blocks.0.attention.qkv.kernel`), all arrays float32. A
`Dense` kernel is stored with its narrower side first: (d_in, d_out), or (d_out, d_in) if the output
is the narrower side; `axes` says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from scaling.config import Execution, RunConfig
from scaling.errors import ScalingError
from scaling.train import local_checkpoint
from scaling.train.fingerprint import local_platform
from scaling.train.model.forward import make_forward, unstack
from scaling.train.model.operations import Compute
from scaling.train.model.transformer import Dense, ExpertKernel, Transformer, shapes

AXES = {
    "embedding": ("vocab", "d_model"),
    "position": ("position", "d_model"),
    "unembedding": ("d_model", "vocab"),
}


def save_params(path: Path, run: RunConfig, params: Any) -> None:
    """Write the parameters of a run atomically. Raises ScalingError (74)."""
    if 0 not in params["blocks"]:
        params = unstack(params, run.model.n_layers)
    local_checkpoint.save(path, jax.tree.map(np.asarray, params), {"run": run.canonical()})
    local_checkpoint.previous(path).unlink(missing_ok=True)


def load_params(path: Path, run: RunConfig) -> dict[str, np.ndarray]:
    """Parameters by name. Raises ScalingError if the file is corrupt or another run's."""
    try:
        params, progress = local_checkpoint.restore(
            path, lambda progress: shapes(run.model, run.task.seq_len)
        )
        if progress["run"] != run.canonical():
            raise local_checkpoint.Unreadable("belongs to another run")
    except local_checkpoint.Unreadable as error:
        remedy = "train the run again, with --keep-weights, in another folder"
        raise ScalingError(f"corrupt weights: {error}", where=path, remedy=remedy) from error
    return {name: np.asarray(leaf) for name, leaf in by_name(params)}


def by_name(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every leaf with its path, as in "blocks.0.ffn.up.kernel"."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield ".".join(str(part.key) for part in path), leaf


def axes(run: RunConfig) -> dict[str, tuple[str, ...]]:
    """The meaning of the axes of every parameter; vectors (gains, biases) have one axis."""
    model = Transformer(run.model, run.task.seq_len, Compute(run.precision))
    dense_axes = {
        ".".join(map(str, (*path, "kernel"))): ("expert", "d_in", "d_out")
        if isinstance(module, ExpertKernel)
        else ("d_out", "d_in")
        if module.transposed
        else ("d_in", "d_out")
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (Dense, ExpertKernel))
    }
    named_axes = {**AXES, **dense_axes}
    return {
        name: named_axes.get(name, ("features",))
        for name, _ in by_name(shapes(run.model, run.task.seq_len))
    }


def unflatten(run: RunConfig, named: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The parameters as `forward` takes them.

    Raises ScalingError if names, shapes or dtypes are not those of the run's model.
    """
    like = shapes(run.model, run.task.seq_len)
    wanted = dict(by_name(like))
    wrong = [
        name
        for name in sorted({*named, *wanted})
        if name not in named
        or name not in wanted
        or (named[name].shape, named[name].dtype) != (wanted[name].shape, wanted[name].dtype)
    ]
    if wrong:
        raise ScalingError(
            f"parameters are missing, unknown or of another shape: {', '.join(wrong[:5])}",
            remedy="export the run again",
        )
    leaves = [jax.numpy.asarray(named[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)  # type: ignore[no-any-return]


def logits(run: RunConfig, params: Any, tokens_BT: np.ndarray) -> np.ndarray:
    """Logits (B, T, V), float32, of the run's model.

    Raises ScalingError for ids outside the vocabulary, or more tokens than learned positions.
    """
    tokens_BT, seq_len = np.asarray(tokens_BT), run.task.seq_len
    is_id = (tokens_BT >= 0) & (tokens_BT < run.model.vocab_size)
    is_long = run.model.pos == "learned" and tokens_BT.shape[-1] > seq_len
    if tokens_BT.ndim != 2 or not is_id.size or not is_id.all() or is_long:
        raise ScalingError(
            "tokens must be an array (batch, time) of ids of the vocabulary",
            remedy=f"ids go from 0 to {run.model.vocab_size - 1}"
            + (f", learned positions to {seq_len}" if is_long else ""),
        )
    execution = Execution(layers="unrolled", kind=local_platform())
    program = jax.jit(make_forward(run.model, seq_len, run.precision, execution))
    return np.asarray(program(params, tokens_BT.astype(np.int32)))
