"""tuning.json: what was tried, found and concluded, and the tuned sweep, which `scaling plan` and `scaling run` take from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scaling import files
from scaling.config import Sweep, finite
from scaling.config.sweep_file import write_sweep
from scaling.tuning.ladder import survivors
from scaling.tuning.optimum import Optimum, Regret, means
from scaling.tuning.tune import Tuned, TunedField, TunedSize

SCHEMA = 1
NAME = "tuning.json"
MARK = "with the rules that `scaling tune` measured"  # in the head of every sweep file that a tuning wrote
SIGMA = 1.959964  # of a 95 % interval


def digest(sweep: Sweep) -> str:
    """What a tuning belongs to: sixteen hexadecimal digits of everything in a sweep file that is not a default."""
    return hashlib.sha256(sweep.canonical().encode()).hexdigest()[:16]


def document(tuned: Tuned, sweep_flops: float) -> dict[str, Any]:
    """The whole result as JSON; `sweep_flops` is what the tuned sweep itself will train."""
    return {
        "schema": SCHEMA,
        "sweep": tuned.origin.name,
        "digest": digest(tuned.origin),
        "simulated": tuned.simulated,
        "fields": [_field(found) for found in tuned.fields],
        "flops": tuned.flops,
        "sweep_flops": sweep_flops,
        "share": tuned.flops / sweep_flops,
        "warnings": [
            f"{found.stage.tuning.field}: {text}"
            for found in tuned.fields
            for text in found.warnings
        ],
        "tuned": json.loads(tuned.sweep.canonical()),
    }


def _field(found: TunedField) -> dict[str, Any]:
    power = found.power
    rule: dict[str, Any] = {"kind": "ratio", "ratio": found.ratio}
    if power:
        rule = {
            "kind": "power",
            "coef": power.coef,
            "n_power": power.power,
            "n_power_se": power.power_se,
            "n_range": list(power.n_range),
            "sizes": power.sizes,
        }
    return {
        "field": found.stage.tuning.field,
        "unit": found.stage.field.unit,
        "folder": str(Path(found.stage.folder.parent.name) / found.stage.folder.name),
        "scout": found.stage.tuning.scout or None,
        "margin": found.stage.tuning.margin,
        "seeds": list(found.stage.tuning.seeds),
        "runs": found.stage.n_runs,
        "flops": found.stage.flops,
        "sizes": [_size(size) for size in found.sizes],
        "rule": rule,
        "horizon_power": _with_se(found.horizon_power),
    }


def _size(size: TunedSize) -> dict[str, Any]:
    ladder = size.ladder
    return {
        "size": ladder.size,
        "n_params": ladder.n,
        "tokens": ladder.tokens,
        "d_model": ladder.base.run.model.d_model,
        "state": size.standing.state,
        "why": size.standing.why or None,
        "rungs": [_rung(size, rung) for rung in sorted(ladder.log_values)],
        "closed": [
            {"value": ladder.value_of(rung), "reason": reason}
            for rung, reason in sorted(ladder.closed.items())
        ],
        "optimum": _optimum(size.optimum) if size.optimum else None,
        "recipe": {"value": ladder.value, **_excess(size.recipe)},
        "rule": {"value": size.rule_value, **_excess(size.rule or Regret(None, "unknown"))},
        "horizon_power": _with_se(size.horizon_power),
    }


def _rung(size: TunedSize, rung: int) -> dict[str, Any]:
    """One rung: losses are null where it was not trained so far or diverged, and `state` says which."""
    ladder = size.ladder
    scout, full = means(ladder.scouts).get(rung), means(ladder.full).get(rung)
    last = full if full is not None else scout
    state = (
        "diverged"
        if last is not None and math.isinf(last)
        else "trained"
        if full is not None
        else "dropped"
    )
    kept = rung in survivors(ladder.rules, ladder.scouts)
    return {
        "rung": rung,
        "value": ladder.had[rung],
        "scout_loss": finite(scout),
        "loss": finite(full),
        "losses": [finite(loss) for loss in ladder.full.get(rung, [])],
        "state": state,
        "survivor": kept,
    }


def _optimum(found: Optimum) -> dict[str, Any]:
    spread = SIGMA * found.se
    return {
        "value": found.value,
        "se_log": found.se,
        "lo": math.exp(found.log_value - spread),
        "hi": math.exp(found.log_value + spread),
        "loss": found.loss,
        "curvature": found.curvature,
        "by": "best rung" if found.curvature is None else "parabola",
        "why": found.why or None,
        "noise": found.noise,
        "noise_from": found.noise_from,
    }


def _excess(cost: Regret) -> dict[str, Any]:
    return {"excess": cost.nats, "excess_relative": cost.relative, "known_by": cost.how}


def _with_se(pair: tuple[float, float] | None) -> dict[str, float] | None:
    return {"value": pair[0], "se": pair[1]} if pair else None


def publish(folder: Path, found: dict[str, Any]) -> None:
    """Write tuning.json, unless it says this already. Raises ScalingError (74)."""
    path = folder / NAME
    with contextlib.suppress(
        FileNotFoundError, files.ChecksumError
    ):  # it is written anew, for everything in it comes from the runs
        if files.read_json(path) == found:
            return
    files.write_json(path, found)


def emit(target: Path, sweep: Sweep) -> None:
    """Write the tuned sweep file, and read it back. Raises ScalingError (74)."""
    head = f"The sweep {sweep.name} {MARK}; {NAME} in its folder says from which runs."
    write_sweep(sweep, target, head, over=True)


@dataclass(frozen=True)
class CachedTuning:
    """The tuned sweep that a folder holds for a sweep file; None with the reason where it holds none."""

    sweep: Sweep | None
    why: str = ""


def load_tuned(folder: Path, sweep: Sweep, simulated: str | None = None) -> CachedTuning:
    """What tuning.json in a sweep's folder makes of `sweep`. Raises ScalingError (74) where it must not be read."""
    path = folder / NAME
    try:
        held = files.read_json(path)
        if held.get("schema") != SCHEMA:
            return CachedTuning(
                None, f"{path} has schema {held.get('schema')}, this program reads {SCHEMA}"
            )
        if held.get("digest") != digest(sweep):
            return CachedTuning(None, f"{path} was measured for another version of the sweep file")
        if held.get("simulated") != simulated:
            return CachedTuning(
                None, f"{path} is {'simulated' if held.get('simulated') else 'not simulated'}"
            )
        return CachedTuning(Sweep.model_validate_json(json.dumps(held["tuned"])))
    except (FileNotFoundError, NotADirectoryError):
        return CachedTuning(None, "not tuned yet")
    except (files.ChecksumError, KeyError, ValidationError) as error:
        return CachedTuning(None, f"{path} is corrupt: {str(error).splitlines()[0]}")
