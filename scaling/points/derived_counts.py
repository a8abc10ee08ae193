"""N, D and C of a table: the one that is missing is derived by C = 6 N D, and three that disagree
are warned about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scaling.errors import ScalingError
from scaling.formatting import format_percent
from scaling.points.cells import numeric
from scaling.points.columns import NOUNS, Columns, candidates, column_named, name_words
from scaling.points.points import Points
from scaling.points.table_rows import TableRows
from scaling.units import FLOPS_SCALES, PF_DAY
from scaling.warning import WarningCode

MAX_FACTOR = 10.0  # a column C this many times off 6 N D counts other things than training
MAX_WITHIN = 1.0  # of one C: runs that a nominal budget groups
JITTER = 0.02  # of 6 N D about a nominal budget: more, and it is no count of FLOPs
MIN_TOKENS_PER_PARAM = 0.05  # of runs whose tokens are derived from C
MIN_COUNT = 1e4  # of parameters and tokens: below, the column is in millions or the like
SMALL_COUNT = (
    "thousands, millions or billions? Exponents do not change, predictions do; say it: --columns "
    '"COLUMN [M]"'
)
SMALL_BATCH = 'sequences? Say it: --columns "COLUMN [sequences of 2048]", or [tokens]'
HIGHEST = {  # medians above which a unit is doubtful
    "N": (1e13, 'plain counts? Say it: --columns "COLUMN [params]"'),
    "D": (1e15, 'plain counts? Say it: --columns "COLUMN [tokens]"'),
    "L": (20.0, 'nats per token? Of perplexities write --columns "COLUMN [perplexity]"'),
}
UNITS_OF_FLOPS = {f"{prefix}FLOPs": FLOPS_SCALES[prefix.lower()] for prefix in "MGTPEZ"}
UNITS_OF_FLOPS |= {"PF-days": PF_DAY, "TF-days": PF_DAY / 1e3}
COUNT_WORDS = {"thousands": 1e3, "millions": 1e6, "billions": 1e9, "trillions": 1e12}
COUNT_WORDS["millions and billions"] = 1e15

# names of columns whose product says how many tokens there were
RATIOS = (
    "tokens_per_param tokens_per_parameter tokens_param tokens_parameter token_param_ratio "
    "tokens_params_ratio tpp d_n"
)
SAMPLES = (
    "samples n_samples num_samples total_samples train_samples consumed_samples samples_seen "
    "consumed_train_samples sequences n_sequences num_sequences train_sequences sequences_seen"
)
BATCHES = "batch_size global_batch_size train_batch_size bsz gbs gbsz bs batch"
LENGTHS = (
    "seq_len seq_length sequence_length context_length block_size n_ctx max_seq_len seqlen "
    "max_seq_length encoder_seq_length"
)
STEPS = "steps n_steps num_steps train_steps training_steps total_steps max_steps global_step"
BATCH_TOKENS = "batch_tokens tokens_per_batch tokens_per_step batch_size_tokens"
USUAL = {"S": STEPS.split(), "B": BATCH_TOKENS.split()}  # of several columns of a letter, the first
EPOCHS = "epochs n_epochs num_epochs train_epochs"
PRODUCTS = (  # letter and name of the product, and its factors: a letter, or names
    ("D", "tokens", ("N", RATIOS)),
    ("D", "tokens", ("S", "B")),
    ("D", "tokens", ("S", BATCHES, LENGTHS)),
    ("D", "tokens", (SAMPLES, LENGTHS)),
    ("D", "tokens", ("U", EPOCHS)),
    ("B", "batch_tokens", (BATCHES, LENGTHS)),
)


def with_tokens(
    table: pd.DataFrame, given: Mapping[str, str], inputs: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """A table that lacks D and C, or a batch B in tokens, with a column of it, where others say how
    many tokens there were: N times tokens per parameter, steps times the batch, or sequences times
    their length; with N, where there is C with tokens per parameter; and the notes that say so.
    """
    notes: list[str] = []
    names = list(map(str, table.columns))
    flops, ratio = candidates("C", names, readable=True), column_named(table, RATIOS.split())
    is_free = {"N", "D"} <= set(inputs) and not any(candidates(x, names) for x in "ND")
    if is_free and ratio and len(flops) == 1 and not {"N", "D", "C"} & set(given):
        c, r = numeric(table, flops[0], "C", lenient=True), numeric(table, ratio, lenient=True)
        table = table.assign(params=pd.Series(c / (6 * r), table.index).where(c > 0) ** 0.5)
        notes.append(f"parameters derived: N = sqrt(C / (6 r)), r = {ratio!r}, from C = 6 N D")
    for letter, made, factors in PRODUCTS:
        names = list(map(str, table.columns))
        known = {*given, *(each for each in "DCB" if candidates(each, names, readable=True))}
        if letter not in inputs or letter in known or (letter == "D" and "C" in known):
            continue
        named: dict[str, str] = {}  # to the letter of the unit
        for each in factors:
            unit = each if len(each) == 1 else ""
            free = [given[unit]] if unit in given else []
            if unit:
                free = free or candidates(unit, names, readable=True)
                if len(free) > 1 and (usual := column_named(table[free], USUAL.get(unit, ()))):
                    free = [usual]
            elif column := column_named(table, each.split()):
                free = [column]
            named |= {free[0]: unit} if len(free) == 1 else {}
        if len(named) < len(factors):
            continue
        read = [numeric(table, *pair, lenient=True) for pair in named.items()]
        table = table.assign(**{made: np.prod(read, 0)})
        notes.append(f"{made.replace('_', ' ')} derived: {' x '.join(map(repr, named))}")
    return table, notes


def points_of_rows(rows: TableRows, columns: Columns, given: Mapping[str, str]) -> Points:
    """Points with D and C derived by C = 6 N D where the table lacks one of them."""
    numbers, notes = rows.numbers, rows.notes
    n, d, c = (numbers.get(letter) for letter in "NDC")
    convention = {"params": columns.params_convention, "flops": "as given"}
    if n is not None and d is not None and c is not None:
        off, name = np.log(c / (6.0 * n * d)), columns.names["C"]
        middle, jitter = float(np.exp(np.median(off))), 0.0
        if name == columns.nominal and "C" not in given:
            # how far it is off a parabola in log N: another way of counting follows one
            x = np.log(n) - np.log(n).mean()
            design = np.stack([np.ones_like(x), x, x * x][: 3 if len(x) > 4 else 1], 1)
            jitter = float(np.std(off - design @ np.linalg.lstsq(design, off, rcond=None)[0]))
        if _flops_disagree(rows, off, name, "C" in given) or jitter > JITTER:
            c = None
        elif abs(middle - 1) > 0.1:
            notes.append(f"{name!r} is {middle:.3g} times 6 N D (median)")
    if n is not None and d is None and c is not None:
        d = c / (6.0 * n)
        tokens, name = float(np.median(d)), columns.names["C"]
        if float(np.median(d / n)) < MIN_TOKENS_PER_PARAM:
            raise ScalingError(
                f"D = C / (6 N) would be {tokens:.2g} tokens (median): column {name!r} is not in "
                "FLOPs of the whole training",
                remedy=f'say its unit, --columns "C={name} [PFLOPs]", or name the tokens: D=...',
            )
        notes.append("tokens derived: D = C / (6 N)")
    if n is None and d is not None and c is not None:
        n, convention["flops"] = c / (6.0 * d), "6nd"
        notes.append("parameters derived: N = C / (6 D)")
    if n is not None and d is not None and c is None:
        c, convention["flops"] = 6.0 * n * d, "6nd"
        notes.append("FLOPs derived: C = 6 N D")
    if c is not None and (impossible := c[~((c > 0.0) & np.isfinite(c))]).size:
        what = f"C = 6 N D would be {impossible[0]:g} in {impossible.size} rows"
        raise ScalingError(what, remedy="check the units of N and D")
    known = ("N", "D", "C", "L", "W", "SE")
    return Points(
        loss=numbers["L"],
        n=n,
        d=d,
        c=c,
        weight=numbers["SE"] ** -2 if "SE" in numbers else numbers.get("W"),
        others={letter: values for letter, values in numbers.items() if letter not in known},
        convention=convention,
    )


def _flops_disagree(rows: TableRows, log_ratio: np.ndarray, name: str, is_named: bool) -> bool:
    """Whether C and 6 N D differ by more than MAX_FACTOR, which is warned about; names the likely
    unit where it is one factor.

    Raises ScalingError where the user named C.
    """
    off = np.abs(log_ratio) > np.log(MAX_FACTOR)
    if not off.any():
        return False
    middle, unit = float(np.median(log_ratio)), ""
    what = (
        f"column {name!r} differs from 6 N D by more than {MAX_FACTOR:g} times "
        f"in {off.sum()} of {len(log_ratio)} rows"
    )
    remedy = "leave C out of --columns (then C = 6 N D), or fix the rows"
    if off.all() and float(np.abs(log_ratio - middle).max()) < np.log(3):
        what = f"column {name!r} is {np.exp(middle):.2g} times 6 N D in all {len(log_ratio)} rows"
        units = UNITS_OF_FLOPS if middle < 0 else COUNT_WORDS
        distance = {word: abs(np.log(factor) - abs(middle)) for word, factor in units.items()}
        nearest = min(distance, key=distance.__getitem__)
        if distance[nearest] <= np.log(3):
            unit, wrong, example = nearest, "are N or D", "N=NAME [M]"
            if middle < 0:
                wrong, example = "is it", f"C={name} [{unit}]"
            what += f" ({wrong} in {unit}?)"
            remedy = f'give the unit, --columns "{example}", or leave C out (then C = 6 N D)'
    if is_named:
        raise ScalingError(what, remedy=remedy)
    data = {"column": name, "rows": int(off.sum()), "factor": float(np.exp(middle)), "unit": unit}
    rows.warn(WarningCode.FLOPS_DISAGREE, f"{what}: it is not used, C = 6 N D", **data)
    return True


def warn_of_unlikely_numbers(rows: TableRows, columns: Columns) -> None:
    """Warn where counts or losses cannot be in the unit that they were read in, or D counts a text
    once that was read several times.
    """
    for letter in [letter for letter in "NDBL" if letter in rows.numbers]:
        name, median = columns.names.get(letter, ""), float(np.median(rows.numbers[letter]))
        highest, unit = HIGHEST.get(letter, (np.inf, ""))
        if letter != "L" and median < MIN_COUNT:
            unit = SMALL_BATCH if letter == "B" else SMALL_COUNT
        elif median <= highest or (letter == "L" and not name_words(name) & NOUNS["L"]):
            continue
        message = f"the median {letter} is {median:.3g}: is column {name!r} in {unit}"
        message = message.replace("COLUMN", f"{letter}={name}")
        rows.warn(WarningCode.UNLIKELY_UNIT, message, letter=letter, median=median)
    epochs, tokens = column_named(rows.table, EPOCHS.split()), columns.names.get("D", "")
    if epochs and name_words(tokens) & {"dataset", "data", "corpus"}:
        passes = float(np.nan_to_num(numeric(rows.table, epochs, lenient=True)).max())
        if passes > 1:
            message = (
                f"column {epochs!r} goes to {passes:g}: if {tokens!r} counts the text once, D is "
                "too small; give a column of all tokens that were trained on"
            )
            rows.warn(WarningCode.REPEATED_DATA, message, passes=passes)


def nominal_groups(
    rows: TableRows, name: str | None, flops: np.ndarray | None
) -> np.ndarray | None:
    """A number for each row's nominal budget, where the column `name` groups runs of like C."""
    if name is None or flops is None:
        return None
    numbers = numeric(rows.table, name, "C", lenient=True)
    budget = rows.table[name].astype(str).to_numpy() if np.isnan(numbers).any() else numbers
    labels = np.unique(budget, return_inverse=True)[1].ravel()
    if labels.max() < 1:
        return None
    logs = pd.Series(np.log(flops)).groupby(labels)
    within = float(np.exp((logs.max() - logs.min()).max() / 2) - 1)
    if within > MAX_WITHIN:
        rows.notes.append(f"{name!r} does not group runs of like compute: it is not used")
        return None
    spread = f", within {format_percent(within)} of one C" if within > 1e-3 else ""
    rows.notes.append(f"budgets: by {name!r}{spread}")
    return labels.astype(float)
