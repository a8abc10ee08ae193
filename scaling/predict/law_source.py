"""A fit or a published law as the source of predictions: parameters, draws, frontier, and range of
the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from scaling.accounting import FlopsConvention, NConvention
from scaling.errors import ScalingError
from scaling.fit.combination import Combination
from scaling.fit.document import FitStatus
from scaling.fit.fit_options import TABLE_LAWS
from scaling.fit.frontier.frontier import Cost, Frontier, frontier_of_powers
from scaling.fit.laws.law import Law
from scaling.fit.laws.laws import LAWS
from scaling.fit.laws.published import PUBLISHED, published
from scaling.fit.result import (
    WRITE_AGAIN,
    AccuracyStage,
    Convention,
    FitResult,
    ModelContext,
)
from scaling.warning import ResultWarning, WarningCode, warn

if TYPE_CHECKING:
    from scaling.config import Sweep

PREFIX = "published:"
CARRIED = (  # from fit to prediction
    WarningCode.HOLDOUT_COVERAGE,
    WarningCode.HOLDOUT_ONE_SIDED,
    WarningCode.UNTESTED,
    WarningCode.MISSED_BY_ALL,
)
FRONTIER_ONLY = "frontier"  # in place of a law, where approach 1 or 2 heads the fit


@dataclass(frozen=True)
class FittedLaw:
    """Parameters and draws (R,) of a law, the frontier they imply, the range of its data, and
    caveats.

    `optimum` is None for a law without N*(C); `frontier` has its rows and, after them, those of
    each draw (1 + R,), as the frontiers of all `approaches` that the fit has. `accuracy` is the
    second stage of a two-stage fit; `noise` the standard deviation of one run's log loss, with the
    `noise_degrees_of_freedom` that replicates give it; `convention` says how its N and C are
    counted; `paths` are those of the fit and of its data.
    """

    source: str
    law: str
    values: Mapping[str, float]
    draws: Mapping[str, np.ndarray] | None = None
    optimum: Frontier | None = None
    frontier: Frontier | None = None
    cost: Cost = field(default_factory=Cost)
    ci: float = 0.95
    range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    model: ModelContext = field(default_factory=ModelContext)
    warnings: tuple[ResultWarning, ...] = ()
    basis: str = ""
    approaches: Mapping[str, Frontier] = field(default_factory=dict)
    accuracy: AccuracyStage | None = None
    noise: float | None = None
    noise_degrees_of_freedom: int | None = None
    combination: Combination | None = None
    convention: Convention = field(default_factory=Convention)
    paths: tuple[str, ...] = ()

    @property
    def formula(self) -> Law | None:
        """The law of the loss; None where approach 1 or 2 heads the fit."""
        return LAWS.get(self.law)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The reported parameters and, after each, its draws (1 + R,)."""
        return with_draws(self.values, self.draws)

    def outcome(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """What the law gives at inputs (K,) by letter: (K,), of its reported parameters."""
        return self.outcomes(inputs, self.values)

    def outcomes(
        self, inputs: Mapping[str, np.ndarray], values: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """The same of the reported parameters and, after them, of every draw: (1 + R, K)."""
        law = self.formula
        if law is None:
            raise ScalingError(
                f"holds no law of the loss in N and D ({self.law})",
                where=self.source,
                remedy="fit with --approach parametric, or ask for --flops alone",
            )
        theta = law.theta(self.parameters if values is None else values)
        return np.asarray(law.predict(theta, inputs))

    @property
    def tested_decades(self) -> float | None:
        """Over how many decades its runs tested forecasts; None where no law was weighed, or where
        a warning says that too few budgets could.
        """
        is_said = any(warning.code is WarningCode.UNTESTED for warning in self.warnings)
        return None if self.combination is None or is_said else self.combination.tested

    def counting(self) -> tuple[NConvention, FlopsConvention]:
        """How the fit counts N and C; a published law or a foreign table by the default counts."""
        params, flops = self.convention.params, self.convention.flops
        return (
            cast(NConvention, params if params in get_args(NConvention) else "with_head"),
            cast(FlopsConvention, flops if flops in get_args(FlopsConvention) else "exact"),
        )

    def sweep(self) -> Sweep | None:
        """The sweep that the fit's runs were planned from, as it was tuned, where it is here."""
        from scaling.config.sweep_file import sweep_in

        return sweep_in(self.paths)


def with_draws(values: Mapping[str, Any], draws: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Each value and, after it, its draws (1 + R,)."""
    return {
        name: np.array([value, *(draws[name] if draws else ())], float)
        for name, value in values.items()
    }


def load_law(source: str | FitResult | Mapping[str, Any]) -> FittedLaw:
    """The law of a fit (its file, its result, its document) or of `published:NAME`.

    Raises ScalingError that names the source.
    """
    if isinstance(source, FitResult):
        return _of_fit("a fit of " + ", ".join(source.source.paths), source)
    if isinstance(source, Mapping):
        return load_law(FitResult.parse(source, "fit document", WRITE_AGAIN))
    if not source.startswith(PREFIX):
        if source in PUBLISHED and not Path(source).exists():
            remedy = f"of the published law write {PREFIX}{source}"
            raise ScalingError("no such file", where=source, remedy=remedy)
        return _of_fit(source, FitResult.load(Path(source)))
    entry = published(source.removeprefix(PREFIX))
    try:
        optimum = entry.frontier()
    except ScalingError:  # a law in one variable: it predicts a loss
        optimum = None
    return FittedLaw(
        source=source,
        law=entry.law,
        values=entry.values,
        optimum=optimum,
        frontier=optimum,
        range={"flops": entry.flops_range} if entry.flops_range else {},
        warnings=tuple(warn(WarningCode.PUBLISHED_CAVEAT, note) for note in entry.notes),
        basis=f"{entry.reference}; {entry.convention}",
    )


def _of_fit(source: str, result: FitResult) -> FittedLaw:
    if result.law in TABLE_LAWS:
        raise ScalingError(
            f"holds the law {result.law}, which says nothing of N and D",
            where=source,
            remedy="give a fit of a law of the loss, such as chinchilla",
        )
    values = {name: float(np.array(each.value, float)) for name, each in result.params.items()}
    drawn = result.bootstrap.draws if result.bootstrap else {}
    draws = {name: np.array(column, float) for name, column in drawn.items()} or None
    convention, folder = result.source.convention, result.results_folder
    paths = (*([str(folder)] if folder else []), *result.source.paths)
    measured = partial(frontier_of_powers, cost=result.cost)
    law, frontier_at = result.law, None
    if result.approach != "parametric":
        law, frontier_at = FRONTIER_ONLY, measured
    elif law in LAWS and LAWS[law].has_frontier:
        frontier_at = partial(LAWS[law].frontier, cost=result.cost)
    optimum, frontier = None, None
    try:
        if frontier_at:
            optimum, frontier = frontier_at(values), frontier_at(with_draws(values, draws))
        approaches: dict[str, Frontier] = {
            name: measured(with_draws(entry.powers, entry.draws))
            for name, entry in result.approaches.items()
            if entry.powers
        }
    except KeyError as error:
        raise ScalingError(
            f"the parameter {error} is missing", where=source, remedy=WRITE_AGAIN
        ) from None
    if frontier is not None and result.approach in approaches:
        approaches[result.approach] = frontier  # an approach keeps fewer draws than the fit
    warnings = [each for each in result.warnings if each.code in CARRIED]
    if result.status is not FitStatus.OK:
        message = f"the fit's status is {result.status.value!r}: see its warnings"
        warnings.insert(0, warn(WarningCode.FIT_STATUS, message, status=result.status.value))
    noise, combined = result.noise, result.combination
    return FittedLaw(
        source=source,
        law=law,
        values=values,
        draws=draws,
        optimum=optimum,
        frontier=frontier,
        cost=result.cost,
        ci=result.ci,
        range=result.range,
        model=result.source.model,
        warnings=tuple(warnings),
        basis=f"N = {convention.params or 'as given'}, C = {convention.flops or 'as given'}",
        approaches=approaches,
        accuracy=result.accuracy,
        noise=noise.sd if noise else None,
        noise_degrees_of_freedom=noise.degrees_of_freedom if noise else None,
        convention=convention,
        combination=combined and combined.model_copy(update={"cost": result.cost}),
        paths=paths,
    )
