"""Units of headers, cells and options: one parser for parameters, tokens, FLOPs, losses and shares.

Plain units are parameters, tokens, FLOPs and nats. A suffix such as M or B multiplies counts only;
a loss may be in bits, per byte or per token, or a perplexity, whose logarithm it then is.
"""

from __future__ import annotations

import contextlib
import math
import re
import unicodedata
from collections.abc import KeysView
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from scaling.errors import ScalingError

if TYPE_CHECKING:  # configuration is read without numpy
    import numpy as np

PF_DAY = 8.64e19  # FLOPs
LN2 = math.log(2)
MAX_VALUE = 1e30
COUNT_FORM = 'write it as 1e13 or "10T" (suffixes K, M, B, T, P, E)'


def word_set(text: str) -> KeysView[str]:
    """The words of a text, as a set that keeps their order."""
    return dict.fromkeys(text.split()).keys()


class UnknownUnit(ValueError):
    """A unit that the quantity does not have."""


class Quantity(StrEnum):
    """What a column or an option counts: it decides which units are known."""

    PARAMS = "parameters"
    TOKENS = "tokens"
    FLOPS = "FLOPs"
    COUNT = "a count"
    LOSS = "loss"
    SHARE = "a share"
    NUMBER = "a number"


QUANTITIES = {
    "N": Quantity.PARAMS,
    **dict.fromkeys("DUB", Quantity.TOKENS),
    "C": Quantity.FLOPS,
    "S": Quantity.COUNT,
    **dict.fromkeys("LX", Quantity.LOSS),
    "Y": Quantity.SHARE,
}
NOUNS = {  # of the quantities that are counted, whose units may be multiples
    Quantity.PARAMS: r"params?|parameters?|weights?",
    Quantity.TOKENS: r"tok(?:en)?s?",
    Quantity.COUNT: r"steps?|iters?|iterations?|updates?",
    Quantity.FLOPS: r"flops?|floating[- ]point operations",
}
SUFFIXED = "NDCU"  # letters whose column names may end in _M, _B, _T
_SHORT_SCALES = {
    1e3: "k thousand thousands",
    1e6: "m mm mn mio mln million millions mega",
    1e9: "b bn mrd mld mdr g billion billions giga",
    1e12: "t tn trillion trillions tera",
}
_SI = {1e3: "kilo", 1e15: "p peta", 1e18: "e exa", 1e21: "z zetta", 1e24: "y yotta"}
SCALES = {word: factor for factor, words in _SHORT_SCALES.items() for word in words.split()}
FLOPS_SCALES = SCALES | {word: factor for factor, words in _SI.items() for word in words.split()}
_FACTOR = re.compile(r"[x*]?\s*((?:1[.0]*)?e\+?\d+|1(?:000)+)(?![\w.])")
_TIMED = (  # what FLOPs may be counted in
    r"(?:f|fs|f/s|flops?|flops?/s|flops?[\s_]per[\s_]second)[\s_*-]*(days?|d|hours?|h)"
)
_TIME = re.compile(rf"({'|'.join(FLOPS_SCALES)})?[\s_-]*{_TIMED}")
_SEQUENCES = re.compile(  # the name of a column
    r"(?:(?:n|num|number of|total|training|train) )*(?:sequences|seqs)"
    r"(?: ?(?:of|x|[(\[@]) ?(\d\w*)(?: tok(?:en)?s?)?(?: each)?[)\]]?)?"
)
_LOSS = re.compile(r"(nat|bit)s?(?:[ /]*(?:per )?(tok|byte|char|word)(?:en|acter)?s?)?")
_PERPLEXITY = re.compile(
    r"(?:(log|ln|log2|log10)[ (]*)?(?:(tok|byte|char|word)(?:en|acter)?[ -]*)?"
    r"(?:ppl|perplexit(?:y|ies))\)?"
)
_SHORT_LOSSES = {"bpb": "bits/byte", "bpt": "bits/token", "bpc": "bits/character"}
_SHARES = {"%": 0.01, "percent": 0.01, "pct": 0.01, "fraction": 1.0, "share": 1.0}


@dataclass(frozen=True)
class Unit:
    """A unit as written, its factor to the plain unit, and whether values are perplexities.

    `per` is what a loss is counted per (byte, character, word) where that is not the token.
    """

    text: str
    factor: float = 1.0
    is_perplexity: bool = False
    per: str = ""

    def to_plain(self, values: np.ndarray) -> np.ndarray:
        """Values in plain units; of perplexities the logarithm."""
        if self.is_perplexity:
            import numpy as np

            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(np.log(values))
        return values * self.factor

    @property
    def changes(self) -> bool:
        """Whether reading in this unit changes a number, or what a loss means."""
        is_log = self.text.lower().startswith(("log", "ln"))
        return self.is_perplexity or self.factor != 1.0 or bool(self.per) or is_log

    def __str__(self) -> str:
        is_loss = self.factor in (LN2, math.log(10)) or self.text.lower().startswith(("log", "ln"))
        target = f", nats per {self.per}" if self.per else ", nats" if is_loss else ""
        if self.is_perplexity:
            return f"perplexity (the loss is its logarithm{target or ', in nats'})"
        return f"{self.text} (x {self.factor:.6g}{target})"


