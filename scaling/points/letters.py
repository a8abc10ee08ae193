"""The letters by which `--columns` names columns, and which of them a law uses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from scaling.errors import ScalingError, unknown_choice

LETTERS = {
    "N": "parameters",
    "D": "training tokens",
    "C": "training FLOPs",
    "L": "loss",
    "U": "unique tokens",
    "W": "weight",
    "S": "steps",
    "B": "batch in tokens",
    "LR": "learning rate",
    "X": "loss on the task",
    "Y": "accuracy",
    "SE": "standard error of the log loss",
}
NAMED = LETTERS.keys() - {"W", "SE"}  # that a column's name may say


def parse_columns(text: str, custom: bool = False) -> dict[str, str]:
    """`"N=Model Size,C=Training FLOP,L=loss"` as letters to columns; names may hold spaces and
    commas.
    """
    columns: dict[str, str] = {}
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        letter, _, column = (each.strip() for each in part.partition("="))
        key = letter if custom and letter.upper() not in NAMED else letter.upper()
        if not column:
            raise ScalingError(
                f"--columns {text[:80]!r} is not of the form LETTER=column",
                remedy='write "N=params,D=tokens,L=loss"',
            )
        if key not in LETTERS and not (custom and key.isidentifier()):
            raise unknown_choice("column letter", letter, LETTERS, where="--columns")
        if key in columns:
            raise ScalingError(
                f"--columns names {key} twice", remedy=f"one column for {LETTERS.get(key, key)}"
            )
        columns[key] = column
    return columns


def used_letters(inputs: Sequence[str], given: Mapping[str, str]) -> set[str]:
    """The letters that a law uses: its own, and what the missing one of N, D, C is derived from."""
    counts = {"N", "D", "C"}
    own = counts & set(inputs)
    is_derived = len(own) > 1 or (own in ({"D"}, {"C"}) and not own & set(given))
    letters = {*inputs, "L", "W", "SE"} | (counts if is_derived else set())
    letters |= {"U"} if {"N", "D"} <= own else set()
    letters |= {"B"} if "S" in inputs else set()  # S is corrected to the critical batch
    return letters | ({"Y"} if "X" in inputs else set())


def check_letters(law: str, inputs: Sequence[str], given: Mapping[str, str]) -> None:
    """Raise ScalingError for a column that the law would ignore."""
    allowed = used_letters(inputs, given)
    unused = [letter for letter in given if letter not in allowed]
    if unused:
        raise ScalingError(
            f"the law {law} does not use {unused[0]} ({LETTERS.get(unused[0], given[unused[0]])})",
            where="--columns",
            remedy=f"leave it out; this law is fitted to {', '.join(sorted(allowed))}",
        )
