"""A proposal becomes a sweep file: the cells as a list, all else as in the sweep that the fit came
from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaling.config import ListDesign, ListedCell, Sweep
from scaling.config.sweep_file import write_sweep as publish
from scaling.errors import ScalingError
from scaling.formatting import format_flops
from scaling.predict.law_source import sweep_of

LONGEST_NAME = 64


def write_sweep(proposal: dict[str, Any], source: Path, out: Path) -> Sweep:
    """Write the proposal of `next_runs` for `source` as a sweep that `scaling plan` and `scaling
    run` accept.

    Task, model, optimiser, recipe, axes and evaluation are those of the source's sweep, with the
    rules that were tuned for it. Raises ScalingError without a sweep, and where `out` is there
    already.
    """
    parent = sweep_of(source)
    if parent is None:
        raise ScalingError(
            f"{source} has no sweep.toml, so how its models are built is not known",
            where="--out",
            remedy="leave out --out, or name a results folder of `scaling run`",
        )
    if proposal["params"] is None:
        raise ScalingError(
            "the fit does not say how its N, vocabulary and window were",
            where=proposal["source"],
            remedy="fit the results folder again: scaling fit DIR",
        )
    sweep = _sweep(proposal, parent)
    head = (
        f"{sweep.question}\n\n  scaling run {out}\n\nWritten by `scaling next`: "
        f"{format_flops(proposal['spent'])} FLOPs."
    )
    publish(sweep, out, head)
    return sweep


def _sweep(proposal: dict[str, Any], source: Sweep) -> Sweep:
    cells = tuple(
        ListedCell(size=run["n_params"], tokens=run["tokens"], seeds=tuple(run["seeds"]))
        for run in proposal["runs"]
    )
    design = ListDesign(kind="list", cells=cells, params=proposal["params"])
    asked = (
        "The runs that say most about the optimum at "
        f"{format_flops(proposal['target'])} FLOPs after {source.name}."
    )
    kept = {name: getattr(source, name) for name in ("base", "recipe", "axes", "evals")}
    return Sweep(
        name=_name(source.name),
        question=asked,
        design=design,
        seeds=(proposal["runs"][0]["seeds"][0],),
        **kept,
    )


def _name(source: str) -> str:
    """<source>-next, and <source>-next2, -next3 for the one after."""
    stem, _, tail = source.rpartition("-next")
    if stem and (not tail or tail.isdigit()):
        return f"{stem}-next{int(tail or 1) + 1}"[:LONGEST_NAME]
    return f"{source[: LONGEST_NAME - 5]}-next"
