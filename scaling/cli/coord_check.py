"""The verb `coord-check`: whether the sweep's recipe keeps activations the same size while width or depth grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.csv_rows import SIZES, coordinate_rows
from scaling.cli.output import Csv, Json, console, print_csv, print_json
from scaling.errors import ScalingError

if TYPE_CHECKING:
    from scaling.config import ModelConfig, MuP, RunConfig, Sweep
    from scaling.tasks import Task
    from scaling.train.coordinate_check import Curve

BATCH_TOKENS = 1024  # in a step: sizes of activations do not need the sweep's batch
MAX_WIDTH, MAX_DEPTH = 8192, 256
WIDTHS = "32,64,128,256"


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command(
        "coord-check", epilog="Example: scaling coord-check sweeps/demo.toml --widths 32,64,128,256"
    )(coord_check)


def coord_check(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep file (TOML).")],
    widths: Annotated[
        str, typer.Option(metavar="W,...", help="Widths to train, at least two.")
    ] = WIDTHS,
    depths: Annotated[
        str, typer.Option(metavar="L,...", help="Depths to train at the least width; none without.")
    ] = "",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Training steps of each model.")] = 5,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Seeds that sizes are averaged over.")
    ] = 1,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Train small models of growing width (and depth) for a few steps, in standard parametrisation and with transfer, and print how
    the size of every kind of activation moves: flat where learning rates transfer.

    Where the sweep has no recipe.transfer the least width and depth are the base. All models have the base's learning rate.
    """
    from scaling.config.sweep_file import load_sweep
    from scaling.tasks import open_task

    asked = {"width": _numbers(widths, "--widths", MAX_WIDTH, "32,64,128"), "depth": []}
    if depths:
        asked["depth"] = _numbers(depths, "--depths", MAX_DEPTH, "2,4,8")
    loaded = load_sweep(sweep)
    document = check(loaded, open_task(loaded.base.task), asked, steps, seeds)
    if as_csv:
        return print_csv(coordinate_rows(document), SIZES)
    return print_json(document) if as_json else _show(document)


def _numbers(text: str, where: str, most: int, like: str) -> list[int]:
    """Increasing whole numbers from `2,4,8`. Raises ScalingError that names the part that is none."""
    parts = [part.strip() for part in text.split(",")]
    wrong = next(
        (
            part
            for part in parts
            if not (part.isdecimal() and part.isascii() and 1 <= int(part[:9]) <= most)
        ),
        None,
    )
    if wrong is not None:
        raise ScalingError(
            f"{wrong[:40]!r} is not a whole number from 1 to {most}",
            where=where,
            remedy=f"write them as {like}",
        )
    found = sorted({int(part) for part in parts})
    if len(found) < 2:
        raise ScalingError(
            "a slope needs two different numbers", where=where, remedy=f"write them as {like}"
        )
    return found


def check(
    sweep: Sweep, task: Task, asked: Mapping[str, list[int]], steps: int, seeds: int
) -> dict[str, Any]:
    """What the verb prints: for each growing side and parametrisation all curves, and which of them are not flat."""
    from scaling.train.coordinate_check import TOLERANCE, curves

    checks = []
    for side, at in asked.items():
        for name in ("standard", "transfer") if at else ():
            runs = {
                number: _run(sweep, task, side, number, asked, steps, name == "transfer")
                for number in at
            }
            checks.append(
                {
                    "over": side,
                    "at": at,
                    "parametrisation": name,
                    **_told(curves(runs, task, steps, seeds)),
                }
            )
    return {
        "sweep": sweep.name,
        "steps": steps,
        "seeds": seeds,
        "tolerance": TOLERANCE,
        "lr": _lr(sweep, task, asked),
        "checks": checks,
    }


def _told(found: tuple[Curve, ...]) -> dict[str, Any]:
    """Curves as plain values; a slope that no number expresses, of sizes that are 0 or not finite, is null and not flat."""
    told = [
        {
            "kind": c.kind,
            "change": c.change,
            "sizes": [_real(size) for size in c.sizes],
            "slope": _real(c.slope),
        }
        for c in found
    ]
    return {"curves": told, "not_flat": [curve.name for curve in found if not curve.flat]}


