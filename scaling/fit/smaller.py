"""The price of a smaller model (De Vries 2023): the tokens that bring it to the same loss, and what they cost in compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.equal_loss import EqualLoss, equal_loss
from scaling.fit.knowledge import Knowledge
from scaling.quantity import format_count

WHERE = "--smaller"


def fractions_of(given: object) -> tuple[float, ...]:
    """Fractions in (0, 1] from text such as "0.5,0.3", or from numbers. Raises ScalingError naming the one that is none."""
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, Sequence) else [given]
    found = []
    for part in parts:
        try:
            value = float(part)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            value = math.nan
        if not 0 < value <= 1:
            raise ScalingError(
                f"{str(part)[:40]!r} is not a fraction of a size", where=WHERE, remedy="give numbers from 0 to 1, such as 0.5,0.3"
            )
        found.append(value)
    return tuple(found)


def prices(known: Knowledge, n: float, d: float, fractions: Sequence[float], flops: float | None = None) -> list[dict[str, Any]]:
    """One row a fraction of `n`: {fraction, n_params, tokens, tokens_per_param, flops, extra_compute_percent, critical_fraction}.

    Tokens, FLOPs and the extra compute are estimates {value, lo, hi}, of the draws where (n, d) is the optimum of `flops`; value
    is None at and below the critical size. Raises ScalingError for a law that does not say which N and D have one loss.
    """
    same = equal_loss(known.law, known.values, n, d)
    drawn = _drawn(known, n, d, flops)
    return [_row(known, same, drawn, n, d, fraction) for fraction in fractions]


def check_reachable(rows: Sequence[dict[str, Any]], n: float) -> None:
    """Raise ScalingError naming the first size that no number of tokens brings to the loss, and the critical size."""
    for row in rows:
        if row["tokens"]["value"] is None:
            least = row["critical_fraction"]
            what = f"{row['fraction']:g} of {format_count(n)} parameters cannot reach this loss on any number of tokens"
            raise ScalingError(
                what, where=WHERE, remedy=f"give fractions above {least:.3g}: the critical size is {format_count(least * n)}"
            )


def _drawn(known: Knowledge, n: float, d: float, flops: float | None) -> tuple[EqualLoss, Any, Any] | None:
    """The same question to every draw of the law, each with its own optimum where a budget is asked."""
    if not known.draws:
        return None
    if flops is not None and known.optimum_draws is not None:
        sizes, tokens = known.optimum_draws.n_star(flops), known.optimum_draws.d_star(flops)
    else:
        sizes, tokens = np.asarray(n), np.asarray(d)
    return equal_loss(known.law, known.draws, sizes, tokens), sizes, tokens


def _row(
    known: Knowledge, same: EqualLoss, drawn: tuple[EqualLoss, Any, Any] | None, n: float, d: float, fraction: float
) -> dict[str, Any]:
    size = fraction * n
    needed = _price(known, same, n, d, fraction)
    spread = (None, None, None) if drawn is None else _price(known, drawn[0], drawn[1], drawn[2], fraction)
    tokens, flops, extra = (_estimate(value, draws, known.ci) for value, draws in zip(needed, spread, strict=True))
    ratio = None if tokens["value"] is None else tokens["value"] / size
    return {"fraction": fraction, "n_params": size, "tokens": tokens, "tokens_per_param": ratio, "flops": flops,
            "extra_compute_percent": extra, "critical_fraction": float(same.critical / n)}  # fmt: skip


def _price(known: Knowledge, same: EqualLoss, n: Any, d: Any, fraction: float) -> tuple[Any, Any, Any]:
    """Tokens, FLOPs and extra compute in percent of `fraction` of n; NaN where the loss is out of reach."""
    tokens = same.tokens(fraction * n)
    flops = known.cost.flops(fraction * n, tokens)
    return tokens, flops, 100.0 * (flops / known.cost.flops(n, d) - 1.0)


def _estimate(value: Any, draws: np.ndarray | None, ci: float) -> dict[str, float | None]:
    """{value, lo, hi}; a draw that cannot reach the loss counts as infinitely dear, so that `hi` may be None beside a `lo`."""
    if not math.isfinite(float(value)):
        return {"value": None, "lo": None, "hi": None}
    if draws is None or np.size(draws) < 2:
        return {"value": float(value), "lo": None, "hi": None}
    dear = np.where(np.isnan(draws), np.inf, draws)
    lo, hi = (float(end) for end in np.quantile(dear, [(1 - ci) / 2, (1 + ci) / 2], method="nearest"))
    return {"value": float(value), "lo": min(lo, float(value)), "hi": max(hi, float(value)) if math.isfinite(hi) else None}
