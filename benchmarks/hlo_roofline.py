"""Traffic, arithmetic and collectives of a compiled XLA program (HLO text), as a roofline.

Every scheduled operation reads its operands and writes its results once; a fusion reads only what
its slices ask for, and an update in place writes only the update. On a TPU what lies in vector
memory, S(1), costs nothing. A loop counts as often as it turns; one whose count is not known (the
steps of a dispatch) counts once, so the figures are those of one step. An upper bound of speed:
launches, imperfect overlap and products below their peak are not in it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.hlo import ITEM_BYTES, Instruction, Module, arrays, full_bytes, n_bytes, n_elements
from scaling.accounting import Device

LINK_BYTES_PER_SECOND = {989e12: 450e9, 197e12: 180e9}  # NVLink 4 and v5e's ICI, one direction
FREE = frozenset(
    [
        "parameter",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "constant",
        "after-all",
        "partition-id",
        "replica-id",
        "iota",
        "opt-barrier",
        "optimization-barrier",
        "domain",
        "add-dependency",
    ]
)
ASYNCHRONOUS = ("async-start", "slice-start", "dynamic-slice-start")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
WHOLE_READERS = frozenset(
    [
        "reduce",
        "dot",
        "convolution",
        "reduce-window",
        "sort",
        "concatenate",
        "call",
        "map",
        "tuple",
        "pad",
        "broadcast",
    ]
)
LEFT_CONTRACTED = re.compile(r'lhs_contracting_dim(?:ension)?s"?[=:]\{?\[?"?([0-9,]*)')


class Product(NamedTuple):
    """A matrix product: FLOPs and dtypes of its operands."""

    flops: float
    dtypes: tuple[str, str]


@dataclass(frozen=True)
class Operation:
    """A scheduled operation: how often it runs, and what it reads, writes and computes each time.

    `link_bytes` cross a link between devices.
    """

    name: str
    op: str
    shape: str
    times: int
    traffic: float
    products: tuple[Product, ...] = ()
    link_bytes: float = 0.0

    @property
    def flops(self) -> float:
        """FLOPs of its products."""
        return sum(product.flops for product in self.products)


@dataclass(frozen=True)
class Roofline:
    """Of one device and step: seconds at the data sheet's peaks, bytes, and link bytes by kind."""

    seconds: float
    link_seconds: float
    traffic: float
    flops: float
    collectives: dict[str, float] = field(default_factory=dict)


def roofline(text: str, device: Device, n_devices: int = 1) -> Roofline:
    """The roofline of a program's text."""
    seconds = flops = traffic = 0.0
    links: dict[str, float] = {}
    for operation in operations(Module(text), n_devices):
        arithmetic = operation.flops / device.flops_per_second
        moved = operation.traffic / device.bytes_per_second
        seconds += operation.times * max(arithmetic, moved)
        flops += operation.times * operation.flops
        traffic += operation.times * operation.traffic
        if operation.link_bytes:
            sent = operation.times * operation.link_bytes
            links[operation.op] = links.get(operation.op, 0.0) + sent
    link = LINK_BYTES_PER_SECOND.get(device.flops_per_second, math.inf)
    return Roofline(seconds, sum(links.values()) / link, traffic, flops, links)


def operations(module: Module, n_devices: int = 1) -> list[Operation]:
    """All scheduled operations of a program."""
    return list(_walk(module, module.entry, 1, n_devices))


def _walk(module: Module, computation: str, times: int, n_devices: int) -> Iterator[Operation]:
    for each in module.computations[computation].values():
        op = each.op.removesuffix("-start")
        if op in FREE or (op.endswith(("-done", "-update")) and op != "dynamic-update-slice"):
            continue
        if op == "while":
            body = each.computation("body")
            assert body
            yield from _walk(module, body, times * _trips(module, each), n_devices)
        elif op in ("call", "conditional"):
            callee = each.computation("to_apply", "calls", "true_computation")
            first = re.search(r"branch_computations=\{%?([\w.\-]+)", each.attributes)
            callee = first.group(1) if first else callee
            if callee:
                yield from _walk(module, callee, times, n_devices)
        else:
            yield _operation(module, computation, each, op, times, n_devices)


def _trips(module: Module, loop: Instruction) -> int:
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known.group(1))
    condition = loop.computation("condition")  # the TPU compiler drops the count: read it there
    assert condition
    root = module.root(condition)
    for name in root.operands if root.op == "compare" else ():
        operand = module.computations[condition].get(name)
        number = operand and operand.op == "constant" and re.match(r"(\d+)\|", operand.attributes)
        if number:
            return int(number.group(1))
    return 1


