"""Why Kaplan finds N* ~ C^0.73 and Hoffmann C^0.50: the same runs under both ways of counting, and
both studies on one law.

Pearce and Song 2024 (Reconciling Kaplan and Chinchilla Scaling Laws, arXiv:2406.12907): parameters
counted without embeddings, at sizes where embeddings are most of the model, bend the frontier
upwards. Porian et al. 2024 trained what remains: the head's FLOPs, the warm-up and the tuning at
each size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.bootstrap import fit_law
from scaling.fit.dataset import Dataset
from scaling.fit.document import to_jsonable
from scaling.fit.frontier.approaches import estimate_frontiers
from scaling.fit.frontier.frontier import fit_power
from scaling.fit.law_fit import LawFit
from scaling.fit.laws.laws import LAWS
from scaling.fit.options import FitOptions
from scaling.fit.result import FitResult
from scaling.points.points import Points
from scaling.points.source import Source, read_source
from scaling.predict.law_source import PREFIX, load_law

# N_total = N + omega N^(1/3): 32,000 tokens, width 39.2 times the depth (Pearce and Song 2024, eq.
# 8)
OMEGA = 47491.0
SIZES = np.logspace(2.9, 9.2, 20)  # Kaplan's range, 768 to 1.5e9 parameters without embeddings
TOKENS = np.logspace(6, 25, 1000)
KAPLAN_FLOPS = np.logspace(12.95, 20.7, 100)
TOTAL_FLOPS = np.logspace(14, 20.7, 100)
CHINCHILLA_FORM = ("chinchilla", "chinchilla-tied", "data-constrained")
# exponents of N* on RefinedWeb
PORIAN: tuple[tuple[str, float], ...] = (
    ("Kaplan's setting, without the head's FLOPs", 0.8353),
    ("the head's FLOPs counted", 0.7065),
    ("warm-up no longer than the run allows", 0.6020),
    ("the learning rate decayed to each budget", 0.5715),
    ("learning rate, batch and beta2 tuned at each size", 0.4969),
)


@dataclass(frozen=True)
class Counting:
    """One way of counting the same runs: `points` with its N and C, and the words for it."""

    name: str
    label: str
    points: Points


def reconcile(source: str, options: FitOptions, omega: float = OMEGA) -> dict[str, Any]:
    """The exponents of one source under both countings; `source` is a results folder, a table, a
    fit or `published:NAME`.

    Raises ScalingError for a source that holds neither runs nor a law of Chinchilla's form, and for
    an omega that is negative.
    """
    if not (np.isfinite(omega) and omega >= 0):
        raise ScalingError(
            f"omega = {omega:g} is not a number of at least 0",
            where="--omega",
            remedy="47491 fits Hoffmann's models",
        )
    options = options.resolved()
    if source.startswith(PREFIX) or (source.endswith(".json") and _is_fit(Path(source))):
        law = load_law(source)
        return to_jsonable(
            {"source": source, "countings": [], **_studies(law.law, law.values, omega, source)}
        )  # type: ignore[no-any-return]
    return to_jsonable(_of_runs(source, options, omega))  # type: ignore[no-any-return]


def _is_fit(path: Path) -> bool:
    try:
        FitResult.load(path)
    except ScalingError:
        return False
    return True


def _of_runs(source: str, options: FitOptions, omega: float) -> dict[str, Any]:
    read = read_source([Path(source)], options.source())
    countings, omega, share = _countings(read, Path(source), options, omega)
    rows = [_row(each, read, options) for each in countings]
    by_total = [
        row["parametric"] for row in rows if row["counting"] == "total" and "a" in row["parametric"]
    ]
    studies = (
        _studies(options.law, by_total[0]["params"], omega, source)
        if by_total
        else {"studies": None, "porian": _porian()}
    )
    return {
        "source": source,
        "omega": omega,
        "embedding_share": share,
        "countings": rows,
        **studies,
        "messages": _messages(rows, share),
    }


def _countings(
    read: Source, path: Path, options: FitOptions, omega: float
) -> tuple[list[Counting], float, list[float]]:
    """The runs by each counting, omega (of the runs themselves where they tell it), and the
    embeddings' share at both ends.
    """
    points = read.points
    if points.n is None or points.d is None:
        raise ScalingError(
            "the table has no N and D to count in two ways",
            where=str(path),
            remedy='name them: --columns "N=...,D=..."',
        )
    if read.kaplan is not None:
        whole = read_source([path], replace(options.source(), params="total")).points
        bare = read.kaplan
        omega = float(
            np.exp(
                np.median(
                    np.log(np.asarray(whole.n) - np.asarray(bare.n))
                    - np.log(np.asarray(bare.n)) / 3
                )
            )
        )
        countings = [
            _as_6nd(whole, "total"),
            Counting("with_head", "N with the head, exact FLOPs", points),
        ]
    else:
        n = np.asarray(points.n)
        if points.convention.get("params") == "nonembedding":
            whole, bare = replace(points, n=n + omega * np.cbrt(n)), points
        else:
            whole, bare = points, replace(points, n=without_embeddings(n, omega))
        countings = [_as_6nd(whole, "total")]
    total = np.asarray(whole.n)
    share = 1 - np.asarray(bare.n) / total
    ends = [float(share[np.argmin(total)]), float(share[np.argmax(total)])]
    return [*countings, _as_6nd(bare, "nonembedding")], omega, ends


def _as_6nd(points: Points, name: str) -> Counting:
    label = {
        "total": "all parameters, C = 6 N D (Hoffmann)",
        "nonembedding": "N without embeddings, C = 6 N D (Kaplan)",
    }[name]
    assert points.n is not None
    assert points.d is not None
    return Counting(
        name,
        label,
        replace(points, c=6.0 * points.n * points.d, convention={"params": name, "flops": "6nd"}),
    )


def without_embeddings(total: np.ndarray, omega: float) -> np.ndarray:
    """N of N_total = N + omega N^(1/3), by Newton's method on the cube root (convex, so it
    converges from above).
    """
    root = np.cbrt(total)
    for _ in range(60):
        root = root - (root**3 + omega * root - total) / (3 * root**2 + omega)
    return np.asarray(root**3)


def _row(counting: Counting, read: Source, options: FitOptions) -> dict[str, Any]:
    """The three approaches under one counting; an unavailable one says why."""
    data = Dataset(counting.points)
    row: dict[str, Any] = {"counting": counting.name, "label": counting.label}
    try:
        fit: LawFit | str = fit_law(data, LAWS[options.law], options)
    except ScalingError as error:
        fit = error.what
    for name, estimate in estimate_frontiers(data, None, fit, options).items():
        exponents = estimate.exponents(options.ci)
        row[name] = {exponent: one.to_dict() for exponent, one in exponents.items()}
        if estimate.frontier is None:
            row[name] = {"unavailable": estimate.unavailable}
    if isinstance(fit, LawFit) and "a" in row["parametric"]:
        row["parametric"]["params"] = fit.values
    return row


def _studies(law: str, values: Mapping[str, float], omega: float, where: str) -> dict[str, Any]:
    """What Kaplan's and Hoffmann's studies find on one and the same law (Pearce and Song 2024,
    section 3).
    """
    if law not in CHINCHILLA_FORM:
        raise ScalingError(
            f"the law {law} is not of Chinchilla's form",
            where=where,
            remedy="use a chinchilla fit, or give runs",
        )
    studies = {
        "total": simulated_study(values, omega, "total", TOTAL_FLOPS),
        "nonembedding": simulated_study(values, omega, "nonembedding", KAPLAN_FLOPS),
        "local": local_exponents(values, omega, np.array([1e3, 1e5, 1e7, 1e9, 1e11])),
    }
    return {"omega": omega, "studies": studies, "porian": _porian()}


def _porian() -> list[dict[str, Any]]:
    return [{"step": step, "a": a} for step, a in PORIAN]


def simulated_study(
    values: Mapping[str, float], omega: float, counting: str, flops: np.ndarray
) -> float:
    """The exponent of N* ~ C^a that Kaplan's 20 sizes give on the law, each budget won by the size
    of lowest loss.

    As Pearce and Song 2024 do: losses on a grid of tokens, the nearest to each budget taken, a line
    through all winners.
    """
    total = SIZES + omega * np.cbrt(SIZES)
    n = total if counting == "total" else SIZES
    paid = 6 * n[:, None] * TOKENS
    nearest = np.abs(paid[:, None, :] - flops[:, None]).argmin(2)
    alpha, beta = values["alpha"], values.get("beta", values["alpha"])
    loss = values["A"] * total[:, None] ** -alpha + values["B"] * TOKENS[nearest] ** -beta
    exponent, _ = fit_power(np.log(flops), np.log(n[loss.argmin(0)]))
    return float(exponent)


def local_exponents(
    values: Mapping[str, float], omega: float, n: np.ndarray
) -> list[dict[str, float]]:
    """d log N* / d log C of N without embeddings, at sizes n, on the law's own frontier (Pearce and
    Song 2024, eq. 10).

    From the first-order condition at fixed C = 6 N D: B beta D^-beta = A alpha N_t^(-alpha - 1) N
    dN_t/dN.
    """
    alpha, beta = values["alpha"], values.get("beta", values["alpha"])
    total = n + omega * np.cbrt(n)
    grown = (n + omega / 3 * np.cbrt(n)) / total  # d log N_t / d log N
    bent = (n + omega / 9 * np.cbrt(n)) / (n + omega / 3 * np.cbrt(n))  # d log(N dN_t/dN) / d log N
    slope = 1 + ((alpha + 1) * grown - bent) / beta  # d log C / d log N
    return [
        {"n_params_nonembedding": float(size), "a": float(1 / each)}
        for size, each in zip(n, slope, strict=True)
    ]


def _messages(rows: Sequence[Mapping[str, Any]], share: Sequence[float]) -> list[str]:
    """What the countings say, in sentences."""
    a = {row["counting"]: row["parametric"].get("a", {}).get("value") for row in rows}
    if a.get("total") is None or a.get("nonembedding") is None:
        return [
            "The countings cannot be compared: the parametric law is unavailable under one of them."
        ]
    moved = a["nonembedding"] - a["total"]
    why = (
        f"embeddings are {100 * share[0]:.0f} % of the smallest model and "
        f"{100 * share[1]:.0f} % of the largest"
    )
    return [
        (
            f"Counting alone moves the parametric exponent by {moved:+.3f}, from "
            f"{a['total']:.3f} to {a['nonembedding']:.3f}: {why}."
        ),
        "What counting does not explain, tuning does: see the steps of Porian et al. 2024.",
    ]
