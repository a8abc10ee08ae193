"""Why Kaplan finds N* ~ C^0.73 and Hoffmann C^0.50: the same runs under both ways of counting, and
both studies on one law.

Pearce and Song 2024 (Reconciling Kaplan and Chinchilla Scaling Laws, arXiv:2406.12907): parameters
counted without embeddings, at sizes where embeddings are most of the model, bend the frontier
upwards. Porian et al. 2024 trained what remains: the head's FLOPs, the warm-up and the tuning at
each size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from scaling.errors import ScalingError
from scaling.fit.bootstrap import fit_law
from scaling.fit.dataset import Dataset
from scaling.fit.document import Document, Estimate, Real
from scaling.fit.fit_options import FitOptions
from scaling.fit.frontier.frontier import PowerSum, fit_power
from scaling.fit.laws.laws import LAWS
from scaling.points.points import Points
from scaling.points.readers import read_bytes
from scaling.points.source import read_source
from scaling.predict.law_source import PREFIX, load_law

# N_total = N + omega N^(1/3): 32,000 tokens, width 39.2 times the depth (Pearce and Song 2024, eq.
# 8)
OMEGA = 47491.0
SIZES = np.logspace(2.9, 9.2, 20)  # Kaplan's range, 768 to 1.5e9 parameters without embeddings
TOKENS = np.logspace(6, 25, 1000)
KAPLAN_FLOPS = np.logspace(12.95, 20.7, 100)
TOTAL_FLOPS = np.logspace(14, 20.7, 100)
LABELS = {
    "total": "all parameters, C = 6 N D (Hoffmann)",
    "nonembedding": "N without embeddings, C = 6 N D (Kaplan)",
}


class CountedRuns(Document):
    """The exponents of N* ~ C^a and D* ~ C^b of the law fitted to the runs by one way of counting,
    or why there are none.
    """

    counting: str
    label: str
    unavailable: str | None = None
    a: Estimate | None = None
    b: Estimate | None = None
    params: dict[str, Real] | None = None


class StudyExponents(Document):
    """The exponents that Kaplan's study finds on one law, by both countings."""

    total: Real
    nonembedding: Real


class Reconciliation(Document):
    """The exponents of one source under both countings, where it holds runs, and Kaplan's study on
    its law.
    """

    source: str
    omega: Real
    countings: list[CountedRuns]
    studies: StudyExponents | None


def reconcile(source: str, options: FitOptions, omega: float = OMEGA) -> Reconciliation:
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
        studies = _studies(law.law, law.values, omega, source)
        return Reconciliation(source=source, omega=omega, countings=[], studies=studies)
    points, omega = _countings(Path(source), options, omega)
    countings = []
    for name, counted in points.items():
        row = CountedRuns(counting=name, label=LABELS[name])
        try:
            fit = fit_law(Dataset(counted), LAWS[options.law], options)
            exponents = fit.optimum.exponents(fit.optimum_draws, options.ci) if fit.optimum else {}
            row = row.model_copy(update={**exponents, "params": fit.values})
        except ScalingError as error:
            row = row.model_copy(update={"unavailable": error.what})
        countings.append(row)
    total = countings[0].params
    return Reconciliation(
        source=source,
        omega=omega,
        countings=countings,
        studies=_studies(options.law, total, omega, source) if total else None,
    )


def _is_fit(path: Path) -> bool:
    """Whether a JSON file is a fit, whole or not, and no table of runs."""
    try:
        document = json.loads(read_bytes(path))
    except (ValueError, RecursionError):  # said where it is read as a table
        return False
    return isinstance(document, dict) and isinstance(document.get("schema"), int)


def _countings(path: Path, options: FitOptions, omega: float) -> tuple[dict[str, Points], float]:
    """The runs by each counting, and omega, of the runs themselves where they tell it."""
    read = read_source([path], options.source())
    points = read.points
    if points.n is None or points.d is None:
        raise ScalingError(
            "the table has no N and D to count in two ways",
            where=path,
            remedy='name them: --columns "N=...,D=..."',
        )
    n = np.asarray(points.n)
    if read.runs is not None:
        counted = (replace(options.source(), params=name) for name in ("total", "nonembedding"))
        whole, bare = (np.asarray(read_source([path], each).points.n) for each in counted)
        omega = float(np.exp(np.median(np.log(whole - bare) - np.log(bare) / 3)))
    elif points.convention.get("params") == "nonembedding":
        whole, bare = n + omega * np.cbrt(n), n
    else:
        whole, bare = n, without_embeddings(n, omega)
    by_counting = {
        name: replace(
            points,
            n=size,
            c=6.0 * size * np.asarray(points.d),
            convention={"params": name, "flops": "6nd"},
        )
        for name, size in (("total", whole), ("nonembedding", bare))
    }
    return by_counting, omega


def without_embeddings(total: np.ndarray, omega: float) -> np.ndarray:
    """N of N_total = N + omega N^(1/3), a cubic in the root with one real solution: at 2 s sinh(x)
    with omega = 3 s^2 it is 2 s^3 sinh(3 x).
    """
    if omega == 0:
        return total
    s = np.sqrt(omega / 3)
    return np.asarray((2 * s * np.sinh(np.arcsinh(total / (2 * s**3)) / 3)) ** 3)


def _studies(law: str, values: Mapping[str, float], omega: float, where: str) -> StudyExponents:
    """What Kaplan's and Hoffmann's studies find on one and the same law (Pearce and Song 2024,
    section 3).
    """
    powers = LAWS[law].power_sum(values) if law in LAWS else None
    if powers is None or LAWS[law].root:
        raise ScalingError(
            f"the law {law} is not of Chinchilla's form",
            where=where,
            remedy="use a chinchilla fit, or give runs",
        )
    return StudyExponents(
        total=simulated_study(powers, omega, "total", TOTAL_FLOPS),
        nonembedding=simulated_study(powers, omega, "nonembedding", KAPLAN_FLOPS),
    )


def simulated_study(law: PowerSum, omega: float, counting: str, flops: np.ndarray) -> float:
    """The exponent of N* ~ C^a that Kaplan's 20 sizes give on the law, each budget won by the size
    of lowest loss.

    As Pearce and Song 2024 do: losses on a grid of tokens, the nearest to each budget taken, a line
    through all winners.
    """
    total = SIZES + omega * np.cbrt(SIZES)
    n = total if counting == "total" else SIZES
    paid = 6 * n[:, None] * TOKENS
    nearest = np.abs(paid[:, None, :] - flops[:, None]).argmin(2)
    of_n, of_d = total[:, None] ** -law.alpha, TOKENS[nearest] ** -law.beta
    loss = np.exp(law.log_a) * of_n + np.exp(law.log_b) * of_d
    exponent, _ = fit_power(np.log(flops), np.log(n[loss.argmin(0)]))
    return float(exponent)
