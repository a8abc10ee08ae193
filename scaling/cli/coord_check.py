"""The command `coord-check`: muP's coordinate check of a sweep's recipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.cli.output import Output, argument, option
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.recipe.coord_check_configs import CoordinateSeries
    from scaling.render.table import Table
    from scaling.train.coordinate_check import Curve

MAX_WIDTH, MAX_DEPTH = 8192, 256


def coord_check(
    sweep: Path = argument("SWEEP", "A sweep file (TOML)."),
    widths: str = option("Widths to test, at least two.", metavar="W,...", default="32,64,128,256"),
    depths: str = option(
        "Depths to test at the smallest width (default: none).", metavar="L,...", default=""
    ),
    steps: int = option("Training steps of each model.", min=1, max=1000, default=5),
    seeds: int = option("Seeds that sizes are averaged over.", min=1, max=100, default=1),
    *,
    output: Output,
) -> None:
    """Train small models of growing width (and depth) for a few steps and print activation sizes.

    Both parametrisations are tested, standard and with transfer: sizes are flat where learning
    rates transfer. Without recipe.transfer in the sweep the smallest width and depth are the base.
    All models use the base's learning rate.

    Example: scaling coord-check sweeps/demo.toml --widths 32,64,128,256
    """
    from scaling.config import finite
    from scaling.config.sweep_file import load_sweep
    from scaling.recipe.coord_check_configs import coordinate_series
    from scaling.tasks import open_task
    from scaling.train.coordinate_check import MAX_FLAT_SLOPE, curves

    width_list = _numbers(widths, "--widths", MAX_WIDTH)
    depth_list = _numbers(depths, "--depths", MAX_DEPTH) if depths else []
    loaded = load_sweep(sweep)
    task = open_task(loaded.base.task)
    lr, all_series = coordinate_series(loaded, task.vocab_size, width_list, depth_list, steps)
    checks, parts = [], []
    for series in all_series:
        measured = curves(series.runs, task, steps, seeds)
        not_flat = [curve.name for curve in measured if not curve.flat]
        records = [
            {
                "kind": curve.kind,
                "change": curve.change,
                "sizes": [finite(size) for size in curve.sizes],
                "slope": finite(curve.slope),
            }
            for curve in measured
        ]
        checks.append(
            {
                "over": series.over,
                "at": list(series.runs),
                "parametrisation": series.parametrisation,
                "curves": records,
                "not_flat": not_flat,
            }
        )
        verdict = f"every |slope| < {MAX_FLAT_SLOPE:g}, but logits may fall as width^-0.5"
        verdict = f"not flat: {', '.join(not_flat)}" if not_flat else f"flat ({verdict})"
        parts += [_table(series, measured, steps), f"{series.parametrisation}: {verdict}"]
    document = {
        "sweep": loaded.name,
        "steps": steps,
        "seeds": seeds,
        "tolerance": MAX_FLAT_SLOPE,
        "lr": lr,
        "checks": checks,
    }
    output.emit(document, lambda: parts, f"scaling plan {shlex.quote(str(sweep))}")


def _numbers(text: str, where: str, largest: int) -> list[int]:
    """Increasing whole numbers from "2,4,8". Raises ScalingError."""
    parts = [part.strip() for part in text.split(",")]
    numbers = sorted({int(part) for part in parts if part.isdecimal() and len(part) < 10})
    if (
        len(numbers) < 2
        or len(numbers) < len(set(parts))
        or not 1 <= numbers[0] <= numbers[-1] <= largest
    ):
        what = f"{text[:40]!r} is not two or more whole numbers from 1 to {largest}"
        raise ScalingError(what, where=where, remedy="write them as 32,64,128")
    return numbers


def _table(series: CoordinateSeries, measured: Sequence[Curve], steps: int) -> Table | None:
    """Sizes by width or depth, and their slopes."""
    from scaling.render.table import record_table

    title = f"{series.parametrisation}: mean absolute size after {steps} steps, by {series.over}"
    heads = (*map(str, series.runs), "slope")
    rows = [
        {"": curve.name, **dict(zip(heads, (*curve.sizes, curve.slope), strict=True))}
        for curve in measured
    ]
    return record_table("sizes", title, rows, rough=heads)
