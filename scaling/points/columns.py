"""Which column of a stranger's table is N, D, C or the loss: as the user names it, else by alias; what is ambiguous is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, closest_match, unknown_choice
from scaling.formatting import parse_count

ALIASES = {
    "N": "n params parameters n_params num_params n_parameters num_parameters parameter_count param_count model_params model_parameters "
    "model_size size total_params trainable_params n_params_nonembedding non_embedding_params nonembedding_params params_non_embedding",
    "D": "d tokens n_tokens num_tokens train_tokens training_tokens tokens_seen tokens_trained token_count n_train_tokens dataset_size "
    "data_tokens total_tokens",
    "C": "c flops flop compute compute_budget budget training_flop training_flops train_flop train_flops total_flop total_flops "
    "training_compute compute_flops",
    "L": "l loss final_loss val_loss validation_loss valid_loss eval_loss test_loss train_loss nll val_nll cross_entropy xent lm_loss "
    "final_val_loss loss_mean",
    "U": "u unique_tokens",
}
LETTERS = {
    "N": "parameters",
    "D": "training tokens",
    "C": "training FLOPs",
    "L": "loss",
    "U": "unique tokens",
    "W": "weight",
    "S": "steps",
}
LETTERS |= {
    "B": "batch in tokens",
    "X": "loss on the task",
    "Y": "accuracy",
    "SE": "standard error of the log loss",
}


def parse_columns(text: str) -> dict[str, str]:
    """`"N=Model Size,C=Training FLOP,L=loss"` as letters to columns; a column's name may hold spaces and commas."""
    pairs = [part.partition("=") for part in re.split(r",(?=\s*\w+\s*=)", text)]
    found: dict[str, str] = {}
    for letter, equals, column in pairs:
        key = letter.strip().upper()
        if not equals or not column.strip():
            raise ScalingError(
                f"--columns {text[:80]!r} is not of the form LETTER=column",
                remedy='write "N=params,D=tokens,L=loss"',
            )
        if key not in LETTERS:
            raise unknown_choice("column letter", letter.strip(), LETTERS, where="--columns")
        if key in found:
            raise ScalingError(
                f"--columns names {key} twice", remedy=f"one column for {LETTERS[key]}"
            )
        found[key] = column.strip()
    return found


