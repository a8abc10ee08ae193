"""The command `coord-check`: muP's coordinate check of a sweep's recipe."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.cli.output import TableOutput, argument, option, page
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scaling.recipe.coord_check_configs import CoordinateSeries
    from scaling.train.coordinate_check import Curve

    Checks = Sequence[tuple[CoordinateSeries, tuple[Curve, ...]]]

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
    output: TableOutput,
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

    width_list = _numbers(widths, "--widths", MAX_WIDTH, "32,64,128")
    depth_list = _numbers(depths, "--depths", MAX_DEPTH, "2,4,8") if depths else []
    loaded = load_sweep(sweep)
    task = open_task(loaded.base.task)
    lr, all_series = coordinate_series(loaded, task.vocab_size, width_list, depth_list, steps)
    checks = [(series, curves(series.runs, task, steps, seeds)) for series in all_series]
    records: list[dict[str, Any]] = [
        {
            "over": series.over,
            "at": list(series.runs),
            "parametrisation": series.parametrisation,
            "curves": [
                {
                    "kind": curve.kind,
                    "change": curve.change,
                    "sizes": [finite(size) for size in curve.sizes],
                    "slope": finite(curve.slope),
                }
                for curve in measured
            ],
            "not_flat": [curve.name for curve in measured if not curve.flat],
        }
        for series, measured in checks
    ]
    document = {
        "sweep": loaded.name,
        "steps": steps,
        "seeds": seeds,
        "tolerance": MAX_FLAT_SLOPE,
        "lr": lr,
        "checks": records,
    }
    output.emit(
        document,
        lambda: _text(checks, steps, MAX_FLAT_SLOPE),
        rows=lambda: [
            {
                "parametrisation": record["parametrisation"],
                "over": record["over"],
                "at": at,
                **{name: curve[name] for name in ("kind", "change")},
                "size": size,
                "slope": curve["slope"],
            }
            for record in records
            for curve in record["curves"]
            for at, size in zip(record["at"], curve["sizes"], strict=True)
        ],
        next_command=f"scaling plan {shlex.quote(str(sweep))}",
    )


def _numbers(text: str, where: str, largest: int, example: str) -> list[int]:
    """Increasing whole numbers from "2,4,8". Raises ScalingError that names the wrong part."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isdecimal() and part.isascii() and 1 <= int(part[:9]) <= largest):
            raise ScalingError(
                f"{part[:40]!r} is not a whole number from 1 to {largest}",
                where=where,
                remedy=f"write them as {example}",
            )
    numbers = sorted({int(part) for part in parts})
    if len(numbers) < 2:
        raise ScalingError(
            "a slope needs two different numbers", where=where, remedy=f"write them as {example}"
        )
    return numbers


def _text(checks: Checks, steps: int, tolerance: float) -> RenderableType:
    """For each series a table of sizes and a verdict."""
    from scaling.render.table import Column, Table

    parts: list[object] = []
    for series, measured in checks:
        name, over = series.parametrisation, series.over
        title = f"{name}: mean absolute size after {steps} steps, by {over}"
        rows = tuple(
            (
                curve.name,
                *(f"{size:.3g}" if math.isfinite(size) else "-" for size in curve.sizes),
                f"{curve.slope:+.2f}" if math.isfinite(curve.slope) else "-",
            )
            for curve in measured
        )
        heads = (Column(""), *(Column(head, "rough") for head in (*map(str, series.runs), "slope")))
        not_flat = ", ".join(curve.name for curve in measured if not curve.flat)
        limit = f"every |slope| < {tolerance:g}, but logits may fall as width^-0.5"
        verdict = f"not flat over {over}: {not_flat}" if not_flat else f"flat over {over} ({limit})"
        parts += [Table("sizes", title, heads, rows), f"{name}: {verdict}", ""]
    return page(*parts)