def _operation(
    module: Module, computation: str, each: Instruction, op: str, times: int, n_devices: int
) -> Operation:
    table = module.computations[computation]
    shapes = [table[name].shape for name in each.operands if name in table]
    read, written = float(sum(map(n_bytes, shapes))), float(n_bytes(each.shape))
    products: tuple[Product, ...] = ()
    link_bytes = 0.0
    if each.op in ASYNCHRONOUS and (callee := each.computation()):
        products = tuple(_products(module, callee))
        op, root = _async_name(module, callee), module.root(callee)
        written, read = n_bytes(root.shape), full_bytes(root.shape) if read else 0
    elif each.op == "slice-start":  # its shape: what it slices, the slice, a semaphore
        part = arrays(each.shape)[len(arrays(shapes[0]))]
        written, read = (
            part.n_bytes,
            part.size * ITEM_BYTES[part.dtype] if n_bytes(shapes[0]) else 0,
        )
    elif op == "fusion":
        callee = each.computation() or ""
        read, written = _fusion_bytes(module, table, each)
        products = tuple(_products(module, callee))
        if collective := _started_collective(module, callee):
            op = "reduce-scatter" if "all-reduce-scatter" in callee else collective.op
            inner = [module.computations[callee][name].shape for name in collective.operands]
            link_bytes = _link_bytes(op, inner, collective, n_devices)
    elif op in ("dot", "convolution"):
        products = (_product(table, each),)
    elif each.op in ("dynamic-slice", "slice", "gather"):
        read = min(read, written) if written else full_bytes(each.shape)
    elif op == "dynamic-update-slice":
        read = written = n_bytes(shapes[1])
    elif op == "copy" and each.op.endswith("-start"):
        read, written = n_bytes(shapes[0]), arrays(each.shape)[0].n_bytes
    elif op == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', each.attributes)
        op = f"custom-call:{target.group(1) if target else '?'}"
        products = _custom_products(op, shapes, each)
        if "gemm" in op or "matmul" in op:
            written = arrays(each.shape)[0].n_bytes  # without its workspace
    if op in COLLECTIVES and each.op != "fusion":
        link_bytes = _link_bytes(op, shapes, each, n_devices)
        read, written = sum(map(full_bytes, shapes)), link_bytes
    return Operation(each.name, op, each.shape, times, read + written, products, link_bytes)


def _async_name(module: Module, callee: str) -> str:
    ops = {instruction.op for instruction in module.computations[callee].values()}
    return next((op for op in COLLECTIVES if op in ops), "async")


def _started_collective(module: Module, callee: str) -> Instruction | None:
    """The collective of a TPU's fusion. One that runs along with products is in three fusions: that
    which starts it counts.
    """
    body = module.computations.get(callee, {}).values()
    calls = " ".join(i.attributes for i in body if i.op == "custom-call")
    if "AsyncCollectiveStart" not in calls and (
        "async_collective" in callee or "AsyncCollectiveDone" in calls
    ):
        return None
    return next((i for i in body if i.op in COLLECTIVES), None)


def _link_bytes(op: str, operands: list[str], each: Instruction, n_devices: int) -> float:
    """Bytes that a device sends in a ring of its group."""
    if "source_target_pairs={}" in each.attributes:
        return 0.0
    groups = re.search(r"replica_groups=\{\{([0-9,]*)\}", each.attributes)
    tiled = re.search(r"replica_groups=\[(\d+),(\d+)\]", each.attributes)
    named = re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", each.attributes)
    n = n_devices
    if named:
        sizes = dict(re.findall(r"('\w+')=(\d+)", named.group(1)))
        n = math.prod(int(sizes[axis]) for axis in named.group(2).split(","))
    elif groups:
        n = len(groups.group(1).split(","))
    elif tiled:
        n = int(tiled.group(2))
    own = sum(map(full_bytes, operands))
    share = (n - 1) / n if n > 1 else 0.0
    return {"all-reduce": 2 * share, "all-gather": n - 1.0, "collective-permute": 1.0}.get(
        op, share
    ) * own


def _product(table: dict[str, Instruction], each: Instruction) -> Product:
    left, right = (arrays(table[name].shape)[0] for name in each.operands[:2])
    out = arrays(each.shape)[0]
    if each.op == "dot":
        match = LEFT_CONTRACTED.search(each.attributes)
        contracted = [int(i) for i in match.group(1).split(",") if i] if match else []
        depth = math.prod(left.sides[i] for i in contracted)
    else:  # a TPU's product: contracted over the kernel's inputs and a window that is no batch
        labels = re.search(r"dim_labels=\w+_(\w+)->(\w+)", each.attributes)
        assert labels
        depth = right.sides[labels.group(1).index("i")]
        window = re.search(r"window=\{size=([0-9x]+)", each.attributes)
        for i, size in enumerate(window.group(1).split("x") if window else ()):
            if out.sides[labels.group(2).index(str(i))] == 1:
                depth *= int(size)
    return Product(2.0 * out.size * depth, (left.dtype, right.dtype))


