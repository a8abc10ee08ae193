"""`scaling fit`: sources and options in, the fit document out. All three roads, Kaplan's law and the hold-out, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

import scaling
from scaling.config import FlopsConvention, NConvention
from scaling.errors import ScalingError, unknown
from scaling.fit.bootstrap import Draws, bootstrap
from scaling.fit.document import KEPT_POINTS, SCHEMA, interval, kept_draws, plain
from scaling.fit.envelope import envelope
from scaling.fit.estimate import Estimate, estimate
from scaling.fit.frontier import CLOSED, Cost, Frontier, Minimum, Road, affordable, fit_cost, frontier
from scaling.fit.holdout import holdout
from scaling.fit.isoflop import grid_bias, isoflop
from scaling.fit.laws import LAWS
from scaling.fit.objectives import OBJECTIVES
from scaling.fit.profile import profile
from scaling.fit.table import Source, SourceOptions, parse_columns, read_source
from scaling.results import Points

APPROACHES = ("parametric", "isoflop", "envelope")
APART = 1.5  # N* of two roads at the largest budget
BESIDE = 100  # resamples of a law fitted beside the one asked for


@dataclass(frozen=True)
class FitOptions:
    """The options of `scaling fit`; every value is checked before a file is opened. Raises ScalingError."""

    law: str = "chinchilla"
    approach: str = "parametric"
    objective: str = "huber-log"
    delta: float = 1e-3
    columns: str | None = None
    params: str = "with_head"
    flops: str = "exact"
    where: str | None = None
    drop_highest: int = 0
    holdout: str | int | None = None
    bootstrap: int = 1000
    ci: float = 0.95
    seed: int = 0
    cluster: str | None = None

    def __post_init__(self) -> None:
        known = {
            "law": LAWS,
            "approach": APPROACHES,
            "objective": OBJECTIVES,
            "params": get_args(NConvention),
            "flops": get_args(FlopsConvention),
        }
        for name, words in known.items():
            if getattr(self, name) not in words:
                raise unknown(name, getattr(self, name), words, where=f"--{name}")
        limits = {"delta": (0, 1e6), "ci": (0, 1), "bootstrap": (-1, 100_001), "seed": (-1, 2**32), "drop_highest": (-1, 10**7)}
        for name, (low, high) in limits.items():
            if not low < getattr(self, name) < high:
                where = f"--{name.replace('_', '-')}"
                raise ScalingError(f"{getattr(self, name)} is out of range", where=where, remedy=f"between {low} and {high}, ends excluded")
        self.held_out()

    def held_out(self) -> int:
        """How many of the largest budgets are left out; 0 for none, 1 unless said otherwise."""
        text = "1" if self.holdout is None else str(self.holdout).strip().lower()
        if text == "none":
            return 0
        if not text.isdigit() or not 1 <= int(text) <= 100:
            raise ScalingError(
                f"{self.holdout!r} is neither none nor a number of budgets", where="--holdout", remedy="write none, 1, 2, ..."
            )
        return int(text)

    def source(self) -> SourceOptions:
        """What concerns the reading of the source."""
        columns = parse_columns(self.columns) if self.columns else {}
        return SourceOptions(columns, self.params, self.flops, self.where, self.drop_highest, self.cluster)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Fitted:
    """A law fitted to points, with its draws as reported parameters and the frontier that follows (None: it has none)."""

    estimate: Estimate
    draws: Draws | None
    drawn: Mapping[str, np.ndarray] | None
    cost: Cost
    optimum: Frontier | None
    optimum_draws: Frontier | None


def fit(paths: Sequence[Path], options: FitOptions) -> dict[str, Any]:
    """The fit document (DESIGN 8) of sources of one kind. Raises ScalingError that names them when nothing can be fitted."""
    source = read_source(paths, options.source())
    with _named(paths):
        return plain(_document(source, options))


@contextmanager
def _named(paths: Sequence[Path]) -> Iterator[None]:
    """An error without a place is given that of the sources."""
    try:
        yield
    except ScalingError as error:
        where = error.where or ", ".join(str(path) for path in paths)
        raise ScalingError(error.what, where=where, remedy=error.remedy, exit_code=error.exit_code) from None


def _document(source: Source, options: FitOptions) -> dict[str, Any]:
    points, kind = source.points, options.approach
    fitted, refusal = _parametric(points, options)
    roads = _roads(source, fitted, refusal, options)
    if kind != "parametric" and roads[kind].refused:
        raise ScalingError(f"approach {kind}: {roads[kind].refused}", remedy="see --approach parametric, or add budgets and sizes")
    head = _parametric_head(fitted, points, options) if kind == "parametric" and fitted else _road_head(roads[kind], kind, options)
    held, silence = (
        holdout(fitted.estimate, points, options.held_out(), options.ci, options.seed) if fitted and options.held_out() else (None, "")
    )
    bias = grid_bias(points, options.law, fitted.estimate.values, fitted.cost) if fitted and roads["isoflop"].frontier else None
    kaplan, unfit = _kaplan(source, options)
    cost = fitted.cost if fitted else fit_cost(points)
    written = {name: _road(road, points, options) for name, road in roads.items()}
    if bias:
        written["isoflop"]["warnings"].append(bias)
    return {
        "schema": SCHEMA, "law": options.law, "approach": kind, **head,
        "warnings": [*head["warnings"], *source.warnings, *([silence] if silence else []), *unfit],
        "n_points": len(points),
        "excluded": [{"reason": reason, "count": count} for reason, count in points.excluded],
        "holdout": held, "source": _source(source, options), "version": scaling.__version__, "ci": options.ci,
        "cost": {"c0": cost.c0, "p": cost.p}, "range": _range(points), "data": _data(points),
        "roads": written, "agreement": _agreement(roads, points, options.ci), **kaplan,
    }  # fmt: skip


def _parametric(points: Points, options: FitOptions) -> tuple[Fitted | None, str]:
    """The fitted law; when another road heads the document, a refusal is a reason and no error."""
    try:
        return fit_law(points, options.law, options), ""
    except ScalingError as error:
        if options.approach == "parametric":
            raise
        return None, error.what


def fit_law(points: Points, law: str, options: FitOptions, resamples: int | None = None) -> Fitted:
    """A law fitted to points, bootstrapped, and carried to its frontier. Raises ScalingError when it cannot be identified."""
    found = estimate(LAWS[law], points, options.objective, options.delta)
    count = options.bootstrap if resamples is None else min(resamples, options.bootstrap)
    draws = bootstrap(found, points, count, options.seed, points.group) if count else None
    drawn = LAWS[law].values(draws.theta) if draws is not None and len(draws.theta) > 1 else None
    cost = fit_cost(points)
    optimum = frontier(law, _arrays(found.values), cost) if law in CLOSED else None
    return Fitted(found, draws, drawn, cost, optimum, frontier(law, drawn, cost) if drawn and optimum else None)


def _arrays(values: Mapping[str, float]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in values.items()}


def _parametric_head(fitted: Fitted, points: Points, options: FitOptions) -> dict[str, Any]:
    """What heads a document of approach 3: parameters, what follows from them, and how well the data settle them."""
    found = fitted.estimate
    profiles = profile(found, points, options.ci)
    loose = [name for name, each in profiles.items() if not each.identified]
    warnings = list(found.warnings)
    if loose and not any("not identified" in text for text in warnings):
        warnings.append(f"not identified by these data: {', '.join(loose)}; their intervals are open")
    drawn, draws = fitted.drawn or {}, fitted.draws
    if draws is not None and draws.failed > 0.05 * draws.resamples:
        warnings.append(f"{draws.failed} of {draws.resamples} refits failed: the intervals are too narrow")
    return {
        "objective": {"name": found.objective, "delta": found.delta, "value": found.value},
        "params": {name: interval(value, drawn.get(name), options.ci) for name, value in found.values.items()},
        "derived": _derived(fitted, options.ci),
        "status": "not-identified" if loose and found.status == "ok" else found.status,
        "warnings": warnings,
        "identification": {
            "profile": {name: {"lo": each.lo, "hi": each.hi, "identified": each.identified} for name, each in profiles.items()},
            "starts": found.starts.summary(),
        },
        **({"bootstrap": _bootstrap(draws.kind, draws.resamples, draws.failed, options, drawn)} if draws is not None else {}),
    }  # fmt: skip


def _bootstrap(kind: str, resamples: int, failed: int, options: FitOptions, drawn: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {"kind": kind, "resamples": resamples, "seed": options.seed, "failed": failed, "draws": kept_draws(drawn)}


def _derived(fitted: Fitted, ci: float) -> dict[str, Any]:
    """The exponents a and b under the runs' own cost, and what else the law derives at C = 6 N D (G, ...)."""
    law, drawn = fitted.estimate.law, fitted.drawn
    more = law.derived(_arrays(fitted.estimate.values)) if law.derived and fitted.cost == Cost() else {}
    spread = law.derived(drawn) if law.derived and drawn else {}
    found = {name: interval(float(value), spread.get(name), ci) for name, value in more.items()}
    return {**found, **_exponents(fitted.optimum, fitted.optimum_draws, ci)}


