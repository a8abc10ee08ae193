"""What is asked of a law: its inputs by letter, or a loss to reach, in the units that people write.

The options of `scaling predict` and the keywords of `scaling.predict` are `OPTIONS`; letters that
only a law of one's own has are given by their letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scaling.errors import ScalingError, closest_match
from scaling.fit.frontier.frontier import Cost
from scaling.units import QUANTITIES, Quantity, parse_quantity

OPTIONS = {
    "flops": "C",
    "n_params": "N",
    "tokens": "D",
    "unique_tokens": "U",
    "steps": "S",
    "task_loss": "X",
}
FURTHER = ("loss", "inference_tokens", "smaller", "devices", "with_model")  # of scaling.predict
NAMES = {letter: name for name, letter in OPTIONS.items()}
EXAMPLES = {
    Quantity.FLOPS: 'write it as 1e21, 5.76e23 or "0.5 PF-days"',
    Quantity.LOSS: 'write nats, or a unit: 2.2 or "3.1 bits"',
    Quantity.NUMBER: "give a positive number",
}


class QuestionKind(StrEnum):
    """What a prediction answers."""

    BUDGET = "budget"  # the compute-optimal N and D of C
    SERVED_SIZE = "served_size"  # the D at which N is the cheapest size to train and serve
    SIZE = "size"  # the D and C for which N is compute-optimal
    TOKENS = "tokens"  # the N and C for which D is compute-optimal
    LOSS = "loss"  # the least C that reaches a loss
    INPUT = "input"  # the one input left open that reaches a loss
    INPUTS = "inputs"  # the loss at given inputs


@dataclass(frozen=True)
class Question:
    """The inputs that are given, by letter, and the loss to reach, in nats; how many tokens the
    model will serve, and the shares of N for which a smaller model's price is asked.
    """

    inputs: Mapping[str, float]
    loss: float | None = None
    inference_tokens: float | None = None
    smaller: Sequence[float] = ()

    @classmethod
    def parse(
        cls, values: Mapping[str, object], loss: object, inference_tokens: object, smaller: object
    ) -> Question:
        """The question of options by name (or letter), which may be text with units.

        Raises ScalingError for an option that is not known, and for text that is no quantity.
        """
        inputs: dict[str, float] = {}
        for name, value in values.items():
            if value is None:
                continue
            letter = OPTIONS.get(name, name)
            if letter in inputs:
                raise ScalingError(f"{letter} is given twice", where=option_of(letter))
            quantity = QUANTITIES.get(letter, Quantity.NUMBER)
            remedy = EXAMPLES.get(quantity, 'give a positive number, such as 1e9 or "70B"')
            inputs[letter] = parse_quantity(value, quantity, option_of(letter), remedy)
        if loss is not None:
            loss = parse_quantity(loss, Quantity.LOSS, "--loss", EXAMPLES[Quantity.LOSS])
        if str(inference_tokens).strip() in ("0", "0.0"):
            inference_tokens = 0.0
        elif inference_tokens is not None:
            where, remedy = "--inference-tokens", 'give a number of tokens, such as 2e12 or "2T"'
            inference_tokens = parse_quantity(inference_tokens, Quantity.TOKENS, where, remedy)
        parts = smaller.split(",") if isinstance(smaller, str) else smaller
        parts = parts if isinstance(parts, Iterable) else [] if parts is None else [parts]
        return cls(inputs, loss, inference_tokens, [_fraction(part) for part in parts])


def _fraction(given: Any) -> float:
    """A share of a size, from text or a number. Raises ScalingError."""
    with suppress(TypeError, ValueError):
        if 0 < float(given) <= 1:
            return float(given)
    raise ScalingError(
        f"{str(given)[:40]!r} is not a fraction of a size",
        where="--smaller",
        remedy="give numbers from 0 to 1, such as 0.5,0.3",
    )


def option_of(letter: str) -> str:
    """The option that gives a letter."""
    return f"--{NAMES[letter].replace('_', '-')}" if letter in NAMES else f"--inputs {letter}=..."


def complete(
    inputs: Mapping[str, Any], law: str, letters: Sequence[str], cost: Cost
) -> dict[str, Any]:
    """The inputs, numbers or arrays, with the third of N, D and C, and unique tokens equal to D
    where none are given.

    Raises ScalingError for an input that the law does not use, and for three of N, D and C.
    """
    counts = {"N", "D", "C"}
    usable = {*letters, *(counts if len(counts & set(letters)) > 1 else ())}
    unused = sorted(set(inputs) - usable)
    if unused:
        hint = f"its inputs: {', '.join(map(option_of, letters))}"
        if unused[0] == "U":
            hint = (
                "the law data-constrained knows of repeated tokens: fit it, or use "
                "published:muennighoff2023"
            )
        elif guess := closest_match(unused[0], [*OPTIONS, *FURTHER]):
            hint = f"did you mean {guess}? {hint}"
        raise ScalingError(
            f"the law {law} does not use {unused[0]}", where=option_of(unused[0]), remedy=hint
        )
    known = dict(inputs)
    if counts <= set(known):
        raise ScalingError(
            "N, D and C are three, and two of them give the third",
            remedy="leave out --flops, --n-params or --tokens",
        )
    if {"N", "C"} <= set(known):
        known["D"] = cost.tokens(known["N"], known["C"])
    elif {"D", "C"} <= set(known):
        known["N"] = cost.size(known["D"], known["C"])
    elif {"N", "D"} <= set(known):
        known["C"] = cost.flops(known["N"], known["D"])
    if "U" in letters and "D" in known:
        known.setdefault("U", known["D"])
    return known