def parse_unit(text: str, quantity: Quantity) -> Unit | None:
    """The unit that a text names for a quantity; None for one that is not known."""
    text = text.strip().removeprefix("in ")
    word = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda each: "^" + unicodedata.normalize("NFKC", each[0]), text)
    word = " ".join(word.lower().replace("×", "x").replace("·", " ").split())
    if quantity is Quantity.LOSS:
        word = _SHORT_LOSSES.get(word, word).replace("_", " ")
        factors = {"bit": LN2, "log2": LN2, "log10": math.log(10)}  # else natural
        if loss := _PERPLEXITY.fullmatch(word) or _LOSS.fullmatch(word):
            per = {None: "", "tok": "", "char": "character"}.get(loss[2], loss[2])
            return Unit(text, factors.get(loss[1], 1.0), loss[1] is None, per)
        return None
    if quantity is Quantity.SHARE and word in _SHARES:
        return Unit(text, _SHARES[word])
    if quantity not in NOUNS:
        return None
    is_compute = quantity is Quantity.FLOPS
    if is_compute and (timed := _TIME.fullmatch(word)):
        seconds = 86400.0 if timed[2].startswith("d") else 3600.0
        return Unit(text, FLOPS_SCALES.get(timed[1], 1.0) * seconds)
    sequences = re.fullmatch(r"(?:sequences?|seqs?) of (\d+)(?: tokens?)?", word)
    if quantity is Quantity.TOKENS and sequences:
        return Unit(text, float(sequences[1]))
    word = re.sub(r"10\s*(?:\^|\*\*)\s*", "1e", re.sub(r"(?<=\d)[,_ ](?=000)", "", word))
    scales, factor = FLOPS_SCALES if is_compute else SCALES, 1.0
    if number := _FACTOR.match(word):
        factor, word = (
            float(number[1].replace("e", "1e", number[1][0] == "e")),
            word[number.end() :],
        )
    names = "|".join(sorted(scales, key=len, reverse=True))
    unit = re.fullmatch(rf"({names})?[\s_-]*(?:of[\s_]+)?({NOUNS[quantity]})?", word.strip(" x*-_"))
    if unit is None or factor > MAX_VALUE or (not any(unit.groups()) and factor == 1.0):
        return None
    return Unit(text, factor * scales.get(unit[1], 1.0))


_CELL = re.compile(r"\s*[~≈]?\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*")


def parse_cell(text: str, quantity: Quantity) -> tuple[float, Unit | None]:
    """A number such as `70B`, `1e21 FLOPs`, `0.5 PF-days` or `2.1 bits` in plain units, and its
    unit.

    Raises ValueError for anything else, UnknownUnit for a count suffix on what is no count.
    """
    match = _CELL.fullmatch(text) if len(text) <= 80 else None
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a number")
    value = float(match[1].replace("_", ""))
    if not match[2]:
        return value, None
    unit = parse_unit(match[2], quantity)
    if unit is None:
        raise UnknownUnit(f"{match[2][:40]!r} is not a unit of {quantity}")
    return float(math.log(value) if unit.is_perplexity else value * unit.factor), unit


def count_pattern(quantity: Quantity) -> str:
    """The texts that `positive` reads as a count, as a pattern of JSON Schema; small and capital
    letters are one, and how large the number is remains unseen.
    """
    is_compute = quantity is Quantity.FLOPS
    power = r"10\s*(?:\^|\*\*)\s*\d+|(?:1[.0]*)?e\+?\d+|1(?:000)+"
    scales = "|".join(FLOPS_SCALES if is_compute else SCALES)
    noun = f"{NOUNS[quantity]}|{_TIMED}" if is_compute else NOUNS[quantity]
    unit = rf"(?:{scales})?[\s_-]*(?:of[\s_]+)?(?:{noun})?"
    if quantity is Quantity.TOKENS:
        unit += r"|(?:sequences?|seqs?) of \d+(?: tokens?)?"
    number = r"(?=[\d._]*[1-9])(?:\d[\d_]*\.?\d*|\.\d+)(?:e[+-]?\d+)?"
    times = rf"(?:\s*(?:x|[*×·])\s*|\s+)(?:{power})"
    pattern = rf"^\s*[~≈]?\s*\+?{number}(?:{times})?\s*(?:in )?(?:{unit})\s*$"
    in_any_case = {letter: f"[{letter}{letter.upper()}]" for letter in "abcdefghijklmnopqrstuvwxyz"}
    return re.sub(r"\\.|[a-z]", lambda part: in_any_case.get(part[0], part[0]), pattern)


