"""Every [[tuning]] table of a sweep in order: rungs are trained, the optima become a rule, and the rule goes into the recipe."""

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
from scaling.tuning.ladder import OptimumStatus, standing
from scaling.tuning.optimum import Optimum, Regret, excess, fit_optimum
from scaling.tuning.power_rule import Power, power_rule, weighted_mean

SURE = 2.0  # standard errors
FOLDER = "tuning"  # beside the runs of the sweep itself


@dataclass(frozen=True)
class TunedSize:
    """What the ladder of one size says: its optimum (None where every rung diverged), where the best rung stands, and costs.

    `horizon_power` is d log(optimum) / d log(tokens) between the scouts' horizon and the whole, with its standard error.
    """

    ladder: SizeGrid
    optimum: Optimum | None
    standing: OptimumStatus
    recipe: Regret
    horizon_power: tuple[float, float] | None = None
    rule: Regret | None = None
    rule_value: float | None = None


@dataclass(frozen=True)
class TunedField:
    """What one table of a sweep file came to: the sizes, the rule (None: a ratio from one size), and what to doubt."""

    stage: FieldTuner
    sizes: tuple[TunedSize, ...]
    power: Power | None
    ratio: float | None
    changes: dict[str, Any]
    horizon_power: tuple[float, float] | None
    warnings: tuple[str, ...]


@dataclass
class Tuned:
    """A tuned sweep and how it came about. `sweep` has the measured rules and no [[tuning]] any more."""

    origin: Sweep
    simulated: str | None
    sweep: Sweep
    fields: list[TunedField] = field(default_factory=list)

    @property
    def flops(self) -> float:
        """Training FLOPs of all rungs of all fields, each run alone."""
        return sum(found.stage.flops for found in self.fields)


def is_pending(sweep: Sweep) -> bool:
    """Whether a sweep asks for a tuning whose rule its recipe does not have yet."""
    return any(not is_measured(sweep, entry.field) for entry in sweep.tuning)


def stage_folders(sweep: Sweep, folder: Path) -> list[Path]:
    """The folder of each [[tuning]] table: DIR/tuning/<field>, numbered where a field is tuned again."""
    seen: Counter[str] = Counter()
    found = []
    for entry in sweep.tuning:
        seen[entry.field] += 1
        again = f"-{seen[entry.field]}" if seen[entry.field] > 1 else ""
        found.append(folder / FOLDER / f"{entry.field}{again}")
    return found


def check(sweep: Sweep) -> None:
    """Raise ScalingError for a sweep that asks for no tuning, or varies by an axis what it tunes."""
    if not sweep.tuning:
        raise ScalingError(
            "the sweep asks for no tuning", remedy='add a table [[tuning]] with field = "optim.lr"'
        )
    varied = {axis.field for axis in sweep.axes} & {entry.field for entry in sweep.tuning}
    if varied:
        raise ScalingError(
            f"{min(varied)} is tuned and an axis at once",
            where="axes",
            remedy="leave out the axis, or the [[tuning]]",
        )


def tune(
    sweep: Sweep, planned: Planner, folder: Path, train: Train, simulated: str | None = None
) -> Tuned:
    """Carry out every [[tuning]] of a sweep in `folder`; `train` is asked for the runs that the folder of a field lacks.

    A later table uses the rule of an earlier one. Raises ScalingError where a field has no interior optimum at any size.
    """
    check(sweep)
    found = Tuned(sweep, simulated, sweep)
    for entry, place in zip(sweep.tuning, stage_folders(sweep, folder), strict=True):
        stage = FieldTuner(found.sweep, entry, place, planned)
        stage.advance(train)
        result = summarize(stage)
        found.fields.append(result)
        found.sweep = with_rule(found.sweep, entry.field, result.changes)
    found.sweep = found.sweep.model_copy(update={"tuning": ()})
    return found


