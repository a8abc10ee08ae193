"""The text of a compiled XLA program (HLO), as computations of instructions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

ITEM_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
}
ARRAY = re.compile(r"([a-z]\w*)\[([0-9,]*)\](\{[^}]*\})?")


class Array(NamedTuple):
    """One array of a shape; `n_bytes` is 0 in a TPU's vector memory."""

    dtype: str
    sides: tuple[int, ...]
    n_bytes: int

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.sides)


def arrays(shape: str) -> list[Array]:
    """The arrays of a shape, in order."""
    parsed = []
    for dtype, sides, layout in ARRAY.findall(shape):
        if dtype in ITEM_BYTES:
            numbers = tuple(int(side) for side in sides.split(",") if side)
            n_bytes = 0 if "S(1)" in layout else math.prod(numbers) * ITEM_BYTES[dtype]
            parsed.append(Array(dtype, numbers, n_bytes))
    return parsed


def n_bytes(shape: str) -> int:
    """Bytes of all arrays of a shape."""
    return sum(array.n_bytes for array in arrays(shape))


def full_bytes(shape: str) -> int:
    """Bytes of a shape wherever it lies."""
    return sum(array.size * ITEM_BYTES[array.dtype] for array in arrays(shape))


def n_elements(shape: str) -> int:
    """Elements of all arrays of a shape."""
    return sum(array.size for array in arrays(shape))


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def computation(self, *keys: str) -> str | None:
        """The computation that one of these attributes names."""
        for key in keys or ("calls", "to_apply"):
            match = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
            if match:
                return match.group(1)
        return None


class Module:
    """Computations by name, each with its instructions in schedule order."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            if line.startswith(("%", "ENTRY")) and line.rstrip().endswith("{"):
                match = re.match(r"(ENTRY )?%?([\w.\-]+)", line)
                assert match
                current = self.computations.setdefault(match.group(2), {})
                self.entry = match.group(2) if match.group(1) else self.entry
            elif line.rstrip() == "}":
                current = None
            elif current is not None and (parsed := _parse(line)):
                current[parsed.name] = parsed

    def root(self, computation: str) -> Instruction:
        """The result of a computation."""
        return next(i for i in self.computations[computation].values() if i.is_root)


def _parse(line: str) -> Instruction | None:
    match = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not match:
        return None
    rest = line[match.end() :]
    if rest.startswith("("):
        end = _closing(rest, 0) + 1
    else:
        shaped = re.match(r"[a-z]\w*\[[0-9,]*\](\{)?", rest)
        if not shaped:
            return None
        end = _closing(rest, shaped.end() - 1) + 1 if shaped.group(1) else shaped.end()
    shape, rest = rest[:end], rest[end:].lstrip()
    called = re.match(r"([\w\-]+)\(", rest)
    if not called:
        return None
    close = _closing(rest, called.end() - 1)
    inside, after = rest[called.end() : close], rest[close + 1 :]
    op = called.group(1)
    attributes = f"{inside}|{after}" if op in ("parameter", "constant") else after
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(match.group(2), shape, op, operands, attributes, bool(match.group(1)))


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "({[") - (text[i] in ")}]")
        if depth == 0:
            return i
    return len(text)