def _products(module: Module, computation: str) -> Iterator[Product]:
    for each in module.computations.get(computation, {}).values():
        if each.op in ("dot", "convolution"):
            yield _product(module.computations[computation], each)
        elif each.op in ("fusion", "call", "map"):
            yield from _products(module, each.computation() or "")


def _custom_products(op: str, operands: list[str], each: Instruction) -> tuple[Product, ...]:
    """Products of cuDNN's and Pallas' attention (causal: half of T x S) and of cuBLAS."""
    if "fmha" in op or op == "custom-call:tpu_custom_call":
        queries = next((a for s in operands for a in arrays(s) if a.dtype == "bf16"), None)
        if queries is None:
            return ()
        *_, a, b, _c = queries.sides  # (..., T, H, K) of cuDNN, (..., H, T, K) of Pallas
        length = a if "fmha" in op else b
        n_outputs = sum(array.dtype == "bf16" for array in arrays(each.shape))
        passes = 5 if "Backward" in op or n_outputs > 1 else 2
        return (Product(passes * queries.size * length, (queries.dtype, queries.dtype)),)
    if "gemm" in op or "matmul" in op:
        match = LEFT_CONTRACTED.search(each.attributes)
        left, right = arrays(operands[0])[0], arrays(operands[1])[0]
        contracted = [int(i) for i in match.group(1).split(",") if i] if match else []
        depth = math.prod(left.sides[i] for i in contracted)
        return (Product(2.0 * arrays(each.shape)[0].size * depth, (left.dtype, right.dtype)),)
    return ()


def _fusion_bytes(
    module: Module, table: dict[str, Instruction], each: Instruction
) -> tuple[float, float]:
    """Bytes that a fusion reads and writes."""
    body = module.computations[each.computation() or ""]
    demand = _demand(module, body)
    parameters = {int(i.attributes.split("|")[0]): i for i in body.values() if i.op == "parameter"}
    read = 0.0
    for position, name in enumerate(each.operands):
        if name not in table:
            continue
        parameter, n_read = parameters[position], n_bytes(table[name].shape)
        full = n_elements(parameter.shape)
        read += n_read * min(1.0, demand[parameter.name] / full) if full else 0.0
    root = next(i for i in body.values() if i.is_root)
    outputs = [body[name] for name in root.operands] if root.op == "tuple" else [root]
    if "AsyncCollectiveStart" in root.attributes:  # its shape: what is sent, what is gathered, ...
        return read, arrays(each.shape)[1].n_bytes
    written, is_step = 0.0, "async_collective" in (each.computation() or "")
    for array, output in zip(arrays(each.shape), outputs, strict=False):
        size: float = array.n_bytes
        if (
            output.op == "parameter"
            or (is_step and output.op in COLLECTIVES)
            or "AsyncCollectiveDone" in output.attributes
        ):
            continue  # passed on
        while output.op in ("bitcast", "copy", "reshape", "convert"):
            output = body[output.operands[0]]
        if output.op == "dynamic-update-slice":
            size = min(size, full_bytes(body[output.operands[1]].shape))
        if output.op == "scatter":
            size = min(size, 2 * full_bytes(body[output.operands[-1]].shape))
        written += size
    return read, written


def _demand(module: Module, body: dict[str, Instruction]) -> Counter[str]:
    """Elements of every instruction that the results ask for: of a slice, its part alone."""
    demand: Counter[str] = Counter()
    for each in reversed(body.values()):
        size = n_elements(each.shape)
        wanted = size if each.is_root else min(demand[each.name], size)
        if each.is_root:
            demand[each.name] = wanted
        for position, name in enumerate(each.operands):
            if name not in body:
                continue
            full = n_elements(body[name].shape)
            asked = min(full, wanted)
            if each.is_root and each.op == "tuple" and body[name].op == "parameter":
                asked = 0  # passed on
            elif (
                each.op in WHOLE_READERS
                or (position and each.op in ("slice", "dynamic-slice"))
                or (each.op == "gather" and position)
                or (each.op == "scatter" and position)
            ):
                asked = full
            elif each.op == "scatter":
                asked = 0
            elif each.op == "dynamic-update-slice":
                in_place = position == 0 and (each.is_root or wanted >= size)
                asked = 0 if in_place else asked if position == 0 else full
            elif each.op == "fusion":
                asked = _asked_by_inner(module, each, position, full)
            demand[name] += asked
    return demand


def _asked_by_inner(module: Module, fusion: Instruction, position: int, full: int) -> int:
    """Elements of an operand that a nested fusion reads: its slices, or all."""
    inner = module.computations[fusion.computation() or ""].values()
    parameter = next(
        (i for i in inner if i.op == "parameter" and i.attributes.startswith(f"{position}|")), None
    )
    readers = [i for i in inner if parameter is not None and parameter.name in i.operands]
    if readers and all(i.op == "dynamic-slice" for i in readers):
        return min(full, sum(n_elements(i.shape) for i in readers))
    return full
