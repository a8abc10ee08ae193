"""Every [[tuning]] table of a sweep in order: values are trained, their optima become a rule, and
the rule goes into the recipe.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.config import PowerRule, Sweep, finite
from scaling.errors import ScalingError
from scaling.formatting import format_count
from scaling.tuning.document import (
    ExcludedValue,
    FieldResult,
    GridValue,
    MeasuredRule,
    Optimum,
    Regret,
    SizeResult,
    Tuned,
    WithError,
)
from scaling.tuning.field_tuning import FieldTuner, Planner, SizeGrid, Train
from scaling.tuning.fields import scaled, with_rule
from scaling.tuning.optimum import fit_optimum, means, power_rule, regret, weighted_mean
from scaling.tuning.value_grid import OptimumStatus, kept_indices, optimum_status
from scaling.warning import ResultWarning, WarningCode, warn

SIGNIFICANT_SIGMAS = 2.0
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
) -> Tuned:
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
    return Tuned(sweep, simulated, tuned, tuple(fields), tuple(warnings))


@dataclass(frozen=True)
class _Size:
    """A grid that is done, its optimum (None where every value diverged), its status, and how the
    optimum moves from the short runs, where it is interior too, to the whole ones.
    """

    grid: SizeGrid
    optimum: Optimum | None
    status: OptimumStatus
    horizon_power: WithError | None


def _summarize(tuner: FieldTuner) -> tuple[FieldResult, Sweep]:
    """The optima and the rule of a table whose grids are done, and the sweep with that rule.

    Raises ScalingError where no size has an interior optimum.
    """
    name, sizes = tuner.tuning.field, [_size(grid) for grid in tuner.sizes]
    tuner.warnings += filter(None, (_warning(size, tuner) for size in sizes))
    interior = [
        (size.grid, size.optimum)
        for size in sizes
        if size.optimum and size.status.state == "interior"
    ]
    if not interior:
        reasons = "; ".join(dict.fromkeys(size.status.why for size in sizes))
        best = [
            f"{size.optimum.value:.3g} at N = {format_count(size.grid.n)}"
            for size in sizes
            if size.optimum
        ]
        so_far = f"best so far: {', '.join(best)}" if best else "every value diverged"
        raise ScalingError(
            f"{name} has no interior optimum at any size: {reasons}",
            where=str(tuner.folder),
            remedy=f"start nearer ({so_far}), or raise tuning.max_extensions",
        )
    grid, optimum = interior[0]
    if len({grid.n for grid, _ in interior}) == 1:  # through one, the recipe's times a constant
        rule = MeasuredRule(kind="ratio", ratio=optimum.value / grid.value)
        changes = scaled(tuner.sweep, name, optimum.value, grid.base.run, grid.n)
    else:
        rule = power_rule(
            [grid.n for grid, _ in interior],
            [optimum.log_value for _, optimum in interior],
            [optimum.se_log for _, optimum in interior],
        )
        power = PowerRule.model_validate(rule.model_dump(include={"coef", "n_power", "n_range"}))
        changes = {tuner.field.rule: power}
    tuned = with_rule(tuner.sweep, name, changes)
    powers = [size.horizon_power for size in sizes if size.horizon_power]
    horizon = weighted_mean(powers) if powers else None
    if horizon and abs(horizon.value) > SIGNIFICANT_SIGMAS * horizon.se:
        message = (
            f"the optimum moves with the tokens as D^({horizon.value:.2f} ± {horizon.se:.2f}), "
            "which the rule leaves out: tune near the horizons that matter"
        )
        code = WarningCode.OPTIMUM_MOVES_WITH_TOKENS
        tuner.warnings.append(warn(code, message, power=horizon.value))
    result = FieldResult(
        field=name,
        unit=tuner.field.unit,
        folder=str(Path(tuner.folder.parent.name) / tuner.folder.name),
        short_run_frac=tuner.tuning.short_run_frac or None,
        margin=tuner.tuning.margin,
        seeds=tuner.tuning.seeds,
        runs=len(tuner.runs),
        flops=sum(run.flops for run in tuner.runs),
        sizes=tuple(_size_result(size, tuner, tuned, rule) for size in sizes),
        rule=rule,
        horizon_power=horizon,
    )
    return result, tuned


def _size(grid: SizeGrid) -> _Size:
    optimum = fit_optimum(grid.full, grid.log_values)
    status = optimum_status(grid.grid, grid.short, grid.full, grid.excluded)
    short, power = fit_optimum(grid.short, grid.log_values), None
    short_status = optimum_status(grid.grid, {}, grid.short, grid.excluded)
    if optimum and short and status.state == short_status.state == "interior":
        span = math.log(grid.tokens / min(tokens for tokens, _ in grid.runs))
        se = math.hypot(optimum.se_log, short.se_log)
        power = WithError(value=(optimum.log_value - short.log_value) / span, se=se / span)
    return _Size(grid, optimum, status, power)


def _warning(size: _Size, tuner: FieldTuner) -> ResultWarning | None:
    optimum, n = size.optimum, size.grid.n
    code = message = None
    if size.status.state == "edge":
        code = WarningCode.EDGE_OPTIMUM
        message = f"edge: {size.status.why}; this size takes no part in the rule"
    elif optimum and optimum.why:
        code = WarningCode.GRID_OPTIMUM
        message = f"the best grid value is taken as the optimum: {optimum.why}"
    elif optimum and optimum.se_log > math.log(tuner.tuning.factor):
        code = WarningCode.UNCERTAIN_OPTIMUM
        message = (
            "the losses are too flat for their noise: the optimum is uncertain by more than one "
            "grid step"
        )
    return warn(code, f"N = {format_count(n)}: {message}", n_params=n) if code else None


def _size_result(size: _Size, tuner: FieldTuner, tuned: Sweep, rule: MeasuredRule) -> SizeResult:
    """A size for the document, with the regrets of the recipe's value and of the rule's."""
    grid, optimum = size.grid, size.optimum
    ruled = tuner.planned_value(tuned, grid) if rule.kind == "ratio" else rule.at(grid.n)

    def cost(value: float, actual: float) -> Regret:
        if optimum is None:
            return Regret(value=value)
        found = regret(math.log(actual), optimum, grid.full, grid.short, grid.log_values)
        return found.model_copy(update={"value": value})

    return SizeResult(
        size=grid.size,
        n_params=grid.n,
        tokens=grid.tokens,
        d_model=grid.base.run.model.d_model,
        state=size.status.state,
        why=size.status.why or None,
        values=tuple(_grid_value(grid, index) for index in sorted(grid.log_values)),
        excluded=tuple(
            ExcludedValue(value=grid.value_at(index), reason=reason)
            for index, reason in sorted(grid.excluded.items())
        ),
        optimum=optimum,
        recipe=cost(grid.value, grid.actual.get(0, grid.value)),
        rule=cost(ruled, ruled),
        horizon_power=size.horizon_power,
    )


def _grid_value(grid: SizeGrid, index: int) -> GridValue:
    short, full = means(grid.short).get(index), means(grid.full).get(index)
    last: Any = short if full is None else full
    return GridValue(
        index=index,
        value=grid.actual[index],
        short_run_loss=finite(short),
        loss=finite(full),
        losses=tuple(finite(loss) for loss in grid.full.get(index, [])),
        state="diverged" if math.isinf(last) else "dropped" if full is None else "trained",
        kept=index in kept_indices(grid.grid, grid.short),
    )
