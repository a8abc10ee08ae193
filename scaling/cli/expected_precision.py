"""What `scaling plan` says of the intervals to expect: the plan's runs as the design room takes them, and the lines of its table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.formatting import count_option, format_count, format_flops

if TYPE_CHECKING:
    from rich.text import Text

    from scaling.plan import Plan

Target = Annotated[
    str | None,
    typer.Option(
        metavar="FLOPS",
        help="The budget whose optimum is to be predicted; default 10 x the largest planned.",
    ),
]
LawFrom = Annotated[
    str | None,
    typer.Option(
        metavar="FIT.json|published:NAME",
        help="The law to expect; default one through the middle of the plan.",
    ),
]
Noise = Annotated[
    float | None,
    typer.Option(
        metavar="SD",
        help="Standard deviation of a run's log loss; default that of the fit, or 0.01.",
    ),
]


def expectation(
    plan: Plan, target: str | None, law_from: str | None, noise: float | None
) -> dict[str, Any]:
    """The document's `expected`. Cells that differ in an axis only count once: a fit takes the best of them, or one axis value at a time."""
    import numpy as np

    from scaling.config import IsoflopDesign
    from scaling.predict.design import Planned, expected

    params = plan.sweep.design.params
    trunks = {
        run.run_id: place for place, family in enumerate(plan.families) for run in family.all_runs()
    }
    cells = {
        (item.n_params[params], item.run.tokens, item.run.seed): (item.flops, trunks[item.run_id])
        for item in plan.runs
    }
    n, d, _ = (np.array(column, float) for column in zip(*cells, strict=True))
    c, trunk = (np.array(column) for column in zip(*cells.values(), strict=True))
    runs = Planned(n, d, c.astype(float), trunk, isinstance(plan.sweep.design, IsoflopDesign))
    goal = (
        None
        if target is None
        else count_option(target, "--target", "give a positive number of FLOPs, such as 1e15")
    )
    return expected(runs, goal, law_from, noise)


def expectation_lines(found: dict[str, Any]) -> list[Text]:
    """The expectation as lines of text, warnings last."""
    from rich.text import Text

    warnings = [
        Text.assemble(("warning: ", "bold yellow"), warning["message"])
        for warning in found["warnings"]
    ]
    if found["unavailable"]:
        return [Text(f"\nno parametric fit to be expected: {found['unavailable']}"), *warnings]
    a, n = found["a"], found["n_star"]
    told = (
        f"\nexpected of a parametric fit ({found['ci']:.0%}, noise {found['noise']:.2%} of the "
        f"loss): a {a['value']:.3f} [{a['lo']:.3f}, {a['hi']:.3f}]; "
        f"at {format_flops(found['target'])} FLOPs N* {format_count(n['value'])} "
        f"[{format_count(n['lo'])}, {format_count(n['hi'])}], "
        f"L* within {_within(found):.1%}"
    )
    basis = f"law {found['law']}" + (
        f"; isoFLOP {found['grid_bias']}" if found["grid_bias"] else ""
    )
    return [Text(told), Text(basis, style="dim"), *warnings]


def _within(found: dict[str, Any]) -> float:
    """Half the width of the interval of L*, as a share of it."""
    import math
    from statistics import NormalDist

    return math.expm1(NormalDist().inv_cdf((1 + found["ci"]) / 2) * found["sd_log_loss"])
