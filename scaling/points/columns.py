"""Columns of a table: which one is N, D, C or the loss, as the user names it or by its name alone.

A guess is noted, an ambiguity is an error that lists the choices, and what a header's unit or its
words say (`params (M)`, `non_embedding_params`) is kept with the column.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, closest_match
from scaling.points.cells import numeric
from scaling.points.letters import LETTERS, check_letters, used_letters
from scaling.units import (
    QUALIFIERS,
    QUANTITIES,
    Header,
    Quantity,
    Unit,
    parse_unit,
    read_header,
    word_set,
)

NOUNS = {  # a column of a letter is named by one of these and by words that say no more
    "N": word_set("param params parameter parameters"),
    "D": word_set("token tokens toks"),
    "C": word_set("flop flops flos compute"),
    "L": word_set("loss nll xent ce l"),
    "U": word_set("unique distinct"),
    "S": word_set("steps step iterations iters updates"),
    "B": word_set("batch"),
    "LR": word_set("lr eta"),
    "X": word_set(""),
    "Y": word_set(""),
}
WHOLE_NAMES = {  # that hold no noun
    "N": word_set("size model_size"),
    "D": word_set("dataset_size data_size training_data train_data"),
}
_COUNT_WORDS = word_set(
    "n num nr number of total train training trained global seen consumed processed cumulative "
    "input model trainable count all used final"
)
WORDS = {  # that may stand with the nouns of a letter
    **dict.fromkeys("CS", _COUNT_WORDS | word_set("achieved hardware max optimizer")),
    "N": _COUNT_WORDS | word_set("size active activated body with incl including embeddings"),
    "D": _COUNT_WORDS | word_set("data dataset"),
    "L": QUALIFIERS | word_set("at end lm language ce step epoch metrics macro global"),
    "U": _COUNT_WORDS | word_set("tokens data"),
    "B": _COUNT_WORDS | word_set("tokens token size per step in"),
    "LR": word_set("peak max base init initial"),
}
_PHRASES = {  # written as one word
    "cross_?entropy": "ce",
    "neg(ative)?_log_likelihood": "nll",
    "learning_rate": "lr",
    "tokens_per_step": "batch_tokens",
}
BUDGET = word_set("budget isoflop isoflops")  # words of a nominal budget; with a noun of C also
INTENDED = word_set("target nominal planned iso intended")  # these
WITHOUT_EMBEDDINGS = re.compile(
    r"(?<![a-z])((non?|w_?o|without|excl|excluding|ex|minus)_?emb(ed|edding)?s?|backbone|body)"
    r"(?![a-z])"
)
AGGREGATES = frozenset(word_set("value last final mean avg average min total global"))
SECONDARY = word_set("min best smooth smoothed ema")
UNLIKELY = {  # words of the less likely of several columns
    "L": word_set("train training"),
    "D": word_set("eval evaluation val valid validation"),
}
BESIDE_LETTERS = {  # N_total, D_train
    "N": word_set("total active activated"),
    **dict.fromkeys("DC", word_set("total train training")),
}
MAX_NAMES = 60
_CONTAINER = re.compile(r"^((config|configs|summary|hparams?|metrics|history)[/._]+|data[/.]+)")


@dataclass(frozen=True)
class Columns:
    """The column of each letter, its header as read, which letters were guessed, and a column of
    nominal budgets.
    """

    names: Mapping[str, str]
    headers: Mapping[str, Header] = field(default_factory=dict)
    guessed: frozenset[str] = frozenset()
    nominal: str | None = None

    @property
    def params_convention(self) -> str:
        """The convention of N that the column's name carries; "as given" where it says nothing."""
        if "N" not in self.names:
            return "as given"
        words = normalize_name(f"{self.names['N']} {self.headers['N'].qualifier}")
        if WITHOUT_EMBEDDINGS.search(words):
            return "nonembedding"
        return "total" if re.search(r"(\b|_)total(\b|_)", words) else "as given"

    def unit(self, letter: str) -> Unit | None:
        """The unit that the header of a letter's column gives."""
        return self.headers[letter].unit if letter in self.headers else None

    def numbers(self, table: pd.DataFrame, letter: str, **how: Any) -> np.ndarray:
        """The column of a letter in plain units; `how` are options of `cells.numeric`."""
        name = self.names[letter]
        return numeric(table, name, letter_for_units(letter, name), self.unit(letter), **how)

    def notes(self, used: Sequence[str]) -> list[str]:
        """One note that names every column used, and one for each unit that was read."""
        all_guessed = set(used) <= self.guessed
        marks = {letter: " (guessed)" for letter in self.guessed if not all_guessed}
        shown = ", ".join(
            f"{letter} = {self.names[letter]!r}{marks.get(letter, '')}" for letter in used
        )
        units = [
            f"{self.names[letter]!r} is read in {unit}"
            for letter in used
            if (unit := self.unit(letter)) and unit.changes
        ]
        return [f"columns: {shown}{' (guessed from their names)' if all_guessed else ''}", *units]