def _exponents(optimum: Frontier | None, draws: Frontier | None, ci: float) -> dict[str, Any]:
    if optimum is None:
        return {}
    return {name: interval(float(getattr(optimum, name)), getattr(draws, name) if draws else None, ci) for name in ("a", "b")}


def _road_head(road: Road, kind: str, options: FitOptions) -> dict[str, Any]:
    """What heads a document of approach 1 or 2: the powers N* = n_coef C^a and D* = d_coef C^b."""
    assert road.frontier is not None

    def named(found: Frontier) -> dict[str, np.ndarray]:
        return {"a": found.a, "n_coef": np.exp(found.log_n), "b": found.b, "d_coef": np.exp(found.log_d)}

    drawn = named(road.draws) if road.draws else {}
    count = len(drawn["a"]) if drawn else 0
    how = "residual" if kind == "isoflop" else "tracks"
    return {
        "objective": {"name": "least-squares", "delta": None, "value": None},
        "params": {name: interval(float(value), drawn.get(name), options.ci) for name, value in named(road.frontier).items()},
        "derived": _exponents(road.frontier, road.draws, options.ci),
        "status": "ok",
        "warnings": list(road.warnings),
        **({"bootstrap": _bootstrap(how, options.bootstrap, options.bootstrap - count, options, drawn)} if count else {}),
    }  # fmt: skip


