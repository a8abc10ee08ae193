"""`TuningResult`, the document tuning.json: what was tried and measured, and the tuned sweep."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from scaling import files
from scaling.config import Sweep
from scaling.config.base import Document
from scaling.config.sweep_file import write_sweep
from scaling.errors import ScalingError
from scaling.warning import ResultWarning

SCHEMA: Literal[3] = 3
NAME = "tuning.json"
MARK = "with the rules that `scaling tune` measured"  # in the head of every sweep file it writes


class GridValue(Document):
    """A value that was tried: losses (nats) are null where it was not trained or diverged."""

    index: int
    value: float
    short_run_loss: float | None
    loss: float | None
    losses: tuple[float | None, ...]
    state: Literal["trained", "dropped", "diverged"]
    kept: bool


class ExcludedValue(Document):
    """A value that could not be trained."""

    value: float
    reason: str


class Optimum(Document):
    """The best value of a size with the standard error of its log, its 95 % interval and the loss
    there.

    `curvature` is d2 loss / d log(value)2 in nats; None where the best grid value stands in for a
    parabola, and `why` says why. `noise` is the standard deviation of one run's loss in nats and
    `noise_from` where it comes from.
    """

    value: float
    log_value: float  # as it was fitted: its last digit decides that of the rule
    se_log: float
    lo: float
    hi: float
    loss: float
    curvature: float | None
    by: Literal["parabola", "best value"]
    why: str | None
    noise: float
    noise_from: Literal["seeds", "residuals", "assumed"]


KnownFrom = Literal["fit", "full_runs", "short_runs", "diverges", "unknown"]


class Regret(Document):
    """The loss of a value above the optimum, in nats and relative to the loss there.

    `known_from` "fit": on the parabola; "full_runs" or "short_runs": interpolated between grid
    values; "diverges" and "unknown" come without numbers.
    """

    value: float | None = None
    excess: float | None = None
    excess_relative: float | None = None
    known_from: KnownFrom = "unknown"


class SizeResult(Document):
    """The grid of one size, its optimum (null where every value diverged), and the cost of the
    recipe's and of the rule's value.

    `state` says whether the best value has a finite neighbour on both sides, `why` why not.
    """

    size: float
    n_params: float
    tokens: float
    batch_tokens: float | None = None
    d_model: int
    state: Literal["interior", "edge"]
    why: str | None
    values: tuple[GridValue, ...]
    excluded: tuple[ExcludedValue, ...]
    optimum: Optimum | None
    recipe: Regret
    rule: Regret


class MeasuredRule(Document):
    """value = coef x N^n_power x B^batch_power ("power"), or the recipe's own rule times `ratio`
    ("ratio").
    """

    kind: Literal["power", "ratio"]
    ratio: float | None = None
    coef: float | None = None
    n_power: float | None = None
    n_power_se: float | None = None
    batch_power: float = 0.0
    batch_power_se: float | None = None
    n_range: tuple[float, float] | None = None
    sizes: int | None = None

    def at(self, n: float, batch_tokens: float = 1.0) -> float:
        """The value of a power at N and a batch."""
        assert self.coef is not None
        assert self.n_power is not None
        return self.coef * n**self.n_power * batch_tokens**self.batch_power

    @property
    def formula(self) -> str:
        """The rule in letters, with standard errors of its powers."""
        powers = [("N", self.n_power, self.n_power_se)]
        if self.batch_power_se is not None:
            powers.append(("B", self.batch_power, self.batch_power_se))
        return " x ".join(
            [f"{self.coef:.4g}", *(f"{letter}^({p:.3f} ± {se:.3f})" for letter, p, se in powers)]
        )


class FieldResult(Document):
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


class TuningResult(Document):
    """What `scaling tune` writes; `flops` of the tuning, `sweep_flops` of the tuned sweep."""

    schema_version: Literal[3] = Field(default=SCHEMA, alias="schema")
    sweep: str
    digest: str
    simulated: str | None
    fields: tuple[FieldResult, ...]
    flops: float
    sweep_flops: float
    share: float
    warnings: tuple[ResultWarning, ...]
    tuned: dict[str, Any]

    @property
    def tuned_sweep(self) -> Sweep:
        """The sweep with the measured rules and without [[tuning]] tables."""
        return Sweep.model_validate_json(json.dumps(self.tuned))

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


def check_target(target: Path) -> None:
    """Raise ScalingError where writing a tuned sweep would replace a file that `scaling tune` has
    not written.
    """
    if target.exists() and not (
        target.is_file() and MARK in target.read_bytes()[:4096].decode("utf-8", "replace")
    ):
        raise ScalingError(
            "exists already, and `scaling tune` has not written it",
            where=target,
            remedy="name another file",
        )


def write_tuned_sweep(target: Path, sweep: Sweep) -> None:
    """Write the tuned sweep file, and read it back. Raises ScalingError (74)."""
    head = f"The sweep {sweep.name} {MARK}; {NAME} in its folder says from which runs."
    write_sweep(sweep, target, head, over=True)


def load_tuned(
    folder: Path, sweep: Sweep, simulated: str | None = None
) -> tuple[Sweep | None, str]:
    """The tuned `sweep` that a folder holds, or None with the reason. Raises ScalingError (74)
    where tuning.json cannot be read.
    """
    path = folder / NAME
    try:
        schema = files.read_json(path).get("schema")
        if schema != SCHEMA:
            return None, f"{path} has schema {schema}, this program reads {SCHEMA}"
        result = TuningResult.load(folder)
        if result.digest != digest(sweep):
            return None, f"{path} was measured for another version of the sweep file"
        if result.simulated != simulated:
            return None, f"{path} is {'simulated' if result.simulated else 'not simulated'}"
        return result.tuned_sweep, ""
    except (FileNotFoundError, NotADirectoryError):
        return None, "not tuned yet"
    except (files.ChecksumError, ValidationError) as error:
        return None, f"{path} is corrupt: {str(error).splitlines()[0]}"
