"""The three roads to the frontier side by side: computed, written for the document, and compared in a sentence."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling.fit.fit_document import interval, subsample_draws
from scaling.fit.frontier.envelope import envelope
from scaling.fit.frontier.frontier import Frontier, FrontierEstimate, Minimum
from scaling.fit.frontier.isoflop import isoflop
from scaling.fit.law_fit import LawFit, bootstrap_of, exponents
from scaling.fit.options import FitOptions
from scaling.points.points import Points
from scaling.points.source import Source

APART = 1.5  # N* of two roads at the largest budget
ROAD_DRAWS = 200  # kept of each road, so that a prediction can show all three with intervals


def frontier_header(road: FrontierEstimate, kind: str, options: FitOptions) -> dict[str, Any]:
    """What heads a document of approach 1 or 2: the powers N* = n_coef C^a and D* = d_coef C^b, and L* = E + K C^-gamma."""
    assert road.frontier is not None
    drawn = powers(road.draws) if road.draws else {}
    count = len(drawn["a"]) if drawn else 0
    how = "residual" if kind == "isoflop" else "tracks"
    return {
        "objective": {"name": "least-squares", "delta": None, "value": None},
        "params": {
            name: interval(float(value), drawn.get(name), options.ci)
            for name, value in powers(road.frontier).items()
        },
        "derived": exponents(road.frontier, road.draws, options.ci),
        "status": "ok",
        "warnings": list(road.warnings),
        **(
            {
                "bootstrap": bootstrap_of(
                    how, options.bootstrap, options.bootstrap - count, options, drawn
                )
            }
            if count
            else {}
        ),
    }


def powers(found: Frontier) -> dict[str, np.ndarray]:
    """A frontier by the names that documents give it; without a loss, without E, K and gamma."""
    named = {
        "a": found.a,
        "n_coef": np.exp(found.log_n),
        "b": found.b,
        "d_coef": np.exp(found.log_d),
    }
    if found.floor is None or found.log_gap is None or found.gamma is None:
        return named
    return named | {"E": found.floor, "K": np.exp(found.log_gap), "gamma": found.gamma}


def to_frontier(held: Mapping[str, Any]) -> Frontier:
    """The inverse of `powers`; `E`, `K` and `gamma` are there when the road gives a loss."""
    n, d = (
        (np.asarray(held["a"]), np.log(held["n_coef"])),
        (np.asarray(held["b"]), np.log(held["d_coef"])),
    )
    if "gamma" not in held:
        return Frontier(*n, *d)
    return Frontier(*n, *d, np.asarray(held["E"]), np.log(held["K"]), np.asarray(held["gamma"]))


def estimate_frontiers(
    source: Source, fitted: LawFit | None, refusal: str, options: FitOptions
) -> dict[str, FrontierEstimate]:
    """All three, the parametric one from the fitted law; those that the table does not allow carry the reason."""
    if fitted is None:
        parametric = FrontierEstimate("parametric", refused=refusal)
    elif fitted.optimum is None:
        parametric = FrontierEstimate(
            "parametric", refused=f"the law {options.law} has no compute-optimal N and D"
        )
    else:
        parametric = FrontierEstimate("parametric", fitted.optimum, fitted.optimum_draws)
    return {
        "parametric": parametric,
        "isoflop": isoflop(source.points, options.valley, options.bootstrap, options.seed),
        "envelope": envelope(source.points, source.curves, options.bootstrap, options.seed),
    }


def frontier_to_dict(road: FrontierEstimate, points: Points, options: FitOptions) -> dict[str, Any]:
    """A road for the document; valleys carry their runs, so that a report can draw them."""
    found, listed = road.frontier, "valleys" if road.name == "isoflop" else "minima"
    written: dict[str, Any] = {
        listed: [_minimum(each, points) for each in road.minima],
        "warnings": list(road.warnings),
    }
    if found is None:
        return {"refused": road.refused, **written}
    if road.draws is not None and len(road.draws.a) < 0.95 * options.bootstrap:
        written["warnings"].append(
            f"only {len(road.draws.a)} of {options.bootstrap} resamples gave a frontier"
        )
    return {
        **exponents(found, road.draws, options.ci),
        "powers": powers(found),
        **(
            {"draws": subsample_draws(powers(road.draws), ROAD_DRAWS)}
            if road.draws is not None
            else {}
        ),
        "n_star": {"coef": float(np.exp(found.log_n)), "exponent": float(found.a)},
        "d_star": {"coef": float(np.exp(found.log_d)), "exponent": float(found.b)},
        "a_plus_b": float(found.a + found.b),
        **written,
    }


def _minimum(minimum: Minimum, points: Points) -> dict[str, Any]:
    written: dict[str, Any] = {
        name: getattr(minimum, name) for name in ("flops", "n_star", "d_star", "loss_star")
    }
    if minimum.index is not None and points.n is not None:
        row = minimum.index[np.argsort(points.n[minimum.index], kind="stable")]
        written |= {
            "n_params": points.n[row],
            "tokens": np.asarray(points.d)[row],
            "loss": points.loss[row],
        }
    if minimum.curve is not None:
        written["curve"] = {"n_params": minimum.curve[0], "loss": minimum.curve[1]}
    return {**written, **({"refused": minimum.refused} if minimum.refused else {})}


def agreement(roads: Mapping[str, FrontierEstimate], points: Points, ci: float) -> str:
    """One sentence on whether the roads agree: exponents within their intervals, N* at the largest budget within 1.5 times."""
    held = {name: road for name, road in roads.items() if road.frontier is not None}
    if len(held) < 2 or points.c is None:
        missing = "; ".join(
            f"{name}: {road.refused}" for name, road in roads.items() if road.refused
        )
        return f"The roads cannot be compared ({missing})."
    top = float(points.c.max())
    sizes = {name: float(road.frontier.n_star(top)) for name, road in held.items() if road.frontier}
    found = {name: exponents(road.frontier, road.draws, ci)["a"] for name, road in held.items()}
    apart = [
        f"{one} and {two}"
        for one, two in itertools.combinations(held, 2)
        if _disagree(found[one], found[two], sizes[one] / sizes[two])
    ]
    listed = ", ".join(f"{name} {found[name]['value']:.3f}" for name in held)
    spread = max(sizes.values()) / min(sizes.values())
    told = f"a is {listed}; N* at the largest budget differs by a factor of {spread:.2f}."
    return (
        f"The roads disagree ({'; '.join(apart)}): {told}" if apart else f"The roads agree: {told}"
    )


def _disagree(one: Mapping[str, Any], two: Mapping[str, Any], ratio: float) -> bool:
    """Whether two exponents' intervals (or, without, a margin of 0.05) are disjoint, or the sizes lie too far apart."""
    (low, high), (least, most) = (
        (each["lo"], each["hi"])
        if each["lo"] is not None
        else (each["value"] - 0.025, each["value"] + 0.025)
        for each in (one, two)
    )
    return max(low, least) > min(high, most) + 1e-3 or max(ratio, 1 / ratio) > APART