def _roads(source: Source, fitted: Fitted | None, refusal: str, options: FitOptions) -> dict[str, Road]:
    if fitted is None:
        parametric = Road("parametric", refused=refusal)
    elif fitted.optimum is None:
        parametric = Road("parametric", refused=f"the law {options.law} has no compute-optimal N and D")
    else:
        parametric = Road("parametric", fitted.optimum, fitted.optimum_draws)
    return {
        "parametric": parametric,
        "isoflop": isoflop(source.points, resamples=options.bootstrap, seed=options.seed),
        "envelope": envelope(source.points, source.curves, options.bootstrap, options.seed),
    }


def _road(road: Road, points: Points, options: FitOptions) -> dict[str, Any]:
    """A road for the document; valleys carry their runs, so that a report can draw them."""
    found, listed = road.frontier, "valleys" if road.name == "isoflop" else "minima"
    written: dict[str, Any] = {listed: [_minimum(each, points) for each in road.minima], "warnings": list(road.warnings)}
    if found is None:
        return {"refused": road.refused, **written}
    if road.draws is not None and len(road.draws.a) < 0.95 * options.bootstrap:
        written["warnings"].append(f"only {len(road.draws.a)} of {options.bootstrap} resamples gave a frontier")
    return {
        **_exponents(found, road.draws, options.ci),
        "n_star": {"coef": float(np.exp(found.log_n)), "exponent": float(found.a)},
        "d_star": {"coef": float(np.exp(found.log_d)), "exponent": float(found.b)},
        "a_plus_b": float(found.a + found.b),
        **written,
    }


def _minimum(minimum: Minimum, points: Points) -> dict[str, Any]:
    written: dict[str, Any] = {name: getattr(minimum, name) for name in ("flops", "n_star", "d_star", "loss_star")}
    if minimum.index is not None and points.n is not None:
        row = minimum.index[np.argsort(points.n[minimum.index], kind="stable")]
        written |= {"n_params": points.n[row], "tokens": np.asarray(points.d)[row], "loss": points.loss[row]}
    if minimum.curve is not None:
        written["curve"] = {"n_params": minimum.curve[0], "loss": minimum.curve[1]}
    return {**written, **({"refused": minimum.refused} if minimum.refused else {})}


