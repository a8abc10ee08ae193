"""Parse `--mesh` and check that a run fits a mesh, before anything starts. No jax here."""

from __future__ import annotations

import math
import re

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
            what = f"{axis[:40]!r} is not an axis of a mesh"
            remedy = f"{hint}axes: {', '.join(AXES)}, as in data=2,fsdp=4"
        elif axis in sizes:
            what, remedy = f"{axis} is given twice", "name each axis once"
        elif not re.fullmatch("0*[1-9][0-9]{0,5}", size):
            what = f"{axis} = {size[:40]!r} is not a number of devices"
            remedy = f"write it as {axis}=4"
        else:
            sizes[axis] = int(size)
            continue
        raise ScalingError(what, where=f"--mesh {text[:80]}", remedy=remedy)
    return MeshShape(**sizes)


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
    batch_size, shares = run.batch_size, execution.mesh.data * execution.mesh.fsdp
    micro_batch = execution.micro_batch or batch_size
    if micro_batch < batch_size and batch_size % micro_batch:
        fitting = divisors(batch_size, shares) or divisors(batch_size)
        raise ScalingError(
            f"micro_batch = {micro_batch} does not divide batch_size = {batch_size}",
            where=f"run {run.run_id}",
            remedy=f"fitting: {_listed(fitting)}",
        )
    if execution.mesh.n_devices == 1:
        return
    what, remedy, tensor = "", "", execution.mesh.tensor
    among = f"among data x fsdp = {shares} devices"
    heads, d_ff = run.model.n_heads, run.model.d_ff
    if execution.mesh.n_devices > n_devices:
        what = f"needs {execution.mesh.n_devices} devices, there are {n_devices}"
        remedy = f"here: {n_devices} x {kind}; data x fsdp x tensor must not exceed {n_devices}"
    elif pack > 1:
        what = f"a pack of {pack} runs and a mesh exclude each other"
        remedy = "train one run at a time, or without a mesh"
    elif batch_size % shares:
        what = f"batch_size = {batch_size} does not divide {among}"
        below = batch_size // shares * shares
        fitting = [size for size in (below, below + shares) if size]
        shares_that_fit = _listed(divisors(batch_size))
        remedy = f"batch_size {_listed(fitting)}, or data x fsdp one of {shares_that_fit}"
    elif micro_batch < batch_size and micro_batch % shares:
        what = f"micro_batch = {micro_batch} does not divide {among}"
        remedy = f"fitting: {_listed(divisors(batch_size, shares))}"
    elif heads % tensor or d_ff % tensor:
        name, width = ("n_heads", heads) if heads % tensor else ("d_ff", d_ff)
        what = f"tensor = {tensor} does not divide {name} = {width}"
        remedy = f"tensor must divide {math.gcd(heads, d_ff)}"
    if what:
        raise ScalingError(what, where=f"mesh {describe(execution.mesh)}", remedy=remedy)


def _listed(numbers: list[int]) -> str:
    """At most eight of them."""
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
