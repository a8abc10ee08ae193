"""Sharding: which device of a mesh holds which part of an array, by one set of rules.

`data` and `fsdp` divide the batch, `fsdp` one side of every matrix (ZeRO-3: Rajbhandari 2020,
section 5), `tensor` the heads, the feed-forward width and the vocabulary (Shoeybi 2019, section 3).
The rules place inputs and outputs of a program; the collectives between are XLA's (GSPMD: Xu 2021).
A mesh of one device changes nothing: same program, same bits.
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

Pair = tuple[str | None, str | None]
Devices = tuple[jax.Device, ...]  # none: those of this job
BATCH, FSDP, TENSOR = ("data", "fsdp"), "fsdp", "tensor"  # BATCH divides the tokens


@dataclass(frozen=True)
class ShardingRules:
    """Which axis of the mesh divides which side of a matrix, by the name of its module.

    A pair is (inputs, outputs) of the product, however the matrix is stored: qkv and up are split
    by columns, out and down by rows, so that a block needs one sum over `tensor` for each pair.
    Vectors (gains, biases) are replicated; moments and averages follow their parameters. An axis
    that does not divide its side moves to the other one, and if that fails too the matrix is
    replicated along it.
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
        """The spec of an array with this path and shape; leading axes (layers) are not divided."""
        role = names[-2] if names[-1:] == ["kernel"] else names[-1] if names else ""
        if role in ("gain", "bias") or not hasattr(self, role):
            return PartitionSpec()
        inputs, outputs = getattr(self, role)
        if _is_transposed(role, sides, d_model):
            inputs, outputs = outputs, inputs
        return PartitionSpec(
            *[None] * (len(sides) - 2), *_fitting_axes((inputs, outputs), sides[-2:], mesh)
        )


def _is_transposed(role: str, sides: Sequence[int], d_model: int) -> bool:
    """Whether `Dense` stored (d_out, d_in): it does where the output is the narrower side."""
    if role in ("qkv", "up"):
        return sides[-2] < d_model
    return role in ("out", "down") and sides[-1] > d_model


def _fitting_axes(
    wanted: Pair, sides: Sequence[int], mesh: MeshShape
) -> tuple[tuple[str, ...] | None, ...]:
    """Each axis on its side, on the other one, or on none.

    `tensor` comes first, because it decides how products are split.
    """
    axes_of_side: tuple[list[str], list[str]] = ([], [])
    for axis in sorted({axis for axis in wanted if axis}, reverse=True):
        own = wanted.index(axis)
        for side in (own, 1 - own):
            parts = math.prod(getattr(mesh, name) for name in [*axes_of_side[side], axis])
            if getattr(mesh, axis) > 1 and sides[side] % parts == 0:
                axes_of_side[side].append(axis)
                break
    return tuple(tuple(axes) or None for axes in axes_of_side)


@functools.lru_cache(maxsize=8)
def make_mesh(shape: MeshShape, devices: Devices = ()) -> Mesh:
    """The devices of all processes, or `devices`, as (data, fsdp, tensor).

    Neighbours are along `tensor`.

    Between our constraints XLA chooses the shardings. Raises ScalingError where a process would
    have no device in it.
    """
    devices = devices or tuple(jax.devices())
    if shape.n_devices > len(devices) or (
        jax.process_count() > 1 and shape.n_devices != len(devices)
    ):
        raise ScalingError(
            f"has {shape.n_devices} devices, this job of {jax.process_count()} process(es) "
            f"has {len(devices)}",
            where=f"mesh {describe(shape)}",
            remedy="several processes need a mesh of all their devices: "
            f"data x fsdp x tensor = {len(devices)}",
        )
    sizes = tuple(getattr(shape, axis) for axis in AXES)
    return jax.make_mesh(
        sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[: shape.n_devices]
    )


