"""Every [[tuning]] table of a sweep in order: values are trained, their optima become a rule, and
the rule goes into the recipe.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from scaling.config import PowerRule, Sweep, finite
from scaling.errors import ScalingError
from scaling.formatting import format_count
from scaling.tuning.document import (
    ExcludedValue,
    FieldResult,
    GridValue,
    MeasuredRule,
    Regret,
    SizeResult,
    TuningResult,
    digest,
)
from scaling.tuning.field_tuning import FieldTuner, Planner, SizeGrid, Train
from scaling.tuning.fields import scaled, with_rule
from scaling.tuning.optimum import means, power_rule, regret
from scaling.warning import ResultWarning, WarningCode, warn

FOLDER = "tuning"  # in the sweep's folder, next to its runs


def table_folders(sweep: Sweep, folder: Path) -> list[Path]:
    """The folder of each [[tuning]] table: DIR/tuning/<field>, numbered where a field repeats."""
    counts: Counter[str] = Counter()
    folders = []
    for entry in sweep.tuning:
        counts[entry.field] += 1
        number = f"-{counts[entry.field]}" if counts[entry.field] > 1 else ""
        folders.append(folder / FOLDER / f"{entry.field}{number}")
    return folders


def tune(
    sweep: Sweep, planned: Planner, folder: Path, train: Train, simulated: str | None = None
) -> TuningResult:
    """Tune every [[tuning]] table of a sweep; `train` trains the runs that a table's folder lacks.

    A later table uses the rule of an earlier one. Raises ScalingError for a sweep without tables,
    for a field that is also an axis, and where a field has no interior optimum at any size.
    """
    if not sweep.tuning:
        raise ScalingError(
            "the sweep asks for no tuning", remedy='add a table [[tuning]] with field = "optim.lr"'
        )
    on_axes = {axis.field for axis in sweep.axes} & {entry.field for entry in sweep.tuning}
    if on_axes:
        raise ScalingError(
            f"{min(on_axes)} is tuned and an axis at once",
            where="axes",
            remedy="leave out the axis, or the [[tuning]]",
        )
    tuned, fields = sweep, []
    warnings: list[ResultWarning] = []
    for entry, path in zip(sweep.tuning, table_folders(sweep, folder), strict=True):
        tuner = FieldTuner(tuned, entry, path, planned)
        tuner.run(train)
        result, tuned = _summarize(tuner)
        fields.append(result)
        warnings += [
            warning.model_copy(update={"message": f"{entry.field}: {warning.message}"})
            for warning in tuner.warnings
        ]
    tuned = tuned.model_copy(update={"tuning": ()})
    flops, sweep_flops = sum(field.flops for field in fields), planned(tuned).shared_flops
    return TuningResult(
        sweep=sweep.name,
        digest=digest(sweep),
        simulated=simulated,
        fields=tuple(fields),
        flops=flops,
        sweep_flops=sweep_flops,
        share=flops / sweep_flops,
        warnings=tuple(warnings),
        tuned=json.loads(tuned.canonical()),
    )


def _summarize(tuner: FieldTuner) -> tuple[FieldResult, Sweep]:
    """The optima and the rule of a table whose grids are done, and the sweep with that rule.

    Raises ScalingError where no size has an interior optimum.
    """
    name, sizes = tuner.tuning.field, tuner.sizes
    tuner.warnings += filter(None, map(_warning, sizes))
    interior = [(grid, grid.optimum) for grid in sizes if grid.optimum and not grid.why]
    if not interior:
        reasons = "; ".join(dict.fromkeys(grid.why for grid in sizes))
        optima = [(each.optimum, each.n) for each in sizes if each.optimum]
        best = [f"{optimum.value:.3g} at N = {format_count(n)}" for optimum, n in optima]
        so_far = f"best so far: {', '.join(best)}" if best else "every value diverged"
        raise ScalingError(
            f"{name} has no interior optimum at any size: {reasons}",
            where=tuner.folder,
            remedy=f"start nearer ({so_far}), or raise tuning.max_extensions",
        )
    grid, optimum = interior[0]
    batches = [grid.base.run.batch_tokens for grid, _ in interior if tuner.tuning.batch_sizes]
    n_sizes = len({grid.n for grid, _ in interior})
    if len(set(batches)) < 2 or len(interior) < (n_sizes > 1) + 2:
        batches = []
    if n_sizes == 1 and not batches:  # through one, the recipe's times a constant
        rule = MeasuredRule(kind="ratio", ratio=optimum.value / grid.value)
        changes = scaled(tuner.sweep, name, optimum.value, grid.base.run, grid.n)
    else:
        rule = power_rule(
            [grid.n for grid, _ in interior],
            [optimum.log_value for _, optimum in interior],
            [optimum.se_log for _, optimum in interior],
            batches,
        )
        shared = {"coef", "n_power", "batch_power", "n_range"}
        power = PowerRule.model_validate(rule.model_dump(include=shared))
        changes = {tuner.field.rule: power}
    tuned = with_rule(tuner.sweep, name, changes)
    result = FieldResult(
        field=name,
        unit=tuner.field.unit,
        folder=str(Path(tuner.folder.parent.name) / tuner.folder.name),
        short_run_frac=tuner.tuning.short_run_frac or None,
        margin=tuner.tuning.margin,
        seeds=tuner.tuning.seeds,
        runs=len(tuner.runs),
        flops=sum(run.flops for run in tuner.runs),
        sizes=tuple(_size_result(grid, tuner, rule) for grid in sizes),
        rule=rule,
    )
    return result, tuned


def _warning(grid: SizeGrid) -> ResultWarning | None:
    optimum, code, message = grid.optimum, None, ""
    if grid.why:
        code = WarningCode.EDGE_OPTIMUM
        message = f"edge: {grid.why}; this size takes no part in the rule"
    elif optimum and optimum.why:
        code = WarningCode.GRID_OPTIMUM
        message = f"the best grid value is taken as the optimum: {optimum.why}"
    elif optimum and optimum.se_log > math.log(grid.factor):
        code = WarningCode.UNCERTAIN_OPTIMUM
        message = (
            "the losses are too flat for their noise: the optimum is uncertain by more than one "
            "grid step"
        )
    return warn(code, f"N = {format_count(grid.n)}: {message}", n_params=grid.n) if code else None


def _size_result(grid: SizeGrid, tuner: FieldTuner, rule: MeasuredRule) -> SizeResult:
    """A size for the document, with the regrets of the recipe's value and of the rule's."""
    optimum, short, full = grid.optimum, means(grid.short), means(grid.full)
    run = grid.base.run
    ruled = rule.ratio * grid.value if rule.ratio else rule.at(grid.n, run.batch_tokens)

    def cost(value: float, actual: float) -> Regret:
        if optimum is None:
            return Regret(value=value)
        above = regret(math.log(actual), optimum, grid.full, grid.short, grid.log_values)
        return above.model_copy(update={"value": value})

    return SizeResult(
        size=grid.size,
        n_params=grid.n,
        tokens=grid.tokens,
        batch_tokens=run.batch_tokens if tuner.tuning.batch_sizes else None,
        d_model=run.model.d_model,
        state="edge" if grid.why else "interior",
        why=grid.why or None,
        values=tuple(
            GridValue(
                index=index,
                value=grid.actual[index],
                short_run_loss=finite(short.get(index)),
                loss=finite(full.get(index)),
                losses=tuple(finite(loss) for loss in grid.full.get(index, [])),
                state="diverged"
                if math.isinf({**short, **full}[index])
                else "trained"
                if index in full
                else "dropped",
                kept=index in grid.kept,
            )
            for index in sorted(grid.log_values)
        ),
        excluded=tuple(
            ExcludedValue(value=grid.value_at(index), reason=reason)
            for index, reason in sorted(grid.excluded.items())
        ),
        optimum=optimum,
        recipe=cost(grid.value, grid.actual.get(0, grid.value)),
        rule=cost(ruled, ruled),
    )
