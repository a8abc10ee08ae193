"""Columns of a table: which one is N, D, C or the loss, as the user names it or by its name alone.

A guess is noted, an ambiguity is an error that lists the choices, and what a header's unit or its
words say (`params (M)`, `non_embedding_params`) is kept with the column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scaling.errors import ScalingError, closest_match, unknown_choice
from scaling.points.units import (
    QUALIFIERS,
    QUANTITIES,
    Header,
    Quantity,
    Unit,
    parse_unit,
    read_header,
    word_set,
)

if TYPE_CHECKING:
    import pandas as pd

ALIASES = {
    "N": "n params param parameters n_params num_params nparams n_parameters num_parameters "
    "parameter_count param_count num_parameter model_params model_parameters model_size size "
    "total_params total_parameters params_total n_params_total trainable_params model_param_count "
    "param_size active_params active_parameters n_active_params n_active params_active "
    "active_param_count activated_params",
    "D": "d tokens n_tokens num_tokens train_tokens training_tokens tokens_seen tokens_trained "
    "token_count n_train_tokens num_train_tokens dataset_size data_tokens total_tokens data_size "
    "tokens_total consumed_tokens total_tokens_seen train_tokens_seen tokens_consumed",
    "C": "c flops flop compute training_flop training_flops train_flop train_flops total_flop "
    "total_flops total_flos training_compute train_compute compute_flops achieved_flops "
    "model_flops",
    "L": "l loss final_loss val_loss validation_loss valid_loss eval_loss test_loss train_loss nll "
    "val_nll cross_entropy xent lm_loss final_val_loss final_eval_loss loss_mean smooth_loss "
    "smoothed_loss macro_loss eval_macro_loss loss_val loss_validation validation_lm_loss ce_loss "
    "ce",
    "U": "u unique_tokens n_unique_tokens num_unique_tokens tokens_unique",
}
SECOND_CHOICE = {  # where no column bears one of the names above
    "C": "compute_budget budget flops_budget flop_budget budget_flops target_flops nominal_flops "
    "isoflop_budget iso_flops isoflop",
    "L": "perplexity ppl val_ppl val_perplexity eval_perplexity bpb val_bpb eval_bpb",
}
ONLY_NEEDED = {  # guessed only for a law that has them
    "LR": "lr learning_rate peak_lr max_lr lr_peak lr_max peak_learning_rate max_learning_rate eta "
    "base_lr",
    "B": "b batch_tokens batch_size_tokens tokens_per_batch tokens_per_step global_batch_tokens "
    "batch_size_in_tokens",
}
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
NOUNS = {  # of the words of a name that is no alias, such as `Final Validation Loss`
    "N": frozenset({"params", "parameters"}),
    "D": frozenset({"tokens"}),
    "L": frozenset({"loss", "crossentropy"}),
}
COUNT_WORDS = word_set(
    "n num number of total train training trained global seen consumed processed cumulative model "
    "trainable count all"
)
LOSS_WORDS = QUALIFIERS | {"at", "end", "lm", "ce", "step"}
WITHOUT_EMBEDDINGS = re.compile(
    r"(?<![a-z])((non?|w_?o|without|excl|excluding|ex|minus)_?emb(ed|edding)?s?|backbone)(?![a-z])"
)
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
        words = plain_name(f"{self.names['N']} {self.headers['N'].qualifier}")
        if WITHOUT_EMBEDDINGS.search(words):
            return "nonembedding"
        return "total" if re.search(r"(\b|_)total(\b|_)", words) else "as given"

    def unit(self, letter: str) -> Unit | None:
        """The unit that the header of a letter's column gives."""
        return self.headers[letter].unit if letter in self.headers else None

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


def parse_columns(text: str, custom: bool = False) -> dict[str, str]:
    """`"N=Model Size,C=Training FLOP,L=loss"` as letters to columns; names may hold spaces and
    commas.
    """
    columns: dict[str, str] = {}
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        letter, _, column = (each.strip() for each in part.partition("="))
        key = letter if custom and letter.upper() not in ALIASES else letter.upper()
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


def list_names(names: Sequence[str]) -> str:
    """The names of all columns, or the first 60 and how many more."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def plain_name(name: str) -> str:
    """A column's name as aliases know it: in small letters, words joined by _, without
    a container.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", _CONTAINER.sub("", name.strip()))
    bare = re.sub(r"\W+", "_", words.lower()).strip("_")
    return re.sub(r"^params_(?=n_|num_|model_|non_)", "", bare)


def last_name(name: object, skipped: str = "value last final mean avg total") -> str:
    """The plain name of the last component of a path; the one before, where it ends with one of
    the words `skipped`, as W&B's do.
    """
    parts = [plain_name(part) for part in re.split(r"[/.]", str(name))]
    if len(parts) > 1 and parts[-1] in skipped.split():
        return parts[-2]
    return parts[-1] or plain_name(str(name))


