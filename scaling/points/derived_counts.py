"""N, D and C of a table: the one that is missing is derived by C = 6 N D, and three that disagree
are warned about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.points.columns import Columns, candidates, column_named
from scaling.points.points import Points
from scaling.points.units import FLOPS_SCALES, PF_DAY, read_header
from scaling.warning import ResultWarning, WarningCode, warn

MAX_FACTOR = 10.0  # a column C this many times off 6 N D counts other things than training
MIN_COUNT = 1e4  # of parameters and tokens: below, the column is in millions or the like
UNITS_OF_FLOPS = {f"{prefix}FLOPs": FLOPS_SCALES[prefix.lower()] for prefix in "MGTPEZ"}
UNITS_OF_FLOPS |= {"PF-days": PF_DAY, "TF-days": PF_DAY / 1e3}
COUNT_WORDS = {"thousands": 1e3, "millions": 1e6, "billions": 1e9, "trillions": 1e12}
COUNT_WORDS["millions and billions"] = 1e15

RATIOS = "tokens_per_param tokens_per_parameter token_param_ratio tokens_params_ratio tpp d_n"
STEPS = "steps n_steps num_steps train_steps training_steps total_steps max_steps global_step"
BATCH_TOKENS = "batch_tokens tokens_per_batch tokens_per_step batch_size_tokens"
BATCHES = "batch_size global_batch_size train_batch_size bsz gbs gbsz bs batch"
LENGTHS = "seq_len seq_length sequence_length context_length block_size n_ctx max_seq_len seqlen"


def with_tokens(
    table: pd.DataFrame, given: Mapping[str, str], inputs: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """A table that lacks D and C with a column of tokens, where others say how many there were:
    N times tokens per parameter, or steps times the batch; and the note that says so.
    """
    names = list(map(str, table.columns))
    is_there = any(candidates(letter, names) for letter in "DC") or {"D", "C"} & set(given)
    if is_there or "D" not in inputs:
        return table, []
    sizes = [given["N"]] if "N" in given else candidates("N", names)
    ratio, steps, batch_tokens, batches, length = (
        [column_named(table, words.split())]
        for words in (RATIOS, STEPS, BATCH_TOKENS, BATCHES, LENGTHS)
    )
    products = (
        {"N": sizes if len(sizes) == 1 else [None], "": ratio},
        {"S": steps, "B": batch_tokens},
        {"S": steps, "": [*batches, *length]},
    )
    for product in products:
        factors = [(letter, name) for letter, each in product.items() for name in each]
        if any(name is None for _, name in factors):
            continue
        tokens = np.ones(len(table))
        for letter, name in factors:
            unit = read_header(str(name), letter).unit
            values = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
            tokens = tokens * (unit.to_plain(values) if unit else values)
        listed = " x ".join(repr(name) for _, name in factors)
        return table.assign(tokens=tokens), [f"tokens derived: {listed}"]
    return table, []


def points_from_numbers(
    numbers: dict[str, np.ndarray], columns: Columns, given: Mapping[str, str]
) -> tuple[Points, list[str], list[ResultWarning]]:
    """Points with D and C derived by C = 6 N D where the table lacks one of them."""
    notes: list[str] = []
    warnings: list[ResultWarning] = []
    n, d, c = (numbers.get(letter) for letter in "NDC")
    convention = {"params": columns.params_convention, "flops": "as given"}
    if n is not None and d is not None and c is not None:
        disagreement = _flops_disagree(np.log(c / (6.0 * n * d)), columns.names["C"], "C" in given)
        if disagreement:
            warnings.append(disagreement)
            c = None
    if n is not None and d is None and c is not None:
        d = c / (6.0 * n)
        tokens, name = float(np.median(d)), columns.names["C"]
        if tokens < 1e6 and float(np.median(d / n)) < 1e-3:
            raise ScalingError(
                f"D = C / (6 N) would be {tokens:.2g} tokens (median): column {name!r} is not in "
                "FLOPs",
                remedy=f'say its unit, --columns "C={name} [PFLOPs]", or name the tokens: D=...',
            )
        notes.append("tokens derived: D = C / (6 N)")
    if n is not None and d is not None and c is None:
        c = 6.0 * n * d
        convention["flops"] = "6nd"
        notes.append("FLOPs derived: C = 6 N D")
    if c is not None and (impossible := c[~((c > 0.0) & np.isfinite(c))]).size:
        what = f"C = 6 N D would be {impossible[0]:g} in {impossible.size} rows"
        raise ScalingError(what, remedy="check the units of N and D")
    for letter in [letter for letter in "ND" if letter in numbers]:
        name, median = columns.names[letter], float(np.median(numbers[letter]))
        if median < MIN_COUNT:
            message = (
                f"the median {letter} is {median:.3g}: is column {name!r} in thousands, millions "
                "or billions? Exponents do not change, predictions do; say it: --columns "
                f'"{letter}={name} [M]"'
            )
            unlikely = warn(WarningCode.UNLIKELY_UNIT, message, letter=letter, median=median)
            warnings.append(unlikely)
    known = ("N", "D", "C", "L", "W", "SE")
    others = {letter: values for letter, values in numbers.items() if letter not in known}
    points = Points(
        loss=numbers["L"],
        n=n,
        d=d,
        c=c,
        weight=numbers["SE"] ** -2 if "SE" in numbers else numbers.get("W"),
        others=others,
        convention=convention,
    )
    return points, notes, warnings


def _flops_disagree(log_ratio: np.ndarray, name: str, is_named: bool) -> ResultWarning | None:
    """A warning where C and 6 N D differ by more than MAX_FACTOR; names the likely unit where it is
    one factor.

    Raises ScalingError where the user named C.
    """
    off = np.abs(log_ratio) > np.log(MAX_FACTOR)
    if not off.any():
        return None
    middle = float(np.median(log_ratio))
    column, unit = f"column {name!r}", ""
    what = (
        f"{column} differs from 6 N D by more than {MAX_FACTOR:g} times "
        f"in {off.sum()} of {len(log_ratio)} rows"
    )
    remedy = "leave C out of --columns (then C = 6 N D), or fix the rows"
    if off.all() and float(np.abs(log_ratio - middle).max()) < np.log(3):
        larger, smaller = ("6 N D", column) if middle < 0 else (column, "6 N D")
        times = f"{np.exp(abs(middle)):.2g} times"
        what = f"{larger} is {times} {smaller} in all {len(log_ratio)} rows"
        units = UNITS_OF_FLOPS if middle < 0 else COUNT_WORDS
        distance = {word: abs(np.log(factor) - abs(middle)) for word, factor in units.items()}
        unit = min(distance, key=distance.__getitem__)
        if distance[unit] > np.log(3):
            unit = ""
        elif middle < 0:
            what += f": is it in {unit}?"
            remedy = f'write --columns "C={name} [{unit}]", or leave C out (then C = 6 N D)'
        else:
            what += f": are N or D in {unit}?"
            remedy = 'give the unit of N or D, as in "N=NAME [M]", or leave C out (then C = 6 N D)'
    if is_named:
        raise ScalingError(what, remedy=remedy)
    return warn(
        WarningCode.FLOPS_DISAGREE,
        f"{what} It is not used, C = 6 N D" if unit else f"{what}: it is not used, C = 6 N D",
        column=name,
        rows=int(off.sum()),
        factor=float(np.exp(middle)),
        unit=unit,
    )