def resolve(
    path: Path, names: Sequence[str], given: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The column of each letter: as named by the user, else by alias. Named columns are the whole truth about N, D and C.

    Raises ScalingError for a named column that is absent, for two columns that may hold the same thing, and for too few.
    """
    for letter, column in given.items():
        if column not in names:
            guess = closest_match(column, names)
            hint = f"did you mean {guess}? " if guess else ""
            raise ScalingError(
                f"no column {column!r} for {letter}",
                where=str(path),
                remedy=f"{hint}columns: {', '.join(names)[:200]}",
            )
    columns = dict(given)
    for letter in ("L",) if set(given) & {"N", "D", "C"} else tuple(ALIASES):
        known = ALIASES[letter].split()
        found = [name for name in names if _alias(name) in known]
        if letter not in columns and len(found) > 1:
            what = f"{' and '.join(map(repr, found))} may all be {letter} ({LETTERS[letter]})"
            raise ScalingError(
                what, where=str(path), remedy=f'say which: --columns "{letter}={found[0]},..."'
            )
        if letter not in columns and found:
            columns[letter] = found[0]
    if "L" in columns and {"X"} & set(given):
        return columns, []
    if "L" not in columns or ("N" not in columns) + ("D" not in columns) + ("C" not in columns) > 2:
        lacking = "loss" if "L" not in columns else "N, D or C"
        remedy = f'name them: --columns "N=...,D=...,L=..."; columns: {", ".join(names)[:200]}'
        raise ScalingError(f"no column is known as {lacking}", where=str(path), remedy=remedy)
    units = [
        f"{column!r} is read in {unit}"
        for column in columns.values()
        if (unit := header(column)[2])
    ]
    guessed = [
        f"{letter} = {column!r}" for letter, column in columns.items() if letter not in given
    ]
    return columns, [
        *(["columns guessed from their names: " + ", ".join(guessed)] if guessed else []),
        *units,
    ]


def _alias(name: str) -> str:
    """A column's name as aliases know it: without its unit, without `config.` or `summary.`, in small letters."""
    bare = re.sub(r"\W+", "_", header(name)[0].strip().lower()).strip("_")
    return re.sub(r"^(config|summary|hparam|hparams)_", "", bare)


def cells_of(
    table: pd.DataFrame, inputs: Mapping[str, np.ndarray], usable: np.ndarray
) -> np.ndarray | None:
    """The cell of each usable row of a stranger's table: rows of one N, D, ... are seeds of each other if it has a column `seed`."""
    seeds = next(
        (
            name
            for name in table.columns
            if str(name).strip().lower() in ("seed", "random_seed", "config.seed")
        ),
        None,
    )
    if seeds is None or table[seeds].nunique() < 2:
        return None
    keys = pd.DataFrame(
        {letter: values for letter, values in inputs.items() if letter not in ("L", "W", "SE")}
    )
    return (
        keys.groupby(list(keys.columns), sort=False).ngroup().to_numpy() if usable.any() else None
    )


PF_DAY = 8.64e19  # FLOPs


SCALES = {
    "k": 1e3,
    "m": 1e6,
    "b": 1e9,
    "g": 1e9,
    "t": 1e12,
    "p": 1e15,
    "thousand": 1e3,
    "thousands": 1e3,
    "million": 1e6,
    "millions": 1e6,
    "mm": 1e6,
    "billion": 1e9,
    "billions": 1e9,
    "bn": 1e9,
    "trillion": 1e12,
    "trillions": 1e12,
    "pf-days": PF_DAY,
    "pf-day": PF_DAY,
    "petaflop/s-days": PF_DAY,
    "pfdays": PF_DAY,
    "exaflop": 1e18,
    "exaflops": 1e18,
    "eflop": 1e18,
    "eflops": 1e18,
    "zettaflops": 1e21,
    "zflops": 1e21,
    "bit": math.log(2),
    "bits": math.log(2),
}


PLAIN = frozenset(
    [
        "flop",
        "flops",
        "params",
        "param",
        "parameters",
        "tokens",
        "token",
        "nat",
        "nats",
        "nats/token",
        "nats per token",
    ]
)


WORDS = "thousands|millions|billions|trillions|bn|pf_days"


def header(name: str) -> tuple[str, float, str]:
    """A column's name without its unit, the factor to plain units, and the unit as written ("" for none)."""
    inside = re.fullmatch(r"(.*?)\s*[(\[]\s*([^()\[\]]+?)\s*[)\]]\s*", name)
    if inside:
        factor = _factor(inside[2])
        return (inside[1], factor, inside[2]) if factor else (name, 1.0, "")
    after = re.fullmatch(rf"(.*?)[\s_]+(?:in[\s_]+)?({WORDS}|[BM])", name) or re.fullmatch(
        rf"(.*?)[\s_]+(?:in[\s_]+)?({WORDS})", name, re.I
    )
    if after:
        return after[1], _factor(after[2].replace("_", "-")) or 1.0, after[2]
    return name, 1.0, ""


def _factor(unit: str) -> float | None:
    """The factor of a unit such as M, PF-days, million tokens; None for one that is not known."""
    word = unit.strip().lower()
    if word in SCALES:
        return SCALES[word]
    if word in PLAIN:
        return 1.0
    first, _, rest = word.partition(" ")
    return SCALES[first] if first in SCALES and rest in PLAIN else None


def cell(value: object) -> float:
    """A cell such as `70B`, `350M params`, `1e21 FLOPs`, `0.5 PF-days` or `2.1 bits`. Raises ValueError for anything else."""
    try:
        return parse_count(value)
    except ValueError:
        if not isinstance(value, str):
            raise
        plain = value.strip()
        number, _, unit = plain.partition(" ")
        factor = _factor(unit) if unit else None
        if factor is None:
            raise
        return parse_count(number) * factor
