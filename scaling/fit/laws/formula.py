"""Laws that a person writes: "L(N, D) = E + (A/N^alpha + B/D^beta)^k", on the command line or in a
law.toml, becomes a `Law`.
"""

from __future__ import annotations

import ast
import math
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ValidationError

from scaling.errors import ScalingError
from scaling.fit.document import first_fault
from scaling.fit.laws.expression import FUNCTIONS, is_affine, parse, unreadable
from scaling.fit.laws.law import Law, Param
from scaling.points.letters import parse_columns

LETTERS = ("N", "D", "C", "U")  # inputs of a formula that does not name its own
HEAD = re.compile(r"\s*(\w+)\s*(?:\(([\w\s,]*)\))?\s*")
AS_WRITTEN = "y"  # on the left of a formula whose terms may be of either sign, whatever its shape


class LawFile(BaseModel, extra="forbid", frozen=True):
    """What a law.toml holds."""

    formula: str
    inputs: list[str] = []
    start: dict[str, float] = {}
    bounds: dict[str, list[float]] = {}
    units: dict[str, str] = {}
    source: str = ""


def read_formula(
    text: str, start: str | None, columns: str | None, inputs: Collection[str] | None = None
) -> Law:
    """The law of a formula, or of a law.toml that holds `formula`, `inputs`, `start`, `bounds`,
    `units` and `source`. Names in `inputs` and on the left of `columns` are no parameters;
    None checks the text alone, before the table is read.

    Raises ScalingError for what cannot be read.
    """
    entries = _law_file(Path(text)) if text.endswith(".toml") else LawFile(formula=text)
    units = ", ".join(f"{name} in {unit}" for name, unit in entries.units.items())
    named = parse_columns(columns, custom=True) if columns else {}
    return parse_formula(
        entries.formula,
        {*(inputs or ()), *named, *entries.inputs},
        entries.bounds,
        {**entries.start, **(named_values(start, "--start") if start else {})},
        "; ".join(filter(None, (entries.source, units))),
        only_text=inputs is None,
    )


def _law_file(path: Path) -> LawFile:
    try:
        return LawFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    except tomllib.TOMLDecodeError as error:
        what = str(error)
    except ValidationError as error:
        what = first_fault(error)
    raise ScalingError(
        what,
        where=path,
        remedy='write formula = "L = E + A/N^alpha"; its keys: ' + ", ".join(LawFile.model_fields),
    )


def named_values(text: str, option: str) -> dict[str, float]:
    """Parameters at given values: `"alpha=0.35,ln A=6.26"`."""
    values: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            *function, word = name.split()
            values[word] = math.exp(float(value)) if function == ["ln"] else float(value)
            if not math.isfinite(values[word]):
                raise ValueError
        except (ValueError, OverflowError):
            raise ScalingError(
                f"{part[:80]!r} is not of the form NAME=VALUE",
                where=option,
                remedy='write "alpha=0.35,ln A=6.26"',
            ) from None
    return values


def parse_formula(
    text: str,
    inputs: Collection[str] = (),
    bounds: Mapping[str, Sequence[float]] | None = None,
    start: Mapping[str, float] | None = None,
    source: str = "",
    only_text: bool = False,
) -> Law:
    """The law of a formula. Its inputs stand in brackets on its left side; else they are the names
    that `inputs` holds, with N, D, C and U. `only_text` checks a formula before its table is read.

    Raises ScalingError that gives the position of what cannot be read.
    """
    left, equals, right = text.partition("=")
    head = HEAD.fullmatch(left)
    if not equals or not head:
        raise unreadable(text, 0, "the left side is not a name")
    tree = parse(text, len(left) + 1)
    occurring = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names = list(
        dict.fromkeys(node.id for node in sorted(occurring, key=lambda node: node.col_offset))
    )
    names = [name for name in names if name not in FUNCTIONS]
    given = [name.strip() for name in (head[2] or "").split(",") if name.strip()]
    if unused := [name for name in given if name not in names]:
        raise unreadable(text, left.find(unused[0]), f"{unused[0]} does not occur in the formula")
    used = given or [name for name in names if name in {*inputs, *LETTERS}]
    params = [name for name in names if name not in used]
    if (not used or not params) and not only_text:
        raise ScalingError(
            f"{text.strip()[:120]!r} has no {'parameter' if used else 'input'}",
            where="--formula",
            remedy='name the inputs on its left side, as in "L(experts, N) = ..."',
        )
    for option in (bounds or {}, start or {}):
        if unknown := [name for name in option if name not in params]:
            raise ScalingError(
                f"the formula has no parameter {unknown[0]!r}",
                where="--formula",
                remedy=f"its parameters are {', '.join(params)}",
            )
    for name, pair in (bounds or {}).items():
        if len(pair) != 2 or not pair[0] < pair[1]:
            raise ScalingError(
                f"bounds of {name}: {list(pair)} are no pair of rising numbers",
                where="--formula",
                remedy=f"write {name} = [0, 2]; inf and -inf leave a side open",
            )
    limits = {name: (low, high) for name, (low, high) in (bounds or {}).items()}
    symbol = AS_WRITTEN if head[1] == AS_WRITTEN else "L"
    formula = f"{symbol}({', '.join(used)}) = {' '.join(right.split())}"
    law = Law(
        name=formula,
        formula=formula,
        reference=source or "a formula of the user",
        inputs=tuple(used),
        params=tuple(Param(name, limits.get(name, (-np.inf, np.inf))) for name in params),
        terms=(),
        expressions={"loss": tree},
        start=start,
    )
    linear: list[str] = []
    for name in params:
        if is_affine(tree, {*linear, name}):
            linear.append(name)
    return replace(law, linear=tuple(linear))
