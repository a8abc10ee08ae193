"""`TuningResult`, the document tuning.json: what was tried and measured, and the tuned sweep."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scaling import files
from scaling.config import Sweep, finite
from scaling.config.sweep_file import write_sweep
from scaling.errors import ScalingError
from scaling.tuning.optimum import KnownFrom, NoiseFrom, Optimum, Regret, means
from scaling.tuning.tune import Tuned, TunedField, TunedSize
from scaling.tuning.value_grid import kept_indices
from scaling.warning import ResultWarning

SCHEMA: Literal[2] = 2
NAME = "tuning.json"
MARK = "with the rules that `scaling tune` measured"  # in the head of every sweep file it writes
NORMAL_95 = 1.959964


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GridValue(_Part):
    """A value that was tried: losses (nats) are null where it was not trained or diverged."""

    index: int
    value: float
    short_run_loss: float | None
    loss: float | None
    losses: tuple[float | None, ...]
    state: Literal["trained", "dropped", "diverged"]
    kept: bool


class ExcludedValue(_Part):
    """A value that could not be trained."""

    value: float
    reason: str


class OptimumEstimate(_Part):
    """The best value of a size with its 95 % interval; `why` the best value replaces a parabola."""

    value: float
    se_log: float
    lo: float
    hi: float
    loss: float
    curvature: float | None
    by: Literal["parabola", "best value"]
    why: str | None
    noise: float
    noise_from: NoiseFrom


class ValueCost(_Part):
    """A value with its loss above the optimum, in nats and relative."""

    value: float | None
    excess: float | None
    excess_relative: float | None
    known_from: KnownFrom


class WithError(_Part):
    """A number with its standard error."""

    value: float
    se: float


class SizeResult(_Part):
    """The grid of one size, its optimum, and the cost of the recipe's and of the rule's value."""

    size: float
    n_params: float
    tokens: float
    d_model: int
    state: Literal["interior", "edge"]
    why: str | None
    values: tuple[GridValue, ...]
    excluded: tuple[ExcludedValue, ...]
    optimum: OptimumEstimate | None
    recipe: ValueCost
    rule: ValueCost
    horizon_power: WithError | None


class MeasuredRule(_Part):
    """value = coef x N^n_power ("power"), or the recipe's own rule times `ratio` ("ratio")."""

    kind: Literal["power", "ratio"]
    ratio: float | None = None
    coef: float | None = None
    n_power: float | None = None
    n_power_se: float | None = None
    n_range: tuple[float, float] | None = None
    sizes: int | None = None


class FieldResult(_Part):
    """One [[tuning]] table: its sizes and the rule that they give."""

    field: str
    unit: str
    folder: str
    short_run_frac: float | None
    margin: float
    seeds: tuple[int, ...]
    runs: int
    flops: float
    sizes: tuple[SizeResult, ...]
    rule: MeasuredRule
    horizon_power: WithError | None


class TuningResult(_Part):
    """What `scaling tune` writes; `flops` of the tuning, `sweep_flops` of the tuned sweep."""

    model_config = ConfigDict(populate_by_name=True)

    schema_version: Literal[2] = Field(default=SCHEMA, alias="schema")
    sweep: str
    digest: str
    simulated: str | None
    fields: tuple[FieldResult, ...]
    flops: float
    sweep_flops: float
    share: float
    warnings: tuple[ResultWarning, ...]
    tuned: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return self.model_dump(mode="json", by_alias=True)

    def save(self, folder: Path) -> None:
        """Write tuning.json, unless it says this already. Raises ScalingError (74)."""
        path, document = folder / NAME, self.to_dict()
        with contextlib.suppress(FileNotFoundError, files.ChecksumError):
            if files.read_json(path) == document:
                return
        files.write_json(path, document)

    @classmethod
    def load(cls, folder: Path) -> TuningResult:
        """Read tuning.json. Raises FileNotFoundError, ValidationError, files.ChecksumError."""
        document = files.read_json(folder / NAME)
        return cls.model_validate_json(json.dumps(document))


def digest(sweep: Sweep) -> str:
    """The sweep that a tuning belongs to: sixteen hexadecimal digits of all non-default keys."""
    return hashlib.sha256(sweep.canonical().encode()).hexdigest()[:16]


def tuning_result(tuned: Tuned, sweep_flops: float) -> TuningResult:
    """The document of a tuning; `sweep_flops` is what the tuned sweep itself will train."""
    return TuningResult(
        sweep=tuned.origin.name,
        digest=digest(tuned.origin),
        simulated=tuned.simulated,
        fields=tuple(map(_field, tuned.fields)),
        flops=tuned.flops,
        sweep_flops=sweep_flops,
        share=tuned.flops / sweep_flops,
        warnings=tuple(
            warning.model_copy(update={"message": f"{field.tuner.tuning.field}: {warning.message}"})
            for field in tuned.fields
            for warning in field.warnings
        ),
        tuned=json.loads(tuned.sweep.canonical()),
    )


