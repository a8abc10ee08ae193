"""What fits and predictions are written as: frozen models whose numbers are finite or null.

A field with a default of None is left out of the file while it is None; a field without a default
is always there, as null if need be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from scaling.errors import ScalingError

Array = np.ndarray

MAX_DRAWS = 1000  # kept in a document
DRAW_DIGITS = 10

Real = Annotated[float, Strict()]
Integer = Annotated[int, Strict()]
PositiveReal = Annotated[float, Strict(), Field(gt=0)]
PositiveInteger = Annotated[int, Strict(), Field(gt=0)]
Number = Real | None  # null where it is not finite, or not known
Column = list[Number]


def to_jsonable(value: Any) -> Any:
    """A value as JSON knows it: numpy unwrapped, tuples as lists, what is not finite as null."""
    if type(value) is float:  # most values are
        return value if math.isfinite(value) else None
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, Array):
        return to_jsonable(value.tolist())
    if isinstance(value, np.generic):
        return to_jsonable(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


class FitStatus(StrEnum):
    """How a fit ended; `remedy` says what to do."""

    OK = "ok"
    NOT_IDENTIFIED = "not-identified"
    NOT_CONVERGED = "not-converged"

    @property
    def remedy(self) -> str:
        """What to do where the status is not ok."""
        return {
            FitStatus.OK: "",
            FitStatus.NOT_IDENTIFIED: "add runs that vary N and D apart, fix a parameter (--fix), "
            "or fit a law with fewer parameters",
            FitStatus.NOT_CONVERGED: "leave out outliers (--where), or try --objective mse-log",
        }[self]


class Document(BaseModel):
    """The base of every model that is written as JSON; numpy values are unwrapped on the way in."""

    model_config = ConfigDict(
        defer_build=True,
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        serialize_by_alias=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, values: Any, info: ValidationInfo) -> Any:
        return to_jsonable(values) if isinstance(values, Mapping) else values

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        absent = {
            field.serialization_alias or name
            for name, field in fields.items()
            if getattr(self, name) is None and not field.is_required()
        }
        return {name: value for name, value in write(self).items() if name not in absent}

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON holds it."""
        return self.model_dump(mode="json")

    @classmethod
    def parse(cls, values: Any, where: str, remedy: str) -> Self:
        """The document from what the file contains. Raises ScalingError that names the first fault
        by its path in the document.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ScalingError(first_fault(error), where=where, remedy=remedy) from None


def first_fault(error: ValidationError) -> str:
    """The first fault of a document by its path, in a few words."""
    fault = error.errors(include_url=False, include_context=False)[0]
    path = ".".join(str(part) for part in fault["loc"] if part not in ("float", "int"))
    if fault["type"] == "missing":
        return f"the key {path!r} is missing"
    if fault["type"] == "extra_forbidden":
        return f"the key {path!r} is not known"
    message = fault["msg"].removeprefix("Value error, ")[:200]
    message = message[:1].lower() + message[1:]
    return f"{path} = {str(fault['input'])[:40]!r}: {message}" if path else message


class Interval(Document):
    """A number and its interval; `lo` and `hi` are null where there is none, or where
    it is open.
    """

    value: Number
    lo: Number
    hi: Number


class Estimate(Document):
    """An estimate, its standard error and its interval; `se` is null where the interval is missing
    or open.
    """

    value: Number
    se: Number
    lo: Number
    hi: Number

    @classmethod
    def of(cls, value: float, draws: Array | None, ci: float) -> Self:
        """Standard error and central percentile interval of the draws (R,), widened to hold the
        value itself.

        A bootstrap's percentiles may miss the estimate when it sits at a bound or the draws are
        few.
        """
        finite = np.empty(0) if draws is None else np.asarray(draws, float)
        finite = finite[np.isfinite(finite)]
        if len(finite) < 2 or not math.isfinite(value):
            return cls(value=value, se=None, lo=None, hi=None)
        with np.errstate(over="ignore"):
            se = float(np.std(finite, ddof=1))
        lo, hi = np.quantile(finite, [(1 - ci) / 2, (1 + ci) / 2])
        return cls(value=value, se=se, lo=min(float(lo), value), hi=max(float(hi), value))

    def interval(self) -> Interval:
        """The same without its standard error."""
        return Interval(value=self.value, lo=self.lo, hi=self.hi)


def estimates(
    values: Mapping[str, Any], draws: Mapping[str, Array] | None, ci: float
) -> dict[str, Estimate]:
    """An estimate of each value, from the draws (R,) of its name."""
    return {
        name: Estimate.of(float(value), (draws or {}).get(name), ci)
        for name, value in values.items()
    }


def in_one_table(*fits: Any) -> list[dict[str, Estimate]]:
    """Of each fit (with `params` and `derived`) its parameters, then what derives from them. Where
    a formula's own parameter is called `a`, the exponent of N* is `a of the frontier`.
    """
    own = {name for fit in fits for name in fit.params if fit.params[name] != fit.derived.get(name)}
    return [
        {**fit.params}
        | {
            f"{name} of the frontier" if name in own else name: fit.derived[name]
            for name in fit.derived
        }
        for fit in fits
    ]


def r_squared(measured: Array, predicted: Array) -> float | None:
    """The share of the variance that a prediction explains; None where there is none."""
    scatter = float(np.sum((measured - measured.mean()) ** 2)) if len(measured) else 0.0
    return 1 - float(np.sum((predicted - measured) ** 2)) / scatter if scatter else None


def evenly(count: int, most: int) -> Array:
    """At most `most` of `count` places, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def subsample_draws(draws: Mapping[str, Array], most: int = MAX_DRAWS) -> dict[str, Column]:
    """At most `most` draws, evenly picked, to ten significant digits."""
    return {
        name: [float(f"{value:.{DRAW_DIGITS}g}") for value in values[evenly(len(values), most)]]
        for name, values in draws.items()
    }
