"""Where arrays live: on the one device, or spread over a mesh by one set of rules.

`data` and `fsdp` divide the batch, `fsdp` one side of every matrix (ZeRO-3: Rajbhandari 2020, section 5), `tensor` the heads,
the feed-forward width and the vocabulary (Shoeybi 2019, section 3). The rules say where arrays begin and end; the
collectives between are XLA's (GSPMD: Xu 2021). A mesh of one device changes nothing: same program, same bits.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling.config import Execution, MeshShape
from scaling.config.mesh import AXES, describe
from scaling.errors import ScalingError
from scaling.train import distributed

Pair = tuple[str | None, str | None]
BATCH, TENSOR = (
    ("data", "fsdp"),
    "tensor",
)  # of activations: what divides the tokens, and the vocabulary


@dataclass(frozen=True)
class ShardingRules:
    """Which axis of the mesh divides which side of a matrix, by the name of its module.

    A pair is (inputs, outputs) of the product, however the matrix is stored: qkv and up are split by columns, out and down
    by rows, so that a block needs one sum over `tensor` for each pair. Vectors (gains, biases) are whole everywhere;
    moments and averages lie where their parameters do. An axis that does not divide its side moves to the other one, and
    where that fails too the matrix is whole for that axis.
    """

    embedding: Pair = ("tensor", "fsdp")
    unembedding: Pair = ("fsdp", "tensor")
    position: Pair = (None, "fsdp")
    qkv: Pair = ("fsdp", "tensor")
    out: Pair = ("tensor", "fsdp")
    up: Pair = ("fsdp", "tensor")
    down: Pair = ("tensor", "fsdp")

    def spec(
        self, names: Sequence[str], sides: Sequence[int], d_model: int, mesh: MeshShape
    ) -> PartitionSpec:
        """Of one array by the names in its path and its shape; leading axes (stacked layers) are whole."""
        role = names[-2] if names[-1:] == ["kernel"] else names[-1] if names else ""
        if role in ("gain", "bias") or not hasattr(self, role):
            return PartitionSpec()
        inputs, outputs = getattr(self, role)
        if _is_transposed(role, sides, d_model):
            inputs, outputs = outputs, inputs
        return PartitionSpec(
            *[None] * (len(sides) - 2), *_placed((inputs, outputs), sides[-2:], mesh)
        )


def _is_transposed(role: str, sides: Sequence[int], d_model: int) -> bool:
    """Whether `Dense` stored (d_out, d_in): it does where the output is the narrower side."""
    if role in ("qkv", "up"):
        return sides[-2] < d_model
    return role in ("out", "down") and sides[-1] > d_model


def _placed(
    wanted: Pair, sides: Sequence[int], mesh: MeshShape
) -> tuple[tuple[str, ...] | None, ...]:
    """Each axis on its side, on the other one, or on none; `tensor` chooses first, for it decides how products are split."""
    found: tuple[list[str], list[str]] = ([], [])
    for axis in sorted({axis for axis in wanted if axis}, reverse=True):
        own = wanted.index(axis)
        for side in (own, 1 - own):
            parts = math.prod(getattr(mesh, name) for name in [*found[side], axis])
            if getattr(mesh, axis) > 1 and sides[side] % parts == 0:
                found[side].append(axis)
                break
    return tuple(tuple(axes) or None for axes in found)


@functools.lru_cache(maxsize=8)
def make_mesh(shape: MeshShape) -> Mesh:
    """The devices of all processes as (data, fsdp, tensor), neighbours along `tensor`; shardings are left to XLA between our pins.

    Raises ScalingError where a process would have no device in it.
    """
    devices = jax.devices()
    if shape.n_devices > len(devices) or (
        jax.process_count() > 1 and shape.n_devices != len(devices)
    ):
        raise ScalingError(
            f"has {shape.n_devices} devices, this job of {jax.process_count()} process(es) has {len(devices)}",
            where=f"mesh {describe(shape)}",
            remedy=f"several processes need a mesh of all their devices: data x fsdp x tensor = {len(devices)}",
        )
    sizes = tuple(getattr(shape, axis) for axis in AXES)
    return jax.make_mesh(
        sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[: shape.n_devices]
    )


def constrain_activation(x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """Hold an activation where it belongs, inside a program of a mesh: axis by axis, trailing ones whole. Elsewhere nothing happens.

    A side that its axes do not divide is whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    fitting = [
        axis if axis and size % _parts(mesh.shape, axis) == 0 else None
        for size, axis in zip(x.shape, axes, strict=False)
    ]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*fitting))


def constrain_embeddings(params: dict[str, Any]) -> dict[str, Any]:
    """The embedding (V, M) and the head (M, V) as lookups and losses use them: gathered over `fsdp`, divided by `tensor` where it divides V."""
    sides = {"embedding": (TENSOR, None), "unembedding": (None, TENSOR)}
    return {
        name: constrain_activation(params[name], *axes)
        for name, axes in sides.items()
        if name in params
    }