def _agreement(roads: Mapping[str, Road], points: Points, ci: float) -> str:
    """One sentence on whether the roads agree: exponents within their intervals, N* at the largest budget within 1.5 times."""
    held = {name: road for name, road in roads.items() if road.frontier is not None}
    if len(held) < 2 or points.c is None:
        missing = "; ".join(f"{name}: {road.refused}" for name, road in roads.items() if road.refused)
        return f"The roads cannot be compared ({missing})."
    top = float(points.c.max())
    sizes = {name: float(road.frontier.n_star(top)) for name, road in held.items() if road.frontier}
    exponents = {name: _exponents(road.frontier, road.draws, ci)["a"] for name, road in held.items()}
    apart = [
        f"{one} and {two}"
        for one, two in itertools.combinations(held, 2)
        if _disagree(exponents[one], exponents[two], sizes[one] / sizes[two])
    ]
    listed = ", ".join(f"{name} {exponents[name]['value']:.3f}" for name in held)
    spread = max(sizes.values()) / min(sizes.values())
    told = f"a is {listed}; N* at the largest budget differs by a factor of {spread:.2f}."
    return f"The roads disagree ({'; '.join(apart)}): {told}" if apart else f"The roads agree: {told}"


def _disagree(one: Mapping[str, Any], two: Mapping[str, Any], ratio: float) -> bool:
    """Whether two exponents' intervals (or, without, a margin of 0.05) are disjoint, or the sizes lie too far apart."""
    (low, high), (least, most) = (
        (each["lo"], each["hi"]) if each["lo"] is not None else (each["value"] - 0.025, each["value"] + 0.025) for each in (one, two)
    )
    return max(low, least) > min(high, most) + 1e-3 or max(ratio, 1 / ratio) > APART


def _kaplan(source: Source, options: FitOptions) -> tuple[dict[str, Any], list[str]]:
    """Kaplan's L(N, D) on the same runs, counted as he counts where the source allows it; or why there is none."""
    points = source.kaplan or source.points
    if options.law == "kaplan" or not (points.n is not None and points.d is not None and {"N", "D"} <= set(LAWS[options.law].inputs)):
        return {}, []
    try:
        fitted = fit_law(points, "kaplan", options, affordable(BESIDE, len(points)))
    except ScalingError as error:
        return {}, [f"Kaplan's L(N, D) is not fitted: {error.what}"]
    found, drawn = fitted.estimate, fitted.drawn or {}
    return {"kaplan": {
        "law": "kaplan",
        "params": {name: interval(value, drawn.get(name), options.ci) for name, value in found.values.items()},
        "convention": dict(points.convention),
        "objective": {"name": found.objective, "delta": found.delta, "value": found.value},
        "status": found.status,
        "warnings": list(found.warnings),
        **_exponents(fitted.optimum, fitted.optimum_draws, options.ci),
    }}, []  # fmt: skip


def _source(source: Source, options: FitOptions) -> dict[str, Any]:
    filters = {"where": options.where, "drop_highest": options.drop_highest, "cluster": options.cluster}
    return {
        "paths": list(source.paths), "digest": source.digest, "columns": dict(source.columns),
        "convention": dict(source.points.convention), "notes": list(source.notes), "model": dict(source.model),
        "filters": {name: value for name, value in filters.items() if value},
    }  # fmt: skip


def _columns(points: Points) -> dict[str, np.ndarray | None]:
    return {"n_params": points.n, "tokens": points.d, "flops": points.c, "loss": points.loss}


def _range(points: Points) -> dict[str, list[float]]:
    return {name: [float(values.min()), float(values.max())] for name, values in _columns(points).items() if values is not None}


def _data(points: Points) -> dict[str, np.ndarray]:
    """The points fitted, at most 5,000 of them, evenly picked in the order of the source."""
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), KEPT_POINTS)).astype(int))
    return {name: values[kept] for name, values in {**_columns(points), **points.others}.items() if values is not None}