def positive(value: object, quantity: Quantity) -> float:
    """A positive number up to 1e30, or the text of one, in plain units. Raises ValueError."""
    number = math.nan
    with contextlib.suppress(OverflowError):
        if isinstance(value, str):
            number, _ = parse_cell(value, quantity)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
    if not 0 < number <= MAX_VALUE:
        raise ValueError(f"{str(value)[:40]!r} is not a positive number up to 1e30")
    return number


def parse_quantity(value: object, quantity: Quantity, where: str, remedy: str) -> float:
    """The positive number of an option, in plain units. Raises ScalingError naming it."""
    try:
        return positive(value, quantity)
    except ValueError as error:
        raise ScalingError(str(error), where=where, remedy=remedy) from None


def flops_option(value: object, where: str) -> float:
    """The FLOPs that an option was given. Raises ScalingError that names the option."""
    return parse_quantity(value, Quantity.FLOPS, where, COUNT_FORM)


QUALIFIERS = word_set(
    "val valid validation test eval evaluation train training final last best min mean avg "
    "average smooth smoothed ema total count number all approx estimated est active model "
    "embedding embeddings embed emb non nonembedding no without w o excl excluding ex incl "
    "including with achieved actual measured nominal target"
)


@dataclass(frozen=True)
class Header:
    """A column's name without its unit; the unit (None: none written), what is not understood, and
    words in parentheses that say more about the column.
    """

    name: str
    unit: Unit | None = None
    unknown: str = ""
    qualifier: str = ""


def read_header(name: str, letter: str) -> Header:
    """The header of a column that holds a letter: `params (M)`, `GFLOPs`, `val_bpb`."""
    quantity = QUANTITIES.get(letter, Quantity.NUMBER)
    if quantity is Quantity.LOSS and (unit := parse_unit(name.split("/")[-1], quantity)):
        return Header("loss", unit)
    logarithm = re.match(r"\s*(log|ln|log10|log2|log_10)\s*[(\[_ ]\s*(.*?)[)\]]?\s*$", name, re.I)
    if logarithm and not (letter == "L" and _PERPLEXITY.search(logarithm[2].lower())):
        return Header(logarithm[2], unknown="a logarithm")
    sequences = _SEQUENCES.fullmatch(name.lower().replace("_", " "))
    if quantity is Quantity.TOKENS and sequences:
        text = f"sequences of {sequences[1] or 'unknown length'}"
        unit = parse_unit(text, quantity)
        return Header("tokens", unit, unknown="" if unit else text)
    inside = re.fullmatch(r"(.*?\S)\s*[(\[]\s*([^()\[\]]+?)\s*[)\]]\s*", name)
    if inside:
        if unit := parse_unit(inside[2], quantity):
            return Header(inside[1], unit)
        qualifier = inside[2].lower()
        words = set(re.split(r"[\W_]+", qualifier)) - {""}
        if words <= QUALIFIERS and "%" not in qualifier:
            return replace(read_header(inside[1], letter), qualifier=qualifier)
        return Header(inside[1], unknown=inside[2])
    marked = re.fullmatch(r"(.*?\S)\s*(?:,|/(?=\s*1)|\bx\b|×|\*)\s*([^,/]+?)\s*", name)
    if marked and (unit := parse_unit(marked[2], quantity)) and unit.factor != 1.0:
        return Header(marked[1], unit)
    return _trailing_unit(name, letter, quantity)


def _trailing_unit(name: str, letter: str, quantity: Quantity) -> Header:
    """A unit at the end of a name: tokens_billions, params_M, compute in PF-days, val_bpb."""
    is_loss = quantity is Quantity.LOSS
    last = re.split(r"[/.](?=[^/.]+$)", name)[-1] if is_loss else name
    parts = re.split(r"[\s_.]+", last.strip().strip("_."))
    noun = {"C": "flops", "L": "loss", "N": "params", "D": "tokens"}.get(letter, "")
    for count in range(min(4, len(parts)), 0, -1):
        bare, text = parts[:-count], " ".join(parts[-count:])
        is_letter = len(text) == 1
        if is_letter and (letter not in SUFFIXED or not bare or text not in "KMBTGPEmbk"):
            continue
        unit = parse_unit(text, quantity) if bare or noun else None
        if unit is None or not (unit.changes or is_loss):
            continue
        if bare[-1:] and bare[-1].lower() == "in":
            bare = bare[:-1]
        if (is_loss or "flop" in text.lower()) and not "".join(bare).lower().endswith("loss"):
            bare = [*bare, noun]
        return Header("_".join(filter(None, bare)) or noun, unit)
    return Header(name)