def summarize(stage: FieldTuner) -> TunedField:
    """The optima and the rule of a stage whose ladders are done. Raises ScalingError where no size has an interior optimum."""
    sizes = [_conclude_size(ladder) for ladder in stage.sizes]
    warnings = [*stage.warnings, *(text for size in sizes for text in _doubts(size, stage))]
    interior = [
        (size.ladder, size.optimum)
        for size in sizes
        if size.optimum and size.standing.state == "interior"
    ]
    if not interior:
        reasons = "; ".join(dict.fromkeys(size.standing.why for size in sizes))
        raise ScalingError(
            f"{stage.tuning.field} has no interior optimum at any size: {reasons}",
            where=str(stage.folder),
            remedy=f"start nearer ({_tendency(sizes)}), or raise tuning.extend",
        )
    power, ratio, changes = _rule(stage, interior)
    tuned = with_rule(stage.sweep, stage.tuning.field, changes)
    sizes = [_with_rule_regret(size, stage, tuned, power) for size in sizes]
    moved = [size.horizon_power for size in sizes if size.horizon_power]
    horizon = (
        weighted_mean([value for value, _ in moved], [se for _, se in moved]) if moved else None
    )
    if horizon and abs(horizon[0]) > SURE * horizon[1]:
        told = f"the optimum moves with the tokens as D^({horizon[0]:.2f} ± {horizon[1]:.2f}), which the rule does not know: tune near the horizons that matter"
        warnings.append(told)
    return TunedField(stage, tuple(sizes), power, ratio, changes, horizon, tuple(warnings))


def _conclude_size(ladder: SizeGrid) -> TunedSize:
    found = fit_optimum(ladder.full, ladder.log_values)
    stands = standing(ladder.rules, ladder.scouts, ladder.full, ladder.closed)
    if found is None:
        return TunedSize(ladder, None, stands, Regret(None, "unknown"))
    cost = excess(
        math.log(ladder.had.get(0, ladder.value)),
        found,
        ladder.full,
        ladder.scouts,
        ladder.log_values,
    )
    return TunedSize(
        ladder,
        found,
        stands,
        cost,
        _horizon_power(ladder, found) if stands.state == "interior" else None,
    )


def _horizon_power(ladder: SizeGrid, found: Optimum) -> tuple[float, float] | None:
    """How the optimum moves with the tokens, from the scouts' to the whole horizon; None where the scouts have no interior one."""
    scouted = fit_optimum(ladder.scouts, ladder.log_values)
    if scouted is None or standing(ladder.rules, {}, ladder.scouts, ladder.closed).state == "edge":
        return None
    shorter = next(tokens for tokens, _ in ladder.runs if tokens != ladder.tokens)
    span = math.log(ladder.tokens / shorter)
    return (found.log_value - scouted.log_value) / span, math.hypot(found.se, scouted.se) / span


def _doubts(size: TunedSize, stage: FieldTuner) -> list[str]:
    """What a person should know of one size."""
    where = f"N = {format_count(size.ladder.n)}"
    found = []
    if size.standing.state == "edge":
        found.append(
            f"{where}: edge: {size.standing.why}; this size does not take part in the rule"
        )
    elif size.optimum and size.optimum.why:
        found.append(f"{where}: the best rung stands for the optimum: {size.optimum.why}")
    elif size.optimum and size.optimum.se > math.log(stage.tuning.factor):
        found.append(
            f"{where}: the valley is too flat for its noise: the optimum is uncertain by more than a rung"
        )
    return found


def _tendency(sizes: list[TunedSize]) -> str:
    """The best rungs of all sizes, for a message."""
    best = [
        f"{size.optimum.value:.3g} at N = {format_count(size.ladder.n)}"
        for size in sizes
        if size.optimum
    ]
    return f"best so far: {', '.join(best)}" if best else "every rung diverged"


def _rule(
    stage: FieldTuner, interior: list[tuple[SizeGrid, Optimum]]
) -> tuple[Power | None, float | None, dict[str, Any]]:
    """A power of N through two or more optima; through one, the recipe's own rule times a constant."""
    name = stage.tuning.field
    if len({ladder.n for ladder, _ in interior}) == 1:
        ladder, optimum = interior[0]
        return (
            None,
            optimum.value / ladder.value,
            scaled(stage.sweep, name, optimum.value, ladder.base.run, ladder.n),
        )
    power = power_rule(
        [ladder.n for ladder, _ in interior],
        [optimum.log_value for _, optimum in interior],
        [optimum.se for _, optimum in interior],
    )
    low, high = power.n_range
    return (
        power,
        None,
        {stage.field.rule: PowerRule(coef=power.coef, n_power=power.power, n_range=(low, high))},
    )


def _with_rule_regret(
    size: TunedSize, stage: FieldTuner, tuned: Sweep, power: Power | None
) -> TunedSize:
    """With what the rule says at this size, and costs there above its optimum."""
    ladder = size.ladder
    value = power.at(ladder.n) if power else stage.planned_value(tuned, ladder)
    if size.optimum is None:
        return replace(size, rule_value=value)
    return replace(
        size,
        rule_value=value,
        rule=excess(math.log(value), size.optimum, ladder.full, ladder.scouts, ladder.log_values),
    )