def list_names(names: Sequence[str]) -> str:
    """The names of all columns, or the first 60 and how many more."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def normalize_name(name: str) -> str:
    """A column's name in small letters, its words joined by _, without a container."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", _CONTAINER.sub("", name.strip()))
    bare = re.sub(r"\W+", "_", words.lower()).strip("_")
    return re.sub(r"^params_(?=n_|num_|model_|non_)", "", bare)


def name_words(name: str) -> set[str]:
    """The words of a column's plain name."""
    return set(normalize_name(name).split("_"))


@lru_cache(maxsize=100_000)
def last_name(name: Hashable, skipped: frozenset[str] = AGGREGATES) -> str:
    """The plain name of the last component of a path; the one before, where it consists of words
    `skipped`, as W&B's do.
    """
    parts = [part for each in re.split(r"[/.]", str(name)) if (part := normalize_name(each))]
    while len(parts) > 1 and (set(parts[-1].split("_")) <= skipped or parts[-1].isdigit()):
        parts.pop()
    return parts[-1] if parts else normalize_name(str(name))


def column_named(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    """The column whose name is, or ends in, the first of some plain names that one has."""
    all_names = list(map(str, table.columns))[::-1]
    columns = {last_name(name): name for name in all_names}
    columns |= {normalize_name(name): name for name in all_names}
    return next((columns[name] for name in names if name in columns), None)


def _is_ratio(name: str) -> bool:
    """Whether a name is of the form `tokens/param` and no path (`compute/tokens`): each part names
    another count.
    """
    if re.fullmatch(r"(compute|steps?)/.*[a-z]{2}s", name.lower()):
        return False
    counts = {letter: NOUNS[letter] | {letter.lower()} for letter in "NDCS"}
    parts = list(map(name_words, name.split("/")))
    letters = {
        x for part in parts for x in counts if part & counts[x] and part <= counts[x] | WORDS[x]
    }
    return len(letters) > 1


@lru_cache(maxsize=100_000)
def _rank(name: str, letter: str) -> tuple[bool, bool, bool] | None:
    """How surely a name is that of a letter, the smallest first: a loss before a perplexity and N
    before N_total, no path before a path, plain values before the smallest or smoothed. None for
    another name.
    """
    header = read_header(name, letter)
    if _is_ratio(name):
        return None
    form = last_name(header.name)
    form = WITHOUT_EMBEDDINGS.sub("", form) if letter == "N" else form
    for phrase, word in _PHRASES.items():
        form = re.sub(rf"(?<![a-z]){phrase}(?![a-z])", word, form)
    nouns, usual = NOUNS[letter], {letter.lower(), *WORDS.get(letter, ())}
    words = {word for word in form.split("_") if word}
    in_unit = set(re.split(r"\W+", header.unit.text.lower())) if header.unit else set()
    is_whole = form in (*WHOLE_NAMES.get(letter, ()), letter.lower()) or (
        bool(in_unit & nouns) and words <= usual | {"data"}
    )
    is_lettered = bool(words) and words - BESIDE_LETTERS.get(letter, set()) == {letter.lower()}
    if not is_whole and not is_lettered and not (words & nouns and words <= nouns | usual):
        return None
    if letter in "BU" and not is_whole and not (words | in_unit) & NOUNS["D"]:
        return None
    own = name_words(re.split("[/.]", name)[-1])
    units = {"L": word_set("ppl perplexity bpb bpc bpt"), "D": word_set("sequences seqs")}
    is_second = bool(own & units.get(letter, set()) - nouns) or (is_lettered and not is_whole)
    return is_second, bool(re.search(r"[/.]\w", _CONTAINER.sub("", name))), bool(own & SECONDARY)


def candidates(letter: str, names: Sequence[str], *, readable: bool = False) -> list[str]:
    """The columns that may hold a letter: those of the surest names (of known units)."""
    known = [name for name in names if not (readable and read_header(name, letter).unknown)]
    ranks = {name: rank for name in known if (rank := _rank(name, letter)) is not None}
    return [name for name in ranks if ranks[name] == min(ranks.values())]


def _nominal_budget(names: Sequence[str]) -> str | None:
    """The column of intended budgets, such as `flops_budget` or `Target Compute (FLOPs)`, where
    there is one.
    """
    allowed = BUDGET | INTENDED | NOUNS["C"] | WORDS["C"] | word_set("group label id level")
    chosen = []
    for name in names:
        words = set(last_name(read_header(name, "C").name).split("_"))
        is_budget = words & BUDGET or (words & INTENDED and words & NOUNS["C"])
        chosen += [name] if is_budget and words <= allowed else []
    return chosen[0] if len(chosen) == 1 else None


def resolve(table: pd.DataFrame, given: Mapping[str, str], needed: Sequence[str] = ()) -> Columns:
    """The column of each letter: as named by the user, else by its name.

    Two of N, D and C that are named suffice, the third is not guessed; of columns of equal numbers
    the first is taken. `needed` are the inputs of the law. Raises ScalingError for a named column
    that is absent, ambiguities, an unknown unit, and too few columns.
    """
    names = list(map(str, table.columns))
    columns: dict[str, str] = {}
    headers: dict[str, Header] = {}
    several: dict[str, list[str]] = {}
    unread: list[tuple[str, str]] = []
    for letter, column in given.items():
        columns[letter], headers[letter] = _named_column(names, letter, column)
    used = used_letters(needed or ("N", "D"), given)
    if tuple(needed) == ("X",):
        used.remove("L")  # what is fitted are the accuracies Y
    if len({"N", "D", "C"} & set(given)) > 1:
        used -= {"N", "D", "C"}
    for letter in [letter for letter in NOUNS if letter in used - set(columns)]:
        readable = candidates(letter, names, readable=True)
        if free := [name for name in readable if name not in columns.values()]:
            columns[letter], headers[letter] = free[0], read_header(free[0], letter)
            several |= {} if _are_equal(table, letter, free) else {letter: free}
        else:
            unread += [(letter, name) for name in candidates(letter, names)]
    nominal = _nominal_budget([name for name in names if name not in given.values()])
    if (
        nominal
        and "C" in used - set(columns)
        and _numbers(table, "C", [nominal]).notna().all(axis=None)
    ):
        columns["C"], headers["C"] = nominal, read_header(nominal, "C")
    own = {"N", "D", "C"} & set(needed)
    if len(own) == 1 and own <= set(columns):  # and needs not be derived
        named = {letter: columns[letter] for letter in "NDC" if letter in own or letter in given}
        check_letters(f"of {min(own)}", needed, named)
    counts = {"N", "D", "C"} & set(columns)
    lacking = {*needed, "L"} - set(columns) - ({"N", "D", "C"} if len(counts) > 1 else set())
    for letter, name in unread:
        if lacking - ({"L"} if "Y" in columns else set()):
            raise _unknown_unit(name, letter, read_header(name, letter))
    _check_complete(names, columns, needed)
    if several:
        experts = any("activ" in normalize_name(name) for name in several.get("N", ()))
        counts_active = "(C = 6 N D counts the active parameters of a mixture of experts)"
        hint = f", or N={several['N'][1]} {counts_active}" if experts else ""
        shown = (
            f"{' and '.join(map(repr, free))} may all be {letter} ({LETTERS[letter]})"
            for letter, free in several.items()
        )
        likely = {
            letter: [name for name in free if name_words(name).isdisjoint(UNLIKELY.get(letter, ()))]
            for letter, free in several.items()
        }
        say = ",".join(f"{x}={(names or several[x])[0]}" for x, names in likely.items())
        raise ScalingError("; ".join(shown), remedy=f'say which: --columns "{say}"{hint}')
    for letter, header in headers.items():
        if header.unknown:
            raise _unknown_unit(columns[letter], letter, header)
    return Columns(columns, headers, frozenset(columns) - frozenset(given), nominal)


def _numbers(table: pd.DataFrame, letter: str, names: Sequence[str]) -> pd.DataFrame:
    """Columns in plain units, NaN where a cell is no number."""
    return pd.DataFrame({name: numeric(table, name, letter, lenient=True) for name in names})


def _are_equal(table: pd.DataFrame, letter: str, names: Sequence[str]) -> bool:
    """Whether columns hold the same numbers (counts within 1 %) wherever they hold any."""
    if len(names) < 2:
        return True
    numbers, within = _numbers(table, letter, names), 1e-6 if letter == "L" else 0.01
    others = numbers[names[1:]]
    differences = others.div(numbers[names[0]], axis=0) - 1
    same = differences.abs().le(within) | others.isna()
    return bool(same.all(axis=None) and others.notna().any().all())


def letter_for_units(letter: str, name: str) -> str:
    """The letter whose units a column has: N or D where L is N* or D* (of the law `optimum`)."""
    words = name_words(name)
    if letter != "L" or words & NOUNS["L"] or read_header(name, "L").unit:
        return letter
    return next((each for each in "DN" if words & {*NOUNS[each], each.lower()}), letter)


def _named_column(names: Sequence[str], letter: str, column: str) -> tuple[str, Header]:
    """A column that the user named, with its header's unit, or one in square brackets behind it."""
    letter = letter_for_units(letter, column)
    if column in names:
        return column, read_header(column, letter)
    with_unit = re.fullmatch(r"(.*?)\s*\[([^\[\]]+)\]", column)
    if with_unit and with_unit[1] in names:
        unit = parse_unit(with_unit[2], QUANTITIES.get(letter, Quantity.NUMBER))
        return with_unit[1], Header(with_unit[1], unit, unknown="" if unit else with_unit[2])
    guess = closest_match(column, names)
    hint = f"did you mean {guess}? " if guess else ""
    raise ScalingError(
        f"no column {column!r} for {letter}", remedy=f"{hint}columns: {list_names(names)}"
    )


def _unknown_unit(column: str, letter: str, header: Header) -> ScalingError:
    if header.unknown == "a logarithm":
        return ScalingError(f"column {column!r} holds a logarithm", remedy="give the plain values")
    kind = QUANTITIES.get(letter_for_units(letter, column), Quantity.NUMBER)
    example = {
        Quantity.TOKENS: "[M], [B] or [sequences of 2048]",
        Quantity.FLOPS: "[PFLOPs], [1e18] or [PF-days]",
        Quantity.LOSS: "[nats], [bits] or [bits per byte]",
        Quantity.SHARE: "[%]",
    }.get(kind, "[M], [B] or [1e9]")
    return ScalingError(
        f"column {column!r}: {header.unknown!r} is not a known unit of {kind}",
        remedy=f'rename the column, or give its unit: --columns "{letter}=NAME {example}"',
    )


def _check_complete(
    names: Sequence[str], columns: Mapping[str, str], needed: Sequence[str]
) -> None:
    has_loss = "L" in columns or {"X", "Y"} <= set(columns)
    if has_loss and {"N", "D", "C", *needed} & set(columns):
        return
    missing, letters = ("N, D or C", "NDC") if has_loss else ("loss", "L")
    if sum(name[:1].isdigit() for name in names) > 1:  # `1B tokens`, `2B tokens`, ...
        raise ScalingError(
            f"no column is known as {missing}: the names of columns are numbers",
            remedy="give one row per run, with columns of N, D and loss (pandas: DataFrame.melt)",
        )
    if "X" in needed:
        absent = [f"{LETTERS[letter]} ({letter})" for letter in "XY" if letter not in columns]
        raise ScalingError(
            f"no column is known as {' or '.join(absent)}",
            remedy=f'name them: --columns "X=...,Y=..."; columns: {list_names(names)}',
        )
    known = [noun for letter in letters for noun in NOUNS[letter] if len(noun) > 2]
    near = [n for n in names if any(closest_match(w, known) for w in last_name(n).split("_"))]
    hint = f"nearest: {list_names(near)}; " if near else ""
    raise ScalingError(
        f"no column is known as {missing}",
        remedy=f'name them: --columns "N=...,D=...,L=..."; {hint}columns: {list_names(names)}',
    )
