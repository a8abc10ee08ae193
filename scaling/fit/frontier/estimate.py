"""The frontier by one of the three approaches, as values and for the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scaling.fit.document import Estimate, subsample_draws
from scaling.fit.frontier.frontier import Frontier
from scaling.fit.result import BudgetMinimum, FrontierResult
from scaling.warning import ResultWarning, WarningCode, warn

DRAWS_KEPT = 200  # so that a prediction can show all three approaches with intervals
MIN_DRAWS = 0.95  # of the resamples, before a warning


@dataclass(frozen=True)
class FrontierEstimate:
    """The frontier by one approach with its bootstrap over runs; `frontier` is None where the
    approach is unavailable, for the reason given. `n_points` runs were used.
    """

    frontier: Frontier | None = None
    draws: Frontier | None = None
    minima: Sequence[BudgetMinimum] = ()
    warnings: Sequence[ResultWarning] = ()
    unavailable: str | None = None
    n_points: int | None = None

    @property
    def usable(self) -> list[BudgetMinimum]:
        """The minima that the frontier goes through."""
        return [minimum for minimum in self.minima if minimum.unavailable is None]

    def exponents(self, ci: float) -> dict[str, Estimate]:
        """The exponents {a, b} with their intervals; empty without a frontier."""
        return self.frontier.exponents(self.draws, ci) if self.frontier else {}

    def result(self, ci: float, resamples: int) -> FrontierResult:
        """The approach for the document; `resamples` were asked for."""
        frontier, draws, warnings = self.frontier, self.draws, list(self.warnings)
        given: dict[str, Any] = {}
        if draws is not None and len(draws.a) < MIN_DRAWS * resamples:
            message = f"only {len(draws.a)} of {resamples} resamples gave a frontier"
            warnings.append(warn(WarningCode.FAILED_RESAMPLES, message))
        if frontier is not None:
            powers = {name: float(value) for name, value in frontier.powers().items()}
            given = {
                **self.exponents(ci),
                "powers": powers,
                "draws": subsample_draws(draws.powers(), DRAWS_KEPT) if draws else None,
                "a_plus_b": float(frontier.a + frontier.b),
            }
        return FrontierResult(
            unavailable=self.unavailable,
            minima=list(self.minima),
            warnings=tuple(warnings),
            n_points=self.n_points,
            **given,
        )
