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
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling.config import Execution, MeshShape
from scaling.config.mesh import AXES, describe
from scaling.errors import ScalingError

Axis = str | tuple[str, ...] | None
Devices = tuple[jax.Device, ...]  # none: those of this job
BATCH, FSDP, TENSOR = ("data", "fsdp"), "fsdp", "tensor"  # BATCH divides the tokens

# Which axis of the mesh divides the (inputs, outputs) of a product, by the name of its module and
# however the matrix is stored: qkv and up are split by columns, out and down by rows, so that a
# block needs one sum over `tensor` for each pair. Vectors (gains, biases) are replicated; moments
# and averages follow their parameters.
RULES: dict[str, tuple[str | None, str | None]] = {
    "embedding": (TENSOR, FSDP),
    "unembedding": (FSDP, TENSOR),
    "position": (None, FSDP),
    "qkv": (FSDP, TENSOR),
    "out": (TENSOR, FSDP),
    "up": (FSDP, TENSOR),
    "down": (TENSOR, FSDP),
    "expert_gate": (None, TENSOR),  # (experts, inputs, outputs): `fsdp` divides the experts
    "expert_up": (None, TENSOR),
    "expert_down": (TENSOR, None),
}


def partition_spec(
    names: Sequence[str], sides: Sequence[int], d_model: int, mesh: MeshShape
) -> PartitionSpec:
    """The spec of an array with this path and shape; axes of layers are not divided.

    An axis that does not divide its side moves to the other one, and if that fails too the matrix
    is replicated along it. `tensor` comes first, because it decides how products are split.
    """
    role = names[-2] if names[-1:] == ["kernel"] else names[-1] if names else ""
    if role not in RULES:
        return PartitionSpec()
    wanted = RULES[role]
    # `Dense` stores (d_out, d_in) where the output is the narrower side
    is_narrowing = role in ("out", "down") and sides[-1] > d_model
    if is_narrowing or (role in ("qkv", "up") and sides[-2] < d_model):
        wanted = wanted[::-1]
    axes_of_side: tuple[list[str], list[str]] = ([], [])
    for axis in sorted({axis for axis in wanted if axis}, reverse=True):
        own = wanted.index(axis)
        for side in (own, 1 - own):
            parts = math.prod(getattr(mesh, name) for name in [*axes_of_side[side], axis])
            if getattr(mesh, axis) > 1 and sides[side - 2] % parts == 0:
                axes_of_side[side].append(axis)
                break
    leading: list[str | None] = [None] * (len(sides) - 2)
    if role.startswith("expert") and mesh.fsdp > 1 and sides[-3] % mesh.fsdp == 0:
        leading[-1] = FSDP
    return PartitionSpec(*leading, *(tuple(axes) or None for axes in axes_of_side))


@functools.lru_cache(maxsize=8)
def make_mesh(shape: MeshShape, devices: Devices = ()) -> Mesh:
    """The devices of all processes, or `devices`, as (data, fsdp, tensor).

    Neighbours are along `tensor`. Of several slices, which only the slow network joins, each has
    its own part of `data` where their number divides it.

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
    types, devices = (AxisType.Auto,) * len(AXES), devices[: shape.n_devices]
    n_slices = len({getattr(device, "slice_index", 0) for device in devices})
    if n_slices == 1:
        return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
    return Mesh(arrange_slices(sizes, devices, n_slices), AXES, axis_types=types)


def arrange_slices(sizes: Sequence[int], devices: Devices, n_slices: int) -> np.ndarray:
    """Devices of several slices as (data, fsdp, tensor), `data` outermost over slices; in their own
    order where it does not divide so.
    """
    if sizes[0] % n_slices:
        return np.array(devices).reshape(sizes)
    return mesh_utils.create_hybrid_device_mesh(
        (sizes[0] // n_slices, *sizes[1:]),
        (n_slices, 1, 1),
        devices,
        allow_split_physical_axes=True,
    )


def constrain_activation(x: Array, *axes: Axis) -> Array:
    """Constrain the sharding of an activation, axis by axis, inside a program of a mesh.

    Trailing axes, and a side that its mesh axes do not divide, are replicated. Outside of
    `Sharder.in_mesh` nothing happens.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, _fitting_spec(axes, x))


