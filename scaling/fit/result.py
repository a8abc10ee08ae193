"""The result of `scaling fit`: one frozen model, written to FIT.json and read by predict, next,
plan and report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, field_validator

from scaling import files
from scaling.errors import ScalingError
from scaling.fit.combination import Combination
from scaling.fit.diagnostics.results import (
    FitWithoutFlagged,
    FlaggedPoints,
    Holdout,
    KnownEntropy,
    NoiseResult,
    RepeatedRuns,
    RunAboveLaw,
)
from scaling.fit.document import (
    Column,
    Document,
    Estimate,
    FitStatus,
    Integer,
    Number,
    PositiveInteger,
    Real,
)
from scaling.fit.frontier.frontier import Cost
from scaling.fit.special.results import CoverageGroup, CurveErrors, ScheduleErrors
from scaling.warning import ResultWarning, WarningCode

SCHEMA = 3
MAIN = "chinchilla"  # the fit of a folder that heads its report
MAX_POINTS = 5000  # kept in a document
MAX_DIGITS = 300  # of a whole number that a float can still hold
WRITE_AGAIN = "write it with: scaling fit SOURCE --out FIT.json"
Approach = Literal["parametric", "isoflop", "envelope"]
Warnings = tuple[ResultWarning, ...]
# why parameters are not identified where no single one can be named
REASONS = {
    WarningCode.ONE_RATIO: "one ratio D/N only",
    WarningCode.OTHER_MINIMA: "several minima fit as well",
    WarningCode.ILL_CONDITIONED: "parameters trade against each other",
}


def equally_long(columns: dict[str, Any]) -> dict[str, Any]:
    """Columns of one length. Raises ValueError."""
    if len({len(column) for column in columns.values() if column is not None}) > 1:
        raise ValueError("the lists are not equally long")
    return columns


class Objective(Document):
    """What was minimised; `value` is a sum over points. `delta` is null where the objective has
    none, and chosen from the noise where `delta_from_noise`.
    """

    name: str
    delta: Number
    value: Number
    delta_from_noise: bool = False


class Goodness(Document):
    """How well the law fits: root mean square error of the loss in percent, R2 of the loss above
    the floor, the correlation of the draws of the internal coordinates (coefficients by their
    logs), and the information criteria of Akaike and Schwarz for normal errors of the log loss: of
    two laws on the same runs the lower one is better.
    """

    rmse_percent: Number
    r2_excess: Number
    correlation: dict[str, dict[str, Number]] | None = None
    aic: Number = None
    bic: Number = None


class Excluded(Document):
    """Rows that were left out, and why."""

    reason: str
    count: Integer


class Convention(Document):
    """How N (`params`) and C (`flops`) are counted; "as given" for the columns of a
    foreign table.
    """

    params: str | None = None
    flops: str | None = None


class ModelContext(Document):
    """Vocabulary and sequence length that all runs share; absent for a foreign table."""

    vocab_size: PositiveInteger | None = None
    seq_len: PositiveInteger | None = None


class SourceInfo(Document):
    """What was fitted: paths, the digest of the data, the columns used, and the options that chose
    rows.
    """

    paths: Sequence[str]
    digest: str
    columns: Mapping[str, str]
    convention: Convention
    notes: Sequence[str] = ()
    model: ModelContext = ModelContext()
    filters: dict[str, Any] = {}
    evaluation: dict[str, Any] | None = None


class ProfileInterval(Document):
    """The profile interval of a parameter; an end is null where the data leave it open."""

    lo: Number
    hi: Number
    identified: bool


class ObjectiveMinimum(Document):
    """A local minimum of the objective and how many starts ended in it."""

    value: Number
    params: dict[str, Number]
    starts: Integer


class Starts(Document):
    """How many starts were tried, converged, and agree on the best minimum."""

    tried: Integer
    converged: Integer
    agree: Integer
    minima: list[ObjectiveMinimum] = []


class Identification(Document):
    """How well the data settle the parameters."""

    profile: dict[str, ProfileInterval]
    starts: Starts | None = None


class Bootstrap(Document):
    """How the draws were made, how many refits failed, and the draws themselves by parameter."""

    kind: str
    resamples: Integer
    seed: Integer
    failed: Integer
    draws: Annotated[dict[str, Column], AfterValidator(equally_long)]


class Curve(Document):
    """The loss (k,) at sizes (k,) of the curve fitted to a budget."""

    n_params: Column
    loss: Column


class MinimumFault(StrEnum):
    """Why a budget has no minimum, in words."""

    BELOW_SIZES = "the minimum lies at the edge, below the smallest size"
    ABOVE_SIZES = "the minimum lies at the edge, above the largest size"
    NOT_CONVEX = "the fitted curve is not convex"
    ABSENT = "the fitted curve has no minimum"


class BudgetMinimum(Document):
    """The best N and D at one budget, with its runs and the curve fitted to them; `unavailable`
    says why there is none.
    """

    flops: Real
    n_star: Number
    d_star: Number
    loss_star: Number
    n_params: Column | None = None
    tokens: Column | None = None
    loss: Column | None = None
    curve: Curve | None = None
    # as text where a former version wrote it in other words
    unavailable: Annotated[MinimumFault | str, Field(union_mode="left_to_right")] | None = None


class FrontierResult(Document):
    """The frontier by one approach: N* ~ C^a, D* ~ C^b; or why it is unavailable."""

    unavailable: str | None = None
    a: Estimate | None = None
    b: Estimate | None = None
    powers: dict[str, Number] | None = None
    draws: dict[str, Column] | None = None
    a_plus_b: Number = None
    minima: list[BudgetMinimum] = []
    warnings: Warnings = ()
    n_points: int | None = None  # runs used


class Agreement(StrEnum):
    """Whether the approaches to the frontier agree."""

    AGREE = "agree"
    DISAGREE = "disagree"
    NOT_COMPARABLE = "not-comparable"


class ApproachAgreement(Document):
    """Whether the approaches agree, the pairs that do not, and by how much N* differs at the
    largest budget.
    """

    verdict: Agreement
    disagreeing: Sequence[tuple[str, str]] = ()
    n_star_ratio: Number = None
    message: str


class AccuracyStage(Document):
    """The sigmoid from loss to accuracy of a two-stage fit."""

    formula: str
    params: dict[str, Estimate]
    r2: Number
    mae: Number
    status: FitStatus
    warnings: Warnings
    draws: dict[str, Column]


class FitResult(Document):
    """The result of a fit. Its keys are the fit JSON of the CLI contract; absent keys do not apply
    to the law or the source.
    """

    _path: Path | None = PrivateAttr(default=None)
    schema_version: Annotated[int, Field(alias="schema")]
    law: str
    approach: Approach
    objective: Objective
    goodness: Goodness | None = None
    params: dict[str, Estimate]
    derived: dict[str, Estimate]
    status: FitStatus
    warnings: Warnings
    n_points: Integer
    excluded: list[Excluded]
    holdout: Holdout | None
    source: SourceInfo
    version: str
    ci: Annotated[Real, Field(gt=0, lt=1)]
    cost: Cost
    range: dict[str, tuple[Real, Real]]
    data: Annotated[dict[str, Column | None], AfterValidator(equally_long)]
    approaches: dict[Approach, FrontierResult]
    approaches_agree: ApproachAgreement | None = None
    identification: Identification | None = None
    bootstrap: Bootstrap | None = None
    noise: NoiseResult | None = None
    runs_above_law: list[RunAboveLaw] | None = None
    flagged: list[FlaggedPoints] = []
    fit_without_flagged: FitWithoutFlagged | None = None
    repeats: list[RepeatedRuns] | None = None
    known_entropy: KnownEntropy | None = None
    combination: Combination | None = None
    accuracy: AccuracyStage | None = None
    groups: list[CoverageGroup] | None = None
    schedules: list[ScheduleErrors] | None = None
    test: CurveErrors | None = None

    @field_validator("range")
    @classmethod
    def _ascending(cls, spans: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in spans.items():
            if low > high:
                raise ValueError(f"the range of {name} runs from {low:g} down to {high:g}")
        return spans

    @property
    def results_folder(self) -> Path | None:
        """The folder in whose `fits` the file of a loaded result stands."""
        return self._path and self._path.resolve().parent.parent

    @property
    def status_text(self) -> str:
        """The status for people: `not identified: A, B` names the parameters, or says why none can
        be named.
        """
        if self.status is not FitStatus.NOT_IDENTIFIED:
            return str(self.status)
        profiles = self.identification.profile if self.identification else {}
        names = [name for name, profile in profiles.items() if not profile.identified]
        names += [each.data["param"] for each in self.warnings if "param" in each.data]
        codes = {each.code for each in self.warnings}
        reasons = [reason for code, reason in REASONS.items() if code in codes]
        named = ", ".join(dict.fromkeys(names)) or "; ".join(reasons)
        return f"not identified: {named}" if named else "not identified"

    def save(self, path: Path) -> None:
        """Write the document with its checksum, whole or not at all. Raises ScalingError (74)."""
        files.write_json(path, self.to_dict(), indent=None)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The result from its file. Raises ScalingError that names the file and what is wrong in
        it.
        """

        def fault(what: str, remedy: str = WRITE_AGAIN) -> ScalingError:
            return ScalingError(what, where=path, remedy=remedy)

        if not path.exists():
            remedy = "name a fit, as `scaling fit SOURCE --out FIT.json` writes it"
            raise fault("no such file", remedy)
        if path.is_dir():
            fits = fit_paths(path)
            remedy = f"name a fit of it: {fits[0]}" if fits else f"fit it first: scaling fit {path}"
            raise fault("is a folder and not a fit" if fits else "holds no fit", remedy)
        from scaling.points.readers import read_bytes

        data = read_bytes(path)
        try:
            # what another program has written again needs no checksum of ours
            if data.endswith(b"}\n") and data.count(b"\n") == 1:
                files.verify_checksum(data)
            values = json.loads(data, parse_int=_bounded_integer)
        except files.ChecksumError as error:
            remedy = 'fit again; or, where you changed it yourself, delete its key "checksum"'
            raise fault(f"is corrupt or was edited: {error}", remedy) from None
        except (ValueError, RecursionError) as error:
            raise fault(f"not valid JSON: {str(error)[:120]}") from None
        if not isinstance(values, dict) or "schema" not in values:
            raise fault("not a fit document: it has no schema")
        schema = values["schema"]
        if isinstance(schema, int) and schema != SCHEMA:
            remedy = "update scaling" if schema > SCHEMA else "fit again: scaling fit SOURCE"
            raise fault(f"written with fit schema {schema}, this program reads {SCHEMA}", remedy)
        content = {name: value for name, value in values.items() if name not in files.KEYS}
        result = cls.parse(content, str(path), WRITE_AGAIN)
        result._path = path
        return result


def fit_paths(folder: Path) -> list[Path]:
    """The fits of a results folder, the main one first."""
    return sorted((folder / "fits").glob("*.json"), key=lambda path: (path.stem != MAIN, path.stem))


def _bounded_integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)
