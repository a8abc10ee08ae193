"""What a fit document or a published law knows: the source of every prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.combination import Combination
from scaling.fit.fit_document import load
from scaling.fit.frontier.approaches import to_frontier
from scaling.fit.frontier.frontier import CLOSED, Cost, Frontier, frontier
from scaling.fit.laws.published import published
from scaling.fit.options import TABLE_LAWS
from scaling.warning import ResultWarning

PREFIX = "published:"


@dataclass(frozen=True)
class FittedLaw:
    """What a source knows: parameters and draws (R,) of a law, the frontier they imply, the range of its data, caveats.

    `optimum` is None for a law without N*(C); `roads` are all that the fit found, each (frontier, its draws);
    `accuracy` is the second stage of a two-stage fit; `noise` the standard deviation of one run's log loss, with the
    `noise_freedom` that replicates give it;
    `convention` says how its N ("params") and C ("flops") are counted, where runs of this program were fitted.
    """

    source: str
    law: str
    values: Mapping[str, float]
    draws: Mapping[str, np.ndarray] | None = None
    optimum: Frontier | None = None
    optimum_draws: Frontier | None = None
    cost: Cost = field(default_factory=Cost)
    ci: float = 0.95
    range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    model: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    basis: str = ""
    roads: Mapping[str, tuple[Frontier, Frontier | None]] = field(default_factory=dict)
    accuracy: Mapping[str, Any] | None = None
    noise: float | None = None
    convention: Mapping[str, str] = field(default_factory=dict)
    noise_freedom: int | None = None
    combination: Combination | None = None


def load_law(source: str | Mapping[str, Any]) -> FittedLaw:
    """What the file of a fit, a fit document itself, or a published law knows. Raises ScalingError that names the source."""
    if isinstance(source, Mapping):
        return _known("a fit of " + ", ".join(source["source"]["paths"]), source)
    if source.startswith(PREFIX):
        entry = published(source.removeprefix(PREFIX))
        try:
            optimum = entry.frontier()
        except ScalingError:
            optimum = (
                None  # a law in one variable: it predicts a loss, and _answer says what it needs
            )
        reach = {"flops": entry.flops_range} if entry.flops_range else {}
        return FittedLaw(
            source,
            entry.law,
            entry.values,
            optimum=optimum,
            range=reach,
            warnings=entry.notes,
            basis=f"{entry.reference}; {entry.convention}",
        )
    return _known(source, load(Path(source)))


def _known(source: str, document: Mapping[str, Any]) -> FittedLaw:
    if document["law"] in TABLE_LAWS:
        what = f"holds the law {document['law']}, which says nothing of N and D"
        raise ScalingError(
            what, where=source, remedy="give a fit of a law of the loss, such as chinchilla"
        )
    try:
        return _from_document(source, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"not a complete fit document: {error!r} is missing or of the wrong kind"
        raise ScalingError(
            what, where=source, remedy="write it again with: scaling fit SOURCE --out FIT.json"
        ) from None


def _from_document(source: str, document: Mapping[str, Any]) -> FittedLaw:
    cost = Cost(float(document["cost"]["c0"]), float(document["cost"]["p"]))
    values = {name: float(entry["value"]) for name, entry in document["params"].items()}
    listed = (document.get("bootstrap") or {}).get("draws") or {}
    draws = {name: np.array(column, float) for name, column in listed.items()} if listed else None
    road_only = document["approach"] != "parametric"
    optimum, spread = (_road_frontier if road_only else _law_frontier)(
        document["law"], values, draws, cost
    )
    roads = _roads(document)
    if optimum is not None and document["approach"] in roads:
        roads[document["approach"]] = optimum, spread  # a road keeps fewer draws than the fit
    reach = {
        name: (float(ends[0]), float(ends[1]))
        for name, ends in document["range"].items()
        if ends and None not in ends
    }
    warnings = (
        [f"the fit's status is {document['status']!r}: see its warnings"]
        if document["status"] != "ok"
        else []
    )
    holdout_warnings = (document.get("holdout") or {}).get("warnings") or []
    warnings += [str(ResultWarning.model_validate(each)) for each in holdout_warnings]
    convention = document["source"].get("convention") or {}
    basis = f"N = {convention.get('params', 'as given')}, C = {convention.get('flops', 'as given')}"
    law = "frontier" if road_only else document["law"]
    return FittedLaw(
        source,
        law,
        values,
        draws,
        optimum,
        spread,
        cost,
        float(document["ci"]),
        reach,
        document["source"].get("model") or {},
        tuple(warnings),
        basis,
        roads,
        document.get("accuracy"),
        (document.get("noise") or {}).get("sd"),
        convention,
        (document.get("noise") or {}).get("freedom"),
        Combination.model_validate(document["combination"])
        if document.get("combination")
        else None,
    )


Named = Mapping[str, Any]


def _roads(document: Mapping[str, Any]) -> dict[str, tuple[Frontier, Frontier | None]]:
    """The roads that were not refused."""
    found = {}
    for name, road in document["roads"].items():
        if road.get("powers"):
            draws = {
                letter: np.array(column, float)
                for letter, column in (road.get("draws") or {}).items()
            }
            found[name] = (to_frontier(road["powers"]), to_frontier(draws) if draws else None)
    return found


def _road_frontier(
    law: str, values: Named, draws: Named | None, cost: Cost
) -> tuple[Frontier | None, Frontier | None]:
    """The frontier of a document of approach 1 or 2: N* = n_coef C^a, D* = d_coef C^b."""
    return to_frontier(values), None if draws is None else to_frontier(draws)


def _law_frontier(
    law: str, values: Named, draws: Named | None, cost: Cost
) -> tuple[Frontier | None, Frontier | None]:
    if law not in CLOSED:
        return None, None
    return frontier(law, values, cost), None if draws is None else frontier(law, draws, cost)
