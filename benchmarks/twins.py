"""Simulated pairs of sweeps: does the test of a difference hold its level where there is none, and
see one where there is?
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.simulated_sweeps import Surface, sweep
from scaling import __version__
from scaling.fit.bootstrap import bootstrap
from scaling.fit.document import estimates
from scaling.fit.estimate import estimate
from scaling.fit.frontier.frontier import Cost
from scaling.fit.laws.laws import LAWS
from scaling.fit.result import SCHEMA, Bootstrap, Convention, FitResult, Objective, SourceInfo
from scaling.predict.compare import compare

CI = 0.95


def document(surface: Surface, runs: int, resamples: int, seed: list[int]) -> FitResult:
    """The result that a comparison reads, of one simulated sweep of `runs` runs."""
    points = sweep(surface, runs, np.random.default_rng(seed))
    law = LAWS[surface.law]
    found = estimate(law, points)
    drawn = law.values(bootstrap(found, resamples).theta)
    best = LAWS[law.name].frontier(found.values, Cost())
    assert points.c is not None
    return FitResult(
        schema_version=SCHEMA,
        version=__version__,
        law=law.name,
        approach="parametric",
        objective=Objective(name=found.objective, delta=found.delta, value=found.value),
        ci=CI,
        params=estimates(found.values, drawn, CI),
        derived=estimates({"a": best.a, "b": best.b}, None, CI),
        approaches={},
        warnings=(),
        excluded=[],
        holdout=None,
        data={},
        bootstrap=Bootstrap(
            kind="pairs",
            resamples=resamples,
            seed=0,
            failed=0,
            draws={name: column.tolist() for name, column in drawn.items()},
        ),
        cost=Cost(),
        range={"flops": (float(points.c.min()), float(points.c.max()))},
        source=SourceInfo(
            paths=[surface.name],
            digest=str(seed),
            columns={},
            convention=Convention(params="with_head", flops="6nd"),
            evaluation={"corpus": "one", "unit": "nats per token"},
        ),
        status=found.status,
        n_points=len(points),
    )


def trials(
    one: Surface, two: Surface, runs: int, count: int, resamples: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """The comparison of `two` with `one` for each of `count` simulated pairs."""
    for trial in range(count):
        pair = {
            name: document(surface, runs, resamples, [seed, trial, place])
            for place, (name, surface) in enumerate((("one", one), ("two", two)))
        }
        yield compare(pair, seed=trial).to_dict()