def _field(result: TunedField) -> FieldResult:
    power, tuner = result.power, result.tuner
    rule = MeasuredRule(kind="ratio", ratio=result.ratio)
    if power:
        rule = MeasuredRule(
            kind="power",
            coef=power.coef,
            n_power=power.power,
            n_power_se=power.power_se,
            n_range=power.n_range,
            sizes=power.sizes,
        )
    return FieldResult(
        field=tuner.tuning.field,
        unit=tuner.field.unit,
        folder=str(Path(tuner.folder.parent.name) / tuner.folder.name),
        short_run_frac=tuner.tuning.short_run_frac or None,
        margin=tuner.tuning.margin,
        seeds=tuner.tuning.seeds,
        runs=tuner.n_runs,
        flops=tuner.flops,
        sizes=tuple(map(_size, result.sizes)),
        rule=rule,
        horizon_power=_with_error(result.horizon_power),
    )


def _size(size: TunedSize) -> SizeResult:
    grid = size.grid
    return SizeResult(
        size=grid.size,
        n_params=grid.n,
        tokens=grid.tokens,
        d_model=grid.base.run.model.d_model,
        state=size.status.state,
        why=size.status.why or None,
        values=tuple(_grid_value(size, index) for index in sorted(grid.log_values)),
        excluded=tuple(
            ExcludedValue(value=grid.value_at(index), reason=reason)
            for index, reason in sorted(grid.excluded.items())
        ),
        optimum=_optimum(size.optimum) if size.optimum else None,
        recipe=_cost(grid.value, size.recipe),
        rule=_cost(size.rule_value, size.rule or Regret(None, "unknown")),
        horizon_power=_with_error(size.horizon_power),
    )


def _grid_value(size: TunedSize, index: int) -> GridValue:
    grid = size.grid
    short, full = means(grid.short).get(index), means(grid.full).get(index)
    last = full if full is not None else short
    is_diverged = last is not None and math.isinf(last)
    return GridValue(
        index=index,
        value=grid.actual[index],
        short_run_loss=finite(short),
        loss=finite(full),
        losses=tuple(finite(loss) for loss in grid.full.get(index, [])),
        state="diverged" if is_diverged else "trained" if full is not None else "dropped",
        kept=index in kept_indices(grid.grid, grid.short),
    )


def _optimum(optimum: Optimum) -> OptimumEstimate:
    half_width = NORMAL_95 * optimum.se
    return OptimumEstimate(
        value=optimum.value,
        se_log=optimum.se,
        lo=math.exp(optimum.log_value - half_width),
        hi=math.exp(optimum.log_value + half_width),
        loss=optimum.loss,
        curvature=optimum.curvature,
        by="best value" if optimum.curvature is None else "parabola",
        why=optimum.why or None,
        noise=optimum.noise,
        noise_from=optimum.noise_from,
    )


def _cost(value: float | None, regret: Regret) -> ValueCost:
    return ValueCost(
        value=value,
        excess=regret.nats,
        excess_relative=regret.relative,
        known_from=regret.known_from,
    )


def _with_error(pair: tuple[float, float] | None) -> WithError | None:
    return WithError(value=pair[0], se=pair[1]) if pair else None


def check_target(target: Path) -> None:
    """Raise ScalingError where writing a tuned sweep would replace a file that `scaling tune` has
    not written.
    """
    if not target.exists():
        return
    if not target.is_file() or MARK not in target.read_bytes()[:4096].decode("utf-8", "replace"):
        raise ScalingError(
            "is there already, and `scaling tune` has not written it",
            where=str(target),
            remedy="name another file",
        )


def write_tuned_sweep(target: Path, sweep: Sweep) -> None:
    """Write the tuned sweep file, and read it back. Raises ScalingError (74)."""
    head = f"The sweep {sweep.name} {MARK}; {NAME} in its folder says from which runs."
    write_sweep(sweep, target, head, over=True)


@dataclass(frozen=True)
class CachedTuning:
    """The tuned sweep that a folder holds for a sweep file; None with the reason if it has none."""

    sweep: Sweep | None
    why: str = ""


def load_tuned(folder: Path, sweep: Sweep, simulated: str | None = None) -> CachedTuning:
    """The tuned `sweep` of a folder. Raises ScalingError (74) where tuning.json cannot be read."""
    path = folder / NAME
    try:
        schema = files.read_json(path).get("schema")
        if schema != SCHEMA:
            return CachedTuning(None, f"{path} has schema {schema}, this program reads {SCHEMA}")
        result = TuningResult.load(folder)
        if result.digest != digest(sweep):
            return CachedTuning(None, f"{path} was measured for another version of the sweep file")
        if result.simulated != simulated:
            kind = "simulated" if result.simulated else "not simulated"
            return CachedTuning(None, f"{path} is {kind}")
        return CachedTuning(Sweep.model_validate_json(json.dumps(result.tuned)))
    except (FileNotFoundError, NotADirectoryError):
        return CachedTuning(None, "not tuned yet")
    except (files.ChecksumError, ValidationError) as error:
        return CachedTuning(None, f"{path} is corrupt: {str(error).splitlines()[0]}")
