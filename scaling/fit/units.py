"""Units that people write into headers and cells: `params (M)`, `tokens_billions`, `0.5 PF-days`, `2.1 bits`.

What is understood is converted and noted; what is not stays as it is, and fails where a number is asked for.
"""

from __future__ import annotations

import math
import re

from scaling.quantity import parse_count

PF_DAY = 8.64e19  # FLOPs
SCALES = {
    "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15, "thousand": 1e3, "thousands": 1e3, "million": 1e6, "millions": 1e6,
    "mm": 1e6, "billion": 1e9, "billions": 1e9, "bn": 1e9, "trillion": 1e12, "trillions": 1e12, "pf-days": PF_DAY, "pf-day": PF_DAY,
    "petaflop/s-days": PF_DAY, "pfdays": PF_DAY, "exaflop": 1e18, "exaflops": 1e18, "eflop": 1e18, "eflops": 1e18, "zettaflops": 1e21, "zflops": 1e21,
    "bit": math.log(2), "bits": math.log(2),
}  # fmt: skip
PLAIN = frozenset(["flop", "flops", "params", "param", "parameters", "tokens", "token", "nat", "nats", "nats/token", "nats per token"])
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