def column_named(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    """The column whose name is, or ends in, the first of some plain names that one has."""
    all_names = list(map(str, table.columns))[::-1]
    columns = {last_name(name): name for name in all_names}
    columns |= {plain_name(name): name for name in all_names}
    return next((columns[name] for name in names if name in columns), None)


def _forms(name: str, letter: str) -> tuple[str, ...]:
    """The plain name of a whole column, the same without its unit, and that of its last part; of N
    without the words that say that embeddings are not counted.
    """
    bare = read_header(name, letter).name
    forms = (plain_name(name), plain_name(bare), last_name(bare))
    if letter != "N":
        return forms
    return tuple(re.sub("_+", "_", WITHOUT_EMBEDDINGS.sub("", form)).strip("_") for form in forms)


def candidates(letter: str, names: Sequence[str]) -> list[str]:
    """The columns that may hold a letter: by whole name, else by the last component of a path, else
    by its words, such as `Final Validation Loss`.
    """
    forms = {name: _forms(name, letter) for name in names}
    for aliases in ((ALIASES | ONLY_NEEDED)[letter], SECOND_CHOICE.get(letter, "")):
        known = set(aliases.split())
        for position in (0, 1, 2):
            matches = [name for name in names if forms[name][position] in known]
            if matches:
                return matches
    usual = LOSS_WORDS if letter == "L" else COUNT_WORDS
    nouns = NOUNS.get(letter, frozenset())
    words = {
        name: set(forms[name][2].replace("cross_entropy", "crossentropy").split("_"))
        for name in names
    }
    return [name for name in names if words[name] & nouns and words[name] <= nouns | usual]


def resolve(table: pd.DataFrame, given: Mapping[str, str], needed: Sequence[str] = ()) -> Columns:
    """The column of each letter: as named by the user, else by its name.

    Two of N, D and C that are named suffice, the third is not guessed; of columns with equal cells
    the first is taken. `needed` are the inputs of the law. Raises ScalingError for a named column
    that is absent, an ambiguity, an unknown unit, and too few columns.
    """
    names = list(map(str, table.columns))
    columns: dict[str, str] = {}
    headers: dict[str, Header] = {}
    for letter, column in given.items():
        columns[letter], headers[letter] = _named_column(names, letter, column)
    guessable = ["L"] if len({"N", "D", "C"} & set(given)) > 1 else [*ALIASES] * ("X" not in given)
    for letter in (*guessable, *(letter for letter in ONLY_NEEDED if letter in needed)):
        free = [name for name in candidates(letter, names) if name not in columns.values()]
        if letter in columns or not free:
            continue
        if not _are_equal(table, free):
            experts = letter == "N" and any("active" in plain_name(name) for name in free)
            hint = " (C = 6 N D counts the active parameters of a mixture of experts)"
            raise ScalingError(
                f"{' and '.join(map(repr, free))} may all be {letter} ({LETTERS[letter]})",
                remedy=f'say which: --columns "{letter}={free[0]}"{hint if experts else ""}',
            )
        columns[letter], headers[letter] = free[0], read_header(free[0], letter)
    _check_complete(names, columns, needed)
    for letter, header in headers.items():
        if header.unknown:
            raise _unknown_unit(columns[letter], letter, header)
    budgets = [n for n in names if _forms(n, "C")[2] in SECOND_CHOICE["C"].split()]
    nominal = budgets[0] if len(budgets) == 1 and budgets[0] not in given.values() else None
    return Columns(columns, headers, frozenset(columns) - frozenset(given), nominal)


def _are_equal(table: pd.DataFrame, names: Sequence[str]) -> bool:
    """Whether columns hold the same numbers, or the same text, in every row."""
    import pandas as pd

    first = table[names[0]]
    number, text = pd.to_numeric(first, errors="coerce"), first.astype(str).str.strip()
    return all(
        (
            pd.to_numeric(table[name], errors="coerce").eq(number)
            | table[name].astype(str).str.strip().eq(text)
        ).all()
        for name in names[1:]
    )


def _named_column(names: Sequence[str], letter: str, column: str) -> tuple[str, Header]:
    """A column that the user named, with the unit of its header or of square brackets behind the
    name.
    """
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
    kind = QUANTITIES.get(letter, Quantity.NUMBER)
    example = {
        Quantity.FLOPS: "[PFLOPs], [1e18] or [PF-days]",
        Quantity.LOSS: "[nats], [bits] or [bits per byte]",
        Quantity.SHARE: "[%]",
    }.get(kind, "[M], [B] or [1e9]")
    return ScalingError(
        f"column {column!r}: {header.unknown!r} is no known unit of {kind}",
        remedy=f'rename the column, or give its unit: --columns "{letter}=NAME {example}"',
    )


def _check_complete(
    names: Sequence[str], columns: Mapping[str, str], needed: Sequence[str]
) -> None:
    """Raise ScalingError where the loss or what a law could be fitted to is missing; names the
    nearest columns.
    """
    has_loss = "L" in columns or {"X", "Y"} <= set(columns)
    if has_loss and {"N", "D", "C", *needed} & set(columns):
        return
    missing, letters = ("N, D or C", "NDC") if has_loss else ("loss", "L")
    known = [alias for letter in letters for alias in ALIASES[letter].split()]
    near = [name for name in names if closest_match(_forms(name, "N")[2], known)]
    hint = f"nearest: {list_names(near)}; " if near else ""
    raise ScalingError(
        f"no column is known as {missing}",
        remedy=f'name them: --columns "N=...,D=...,L=..."; {hint}columns: {list_names(names)}',
    )


def check_letters(law: str, inputs: Sequence[str], given: Mapping[str, str]) -> None:
    """Raise ScalingError for a column that the law would ignore."""
    allowed = {*inputs, "L", "W", "SE"}
    if {"N", "D", "C"} & set(inputs):
        allowed |= {"N", "D", "C", "U"}
    allowed |= {"B"} if "S" in inputs else set()  # S is corrected to the critical batch
    allowed |= {"Y"} if "X" in inputs else set()
    unused = [letter for letter in given if letter not in allowed]
    if unused:
        raise ScalingError(
            f"the law {law} does not use {unused[0]} ({LETTERS.get(unused[0], given[unused[0]])})",
            where="--columns",
            remedy=f"leave it out; this law is fitted to {', '.join(sorted(allowed))}",
        )