def _real(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _run(
    sweep: Sweep,
    task: Task,
    side: str,
    number: int,
    asked: Mapping[str, list[int]],
    steps: int,
    transferred: bool,
) -> RunConfig:
    """One model of the recipe, `number` wide or deep, at the base's learning rate without a schedule."""
    from scaling.config import OptimConfig, RunConfig

    least, transfer = asked["width"][0], _transfer(sweep, task, asked)
    width = number if side == "width" else least
    depth = (
        number if side == "depth" else transfer.base_depth or _shaped(sweep, task, least).n_layers
    )
    model = _shaped(sweep, task, width).model_copy(
        update={"n_layers": depth, "gains": False, "transfer": transfer if transferred else None}
    )
    overrides: Any = sweep.base.optim
    given = overrides.model_dump(exclude_none=True) | {
        "lr": _lr(sweep, task, asked),
        "schedule": "constant",
        "warmup_steps": 0,
    }
    batch = max(1, BATCH_TOKENS // task.seq_len)
    return RunConfig(
        model=model,
        task=sweep.base.task,
        optim=OptimConfig.model_validate(given),
        batch_size=batch,
        n_steps=steps,
    )


def _shaped(sweep: Sweep, task: Task, width: int) -> ModelConfig:
    """The recipe's model of a width, with the sweep's changes but those of its size."""
    from scaling.recipe import InfeasibleCell, shape

    sizes = {"d_model", "n_layers", "d_ff", "n_heads", "n_kv_heads", "vocab_size"}
    model: Any = sweep.base.model
    try:
        return shape(
            width, task.vocab_size, sweep.recipe, model.model_dump(exclude_none=True, exclude=sizes)
        )
    except InfeasibleCell as error:
        remedy = f"choose multiples of recipe.width_multiple = {sweep.recipe.width_multiple}"
        raise ScalingError(error.what, where=f"--widths: {error.where}", remedy=remedy) from None


def _transfer(sweep: Sweep, task: Task, asked: Mapping[str, list[int]]) -> MuP:
    """The sweep's own, or one whose base is the least shape that is trained."""
    from scaling.config import MuP

    least_depth = asked["depth"][0] if asked["depth"] else None
    if sweep.recipe.transfer:
        return sweep.recipe.transfer.model_copy(
            update={"base_depth": sweep.recipe.transfer.base_depth or least_depth}
        )
    base = asked["width"][0]
    return MuP(base_width=base, base_head=_shaped(sweep, task, base).d_head, base_depth=least_depth)


def _lr(sweep: Sweep, task: Task, asked: Mapping[str, list[int]]) -> float:
    """The learning rate at the base: what the sweep gives, or its recipe at the width of the base."""
    from scaling.accounting import n_params
    from scaling.recipe import learning_rate

    overrides: Any = sweep.base.optim
    if overrides.lr:
        return float(overrides.lr)
    model = _shaped(sweep, task, _transfer(sweep, task, asked).base_width)
    counted = n_params(model, task.seq_len, "with_head")
    return learning_rate(model, counted, 20.0 * counted, sweep.recipe)


def _show(document: dict[str, Any]) -> None:
    """A table and a verdict for each parametrisation."""
    from rich.table import Table

    page = console()
    for each in document["checks"]:
        title = f"{each['parametrisation']}: mean absolute size after {document['steps']} steps, by {each['over']}"
        table = Table(title=title, title_justify="left")
        for column in ("", *map(str, each["at"]), "slope"):
            table.add_column(column, justify="left" if not column else "right")
        for curve in each["curves"]:
            numbers = ["-" if value is None else f"{value:.3g}" for value in curve["sizes"]]
            name = f"change of {curve['kind']}" if curve["change"] else curve["kind"]
            table.add_row(
                name, *numbers, "-" if curve["slope"] is None else f"{curve['slope']:+.2f}"
            )
        page.print(table)
        page.print(_verdict(each, document["tolerance"]))
        page.print()


def _verdict(check: dict[str, Any], tolerance: float) -> str:
    if not check["not_flat"]:
        return f"{check['parametrisation']}: flat over {check['over']} (every |slope| < {tolerance:g}, but logits may fall as width^-0.5)"
    return (
        f"{check['parametrisation']}: not flat over {check['over']}: {', '.join(check['not_flat'])}"
    )
