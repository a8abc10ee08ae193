"""All sizes and tokens that reach one loss: what a smaller model needs to be as good, and the size
that costs least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Interval
from scaling.fit.laws.laws import LAWS
from scaling.fit.significance import open_interval
from scaling.formatting import format_count
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import Inference, SmallerModel

SPAN = np.log(1e4)  # sizes are sought this many times below and above
POINTS, PASSES, NARROWING = 401, 8, 50.0
WHERE = "--smaller"
FORWARD = 2.0  # FLOPs a parameter and token when a model is used


@dataclass(frozen=True)
class IsoLossCurve:
    """The pairs N, D with a N^-alpha + b D^-beta = whole; numbers, or arrays over draws (R,)."""

    a: Any
    alpha: Any
    b: Any
    beta: Any
    whole: Any

    def tokens(self, n: Any) -> np.ndarray:
        """D that N parameters need; NaN where no number of tokens is enough."""
        rest = np.asarray(self.whole - self.a * np.power(n, -self.alpha))
        return np.where(rest > 0, rest / self.b, np.nan) ** (-1 / self.beta)

    def cheapest(
        self, costs: Callable[[Any, Any], Sequence[Any]], n: float
    ) -> tuple[float, float, list[float], float]:
        """The N and D of the curve at which the sum of `costs(N, D)`, convex in log N, is least,
        the costs there, and their sum at `n`; N lies within a factor of 1e4 of `n`.
        """
        best, span = n, SPAN
        for _ in range(PASSES):
            sizes = best * np.exp(np.linspace(-span, span, POINTS))
            total = sum(costs(sizes, self.tokens(sizes)))
            best = float(sizes[np.argmin(np.nan_to_num(total, nan=np.inf))])
            span /= NARROWING
        tokens, total = float(self.tokens(best)), float(sum(costs(n, self.tokens(n))))
        return best, tokens, [float(each) for each in costs(best, tokens)], total

    @property
    def critical(self) -> np.ndarray:
        """The size at and below which no number of tokens reaches the loss (De Vries 2023)."""
        return np.asarray((self.a / self.whole) ** (1 / self.alpha))


def equal_loss(law: str, values: Mapping[str, Any], n: Any, d: Any) -> IsoLossCurve:
    """What has the loss of N parameters and D fresh tokens, for a law that is a sum of a power of
    N and one of D.

    `values` are reported parameters, numbers or arrays over draws (R,), as are `n` and `d`. Raises
    ScalingError for another law.
    """
    powers = LAWS[law].power_sum(values) if law in LAWS else None
    if powers is None:
        raise ScalingError(
            f"the law {law} does not say which N and D have one loss",
            remedy="use a fit of the law chinchilla (--approach parametric)",
        )
    a, alpha, b, beta = np.exp(powers.log_a), powers.alpha, np.exp(powers.log_b), powers.beta
    return IsoLossCurve(a, alpha, b, beta, a * np.power(n, -alpha) + b * np.power(d, -beta))


def with_demand(law: FittedLaw, n: float, d: float, demand: float) -> Inference:
    """Minimise c0 N^p D + 2 N `demand` over N at the loss of (n, d), where D follows from the law
    (Sardana 2024, eq. 3). Raises ScalingError for a law that does not say which N and D have one
    loss.
    """

    def flops(size: Any, tokens: Any) -> tuple[Any, Any]:
        return law.cost.flops(size, tokens), FORWARD * size * demand

    best, tokens, parts, base = equal_loss(law.law, law.values, n, d).cheapest(flops, n)
    return Inference(
        demand_tokens=demand,
        n_params=best,
        tokens=tokens,
        flops_total=sum(parts),
        flops_total_without=base,
        flops_saved=base - sum(parts),
        saved_fraction=1 - sum(parts) / base,
    )


def fractions_of(given: object) -> list[float]:
    """Fractions in (0, 1] from text such as "0.5,0.3", or from numbers. Raises ScalingError naming
    the one that is none.
    """
    parts = given.split(",") if isinstance(given, str) else given
    fractions = []
    for part in parts if isinstance(parts, Iterable) else [parts]:
        try:
            fractions.append(float(part))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            fractions.append(np.nan)
        if not 0 < fractions[-1] <= 1:
            raise ScalingError(
                f"{str(part)[:40]!r} is not a fraction of a size",
                where=WHERE,
                remedy="give numbers from 0 to 1, such as 0.5,0.3",
            )
    return fractions


def prices(
    law: FittedLaw, n: float, d: float, fractions: Sequence[float], flops: float | None = None
) -> list[SmallerModel]:
    """One smaller model for each fraction of `n`.

    Tokens, FLOPs and the extra compute are estimates {value, lo, hi}, of the draws where (n, d) is
    the optimum of `flops`; value is None at and below the critical size. Raises ScalingError for a
    law that does not say which N and D have one loss.
    """
    sizes: Any = n
    tokens: Any = d
    if flops is not None and law.frontier is not None and law.draws:  # each draw has its optimum
        sizes = np.r_[n, law.frontier.n_star(flops)[1:]]
        tokens = np.r_[d, law.frontier.d_star(flops)[1:]]
    curve = equal_loss(law.law, law.parameters, sizes, tokens)
    whole, rows = law.cost.flops(sizes, tokens), []
    for fraction in fractions:
        needed = curve.tokens(fraction * sizes)
        spent = law.cost.flops(fraction * sizes, needed)
        extra = 100.0 * (spent / whole - 1.0)
        least = _estimate(needed, law.ci)
        rows.append(
            SmallerModel(
                fraction=fraction,
                n_params=fraction * n,
                tokens=least,
                tokens_per_param=None if least.value is None else least.value / (fraction * n),
                flops=_estimate(spent, law.ci),
                extra_compute_percent=_estimate(extra, law.ci),
                critical_fraction=float(curve.critical[0] / n),
            )
        )
    return rows


def check_reachable(rows: Sequence[SmallerModel], n: float) -> None:
    """Raise ScalingError naming the first size that no number of tokens brings to the loss, and the
    critical size.
    """
    for row in rows:
        if row.tokens.value is None:
            what = (
                f"{row.fraction:g} of {format_count(n)} parameters cannot reach this loss on "
                "any number of tokens"
            )
            least = row.critical_fraction
            remedy = f"give fractions above {least:.3g}: the critical size is "
            raise ScalingError(what, where=WHERE, remedy=remedy + format_count(least * n))


def _estimate(values: np.ndarray, ci: float) -> Interval:
    """The interval of a value and its draws (1 + R,), whose `hi` may be open: a draw that cannot
    reach the loss costs infinitely much.
    """
    if len(values) < 3 or not np.isfinite(values[0]):
        return Interval(value=values[0], lo=None, hi=None)
    drawn = np.where(np.isnan(values[1:]), np.inf, values[1:])
    return open_interval(values[0], drawn, ci, method="nearest")
