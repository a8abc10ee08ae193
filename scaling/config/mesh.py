"""Parse `--mesh` and check that a run fits a mesh, before anything starts. No jax here."""

from __future__ import annotations

import math

from scaling.config import Execution, MeshShape, RunConfig
from scaling.config.base import divisors
from scaling.errors import ScalingError, closest_match

AXES = tuple(MeshShape.model_fields)


def parse_mesh(text: str) -> MeshShape:
    """The mesh of `data=2,fsdp=4`; other axes have one device. Raises ScalingError."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = (piece.strip() for piece in part.partition("="))
        if axis not in AXES:
            guess = closest_match(axis, AXES)
            hint = f"did you mean {guess}? " if guess else ""
            raise _unreadable(
                text,
                f"{axis[:40]!r} is no axis of a mesh",
                f"{hint}axes: {', '.join(AXES)}, as in data=2,fsdp=4",
            )
        if axis in sizes:
            raise _unreadable(text, f"{axis} is given twice", "name each axis once")
        if not (size.isascii() and size.isdigit() and int(size[:7]) > 0 and len(size) < 7):
            raise _unreadable(
                text, f"{axis} = {size[:40]!r} is not a number of devices", f"write it as {axis}=4"
            )
        sizes[axis] = int(size)
    return MeshShape(**sizes)


def _unreadable(text: str, what: str, remedy: str) -> ScalingError:
    return ScalingError(what, where=f"--mesh {text[:80]}", remedy=remedy)


def describe(mesh: MeshShape) -> str:
    """The mesh as `parse_mesh` reads it, without the axes of one device."""
    return (
        ",".join(f"{axis}={getattr(mesh, axis)}" for axis in AXES if getattr(mesh, axis) > 1)
        or "data=1"
    )


def check(
    run: RunConfig, execution: Execution, n_devices: int, *, pack: int = 1, kind: str = "device"
) -> None:
    """Raise ScalingError where `pack` runs of this shape cannot be trained so on `n_devices`
    devices of a `kind`.

    What the rules of a mesh may leave whole (a vocabulary, key-value heads, a width) is not
    refused; what would leave devices without work is.
    """
    _check_micro_batch(run, execution)
    if execution.mesh.n_devices == 1:
        return
    where = f"mesh {describe(execution.mesh)}"
    if execution.mesh.n_devices > n_devices:
        remedy = f"here: {n_devices} x {kind}; data x fsdp x tensor must not exceed {n_devices}"
        raise ScalingError(
            f"needs {execution.mesh.n_devices} devices, there are {n_devices}",
            where=where,
            remedy=remedy,
        )
    if pack > 1:
        raise ScalingError(
            f"a pack of {pack} runs and a mesh exclude each other",
            where=where,
            remedy="train one run at a time, or without a mesh",
        )
    _check_batch(run, execution, where)
    for name, width in (("n_heads", run.model.n_heads), ("d_ff", run.model.d_ff)):
        if width % execution.mesh.tensor:
            fitting = math.gcd(run.model.n_heads, run.model.d_ff)
            raise ScalingError(
                f"tensor = {execution.mesh.tensor} does not divide {name} = {width}",
                where=where,
                remedy=f"tensor must divide {fitting}",
            )


def _check_micro_batch(run: RunConfig, execution: Execution) -> None:
    if (
        execution.micro_batch
        and execution.micro_batch < run.batch_size
        and run.batch_size % execution.micro_batch
    ):
        divisors = _divisors(run.batch_size, execution.mesh.data * execution.mesh.fsdp)
        what = (
            f"micro_batch = {execution.micro_batch} does not divide batch_size = {run.batch_size}"
        )
        raise ScalingError(
            what,
            where=f"run {run.run_id}",
            remedy=f"fitting: {_listed(divisors or _divisors(run.batch_size, 1))}",
        )


def _check_batch(run: RunConfig, execution: Execution, where: str) -> None:
    shares = execution.mesh.data * execution.mesh.fsdp
    if run.batch_size % shares:
        fitting = [
            shares * count
            for count in sorted({run.batch_size // shares, -(-run.batch_size // shares)} - {0})
        ]
        what = f"batch_size = {run.batch_size} does not divide among data x fsdp = {shares} devices"
        divisors = _listed(_divisors(run.batch_size, 1))
        raise ScalingError(
            what,
            where=where,
            remedy=f"batch_size {_listed(fitting)}, or data x fsdp one of {divisors}",
        )
    if (
        execution.micro_batch
        and execution.micro_batch < run.batch_size
        and execution.micro_batch % shares
    ):
        what = (
            f"micro_batch = {execution.micro_batch} does not divide"
            f" among data x fsdp = {shares} devices"
        )
        raise ScalingError(
            what, where=where, remedy=f"fitting: {_listed(_divisors(run.batch_size, shares))}"
        )


def _divisors(total: int, multiple: int) -> list[int]:
    """The divisors of `total` that are multiples of `multiple`."""
    return [size for size in divisors(total) if size % multiple == 0]


def _listed(numbers: list[int]) -> str:
    """At most eight of them."""
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
