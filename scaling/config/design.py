"""Which sizes are trained on how many tokens."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, Strict

from scaling.config.base import (
    Count,
    Counts,
    FlopsConvention,
    Frozen,
    NConvention,
    Params,
    Positive,
    Seeds,
    Sizes,
    TokenCounts,
    Tokens,
)


def _check_setting(value: Any) -> Any:
    """One mistake for a value that is none of the union below, not one for each of its types."""
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    if not is_number and not isinstance(value, str):
        raise ValueError("should be a finite number, a word, true or false")
    return value


Setting = Annotated[bool | int | float | str, BeforeValidator(_check_setting)]


class _Design(Frozen):
    """What the three designs share: sizes are N under `params`, budgets are FLOPs under `flops`."""

    sizes: Sizes
    params: NConvention = "with_head"
    flops: FlopsConvention = "exact"
    tokens_per_param_range: Annotated[tuple[Count, Count], Strict(False)] | None = None


class _ExtendableDesign(_Design):
    """A design of which larger amounts (in the unit of its budgets, tokens or ratios) may be added
    later: the states at the end of the constant rate are kept for the amounts `extend_to`.
    """

    extend_to: Counts | None = None


class IsoflopDesign(_ExtendableDesign):
    """Every size at every budget of FLOPs (Hoffmann 2022, approach 2)."""

    kind: Literal["isoflop"]
    budgets: Counts


class GridDesign(_ExtendableDesign):
    """Every size at every number of tokens (Kaplan 2020)."""

    kind: Literal["grid"]
    tokens: TokenCounts


class LadderDesign(_ExtendableDesign):
    """Every size at given ratios of tokens to parameters (Gadre 2024)."""

    kind: Literal["ladder"]
    tokens_per_param: Counts


class ListedCell(Frozen):
    """One cell of a list: a size and its tokens, with seeds of its own where it is to be repeated.

    `settings` are fields that only this cell changes, named as an axis names them: `{"optim.lr" =
    0.01}`.
    """

    size: Params
    tokens: Tokens
    seeds: Seeds | None = None
    settings: dict[str, Setting] = Field(default_factory=dict)


class ListDesign(Frozen):
    """Cells one by one, as `scaling next` and `scaling predict --emit` write them."""

    kind: Literal["list"]
    cells: Annotated[tuple[ListedCell, ...], Strict(False), Field(min_length=1)]
    params: NConvention = "with_head"
    flops: FlopsConvention = "exact"
    tokens_per_param_range: Annotated[tuple[Count, Count], Strict(False)] | None = None

    @property
    def sizes(self) -> tuple[float, ...]:
        """The distinct sizes, ascending."""
        return tuple(sorted({cell.size for cell in self.cells}))


class EpochsDesign(_Design):
    """Every size on every limited corpus of unique tokens U for a number of epochs, D = U x epochs
    (Muennighoff 2023).

    With `fresh`, also on the same D of tokens that are all new: what an epoch is worth is read
    against these.
    """

    kind: Literal["epochs"]
    unique_tokens: TokenCounts
    epochs: Annotated[tuple[Positive, ...], Strict(False), Field(min_length=1)]
    fresh: bool = True


Design = Annotated[
    Union[IsoflopDesign, GridDesign, LadderDesign, ListDesign, EpochsDesign],
    Field(discriminator="kind"),
]


class Axis(Frozen):
    """One field varied over the sweep; a nuisance axis is minimised before a law is fitted."""

    field: str
    values: Annotated[tuple[Setting, ...], Strict(False), Field(min_length=1)]
    role: Literal["scientific", "nuisance"] = "scientific"
