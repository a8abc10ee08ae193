"""All sizes and tokens that reach one loss: what a smaller model needs to be as good, and the size
that costs least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.document import Interval
from scaling.formatting import format_count
from scaling.predict.law_source import FittedLaw
from scaling.predict.prediction import SmallerModel

SPAN = np.log(1e4)  # sizes are sought this many times below and above
POINTS, PASSES, NARROWING = 401, 8, 50.0


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
        return np.where(rest > 0, np.where(rest > 0, rest, 1.0) / self.b, np.nan) ** (
            -1 / self.beta
        )

    @property
    def critical(self) -> np.ndarray:
        """The size at and below which no number of tokens reaches the loss (De Vries 2023)."""
        return np.asarray((self.a / self.whole) ** (1 / self.alpha))


INNER_SUM = ("chinchilla", "chinchilla-tied", "data-constrained", "skaling", "skaling-tied")


def equal_loss(law: str, values: Mapping[str, Any], n: Any, d: Any) -> IsoLossCurve:
    """What has the loss of N parameters and D fresh tokens, for the laws of Chinchilla's form and
    for Kaplan's L(N,D).

    `values` are reported parameters, numbers or arrays over draws (R,), as are `n` and `d`. Raises
    ScalingError for another law.
    """
    if law == "kaplan":  # L^(1/alpha_D) is a sum of two powers (Kaplan 2020, eq. 1.5)
        ratio = values["alpha_N"] / values["alpha_D"]
        curve = IsoLossCurve(values["N_c"] ** ratio, ratio, values["D_c"], 1.0, 0.0)
    elif law in INNER_SUM:
        curve = IsoLossCurve(
            values["A"], values["alpha"], values["B"], values.get("beta", values["alpha"]), 0.0
        )
    else:
        raise ScalingError(
            f"the law {law} does not say which N and D have one loss",
            remedy="use a fit of the law chinchilla (--approach parametric)",
        )
    whole = curve.a * np.power(n, -curve.alpha) + curve.b * np.power(d, -curve.beta)
    return IsoLossCurve(curve.a, curve.alpha, curve.b, curve.beta, whole)


def cheapest(total: Callable[[np.ndarray], np.ndarray], n: float) -> float:
    """The size within a factor of 1e4 of `n` at which `total(sizes)`, convex in log N and NaN where
    impossible, is least.
    """
    centre, span = np.log(n), SPAN
    for _ in range(PASSES):
        grid = np.exp(centre + np.linspace(-span, span, POINTS))
        centre, span = (
            float(np.log(grid[np.argmin(np.nan_to_num(total(grid), nan=np.inf))])),
            span / NARROWING,
        )
    return float(np.exp(centre))


WHERE = "--smaller"


def fractions_of(given: object) -> tuple[float, ...]:
    """Fractions in (0, 1] from text such as "0.5,0.3", or from numbers. Raises ScalingError naming
    the one that is none.
    """
    parts = (
        given.split(",")
        if isinstance(given, str)
        else given
        if isinstance(given, Sequence)
        else [given]
    )
    fractions = []
    for part in parts:
        try:
            value = float(part)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            value = math.nan
        if not 0 < value <= 1:
            raise ScalingError(
                f"{str(part)[:40]!r} is not a fraction of a size",
                where=WHERE,
                remedy="give numbers from 0 to 1, such as 0.5,0.3",
            )
        fractions.append(value)
    return tuple(fractions)


def prices(
    law: FittedLaw, n: float, d: float, fractions: Sequence[float], flops: float | None = None
) -> list[SmallerModel]:
    """One smaller model for each fraction of `n`.

    Tokens, FLOPs and the extra compute are estimates {value, lo, hi}, of the draws where (n, d) is
    the optimum of `flops`; value is None at and below the critical size. Raises ScalingError for a
    law that does not say which N and D have one loss.
    """
    same = equal_loss(law.law, law.values, n, d)
    drawn = _drawn(law, n, d, flops)
    return [_row(law, same, drawn, n, d, fraction) for fraction in fractions]


def check_reachable(rows: Sequence[SmallerModel], n: float) -> None:
    """Raise ScalingError naming the first size that no number of tokens brings to the loss, and the
    critical size.
    """
    for row in rows:
        if row.tokens.value is None:
            least = row.critical_fraction
            what = (
                f"{row.fraction:g} of {format_count(n)} parameters cannot reach this loss on "
                "any number of tokens"
            )
            raise ScalingError(
                what,
                where=WHERE,
                remedy=(
                    f"give fractions above {least:.3g}: the critical size is "
                    f"{format_count(least * n)}"
                ),
            )


def _drawn(
    law: FittedLaw, n: float, d: float, flops: float | None
) -> tuple[IsoLossCurve, Any, Any] | None:
    """The same question to every draw of the law, each with its own optimum where a budget is
    asked.
    """
    if not law.draws:
        return None
    if flops is not None and law.optimum_draws is not None:
        sizes, tokens = law.optimum_draws.n_star(flops), law.optimum_draws.d_star(flops)
    else:
        sizes, tokens = np.asarray(n), np.asarray(d)
    return equal_loss(law.law, law.draws, sizes, tokens), sizes, tokens


def _row(
    law: FittedLaw,
    same: IsoLossCurve,
    drawn: tuple[IsoLossCurve, Any, Any] | None,
    n: float,
    d: float,
    fraction: float,
) -> SmallerModel:
    size = fraction * n
    needed = _price(law, same, n, d, fraction)
    spread = (
        (None, None, None) if drawn is None else _price(law, drawn[0], drawn[1], drawn[2], fraction)
    )
    tokens, flops, extra = (
        _estimate(value, draws, law.ci) for value, draws in zip(needed, spread, strict=True)
    )
    return SmallerModel(
        fraction=fraction,
        n_params=size,
        tokens=tokens,
        tokens_per_param=None if tokens.value is None else tokens.value / size,
        flops=flops,
        extra_compute_percent=extra,
        critical_fraction=float(same.critical / n),
    )


def _price(
    law: FittedLaw, same: IsoLossCurve, n: Any, d: Any, fraction: float
) -> tuple[Any, Any, Any]:
    """Tokens, FLOPs and extra compute in percent of `fraction` of n; NaN where the loss is out of
    reach.
    """
    tokens = same.tokens(fraction * n)
    flops = law.cost.flops(fraction * n, tokens)
    return tokens, flops, 100.0 * (flops / law.cost.flops(n, d) - 1.0)


def _estimate(value: Any, draws: np.ndarray | None, ci: float) -> Interval:
    """An interval whose `hi` may be open: a draw that cannot reach the loss costs
    infinitely much.
    """
    if not math.isfinite(float(value)):
        return Interval(value=None, lo=None, hi=None)
    if draws is None or np.size(draws) < 2:
        return Interval(value=float(value), lo=None, hi=None)
    dear = np.where(np.isnan(draws), np.inf, draws)
    lo, hi = (
        float(end) for end in np.quantile(dear, [(1 - ci) / 2, (1 + ci) / 2], method="nearest")
    )
    return Interval(
        value=float(value),
        lo=min(lo, float(value)),
        hi=max(hi, float(value)) if math.isfinite(hi) else None,
    )
