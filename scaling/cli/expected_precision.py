"""The intervals that `scaling plan` expects of a fit of its runs."""

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
    """The document's `expected`. Cells that differ in an axis only count once: a fit takes the best
    of them, or one axis value at a time.
    """
    import numpy as np

    from scaling.config import IsoflopDesign
    from scaling.predict.design import Planned, expected

    params = plan.sweep.design.params
    groups = {
        run.run_id: index
        for index, run_group in enumerate(plan.groups)
        for run in run_group.all_runs()
    }
    cells = {
        (item.n_params[params], item.run.tokens, item.run.seed): (item.flops, groups[item.run_id])
        for item in plan.runs
    }
    n, d, _ = (np.array(column, float) for column in zip(*cells, strict=True))
    c, group = (np.array(column) for column in zip(*cells.values(), strict=True))
    runs = Planned(n, d, c.astype(float), group, isinstance(plan.sweep.design, IsoflopDesign))
    goal = (
        None
        if target is None
        else count_option(target, "--target", "give a positive number of FLOPs, such as 1e15")
    )
    return expected(runs, goal, law_from, noise)


def expectation_lines(expected: dict[str, Any]) -> list[Text]:
    """The expectation as lines of text, warnings last."""
    from rich.text import Text

    warnings = [
        Text.assemble(("warning: ", "bold yellow"), warning["message"])
        for warning in expected["warnings"]
    ]
    if expected["unavailable"]:
        return [Text(f"\nno parametric fit to be expected: {expected['unavailable']}"), *warnings]
    a, n = expected["a"], expected["n_star"]
    text = (
        f"\nexpected of a parametric fit ({expected['ci']:.0%}, noise {expected['noise']:.2%} of the "
        f"loss): a {a['value']:.3f} [{a['lo']:.3f}, {a['hi']:.3f}]; "
        f"at {format_flops(expected['target'])} FLOPs N* {format_count(n['value'])} "
        f"[{format_count(n['lo'])}, {format_count(n['hi'])}], "
        f"L* within {_within(expected):.1%}"
    )
    basis = f"law {expected['law']}" + (
        f"; isoFLOP {expected['grid_bias']}" if expected["grid_bias"] else ""
    )
    return [Text(text), Text(basis, style="dim"), *warnings]


def _within(expected: dict[str, Any]) -> float:
    """Half the width of the interval of L*, as a share of it."""
    import math
    from statistics import NormalDist

    return math.expm1(NormalDist().inv_cdf((1 + expected["ci"]) / 2) * expected["sd_log_loss"])
