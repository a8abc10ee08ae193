"""What all configuration is made of: frozen, strict, closed models, counts and names."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    WithJsonSchema,
)
from typing_extensions import TypeAliasType

from scaling.accounting import FlopsConvention as FlopsConvention
from scaling.accounting import NConvention as NConvention
from scaling.units import COUNT_FORM, Quantity, count_pattern, positive

Precision = Literal["float32", "bfloat16"]


def _short_slug(name: str) -> str:
    """A name that is safe as a folder on every system."""
    stem = name.split(".")[0].upper()
    if name.endswith(".") or stem in {"CON", "PRN", "AUX", "NUL"}:
        raise ValueError(f"{name!r} cannot name a folder on every system")
    return name


def _only_false(value: bool) -> bool:
    """Only `false`."""
    if value:
        raise ValueError("should be a number, or false")
    return value


def _count_of(quantity: Quantity) -> BeforeValidator:
    """Reads a count with the units of its quantity: PF-days are no tokens."""
    form = 'write it as 1e9 or "10B" (suffixes K, M, B, T)'

    def count(value: object) -> float:
        try:
            return positive(value, quantity)
        except ValueError:
            what = f"{str(value)[:40]!r} is not a positive count up to 1e30"
            is_compute = quantity is Quantity.FLOPS
            raise ValueError(f"{what}; {COUNT_FORM if is_compute else form}") from None

    return BeforeValidator(count)


def _count_schema(quantity: Quantity) -> WithJsonSchema:
    """The JSON Schema of a count: a number, or a text with a unit of the quantity."""
    number = {"type": "number", "exclusiveMinimum": 0, "maximum": 1e30}
    text = {"type": "string", "pattern": count_pattern(quantity)}
    return WithJsonSchema({"anyOf": [number, text]})


# with a name, each stands once in a schema
Count = TypeAliasType(
    "Count", Annotated[float, _count_of(Quantity.FLOPS), _count_schema(Quantity.FLOPS)]
)
Params = TypeAliasType(
    "Params", Annotated[float, _count_of(Quantity.PARAMS), _count_schema(Quantity.PARAMS)]
)
Tokens = TypeAliasType(
    "Tokens", Annotated[float, _count_of(Quantity.TOKENS), _count_schema(Quantity.TOKENS)]
)
SLUG = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Slug = Annotated[str, Field(pattern=SLUG), AfterValidator(_short_slug)]
Positive = Annotated[int, Field(gt=0, le=2**40)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveReal = Annotated[float, Field(gt=0.0)]
UpToTen = Annotated[float, Field(gt=0.0, le=10.0)]
Length = Annotated[int, Field(ge=2, le=2**24)]  # of windows and lists
Symbols = Annotated[int, Field(ge=2, le=2**16)]
Counts = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]
Sizes = Annotated[tuple[Params, ...], Strict(False), Field(min_length=1)]
TokenCounts = Annotated[tuple[Tokens, ...], Strict(False), Field(min_length=1)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Strict(False), Field(min_length=1)
]
Disabled = Annotated[
    bool, AfterValidator(_only_false), WithJsonSchema({"const": False})
]  # `false` and nothing else: a literal would take 0 for it
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


class Frozen(BaseModel):
    """Immutable, strict (no silent conversion), and closed (an unknown key is an error)."""

    __slots__ = (
        "_canonical",
        "_run_id",
    )  # kept once computed: a slot is neither compared, dumped, nor carried into a changed copy
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )

    def canonical(self) -> str:
        """The JSON that identifies it: sorted keys, defaults left out, so that a new field changes
        no old id.
        """
        known: str | None = getattr(self, "_canonical", None)
        if known is None:
            known = _CANONICAL.encode(self._identity())
            object.__setattr__(self, "_canonical", known)
        return known

    def _identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


class Document(BaseModel):
    """A document that leaves the program, or a part of one: immutable, closed, with finite numbers
    only. A field `schema_version` is its key "schema".
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True
    )

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return self.model_dump(mode="json", by_alias=True)


def plain_message(message: str) -> str:
    """What pydantic says of a value, without its own words for one."""
    return message.removeprefix("Value error, ").removeprefix("Input ")


def validation_messages(error: ValidationError, prefix: str = "") -> str:
    """The mistakes that pydantic lists, each with its field where it is in one."""
    items = error.errors(include_url=False)
    names = [".".join(map(str, item["loc"])) for item in items]
    return "; ".join(
        (f"{prefix}{name}: " if name else "") + plain_message(item["msg"])
        for name, item in zip(names, items, strict=True)
    )


def divisors(number: int, multiple: int = 1) -> list[int]:
    """The divisors of a positive number that are multiples of another, ascending; of 2^40 in a
    twentieth of a second.
    """
    low = [size for size in range(1, math.isqrt(number) + 1) if number % size == 0]
    both = {*low, *(number // size for size in low)}
    return sorted(size for size in both if size % multiple == 0)


def finite(value: float | None) -> float | None:
    """A number for JSON: what is not finite is absent, for JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None
