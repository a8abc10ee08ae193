"""Every [[tuning]] table of a sweep in order: values are trained, their optima become a rule, and
the rule goes into the recipe.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scaling.config import PowerRule, Sweep
from scaling.errors import ScalingError
from scaling.formatting import format_count
from scaling.tuning.field_tuning import FieldTuner, Planner, SizeGrid, Train
from scaling.tuning.fields import is_measured, scaled, with_rule
from scaling.tuning.optimum import (
    Optimum,
    Power,
    Regret,
    fit_optimum,
    power_rule,
    regret,
    weighted_mean,
)
from scaling.tuning.value_grid import OptimumStatus, optimum_status
from scaling.warning import ResultWarning, WarningCode, warn

SIGNIFICANT_SIGMAS = 2.0
FOLDER = "tuning"  # in the sweep's folder, next to its runs


@dataclass(frozen=True)
class TunedSize:
    """The optimum of one size (None where every value diverged), its status, and the regrets of the
    recipe's value and of the rule's.

    `horizon_power` is d log(optimum) / d log(tokens) between the short runs' horizon and the whole,
    with its standard error.
    """

    grid: SizeGrid
    optimum: Optimum | None
    status: OptimumStatus
    recipe: Regret
    horizon_power: tuple[float, float] | None = None
    rule: Regret | None = None
    rule_value: float | None = None


@dataclass(frozen=True)
class TunedField:
    """The result of one table: its sizes, and a power of N or (from one size) a ratio as rule."""

    tuner: FieldTuner
    sizes: tuple[TunedSize, ...]
    power: Power | None
    ratio: float | None
    changes: dict[str, Any]
    horizon_power: tuple[float, float] | None
    warnings: tuple[ResultWarning, ...]


@dataclass
class Tuned:
    """A tuned sweep and its origin. `sweep` has the measured rules and no [[tuning]] tables."""

    origin: Sweep
    simulated: str | None
    sweep: Sweep
    fields: list[TunedField] = field(default_factory=list)

    @property
    def flops(self) -> float:
        """Training FLOPs of the runs of all fields, each trained alone."""
        return sum(result.tuner.flops for result in self.fields)


def is_pending(sweep: Sweep) -> bool:
    """Whether a sweep asks for a tuning whose rule its recipe does not have yet."""
    return any(not is_measured(sweep, entry.field) for entry in sweep.tuning)


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
    tuned = Tuned(sweep, simulated, sweep)
    for entry, path in zip(sweep.tuning, table_folders(sweep, folder), strict=True):
        tuner = FieldTuner(tuned.sweep, entry, path, planned)
        tuner.run(train)
        result = summarize(tuner)
        tuned.fields.append(result)
        tuned.sweep = with_rule(tuned.sweep, entry.field, result.changes)
    tuned.sweep = tuned.sweep.model_copy(update={"tuning": ()})
    return tuned


def summarize(tuner: FieldTuner) -> TunedField:
    """The optima and the rule of a table whose grids are done.

    Raises ScalingError where no size has an interior optimum.
    """
    sizes = [_summarize_size(grid) for grid in tuner.sizes]
    warnings = [*tuner.warnings, *filter(None, (_warning(size, tuner) for size in sizes))]
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
            f"{tuner.tuning.field} has no interior optimum at any size: {reasons}",
            where=str(tuner.folder),
            remedy=f"start nearer ({so_far}), or raise tuning.max_extensions",
        )
    power, ratio, changes = _rule(tuner, interior)
    tuned = with_rule(tuner.sweep, tuner.tuning.field, changes)
    sizes = [_with_rule_regret(size, tuner, tuned, power) for size in sizes]
    powers = [size.horizon_power for size in sizes if size.horizon_power]
    horizon = weighted_mean(*zip(*powers, strict=True)) if powers else None
    if horizon and abs(horizon[0]) > SIGNIFICANT_SIGMAS * horizon[1]:
        message = (
            f"the optimum moves with the tokens as D^({horizon[0]:.2f} ± {horizon[1]:.2f}), which "
            "the rule leaves out: tune near the horizons that matter"
        )
        warnings.append(warn(WarningCode.OPTIMUM_MOVES_WITH_TOKENS, message, power=horizon[0]))
    return TunedField(tuner, tuple(sizes), power, ratio, changes, horizon, tuple(warnings))


def _summarize_size(grid: SizeGrid) -> TunedSize:
    optimum = fit_optimum(grid.full, grid.log_values)
    status = optimum_status(grid.grid, grid.short, grid.full, grid.excluded)
    if optimum is None:
        return TunedSize(grid, None, status, Regret(None, "unknown"))
    log_value = math.log(grid.actual.get(0, grid.value))
    recipe = regret(log_value, optimum, grid.full, grid.short, grid.log_values)
    horizon = _horizon_power(grid, optimum) if status.state == "interior" else None
    return TunedSize(grid, optimum, status, recipe, horizon)


def _horizon_power(grid: SizeGrid, optimum: Optimum) -> tuple[float, float] | None:
    """The power of the tokens with which the optimum moves, from the short runs to the whole ones;
    None where the short runs have no interior optimum.
    """
    short = fit_optimum(grid.short, grid.log_values)
    if short is None or optimum_status(grid.grid, {}, grid.short, grid.excluded).state == "edge":
        return None
    short_tokens = next(tokens for tokens, _ in grid.runs if tokens != grid.tokens)
    span = math.log(grid.tokens / short_tokens)
    return (optimum.log_value - short.log_value) / span, math.hypot(optimum.se, short.se) / span


def _warning(size: TunedSize, tuner: FieldTuner) -> ResultWarning | None:
    optimum, n = size.optimum, size.grid.n
    code = message = None
    if size.status.state == "edge":
        code = WarningCode.EDGE_OPTIMUM
        message = f"edge: {size.status.why}; this size takes no part in the rule"
    elif optimum and optimum.why:
        code = WarningCode.GRID_OPTIMUM
        message = f"the best grid value is taken as the optimum: {optimum.why}"
    elif optimum and optimum.se > math.log(tuner.tuning.factor):
        code = WarningCode.UNCERTAIN_OPTIMUM
        message = (
            "the losses are too flat for their noise: the optimum is uncertain by more than one "
            "grid step"
        )
    return warn(code, f"N = {format_count(n)}: {message}", n_params=n) if code else None


def _rule(
    tuner: FieldTuner, interior: list[tuple[SizeGrid, Optimum]]
) -> tuple[Power | None, float | None, dict[str, Any]]:
    """A power of N through two or more optima; through one, the recipe's rule times a constant."""
    if len({grid.n for grid, _ in interior}) == 1:
        grid, optimum = interior[0]
        changes = scaled(tuner.sweep, tuner.tuning.field, optimum.value, grid.base.run, grid.n)
        return None, optimum.value / grid.value, changes
    power = power_rule(
        [grid.n for grid, _ in interior],
        [optimum.log_value for _, optimum in interior],
        [optimum.se for _, optimum in interior],
    )
    rule = PowerRule(coef=power.coef, n_power=power.power, n_range=power.n_range)
    return power, None, {tuner.field.rule: rule}


def _with_rule_regret(
    size: TunedSize, tuner: FieldTuner, tuned: Sweep, power: Power | None
) -> TunedSize:
    """The size with the rule's value there and its regret."""
    grid = size.grid
    value = power.at(grid.n) if power else tuner.planned_value(tuned, grid)
    if size.optimum is None:
        return replace(size, rule_value=value)
    cost = regret(math.log(value), size.optimum, grid.full, grid.short, grid.log_values)
    return replace(size, rule_value=value, rule=cost)
