"""N, D and C of a table: the one that is missing is derived by C = 6 N D, and three that disagree
are warned about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.points.columns import Columns, candidates, column_named, numbers_of
from scaling.points.points import Points
from scaling.points.units import FLOPS_SCALES, PF_DAY, read_header
from scaling.warning import ResultWarning, WarningCode, warn

MAX_FACTOR = 10.0  # a column C this many times off 6 N D counts other things than training
MAX_WITHIN = 1.0  # of one C: runs that a nominal budget groups
JITTER = 0.02  # of 6 N D about a nominal budget: more, and it is no count of FLOPs
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
    """A table that lacks D and C, or a batch B in tokens, with a column of it, where others say how
    many tokens there were: N times tokens per parameter, steps times the batch, or sequences times
    their length; and the notes that say so.
    """
    names = list(map(str, table.columns))
    sizes = [given["N"]] if "N" in given else candidates("N", names)
    ratio, steps, batch_tokens, batches, length = (
        [column_named(table, words.split())]
        for words in (RATIOS, STEPS, BATCH_TOKENS, BATCHES, LENGTHS)
    )
    sequences = {"": [*batches, *length]}
    products: list[tuple[str, str, dict[str, list[str | None]]]] = [
        ("D", "tokens", {"N": [*sizes] if len(sizes) == 1 else [None], "": ratio}),
        ("D", "tokens", {"S": steps, "B": batch_tokens}),
        ("D", "tokens", {"S": steps, **sequences}),
        ("B", "batch_tokens", sequences),
    ]
    notes: list[str] = []
    for letter, made, product in products:
        factors = [(each, name) for each, named in product.items() for name in named]
        read = {each: [n for n in names if not read_header(n, each).unknown] for each in "DCB"}
        known = [*given, *(each for each in "DCB" if candidates(each, read[each]))]
        is_there = letter in known or (letter == "D" and "C" in known)
        if letter not in inputs or is_there or any(name is None for _, name in factors):
            continue
        tokens = np.ones(len(table))
        for each, name in factors:
            tokens = tokens * numbers_of(table, str(name), each).to_numpy()
        table, names = table.assign(**{made: tokens}), [*names, made]
        listed = " x ".join(repr(name) for _, name in factors)
        notes.append(f"{made.replace('_', ' ')} derived: {listed}")
    return table, notes


def points_from_numbers(
    numbers: dict[str, np.ndarray], columns: Columns, given: Mapping[str, str]
) -> tuple[Points, list[str], list[ResultWarning]]:
    """Points with D and C derived by C = 6 N D where the table lacks one of them."""
    notes: list[str] = []
    warnings: list[ResultWarning] = []
    n, d, c = (numbers.get(letter) for letter in "NDC")
    convention = {"params": columns.params_convention, "flops": "as given"}
    if n is not None and d is not None and c is not None:
        off, name = np.log(c / (6.0 * n * d)), columns.names["C"]
        disagreement = _flops_disagree(off, name, "C" in given)
        middle = float(np.exp(np.median(off)))
        jitter = _jitter(np.log(n), off) if name == columns.nominal and "C" not in given else 0.0
        if disagreement:
            warnings.append(disagreement)
        elif jitter <= JITTER and abs(middle - 1) > 0.1:
            notes.append(f"{name!r} is {middle:.3g} times 6 N D (median)")
        if disagreement or jitter > JITTER:
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
    for letter in [letter for letter in "NDB" if letter in numbers]:
        name, median = columns.names[letter], float(np.median(numbers[letter]))
        if median < MIN_COUNT:
            sequences = f'sequences? Say it: --columns "B={name} [sequences of 2048]", or [tokens]'
            multiples = (
                "thousands, millions or billions? Exponents do not change, predictions do; say it: "
                f'--columns "{letter}={name} [M]"'
            )
            unit = sequences if letter == "B" else multiples
            message = f"the median {letter} is {median:.3g}: is column {name!r} in {unit}"
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


def _jitter(log_n: np.ndarray, off: np.ndarray) -> float:
    """How far log(C / 6 N D) is off a parabola in log N: another way of counting follows one."""
    if len(off) < 5:
        return float(np.std(off))
    x = log_n - log_n.mean()
    design = np.stack([np.ones_like(x), x, x * x], 1)
    return float(np.std(off - design @ np.linalg.lstsq(design, off, rcond=None)[0]))


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


def nominal_groups(
    table: pd.DataFrame, columns: Columns, points: Points
) -> tuple[np.ndarray | None, list[str]]:
    """A number for each row's nominal budget, where its column groups runs of like C; and notes."""
    name = columns.nominal
    if name is None or points.c is None:
        return None, []
    numbers = numbers_of(table, name, "C")
    budget = (numbers if numbers.notna().all() else table[name].astype(str)).to_numpy()
    labels = np.unique(budget, return_inverse=True)[1].ravel()
    if labels.max() < 1:
        return None, []
    logs = pd.Series(np.log(points.c)).groupby(labels)
    within = float(np.exp((logs.max() - logs.min()).max() / 2) - 1)
    if within > MAX_WITHIN:
        return None, [f"{name!r} does not group runs of like compute: it is not used"]
    spread = f", within {100 * within:.2g} % of one C" if within > 1e-3 else ""
    return labels.astype(float), [f"budgets: by {name!r}{spread}"]