def _fitting_spec(axes: Sequence[Axis], *arrays: Array) -> PartitionSpec:
    """The axes of the mesh in force, but for those that do not divide a side of every array."""
    fitting = [
        axis if all(x.shape[side] % axis_size(axis) == 0 for x in arrays if x.ndim > side) else None
        for side, axis in enumerate(axes)
    ]
    return PartitionSpec(*fitting)


def axis_size(axis: Axis) -> int:
    """Devices along axes of the mesh, inside a program of a mesh; 1 outside of it."""
    mesh = jax.sharding.get_abstract_mesh()
    names = (axis,) if isinstance(axis, str) else axis or ()
    return 1 if mesh.empty else math.prod(mesh.shape[name] for name in names)


def over_devices(function: Callable[..., Any], axes: Sequence[Axis], *arrays: Array) -> Any:
    """`function(*arrays)` of arrays that are divided along `axes`, on each device's own parts.

    An array with fewer sides has the first of the axes. Axes that do not divide a side of every
    array are left out. The result is divided as the first array.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function(*arrays)
    fitting = _fitting_spec(axes, *arrays)
    specs = tuple(PartitionSpec(*fitting[: x.ndim]) for x in arrays)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(
        *arrays
    )


def on_own_tokens(
    function: Callable[..., Any], weight: Array, *by_token: Array, sums_second: bool = False
) -> Any:
    """`function(weight, by_token ...)` on each device's own tokens with the whole matrix.

    With `sums_second` there is a second result, summed over devices.
    """
    tokens, whole = PartitionSpec(BATCH), PartitionSpec()

    def on_device(*arrays: Array) -> Any:
        result = function(*arrays)
        return (result[0], jax.lax.psum(result[1], BATCH)) if sums_second else result

    return jax.shard_map(
        on_device,
        mesh=jax.sharding.get_abstract_mesh(),
        in_specs=(whole, *[tokens] * len(by_token)),
        out_specs=(tokens, whole) if sums_second else tokens,
        axis_names=set(BATCH),
        check_vma=False,
    )(weight, *by_token)


def look_up(embedding_VM: Array, token_N: Array) -> Array:
    """Rows of the embedding, on each device those of its own tokens.

    The table is gathered over `fsdp` and its gradient is reduce-scattered.
    """
    shards = axis_size(BATCH)
    if shards == 1 or token_N.shape[0] % shards:
        return embedding_VM[token_N]
    return _on_batch_shards(  # type: ignore[no-any-return]
        lambda embedding, tokens: embedding[tokens], "embedding", embedding_VM, [token_N]
    )


def _on_batch_shards(
    function: Callable[..., Any],
    name: str,
    weight: Array,
    by_token: Sequence[Array],
    rest: Sequence[Any] = (),
) -> Any:
    """`function(weight, by_token ..., rest ...)` on each device's tokens with the whole matrix.

    Devices along `tensor` share their tokens. With `rest` the result is the same on all devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    shape = MeshShape(**{axis: mesh.shape[axis] for axis in AXES})
    spec = partition_spec([name], weight.shape, weight.shape[int(name == "embedding")], shape)
    side = next((i for i, axes in enumerate(spec) if axes and FSDP in axes), None)

    def gathered(weight: Array, *args: Any) -> Any:
        if side is not None:
            weight = jax.lax.all_gather(weight, FSDP, axis=side, tiled=True)
        return function(weight, *args)

    whole = PartitionSpec(*[FSDP if i == side else None for i in range(2)])
    return jax.shard_map(
        gathered,
        mesh=mesh,
        in_specs=(whole, *[PartitionSpec(BATCH)] * len(by_token), *[PartitionSpec()] * len(rest)),
        out_specs=PartitionSpec() if rest else PartitionSpec(BATCH),
        axis_names=set(BATCH),
        check_vma=False,
    )(weight, *by_token, *rest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather_cast(x: Array, dtype: str) -> Array:
    """The parts of all devices along `fsdp`, cast before they are sent; for use inside `shard_map`.

    Gradients are summed in float32.
    """
    return jax.lax.all_gather(x.astype(dtype), FSDP, tiled=True)


gather_cast.defvjp(
    lambda x, dtype: (gather_cast(x, dtype), None),
    lambda dtype, _, grad: (jax.lax.psum_scatter(grad.astype(jnp.float32), FSDP, tiled=True),),
)


@dataclass(frozen=True)
class Sharder:
    """Puts states and batches on the mesh of `execution`; one device leaves everything as it is."""

    execution: Execution
    devices: Devices = ()

    @property
    def mesh(self) -> Mesh:
        """The devices by axis."""
        return make_mesh(self.execution.mesh, self.devices)

    @property
    def is_sharded(self) -> bool:
        """Whether arrays live on more than one device."""
        return self.execution.mesh.n_devices > 1

    @property
    def n_batch_shards(self) -> int:
        """Devices that divide the tokens of a batch."""
        return self.execution.mesh.data * self.execution.mesh.fsdp

    def shardings(self, state: Any) -> Any:
        """The sharding of each leaf of a state (arrays or their shapes)."""
        mesh, shape = self.mesh, self.execution.mesh
        d_model = state.params["embedding"].shape[-1]

        def one(path: Any, leaf: Any) -> NamedSharding:
            names = [name for key in path if isinstance(name := getattr(key, "key", None), str)]
            return NamedSharding(mesh, partition_spec(names, leaf.shape, d_model, shape))

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

    def constrain(self, state: Any) -> Any:
        """Inside a program: keeps the state on its devices."""
        if not self.is_sharded:
            return state
        return jax.lax.with_sharding_constraint(state, self.shardings(state))

    def replicate(self, numbers: Any) -> Any:
        """Inside a program: small results on every device, so that every process can read them."""
        if not self.is_sharded:
            return numbers
        return jax.lax.with_sharding_constraint(numbers, NamedSharding(self.mesh, PartitionSpec()))

    def mean_over_devices(self, measure: Callable[..., Any], head: str) -> Callable[..., Any]:
        """`measure(x_NM, weight, target_N, ...)`, means over tokens, on each device's own tokens.

        Otherwise a loss in chunks would sum the gradient of the head over devices after every
        chunk, instead of once. Devices along `tensor` share their tokens. `head` is the name of the
        weight: it is gathered over `fsdp` here, and its gradient reduce-scattered.
        """
        if self.n_batch_shards == 1:
            return measure

        def mean(weight: Array, x_NM: Array, *rest: Array) -> Any:
            means = measure(x_NM, weight, *rest)
            return jax.tree.map(lambda value: jax.lax.pmean(value, BATCH), means)

        return lambda x_NM, weight, target_N, *rest: _on_batch_shards(
            mean, head, weight, [x_NM, target_N], rest
        )

    def in_mesh(self) -> contextlib.AbstractContextManager[Any]:
        """Inside a program: the mesh that `constrain_activation` uses."""
        if not self.is_sharded:
            return contextlib.nullcontext()
        return jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)

    def put_state(self, state: Any) -> Any:
        """The state on its devices."""
        return jax.device_put(state, self.shardings(state)) if self.is_sharded else state

    def batch_parts(self, batch_size: int) -> tuple[int, tuple[int, ...]]:
        """In how many parts the processes read a batch, and the parts of this one's devices."""
        parts = self.n_batch_shards
        if jax.process_count() == 1 or batch_size % parts:
            return 1, (0,)
        sharding = NamedSharding(self.mesh, PartitionSpec(BATCH))
        own = sharding.addressable_devices_indices_map((parts,)).values()
        return parts, tuple(sorted({index[0].start or 0 for index in own if index}))

    def put_tokens(self, tokens: np.ndarray, batch_size: int | None = None) -> Any:
        """Batches (..., B, T + 1) on their devices; replicated if B does not divide among them.

        Every process has the same tokens, or of `batch_size` sequences its own `batch_parts`.
        """
        if not self.is_sharded:
            return tokens
        *outer, B, length = tokens.shape
        B = batch_size or B
        divides = B % self.n_batch_shards == 0
        spec = PartitionSpec(*[None] * len(outer), BATCH) if divides else PartitionSpec()
        return jax.make_array_from_process_local_data(
            NamedSharding(self.mesh, spec), tokens, (*outer, B, length)
        )
