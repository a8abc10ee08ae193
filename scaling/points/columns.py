"""Columns of a table: which one is N, D, C or the loss, as the user names it or by its name alone.

A guess is noted, an ambiguity is an error that lists the choices, and what a header's unit or its
words say (`params (M)`, `non_embedding_params`) is kept with the column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scaling.errors import ScalingError, closest_match, unknown_choice
from scaling.points.units import (
    QUALIFIERS,
    QUANTITIES,
    Header,
    Quantity,
    Unit,
    parse_unit,
    read_header,
)

ALIASES = {
    "N": "n params param parameters n_params num_params nparams n_parameters num_parameters "
    "parameter_count param_count num_parameter model_params model_parameters model_size size "
    "total_params total_parameters params_total n_params_total trainable_params model_param_count "
    "n_params_nonembedding non_embedding_params nonembedding_params params_non_embedding "
    "params_nonembedding non_embedding_parameters n_non_embedding non_embedding_param_size "
    "num_non_embedding_params active_params active_parameters n_active_params n_active "
    "params_active active_param_count activated_params",
    "D": "d tokens n_tokens num_tokens train_tokens training_tokens tokens_seen tokens_trained "
    "token_count n_train_tokens num_train_tokens dataset_size data_tokens total_tokens data_size "
    "tokens_total consumed_tokens total_tokens_seen train_tokens_seen tokens_consumed",
    "C": "c flops flop compute training_flop training_flops train_flop train_flops total_flop "
    "total_flops total_flos training_compute train_compute compute_flops achieved_flops "
    "model_flops",
    "L": "l loss final_loss val_loss validation_loss valid_loss eval_loss test_loss train_loss nll "
    "val_nll cross_entropy xent lm_loss final_val_loss final_eval_loss loss_mean smooth_loss "
    "smoothed_loss macro_loss eval_macro_loss loss_val loss_validation validation_lm_loss ce_loss",
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
NOMINAL = frozenset(SECOND_CHOICE["C"].split())
WITHOUT_EMBEDDINGS = re.compile(r"non_?embed|without_embed|excl\w*_embed|no_embed|non_?emb")
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
MAX_NAMES = 60
_CONTAINER = re.compile(r"^((config|configs|summary|hparams?|metrics|history)[/._]+|data[/.]+)")


@dataclass(frozen=True)
class Columns:
    """The column of each letter, its header as read, which letters were guessed, and N's
    convention.
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
        words = f"{plain_name(self.names['N'])} {self.headers['N'].qualifier}".replace("-", "_")
        if WITHOUT_EMBEDDINGS.search(words.replace(" ", "_")):
            return "nonembedding"
        return "total" if re.search(r"\btotal|_total\b", words) else "as given"

    def unit(self, letter: str) -> Unit | None:
        """The unit that the header of a letter's column gives."""
        header = self.headers.get(letter)
        return header.unit if header else None

    def notes(self, used: Sequence[str]) -> list[str]:
        """One note that names every column used, and one for each unit that was read."""
        letters = [letter for letter in self.names if letter in used]
        all_guessed = set(letters) <= self.guessed
        shown = ", ".join(
            f"{letter} = {self.names[letter]!r}"
            + (" (guessed)" if letter in self.guessed and not all_guessed else "")
            for letter in letters
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
    pairs = [part.partition("=") for part in re.split(r",(?=\s*\w+\s*=)", text)]
    columns: dict[str, str] = {}
    for letter, equals, column in pairs:
        key = letter.strip()
        if not custom or key.upper() in ALIASES:
            key = key.upper()
        if not equals or not column.strip():
            raise ScalingError(
                f"--columns {text[:80]!r} is not of the form LETTER=column",
                remedy='write "N=params,D=tokens,L=loss"',
            )
        if key not in LETTERS and not (custom and key.isidentifier()):
            raise unknown_choice("column letter", letter.strip(), LETTERS, where="--columns")
        if key in columns:
            raise ScalingError(
                f"--columns names {key} twice", remedy=f"one column for {LETTERS.get(key, key)}"
            )
        columns[key] = column.strip()
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


def _forms(name: str, letter: str) -> tuple[str, str, str]:
    """The plain name of a whole column, the same without its unit, and that of the last component
    of a path (the one before, where W&B ends it with `value`).
    """
    bare = read_header(name, letter).name
    parts = re.split(r"[/.]", bare)
    last = parts[-2] if len(parts) > 1 and parts[-1] in ("value", "last") else parts[-1]
    return plain_name(name), plain_name(bare), plain_name(last or bare)


NOUNS = {"N": {"params", "parameters"}, "D": {"tokens"}, "L": {"loss"}}
COUNT_WORDS = frozenset(
    [
        "n",
        "num",
        "number",
        "of",
        "total",
        "train",
        "training",
        "trained",
        "global",
        "seen",
        "consumed",
        "processed",
        "cumulative",
        "model",
        "trainable",
        "count",
        "all",
    ]
)
LOSS_WORDS = QUALIFIERS | {"at", "end", "lm", "ce", "step"}


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
    words = {name: set(forms[name][2].split("_")) for name in names}
    nouns = NOUNS.get(letter, set())
    return [name for name in names if words[name] & nouns and words[name] <= nouns | usual]


def resolve(
    path: Path,
    names: Sequence[str],
    given: Mapping[str, str],
    are_equal: Callable[[Sequence[str]], bool] = lambda names: False,
    needed: Sequence[str] = (),
) -> Columns:
    """The column of each letter: as named by the user, else by its name.

    Two of N, D and C that are named suffice, the third is not guessed. `are_equal` says whether
    columns hold the same cells, so that there is nothing to choose; `needed` are the inputs of the
    law. Raises ScalingError for a named column that is absent, an ambiguity, an unknown unit, and
    too few columns.
    """
    columns: dict[str, str] = {}
    headers: dict[str, Header] = {}
    for letter, column in given.items():
        columns[letter], headers[letter] = _named_column(path, names, letter, column)
    if len({"N", "D", "C"} & set(given)) > 1:
        letters: tuple[str, ...] = ("L",)
    else:
        letters = tuple(letter for letter in ALIASES if not {"X"} & set(given))
    letters += tuple(letter for letter in ONLY_NEEDED if letter in needed)
    taken = set(columns.values())
    for letter in letters:
        if letter in columns:
            continue
        free = [name for name in candidates(letter, names) if name not in taken]
        if len(free) > 1 and not are_equal(free):
            raise _ambiguous(path, letter, free)
        if free:
            columns[letter], headers[letter] = free[0], read_header(free[0], letter)
            taken.add(free[0])
    if {"X", "Y"} <= set(given) and "L" not in given and "X" in needed:
        columns["L"], headers["L"] = columns.pop("Y"), headers.pop("Y")
    _check_complete(path, names, columns, needed)
    for letter, header in headers.items():
        if header.unknown:
            raise _unknown_unit(path, columns[letter], letter, header)
    nominal = [name for name in names if _forms(name, "C")[2] in NOMINAL]
    return Columns(
        columns,
        headers,
        frozenset(columns) - frozenset(given) - ({"L"} if "Y" in given else set()),
        nominal[0] if len(nominal) == 1 and nominal[0] not in given.values() else None,
    )


def _named_column(path: Path, names: Sequence[str], letter: str, column: str) -> tuple[str, Header]:
    """A column that the user named, with the unit of its header or of square brackets behind the
    name.
    """
    if column in names:
        return column, read_header(column, letter)
    with_unit = re.fullmatch(r"(.*?)\s*\[([^\[\]]+)\]", column)
    if with_unit and with_unit[1] in names:
        unit = parse_unit(with_unit[2], QUANTITIES.get(letter, Quantity.NUMBER))
        header = Header(with_unit[1], unit, unknown="" if unit else with_unit[2])
        return with_unit[1], header
    guess = closest_match(column, names)
    hint = f"did you mean {guess}? " if guess else ""
    raise ScalingError(
        f"no column {column!r} for {letter}",
        where=str(path),
        remedy=f"{hint}columns: {list_names(names)}",
    )


def _ambiguous(path: Path, letter: str, names: Sequence[str]) -> ScalingError:
    listed = " and ".join(map(repr, names))
    forms = [plain_name(name) for name in names]
    experts = letter == "N" and any("active" in form for form in forms)
    hint = " (C = 6 N D counts the active parameters of a mixture of experts)" if experts else ""
    return ScalingError(
        f"{listed} may all be {letter} ({LETTERS[letter]})",
        where=str(path),
        remedy=f'say which: --columns "{letter}={names[0]}"{hint}',
    )


def _unknown_unit(path: Path, column: str, letter: str, header: Header) -> ScalingError:
    kind = QUANTITIES.get(letter, Quantity.NUMBER)
    example = {
        Quantity.FLOPS: "[PFLOPs], [1e18] or [PF-days]",
        Quantity.LOSS: "[nats], [bits] or [bits per byte]",
        Quantity.SHARE: "[%]",
    }.get(kind, "[M], [B] or [1e9]")
    if header.unknown == "a logarithm":
        what, remedy = f"column {column!r} holds a logarithm", "give the plain values"
    else:
        what = f"column {column!r}: {header.unknown!r} is no known unit of {kind}"
        remedy = f'rename the column, or give its unit: --columns "{letter}=NAME {example}"'
    return ScalingError(what, where=str(path), remedy=remedy)


def _check_complete(
    path: Path, names: Sequence[str], columns: Mapping[str, str], needed: Sequence[str]
) -> None:
    """Raise ScalingError where the loss or what a law could be fitted to is missing; names the
    nearest columns.
    """
    sizes = ({"N", "D", "C"} | set(needed)) & set(columns)
    if "L" in columns and sizes:
        return
    missing = "loss" if "L" not in columns else "N, D or C"
    known = ALIASES["L" if missing == "loss" else "N"].split()
    if missing != "loss":
        known += [*ALIASES["D"].split(), *ALIASES["C"].split()]
    near = [name for name in names if closest_match(_forms(name, "N")[2], known)]
    hint = f"nearest: {list_names(near)}; " if near else ""
    raise ScalingError(
        f"no column is known as {missing}",
        where=str(path),
        remedy=f'name them: --columns "N=...,D=...,L=..."; {hint}columns: {list_names(names)}',
    )


def check_letters(law: str, inputs: Sequence[str], given: Mapping[str, str]) -> None:
    """Raise ScalingError for a column that the law would ignore."""
    allowed = {*inputs, "L", "W", "SE"}
    if {"N", "D", "C"} & set(inputs):
        allowed |= {"N", "D", "C", "U"}
    if "S" in inputs:
        allowed.add("B")  # S is corrected to the critical batch
    if "X" in inputs:
        allowed.add("Y")
    unused = [letter for letter in given if letter not in allowed]
    if unused:
        raise ScalingError(
            f"the law {law} does not use {unused[0]} ({LETTERS.get(unused[0], given[unused[0]])})",
            where="--columns",
            remedy=f"leave it out; this law is fitted to {', '.join(sorted(allowed))}",
        )
