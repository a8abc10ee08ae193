"""How the runs were trained: loss curves, and the tuning of the sweep (tuning.json)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.fit.result import SourceInfo
from scaling.formatting import format_count, format_flops
from scaling.points.points import Points
from scaling.render.figure import Axis, Figure, Line
from scaling.render.table import Table, pairs, record_table
from scaling.report.parts.drawing import c_axis, drawn_share_note, n_axis, thinned
from scaling.tuning.document import FieldResult, TuningResult

CURVES_SHOWN = 240
GRID = 400  # budgets at which the lowest of the loss curves is read
COLUMNS = {
    "n_params": "N",
    "optimum": "optimum",
    "where": "where",
    "recipe.excess_relative": "recipe costs",
    "rule.excess_relative": "rule costs",
    "note": "note",
}


def training_curves(curves: Points | None, source: SourceInfo | None = None) -> Figure | None:
    """Loss against compute, one line a run, and the lowest of these lines (approach 1).

    `curves` holds every evaluation of every run; its `group` is the run. Axes say how the `source`
    of the fit counts.
    """
    sources = [source] if source else []
    if curves is None or not len(curves):
        return None
    table = pd.DataFrame(
        {"run": curves.group, "n": curves.n, "d": curves.d, "c": curves.c, "loss": curves.loss}
    )
    last = table.sort_values("c").groupby("run", sort=False).tail(1).sort_values(["n", "c"])
    kept = last["run"].to_numpy()[thinned(len(last), CURVES_SHOWN)]
    kept = np.union1d(kept, last.nsmallest(10, "loss")["run"])
    drawn = table[table["run"].isin(kept)].sort_values(["n", "run", "c"])
    grid = np.geomspace(drawn["c"].min(), drawn["c"].max(), GRID)
    lowest, lines = np.full(GRID, np.inf), []
    for name, run in drawn.groupby("run", sort=False):
        c, loss = (run[column].to_numpy(float) for column in ("c", "loss"))
        read = np.interp(np.log(grid), np.log(c), np.log(loss), left=np.inf, right=np.inf)
        lowest = np.fmin(lowest, np.exp(read))
        lines.append(Line(c, loss, "", float(run["n"].iloc[0]), "solid", 1.3, f"run {name}"))
    reached = np.isfinite(lowest)
    front = Line(grid[reached], lowest[reached], "lowest curve", "ink", "dash", 1.8)
    caption = (
        "Each line is one run, coloured by its size; the dashed line follows the lowest of the "
        "lines at each compute." + drawn_share_note(len(kept), len(last))
    )
    top = float(np.quantile(table["loss"], 0.995)) * 1.02
    y_axis = Axis("loss (nats per token)", True, range=(float(table["loss"].min()) * 0.97, top))
    title = "Loss against compute"
    axes, scale = (c_axis(*sources), y_axis), n_axis(*sources)
    return Figure("training-curves", title, caption, *axes, (*lines, front), scale)


def optima(result: TuningResult | None) -> list[Table]:
    """One table a tuned field: each size's optimum, whether it is interior, and what the recipe and
    the rule cost there.
    """
    return [field_table(field, cost(result)) for field in result.fields] if result else []


def field_table(field: FieldResult, cost: str = "") -> Table:
    """The optima of a field: where each lies, and how an excess loss is known where the parabola
    does not give it.
    """
    rows = []
    for size in field.sizes:
        best = size.optimum
        notes = [f"best value: {best.why}"] if best and best.why else []
        notes += [
            f"{name}: {regret.known_from}"
            for name, regret in (("recipe", size.recipe), ("rule", size.rule))
            if regret.known_from != "fit"
        ]
        where = f"{size.state}: {size.why}" if size.why else size.state
        rows.append({**dict(size), "where": where, "note": "; ".join(notes)})
    name, title = f"tuning-{field.field.replace('.', '-')}", f"Tuned: {field.field}"
    caption = f"{rule(field)} {cost}".strip()
    rough, percent = ("optimum",), ("recipe costs", "rule costs")
    table = record_table(name, title, rows, caption, columns=COLUMNS, rough=rough, percent=percent)
    return table or pairs(name, title, ())


def rule(field: FieldResult) -> str:
    """The rule that the optima of a field came to."""
    fitted = field.rule
    if fitted.n_range is None:
        return (
            f"rule: {fitted.ratio:.3g} times the recipe's, from one size: how it moves with "
            "N is not measured."
        )
    low, high = map(format_count, fitted.n_range)
    return f"rule: {field.field} = {fitted.formula}, N from {low} to {high}."


def cost(result: TuningResult) -> str:
    """What the tuning cost, compared with the sweep."""
    share = f"{100 * result.share:.0f} % of" if result.share < 2 else f"{result.share:.3g} times"
    return f"Tuning took {format_flops(result.flops)} FLOPs, {share} the sweep's."
