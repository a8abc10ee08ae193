"""`scaling next --pool`: the runs of a table that most improve what a law predicts for a target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.errors import ScalingError, with_location
from scaling.fit.document import Column, Document, Integer, Real
from scaling.fit.laws.derivatives import Array
from scaling.fit.laws.expression import evaluate_text
from scaling.fit.laws.formula import read_formula
from scaling.fit.laws.law import Law
from scaling.fit.laws.laws import LAWS
from scaling.points.cells import numeric
from scaling.points.columns import list_names, resolve
from scaling.points.letters import LETTERS, parse_columns
from scaling.points.readers import read_bytes, read_table
from scaling.predict.design.posterior import Prior, posterior, take
from scaling.predict.design.selection import choose, precisions


class PoolRun(Document):
    """A run to train: its row in the pool (from 1), its inputs, its cost, and the share of the
    target's variance that it takes away, null before the first run.
    """

    row: Integer
    inputs: dict[str, Real]
    cost: Real
    gain: Real | None


class PoolProposal(Document):
    """What `scaling next --pool` proposes. `predicted` and `sd` are of each row of the target from
    the runs trained so far, null before the first; `rms_sd` is over all of it, `rms_sd_after` what
    is expected once `runs` are trained.
    """

    law: str
    trained: Integer
    candidates: Integer
    budget: Real
    spent: Real
    noise: Real | None
    rms_sd: Real | None
    rms_sd_after: Real | None
    predicted: Column
    sd: Column
    runs: list[PoolRun]


@np.errstate(all="ignore")
def next_from_pool(
    pool: Path,
    target: Path,
    cost: str,
    law: str,
    columns: str | None = None,
    budget: float | None = None,
    count: int = 5,
) -> PoolProposal:
    """At most `count` runs of the pool for at most `budget` (by default without limit).

    Rows of the pool that have a loss are trained, the others are candidates. `law` is a formula, a
    law.toml or the name of a law; `cost` a formula of its inputs and of columns. Raises
    ScalingError.
    """
    if law in LAWS:
        law = LAWS[law].formula
    table = read_table(pool, read_bytes(pool))
    chosen = replace(read_formula(law, None, columns, list(map(str, table))), signed=True)
    with with_location(pool):
        x, loss = _inputs(table, chosen, columns)
    with with_location(target):
        there, _ = _inputs(read_table(target, read_bytes(target)), chosen, columns)
    cells = {
        str(name): pd.to_numeric(table[name], errors="coerce").to_numpy(float) for name in table
    }
    price = np.broadcast_to(evaluate_text(cost, {**cells, **x}, "--cost"), len(loss)).astype(float)
    wrong = np.flatnonzero(~(np.isfinite(price) & (price > 0)))
    if len(wrong):
        what = f"the cost of row {wrong[0] + 1} is not finite and positive"
        raise ScalingError(what, where=pool, remedy="fix the row, or --cost")
    trained = np.flatnonzero(np.isfinite(loss)).tolist()
    prior, precision = Prior(chosen, x, there), precisions(x, there)
    known = prior.before_any_run()
    predicted = sd = np.full(len(next(iter(there.values()))), np.nan)
    if trained:
        known = posterior(prior, take(x, trained), loss[trained], precision[trained])
        predicted, sd = known.predict(there)
    limit = np.inf if budget is None else budget
    picks = choose([known.belief(x, there)], precision, lambda _: price, limit, count, trained)
    if not picks:
        candidates = price[~np.isfinite(loss)]
        what = "every row of the pool has a loss: there is no candidate"
        if len(candidates):
            what = (
                f"no candidate costs at most {limit:.4g}; the cheapest costs {candidates.min():.4g}"
            )
        raise ScalingError(what, where=pool, remedy="add candidates, or raise --budget")
    before = float(np.mean(sd**2))
    after = max(0.0, before - sum(pick.gain for pick in picks))
    return PoolProposal(
        law=chosen.name,
        trained=len(trained),
        candidates=len(loss) - len(trained),
        budget=float(price.sum()) if budget is None else budget,
        spent=sum(pick.cost for pick in picks),
        noise=known.noise if trained else None,
        rms_sd=before**0.5 if trained else None,
        rms_sd_after=after**0.5 if trained else None,
        predicted=predicted.tolist(),
        sd=sd.tolist(),
        runs=[
            PoolRun(
                row=pick.row + 1,
                inputs={name: float(values[pick.row]) for name, values in x.items()},
                cost=pick.cost,
                gain=pick.gain / before if trained and before > 0 else None,
            )
            for pick in picks
        ],
    )


def _inputs(
    table: pd.DataFrame, law: Law, columns: str | None
) -> tuple[Mapping[str, Array], Array]:
    """The inputs of a law, all finite, and the losses, NaN where there is none."""
    names = [str(name) for name in table.columns]
    given = parse_columns(columns, custom=True) if columns else {}
    given = {
        name: given.get(name, name) for name in (*law.inputs, "L") if name in given or name in names
    }
    if "L" not in given and not any(re.fullmatch("(?i)l|.*loss.*", name) for name in names):
        table = table.assign(L=np.nan)
        names, given = [*names, "L"], {**given, "L": "L"}
    resolved = resolve(table, given, law.inputs)
    if lacking := [name for name in law.inputs if name not in resolved.names]:
        raise ScalingError(
            f"no column {lacking[0]!r}",
            remedy=f'name it: --columns "{lacking[0]}=..."; columns: {list_names(names)}',
        )
    values = {
        name: numeric(
            table, resolved.names[name], name, resolved.unit(name), signed=name not in LETTERS
        )
        for name in law.inputs
    }
    for name, column in values.items():
        wrong = np.flatnonzero(~np.isfinite(column))
        if len(wrong):
            what = f"row {wrong[0] + 1} has no {name}"
            raise ScalingError(what, remedy="fix it or leave it out")
    return values, numeric(table, resolved.names["L"], "L", resolved.unit("L"), signed=True)
