"""All sizes and tokens that reach one loss: what a smaller model needs to be as good, and the size
that costs least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def equal_loss_of(
    law: FittedLaw, values: Mapping[str, Any], n: Any, d: Any, is_optimum: bool
) -> IsoLossCurve:
    """The same of a fit. The optimum of several laws together is none of the headline law's own:
    of this law only the exponents are taken, and the curve on which (n, d) costs least.
    """
    curve = equal_loss(law.law, values, n, d)
    if law.combination is None or not is_optimum:
        return curve
    alpha, beta, p = curve.alpha, curve.beta, law.cost.at(n)[1]
    return IsoLossCurve(p * beta * n**alpha, alpha, alpha * d**beta, beta, p * beta + alpha)


def with_demand(
    law: FittedLaw, n: float, d: float, demand: float, is_optimum: bool = False
) -> Inference:
    """Minimise c0 N^p D + 2 N `demand` over N at the loss of (n, d), where D follows from the law
    (Sardana 2024, eq. 3). Raises ScalingError for a law that does not say which N and D have one
    loss.
    """
    curve = equal_loss_of(law, law.values, n, d, is_optimum)

    def total(size: Any) -> Any:  # convex in log N
        return law.cost.flops(size, curve.tokens(size)) + FORWARD * size * demand

    best, span = n, SPAN
    for _ in range(PASSES):
        sizes = best * np.exp(np.linspace(-span, span, POINTS))
        best = float(sizes[np.argmin(np.nan_to_num(total(sizes), nan=np.inf))])
        span /= NARROWING
    least, base = float(total(best)), float(total(n))
    return Inference(
        demand_tokens=demand,
        n_params=best,
        tokens=float(curve.tokens(best)),
        flops_total=least,
        flops_total_without=base,
        flops_saved=base - least,
        saved_fraction=1 - least / base,
    )


def prices(
    law: FittedLaw, n: float, d: float, fractions: Sequence[float], flops: float | None = None
) -> list[SmallerModel]:
    """One smaller model for each fraction of `n`.

    Tokens, FLOPs and the extra compute are estimates {value, lo, hi}, of the draws where (n, d) is
    the optimum of `flops`. Raises ScalingError for a fraction at or below the critical size, and
    for a law that does not say which N and D have one loss.
    """
    sizes: Any = n
    tokens: Any = d
    if flops is not None and law.frontier is not None and law.draws:  # each draw has its optimum
        optima = law.frontier.n_star(flops), law.frontier.d_star(flops)
        sizes, tokens = (value * rows / rows[0] for value, rows in zip((n, d), optima, strict=True))
    curve = equal_loss_of(law, law.parameters, sizes, tokens, flops is not None)
    whole, rows = law.cost.flops(sizes, tokens), []
    for fraction in fractions:
        needed = curve.tokens(fraction * sizes)
        spent = law.cost.flops(fraction * sizes, needed)
        extra = 100.0 * (spent / whole - 1.0)
        least, critical = _estimate(needed, law.ci), float(curve.critical[0] / n)
        if least.value is None:
            what = (
                f"{fraction:g} of {format_count(n)} parameters cannot reach this loss on any "
                "number of tokens"
            )
            remedy = f"give fractions above {critical:.3g}: the critical size is "
            raise ScalingError(what, where="--smaller", remedy=remedy + format_count(critical * n))
        rows.append(
            SmallerModel(
                fraction=fraction,
                n_params=fraction * n,
                tokens=least,
                tokens_per_param=least.value / (fraction * n),
                flops=_estimate(spent, law.ci),
                extra_compute_percent=_estimate(extra, law.ci),
                critical_fraction=critical,
            )
        )
    return rows


def _estimate(values: np.ndarray, ci: float) -> Interval:
    """The interval of a value and its draws (1 + R,), whose `hi` may be open: a draw that cannot
    reach the loss costs infinitely much.
    """
    if len(values) < 3 or not np.isfinite(values[0]):
        return Interval(value=values[0], lo=None, hi=None)
    drawn = np.where(np.isnan(values[1:]), np.inf, values[1:])
    return open_interval(values[0], drawn, ci, method="nearest")
