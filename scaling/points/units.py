"""Units of headers, cells and options: one parser for parameters, tokens, FLOPs, losses and shares.

Plain units are parameters, tokens, FLOPs and nats. A suffix such as M or B multiplies counts only;
a loss may be in bits, per byte or per token, or a perplexity, whose logarithm it then is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from scaling.errors import ScalingError

PF_DAY = 8.64e19  # FLOPs
LN2 = math.log(2)
MAX_VALUE = 1e30


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
    "D": Quantity.TOKENS,
    "U": Quantity.TOKENS,
    "B": Quantity.TOKENS,
    "C": Quantity.FLOPS,
    "S": Quantity.COUNT,
    "L": Quantity.LOSS,
    "X": Quantity.LOSS,
    "Y": Quantity.SHARE,
}
COUNTED = (Quantity.PARAMS, Quantity.TOKENS, Quantity.FLOPS, Quantity.COUNT)
SUFFIXED = ("N", "D", "C", "U")  # whose column names may end in _M, _B, _T

SCALES = {"k": 1e3, "thousand": 1e3, "thousands": 1e3}
SCALES |= dict.fromkeys(("m", "mm", "mn", "mio", "million", "millions", "mega"), 1e6)
SCALES |= dict.fromkeys(("b", "bn", "g", "billion", "billions", "giga"), 1e9)
SCALES |= dict.fromkeys(("t", "tn", "trillion", "trillions", "tera"), 1e12)
SI = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21, "y": 1e24}
SI |= {"kilo": 1e3, "mega": 1e6, "giga": 1e9, "tera": 1e12, "peta": 1e15, "exa": 1e18}
SI |= {"zetta": 1e21, "yotta": 1e24}
_PREFIX = "|".join(sorted(SI, key=len, reverse=True))
_NOUNS = {
    Quantity.PARAMS: r"params?|parameters?|weights?",
    Quantity.TOKENS: r"tok(?:en)?s?",
    Quantity.COUNT: r"steps?|iters?|iterations?|updates?",
    Quantity.FLOPS: r"flops?|floating[- ]point operations",
}
_POWER = re.compile(r"(?:x|\*)?\s*(?:(?:1(?:\.0*)?)?e\+?(\d+)|10\s*(?:\^|\*\*)\s*(\d+))(?![\w.])")
_THOUSANDS = re.compile(r"(?:x|\*)?\s*1((?:[,_ ]?000)+)(?!\w)")
_TIME = re.compile(
    rf"({_PREFIX})?[\s_-]*(?:f|fs|flops?|flops?/s|flops?[\s_]per[\s_]second)"
    r"[\s_*·-]*(days?|d|hours?|h)"
)
_LOSS = re.compile(
    r"(nats?|bits?)(?:[\s_]*(?:/|per)?[\s_]*(tok(?:en)?s?|bytes?|char(?:acter)?s?|words?))?"
)
_SHORT_LOSSES = {"bpb": "bits per byte", "bpt": "bits per token", "bpc": "bits per character"}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


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
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(np.log(values))
        return values * self.factor

    @property
    def changes(self) -> bool:
        """Whether reading in this unit changes a number, or what a loss means."""
        return self.is_perplexity or self.factor != 1.0 or bool(self.per)

    def __str__(self) -> str:
        if self.is_perplexity:
            return "perplexity (the loss is its logarithm, in nats)"
        loss = LN2 if "bit" in self.text.lower() or self.text.lower() in _SHORT_LOSSES else 0
        target = f" nats per {self.per}" if self.per else " nats" if self.factor == loss else ""
        return f"{self.text} (x {self.factor:.6g}{',' + target if target else ''})"


def parse_unit(text: str, quantity: Quantity) -> Unit | None:
    """The unit that a text names for a quantity; None for one that is not known."""
    digits = "".join(map(chr, _SUPERSCRIPTS))
    word = re.sub(f"[{digits}]+", lambda power: "^" + power[0].translate(_SUPERSCRIPTS), text)
    word = " ".join(word.lower().replace("×", "x").replace("·", " ").split()).removeprefix("in ")
    if quantity is Quantity.LOSS:
        return _loss_unit(text, word)
    if quantity is Quantity.SHARE:
        shares = {"%": 0.01, "percent": 0.01, "pct": 0.01, "fraction": 1.0, "share": 1.0}
        return Unit(text, shares[word]) if word in shares else None
    if quantity not in COUNTED or not word:
        return None
    if quantity is Quantity.FLOPS and (timed := _TIME.fullmatch(word)):
        seconds = 86400.0 if timed[2].startswith("d") else 3600.0
        return Unit(text, SI.get(timed[1] or "", 1.0) * seconds)
    sequences = re.fullmatch(r"(?:sequences?|seqs?) of (\d+)(?: tokens?)?", word)
    if quantity is Quantity.TOKENS and sequences:
        return Unit(text, float(sequences[1]))
    factor = 1.0
    if power := _POWER.match(word):
        factor, word = 10.0 ** int(power[1] or power[2]), word[power.end() :]
    elif plain := _THOUSANDS.match(word):
        factor, word = 10.0 ** plain[1].count("0"), word[plain.end() :]
    word = word.strip(" x*-_")
    scales = {**SCALES, **SI} if quantity is Quantity.FLOPS else SCALES
    names = "|".join(sorted(scales, key=len, reverse=True))
    match = re.fullmatch(rf"({names})?[\s_-]*(?:of[\s_]+)?({_NOUNS[quantity]})?", word)
    if match is None or (not match[1] and not match[2] and factor == 1.0):
        return None
    return Unit(text, factor * scales.get(match[1] or "", 1.0)) if factor < 1e31 else None


def _loss_unit(text: str, word: str) -> Unit | None:
    if word in ("ppl", "perplexity", "perplexities"):
        return Unit(text, is_perplexity=True)
    match = _LOSS.fullmatch(_SHORT_LOSSES.get(word, word).replace("_", " "))
    if match is None:
        return None
    counted = (match[2] or "token").rstrip("s").replace("characters", "character")
    per = "" if counted.startswith("tok") else "character" if counted == "char" else counted
    return Unit(text, LN2 if match[1].startswith("bit") else 1.0, per=per)


_CELL = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*")


def parse_cell(text: str, quantity: Quantity) -> tuple[float, Unit | None]:
    """A number such as `70B`, `1e21 FLOPs`, `0.5 PF-days` or `2.1 bits` in plain units, and its
    unit.

    Raises ValueError for anything else, and for a count suffix on what is no count.
    """
    match = _CELL.fullmatch(text) if len(text) <= 80 else None
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a number")
    if not match[2]:
        return float(match[1].replace("_", "")), None
    suffix = match[2] in ("P", "E", "p") and quantity in COUNTED
    unit = Unit(match[2], SI[match[2].lower()]) if suffix else parse_unit(match[2], quantity)
    if unit is None:
        raise ValueError(f"{match[2][:40]!r} is no unit of {quantity}")
    value = float(match[1].replace("_", ""))
    return float(unit.to_plain(np.asarray(value))), unit


def parse_quantity(value: object, quantity: Quantity, where: str, remedy: str) -> float:
    """The positive number that an option gives, with its unit. Raises ScalingError naming the
    option.
    """
    number = math.nan
    try:
        if isinstance(value, str):
            number, _ = parse_cell(value.strip(), quantity)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
        what = f"{str(value)[:40]!r} is not a positive number up to 1e30"
    except (ValueError, OverflowError) as error:
        what = str(error)
    if not 0 < number <= MAX_VALUE:
        raise ScalingError(what, where=where, remedy=remedy)
    return number


_QUALIFIERS_WORDS = (
    "val valid validation test eval evaluation train training final last best min mean avg average "
    "smooth smoothed ema total count number all approx estimated est active model "
    "embedding embeddings embed emb non nonembedding no without excl excluding incl including with "
    "achieved actual measured nominal target"
)
QUALIFIERS = frozenset(_QUALIFIERS_WORDS.split())
_TAIL_WORDS = re.compile(r"[\s_.]+")


@dataclass(frozen=True)
class Header:
    """A column's name without its unit; the unit (None: none written), and what is not
    understood.
    """

    name: str
    unit: Unit | None = None
    unknown: str = ""
    qualifier: str = ""


def read_header(name: str, letter: str) -> Header:
    """The header of a column that holds a letter: `params (M)`, `tokens_billions`, `GFLOPs`,
    `val_bpb`.
    """
    quantity = QUANTITIES.get(letter, Quantity.NUMBER)
    if re.match(r"\s*(log|ln|log10|log2|log_10)\s*[(\[_ ]", name, re.I):
        return Header(name, unknown="a logarithm")
    inside = re.fullmatch(r"(.*?)\s*[(\[]\s*([^()\[\]]+?)\s*[)\]]\s*", name)
    if inside and inside[1]:
        if inside[2] == "P" and quantity in COUNTED:
            return Header(inside[1], Unit("P", 1e15))
        if unit := parse_unit(inside[2], quantity):
            return Header(inside[1], unit)
        words = re.split(r"[\W_]+", inside[2].lower())
        if set(words) - {""} <= QUALIFIERS:
            return Header(inside[1], qualifier=inside[2].lower())
        return Header(inside[1], unknown=inside[2])
    marked = re.fullmatch(r"(.*?\S)\s*(?:,|/(?=\s*1)|\bx\b|×|\*)\s*([^,/]+?)\s*", name)
    if marked and marked[1] and (unit := parse_unit(marked[2], quantity)) and unit.factor != 1.0:
        return Header(marked[1], unit)
    return _trailing_unit(name, letter, quantity)


_BARE = {"C": "flops", "L": "loss"}


def _trailing_unit(name: str, letter: str, quantity: Quantity) -> Header:
    """A unit at the end of a name: tokens_billions, params_M, compute in PF-days,
    val_bpb, GFLOPs.
    """
    last = re.split(r"[/.](?=[^/.]+$)", name)[-1] if quantity is Quantity.LOSS else name
    parts = [part for part in _TAIL_WORDS.split(last.strip()) if part]
    for count in (4, 3, 2, 1):
        bare, tail = parts[:-count], parts[-count:]
        if not tail or len(parts) < count or (not bare and letter not in _BARE):
            continue
        text = " ".join(tail)
        if len(text) == 1 and (letter not in SUFFIXED or not bare or text not in "KMBTGPEmb"):
            continue
        if bare and bare[-1].lower() == "in":
            bare = bare[:-1]
        unit = parse_unit(text, quantity)
        if unit is None and len(text) == 1 and text in "PE":
            unit = Unit(text, SI[text.lower()])
        if unit and (unit.changes or (quantity is Quantity.LOSS and bare)):
            noun = _BARE.get(letter, "")
            implied = noun if "flop" in text.lower() or quantity is Quantity.LOSS else ""
            ends = bare and bare[-1].lower().endswith("loss")
            return Header(
                "_".join([*bare, *([implied] if implied and not ends else [])]) or noun, unit
            )
    return Header(name)