def _parts(sizes: Any, axis: str | tuple[str, ...]) -> int:
    return math.prod(sizes[name] for name in ([axis] if isinstance(axis, str) else axis))


@dataclass(frozen=True)
class Sharder:
    """Puts states and batches where `how.mesh` wants them. A mesh of one device leaves everything as it is."""

    how: Execution
    rules: ShardingRules = ShardingRules()

    @property
    def spreads(self) -> bool:
        """Whether arrays live on more than one device."""
        return self.how.mesh.n_devices > 1

    def share(self, tokens: int | None) -> int | None:
        """What one device has of so many tokens of the whole mesh, at least one."""
        return tokens and max(1, tokens // self._shares)

    @property
    def _shares(self) -> int:
        return self.how.mesh.data * self.how.mesh.fsdp

    def shardings(self, state: Any) -> Any:
        """Of a state (arrays or their shapes), leaf by leaf."""
        mesh, d_model = make_mesh(self.how.mesh), state.params["embedding"].shape[-1]

        def one(path: Any, leaf: Any) -> NamedSharding:
            names = [
                key.key
                for key in path
                if isinstance(key, jax.tree_util.DictKey) and isinstance(key.key, str)
            ]
            return NamedSharding(mesh, self.rules.spec(names, leaf.shape, d_model, self.how.mesh))

        return jax.tree_util.tree_map_with_path(one, state)

    def outline(self, shapes: Any) -> Any:
        """The shapes of a state, each with its place: what a checkpoint is restored into, without an array."""
        if not self.spreads:
            return shapes
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.shardings(shapes),
        )

    def born(self, draw: Any, *args: Any) -> Any:
        """The state `draw(*args)`, computed where it will live.

        A device holds its shards and, for a moment, the one vector that all parameters are drawn from (4 bytes a parameter).
        """
        if not self.spreads:
            return draw(*args)
        return jax.jit(draw, out_shardings=self.shardings(jax.eval_shape(draw, *args)))(*args)

    def held(self, state: Any) -> Any:
        """Inside a program: the state, still where it was."""
        return (
            jax.lax.with_sharding_constraint(state, self.shardings(state))
            if self.spreads
            else state
        )

    def whole(self, numbers: Any) -> Any:
        """Inside a program: small results on every device, so that every process can read them."""
        if not self.spreads:
            return numbers
        return jax.lax.with_sharding_constraint(
            numbers, NamedSharding(make_mesh(self.how.mesh), PartitionSpec())
        )

    def mean_by_share(self, measure: Callable[..., Any]) -> Callable[..., Any]:
        """`measure(x_NM, weight, target_N, ...)` -> means over tokens, each device (but those along `tensor`) on its own tokens.

        Otherwise a loss in chunks would add up the gradient of the head among devices after every chunk, instead of once.
        """
        if self._shares == 1:
            return measure

        def mean(*args: Any) -> Any:
            return jax.tree.map(lambda value: jax.lax.pmean(value, BATCH), measure(*args))

        def shared(x_NM: jax.Array, weight: jax.Array, target_N: jax.Array, *rest: Any) -> Any:
            specs = (
                PartitionSpec(BATCH),
                PartitionSpec(),
                PartitionSpec(BATCH),
                *[PartitionSpec()] * len(rest),
            )
            spread = jax.shard_map(
                mean,
                mesh=make_mesh(self.how.mesh),
                in_specs=specs,
                out_specs=PartitionSpec(),
                axis_names=set(BATCH),
                check_vma=False,
            )
            return spread(x_NM, weight, target_N, *rest)

        return shared

    def traced(self) -> contextlib.AbstractContextManager[Any]:
        """Inside a program: makes `pin` know the mesh."""
        return (
            jax.sharding.use_abstract_mesh(make_mesh(self.how.mesh).abstract_mesh)
            if self.spreads
            else contextlib.nullcontext()
        )

    def state(self, state: Any) -> Any:
        """The state on its devices."""
        return jax.device_put(state, self.shardings(state)) if self.spreads else state

    def tokens(self, tokens: np.ndarray) -> Any:
        """Batches of any number of leading axes, (..., B, T + 1), on their devices; whole where B does not divide among them.

        Every process holds the same tokens and gives each of its devices its share.
        """
        if not self.spreads:
            return tokens
        mesh = make_mesh(self.how.mesh)
        divides = tokens.shape[-2] % _parts(mesh.shape, BATCH) == 0
        spec = PartitionSpec(*[None] * (tokens.ndim - 2), BATCH) if divides else PartitionSpec()
        return jax.make_array_from_callback(
            tokens.shape, NamedSharding(mesh, spec), lambda index: tokens[index]
        )

    def agreed(self, wishes: np.ndarray) -> np.ndarray:
        """The same small numbers on every process: those of process 0."""
        return distributed.broadcast_from_host0(wishes)

    @property
    def writes(self) -> bool:
        """Whether this process publishes results."""
        return distributed.is_first()
