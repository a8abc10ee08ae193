"""Published rules for learning rate and batch as values: a formula, its source, and the range in
which it was measured.

All were fitted above about 5M parameters. Below, they ask for learning rates up to ten times too
high: outside its range a rule says so, and `scaling tune` measures one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scaling.config import PowerRule
from scaling.formatting import format_count
from scaling.recipe.shapes import InfeasibleCell

Formula = Callable[[float, float], float]


@dataclass(frozen=True)
class Rule:
    """A formula of N parameters and D tokens: `lr(n, d)` as it is, `batch_tokens(n, d)` in tokens;
    the range is of N or of C = 6 N D.
    """

    name: str
    reference: str
    lr: Formula
    batch_tokens: Formula
    n_range: tuple[float, float] | None = None
    c_range: tuple[float, float] | None = None

    def outside(self, n: float, d: float) -> str:
        """Why N and D lie outside what was measured; empty when they do not."""
        for letter, value, ends in (("N", n, self.n_range), ("C", 6.0 * n * d, self.c_range)):
            if ends and not ends[0] <= value <= ends[1]:
                return (
                    f"{letter} = {format_count(value)} lies outside {format_count(ends[0])} to "
                    f"{format_count(ends[1])} ({self.reference})"
                )
        return ""


PUBLISHED = {
    rule.name: rule
    for rule in (
        Rule(
            "porian",
            "Porian 2024, section 3.4",
            lambda n, d: 0.0047 * (n / 108e6) ** (-1 / 3),
            lambda n, d: 160 * 2048 * (n / 108e6) ** (2 / 3),
            n_range=(5e6, 901e6),
        ),
        Rule(
            "step-law",
            "Li 2025, Step Law, eq. 1",
            lambda n, d: 1.79 * n**-0.713 * d**0.307,
            lambda n, d: 0.58 * d**0.571,
            n_range=(60e6, 1e9),
        ),
        Rule(
            "deepseek",
            "DeepSeek LLM 2024, eq. 1",
            lambda n, d: 0.3118 * (6.0 * n * d) ** -0.125,
            lambda n, d: 0.2920 * (6.0 * n * d) ** 0.3271,
            c_range=(1e17, 2e19),
        ),
    )
}


def evaluate(rule: PowerRule | float, n: float, d: float, batch_tokens: float = 1.0) -> float:
    """A measured rule at N, D and the tokens of a step, or a number as it is. Raises InfeasibleCell
    where its powers leave all numbers.
    """
    if not isinstance(rule, PowerRule):
        return rule
    try:
        value = rule.coef * n**rule.n_power * d**rule.d_power * batch_tokens**rule.batch_power
    except OverflowError:
        value = math.inf
    if not 0.0 < value < math.inf:
        raise InfeasibleCell(
            f"{rule.coef:g} x N^{rule.n_power:g} x D^{rule.d_power:g} is no number at N = "
            f"{n:.3g}, D = {d:.3g}"
        )
    return value


def outside(rule: PowerRule, n: float) -> str:
    """Why N lies outside the sizes that a measured rule was tuned at; empty when it does not."""
    if rule.n_range is None or rule.n_range[0] * 0.99 <= n <= rule.n_range[1] * 1.01:
        return ""
    low, high = (format_count(end) for end in rule.n_range)
    return f"N = {format_count(n)} lies outside {low} to {high}, where it was tuned"