def constrain_activation(x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """Constrain the sharding of an activation, axis by axis, inside a program of a mesh.

    Trailing axes, and a side that its mesh axes do not divide, are replicated. Outside of
    `Sharder.in_mesh` nothing happens.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    fitting = [
        axis if axis and size % _parts(mesh.shape, axis) == 0 else None
        for size, axis in zip(x.shape, axes, strict=False)
    ]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*fitting))


def axis_size(axis: str) -> int:
    """Devices along an axis of the mesh, inside a program of a mesh; 1 outside of it."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[axis]


def over_devices(function: Callable[..., Any], axes: Sequence[Any]) -> Callable[..., Any]:
    """`function` of arrays that are divided along `axes`, on each device's own parts.

    An array with fewer sides has the first of the axes. Axes that do not divide a side of every
    array are left out. The result is divided as the first array.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function

    def spread(*arrays: jax.Array) -> Any:
        def divides(side: int, axis: Any) -> bool:
            parts = _parts(mesh.shape, axis)
            return all(x.shape[side] % parts == 0 for x in arrays if x.ndim > side)

        fitting = [axis if axis and divides(side, axis) else None for side, axis in enumerate(axes)]
        specs = tuple(PartitionSpec(*fitting[: x.ndim]) for x in arrays)
        return jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False
        )(*arrays)

    return spread


def look_up(embedding_VM: jax.Array, token_N: jax.Array) -> jax.Array:
    """Rows of the embedding, on each device those of its own tokens.

    The table is gathered over `fsdp` and its gradient is reduce-scattered.
    """
    shards = axis_size("data") * axis_size(FSDP)
    if shards == 1 or token_N.shape[0] % shards:
        return embedding_VM[token_N]
    return _on_batch_shards(
        lambda embedding, tokens: embedding[tokens], "embedding", embedding_VM, token_N
    )(embedding_VM, token_N)


def _on_batch_shards(
    function: Callable[..., Any],
    name: str,
    weight: jax.Array,
    *by_token: jax.Array,
    n_rest: int = 0,
    rules: ShardingRules = ShardingRules(),
) -> Callable[..., Any]:
    """`function(weight, by_token ..., rest ...)` on each device's tokens with the whole matrix.

    Devices along `tensor` share their tokens.
    """
    mesh = jax.sharding.get_abstract_mesh()
    shape = MeshShape(**{axis: mesh.shape[axis] for axis in AXES})
    spec = rules.spec([name], weight.shape, weight.shape[int(name == "embedding")], shape)
    side = next((i for i, axes in enumerate(spec) if axes and FSDP in axes), None)

    def gathered(weight: jax.Array, *args: Any) -> Any:
        if side is not None:
            weight = jax.lax.all_gather(weight, FSDP, axis=side, tiled=True)
        return function(weight, *args)

    whole = PartitionSpec(*[FSDP if i == side else None for i in range(2)])
    in_specs = (whole, *[PartitionSpec(BATCH)] * len(by_token), *[PartitionSpec()] * n_rest)
    out_specs = PartitionSpec() if n_rest else PartitionSpec(BATCH)
    return jax.shard_map(
        gathered,
        mesh=mesh,
        in_specs=in_specs,
        out_specs=out_specs,
        axis_names=set(BATCH),
        check_vma=False,
    )


def _parts(sizes: Any, axis: str | tuple[str, ...]) -> int:
    return math.prod(sizes[name] for name in ([axis] if isinstance(axis, str) else axis))


@dataclass(frozen=True)
class Sharder:
    """Puts states and batches on the mesh of `execution`; one device leaves everything as it is."""

    execution: Execution
    devices: Devices = ()
    rules: ShardingRules = ShardingRules()

    @property
    def mesh(self) -> Mesh:
        """The devices by axis."""
        return make_mesh(self.execution.mesh, self.devices)

    @property
    def is_sharded(self) -> bool:
        """Whether arrays live on more than one device."""
        return self.execution.mesh.n_devices > 1

    def per_device(self, tokens: int | None) -> int | None:
        """The tokens of one device out of `tokens` of the whole mesh, at least one."""
        return tokens and max(1, tokens // self._n_batch_shards)

    @property
    def _n_batch_shards(self) -> int:
        return self.execution.mesh.data * self.execution.mesh.fsdp

    def shardings(self, state: Any) -> Any:
        """The sharding of each leaf of a state (arrays or their shapes)."""
        mesh, d_model = self.mesh, state.params["embedding"].shape[-1]

        def one(path: Any, leaf: Any) -> NamedSharding:
            names = [
                key.key
                for key in path
                if isinstance(key, jax.tree_util.DictKey) and isinstance(key.key, str)
            ]
            return NamedSharding(
                mesh, self.rules.spec(names, leaf.shape, d_model, self.execution.mesh)
            )

        return jax.tree_util.tree_map_with_path(one, state)

    def abstract_state(self, shapes: Any) -> Any:
        """The shapes of a state with their shardings: what a checkpoint is restored into."""
        if not self.is_sharded:
            return shapes
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            shapes,
            self.shardings(shapes),
        )

    def init_sharded(self, draw: Any, *args: Any) -> Any:
        """The state `draw(*args)`, computed on the devices that keep it.

        A device holds its shards and, for a moment, the one vector that all parameters are drawn
        from (4 bytes per parameter).
        """
        if not self.is_sharded:
            return draw(*args)
        return jax.jit(draw, out_shardings=self.shardings(jax.eval_shape(draw, *args)))(*args)

    def constrain(self, state: Any) -> Any:
        """Inside a program: keeps the state on its devices."""
        return (
            jax.lax.with_sharding_constraint(state, self.shardings(state))
            if self.is_sharded
            else state
        )

    def replicate(self, numbers: Any) -> Any:
        """Inside a program.

        Puts small results on every device, so that every process can read them.
        """
        if not self.is_sharded:
            return numbers
        return jax.lax.with_sharding_constraint(numbers, NamedSharding(self.mesh, PartitionSpec()))

    def mean_over_devices(self, measure: Callable[..., Any], head: str) -> Callable[..., Any]:
        """`measure(x_NM, weight, target_N, ...)`, means over tokens, on each device's own tokens.

        Otherwise a loss in chunks would sum the gradient of the head over devices after every
        chunk, instead of once. Devices along `tensor` share their tokens. `head` is the name of the
        weight: it is gathered over `fsdp` here, and its gradient reduce-scattered.
        """
        if self._n_batch_shards == 1:
            return measure

        def mean(weight: jax.Array, x_NM: jax.Array, *rest: jax.Array) -> Any:
            means = measure(x_NM, weight, *rest)
            return jax.tree.map(lambda value: jax.lax.pmean(value, BATCH), means)

        def gathered(x_NM: jax.Array, weight: jax.Array, target_N: jax.Array, *rest: Any) -> Any:
            by_token, n_rest = (x_NM, target_N), len(rest)
            spread = _on_batch_shards(
                mean, head, weight, *by_token, n_rest=n_rest, rules=self.rules
            )
            return spread(weight, *by_token, *rest)

        return gathered

    def in_mesh(self) -> contextlib.AbstractContextManager[Any]:
        """Inside a program: the mesh that `constrain_activation` uses."""
        return (
            jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)
            if self.is_sharded
            else contextlib.nullcontext()
        )

    def put_state(self, state: Any) -> Any:
        """The state on its devices."""
        return jax.device_put(state, self.shardings(state)) if self.is_sharded else state

    def put_tokens(self, tokens: np.ndarray) -> Any:
        """Batches (..., B, T + 1) on their devices; replicated if B does not divide among them.

        Every process has the same tokens and passes each of its devices its share.
        """
        if not self.is_sharded:
            return tokens
        mesh = self.mesh
        divides = tokens.shape[-2] % _parts(mesh.shape, BATCH) == 0
        spec = PartitionSpec(*[None] * (tokens.ndim - 2), BATCH) if divides else PartitionSpec()
        return jax.make_array_from_callback(
            tokens.shape, NamedSharding(mesh, spec), lambda index: tokens[index]
        )
