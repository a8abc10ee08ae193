"""N, D and C of a table: the one that is missing is derived by C = 6 N D, and three that disagree
are warned about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.points.columns import Columns, candidates, plain_name
from scaling.points.points import Points
from scaling.points.units import read_header
from scaling.warning import ResultWarning, WarningCode

MAX_FACTOR = 10.0  # a column C this many times off 6 N D counts other things than training
UNITS_OF_FLOPS = {"MFLOPs": 1e6, "GFLOPs": 1e9, "TFLOPs": 1e12, "PFLOPs": 1e15, "EFLOPs": 1e18}
UNITS_OF_FLOPS |= {"ZFLOPs": 1e21, "PF-days": 8.64e19, "TF-days": 8.64e16}
COUNT_WORDS = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}


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
    names = [str(name) for name in table.columns]
    is_there = any(candidates(letter, names) for letter in "DC") or {"D", "C"} & set(given)
    if is_there or "D" not in inputs:
        return table, []
    plain = {plain_name(re.split(r"[/.]", name)[-1]): name for name in names}
    plain |= {plain_name(name): name for name in names}

    def column(words: str) -> str | None:
        return next((plain[word] for word in words.split() if word in plain), None)

    sizes = candidates("N", names)
    ratio, steps, batch_tokens = column(RATIOS), column(STEPS), column(BATCH_TOKENS)
    batches, lengths = column(BATCHES), column(LENGTHS)
    factors = [given.get("N") or (sizes[0] if len(sizes) == 1 else None), ratio]
    if None in factors:
        factors = [steps, batch_tokens] if batch_tokens else [steps, batches, lengths]
    if None in factors:
        return table, []
    tokens = np.ones(len(table))
    for position, name in enumerate(factors):
        is_size = position == 0 and name not in (steps,)
        unit = read_header(str(name), "N" if is_size else "S").unit
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        tokens = tokens * (unit.to_plain(values) if unit else values)
    listed = " x ".join(f"{name!r}" for name in factors)
    return table.assign(tokens=tokens), [f"tokens derived: {listed}"]


def points_from_numbers(
    path: Path, numbers: dict[str, np.ndarray], columns: Columns, given: Mapping[str, str]
) -> tuple[Points, list[str], list[ResultWarning]]:
    """Points with D and C derived by C = 6 N D where the table lacks one of them."""
    notes: list[str] = []
    warnings: list[ResultWarning] = []
    n, d, c = (numbers.get(letter) for letter in "NDC")
    convention = {"params": columns.params_convention, "flops": "as given"}
    if n is not None and d is not None and c is not None:
        disagreement = _flops_disagree(path, np.log(c / (6.0 * n * d)), columns, "C" in given)
        if disagreement:
            warnings.append(disagreement)
            c = None
    if n is not None and d is None and c is not None:
        d = c / (6.0 * n)
        if float(np.median(d / n)) < 1e-3 and float(np.median(d)) < 1e6:
            name = columns.names["C"]
            raise ScalingError(
                f"D = C / (6 N) would be {float(np.median(d)):.2g} tokens (median): column "
                f"{name!r} "
                "is not in FLOPs",
                where=str(path),
                remedy=f'say its unit, --columns "C={name} [PFLOPs]", or name the tokens: D=...',
            )
        notes.append("tokens derived: D = C / (6 N)")
    if n is not None and d is not None and c is None:
        c = 6.0 * n * d
        convention["flops"] = "6nd"
        notes.append("FLOPs derived: C = 6 N D")
    for letter, values, least in (("N", n, 1e4), ("D", numbers.get("D"), 1e4)):
        if values is not None and float(np.median(values)) < least:
            warnings.append(
                ResultWarning(
                    code=WarningCode.UNLIKELY_UNIT,
                    message=f"the median {letter} is {np.median(values):.3g}: is column "
                    f"{columns.names[letter]!r} in thousands, millions or billions? "
                    f"Exponents do not "
                    f"change, predictions do; say it: --columns "
                    f'"{letter}={columns.names[letter]} [M]"',
                    data={"letter": letter, "median": float(np.median(values))},
                )
            )
    others = {
        letter: values
        for letter, values in numbers.items()
        if letter not in ("N", "D", "C", "L", "W", "SE")
    }
    weight = numbers["SE"] ** -2 if "SE" in numbers else numbers.get("W")
    points = Points(
        loss=numbers["L"], n=n, d=d, c=c, weight=weight, others=others, convention=convention
    )
    return points, notes, warnings


def _flops_disagree(
    path: Path, log_ratio: np.ndarray, columns: Columns, is_named: bool
) -> ResultWarning | None:
    """A warning where C and 6 N D differ by more than MAX_FACTOR; names the likely unit where it is
    one factor.

    Raises ScalingError where the user named C.
    """
    off = np.abs(log_ratio) > np.log(MAX_FACTOR)
    if not off.any():
        return None
    name, count = columns.names["C"], len(log_ratio)
    middle = float(np.median(log_ratio))
    what = (
        f"column {name!r} differs from 6 N D by more than {MAX_FACTOR:g} times "
        f"in {off.sum()} of {count} rows"
    )
    remedy = "leave C out of --columns (then C = 6 N D), or fix the rows"
    unit = ""
    if off.all() and float(np.abs(log_ratio - middle).max()) < np.log(3):
        times = f"{np.exp(abs(middle)):.2g} times"
        larger, smaller = ("6 N D", f"column {name!r}")[:: 1 if middle < 0 else -1]
        what = f"{larger} is {times} {smaller} in all {count} rows"
        units = UNITS_OF_FLOPS if middle < 0 else {word: f for f, word in COUNT_WORDS.items()}
        unit = min(units, key=lambda word: abs(np.log(units[word]) - abs(middle)))
        if abs(np.log(units[unit]) - abs(middle)) > np.log(3):
            unit = ""
        elif middle < 0:
            what += f": is it in {unit}?"
            remedy = f'write --columns "C={name} [{unit}]", or leave C out (then C = 6 N D)'
        else:
            what += f": are N or D in {unit}?"
            remedy = 'give the unit of N or D, as in "N=NAME [M]", or leave C out (then C = 6 N D)'
    if is_named:
        raise ScalingError(what, where=str(path), remedy=remedy)
    return ResultWarning(
        code=WarningCode.FLOPS_DISAGREE,
        message=f"{what} It is not used, C = 6 N D"
        if unit
        else f"{what}: it is not used, C = 6 N D",
        data={
            "column": name,
            "rows": int(off.sum()),
            "factor": float(np.exp(middle)),
            "unit": unit,
        },
    )
