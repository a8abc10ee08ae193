"""The options of `scaling fit`, checked before a file is opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from pydantic.dataclasses import dataclass

from scaling.accounting import FlopsConvention, NConvention
from scaling.errors import ScalingError, unknown_choice
from scaling.fit.frontier.isoflop import METHODS
from scaling.fit.laws.formula import named_values, read_formula
from scaling.fit.laws.law import Law
from scaling.fit.laws.laws import LAWS
from scaling.fit.laws.objectives import OBJECTIVES
from scaling.points.letters import check_letters, parse_columns
from scaling.points.points import SourceOptions
from scaling.warning import ResultWarning, WarningCode, warn

APPROACHES = ("parametric", "isoflop", "envelope")
TABLE_LAWS = ("coverage", "hyper", "lr-annealing")  # fitted to other tables than one row a run
TWO_STAGE = "two-stage"
AUTO = "auto"  # the parameters of HEADLINE_LAW, and a combination of laws for what is predicted
LAW_NAMES = (AUTO, *LAWS, TWO_STAGE, *TABLE_LAWS)
HEADLINE_LAW = "chinchilla"
CHECKPOINTS = ("auto", "last", "all")
LEAST_OUTSIDE = 0.5  # draws that lie outside of an interval, before a warning
RESAMPLE_KINDS = ("auto", "pairs", "clusters", "residual")


@dataclass(frozen=True, config={"arbitrary_types_allowed": True, "defer_build": True})
class FitOptions:
    """The options of `scaling fit`; every value is checked before a file is opened. Raises
    ScalingError, and pydantic's ValidationError for a value of another type.
    """

    law: str = AUTO
    approach: str = "parametric"
    minimum: str = "parabola"
    objective: str | None = None
    delta: float | None = None
    columns: str | None = None
    params: str = "with_head"
    flops: str = "exact"
    where: str | None = None
    drop_highest: int = 0
    holdout: str | int | None = None
    fix: str | None = None
    resample: str = "auto"
    bootstrap: int = 1000
    ci: float = 0.95
    seed: int = 0
    cluster: str | None = None
    eval_set: str | None = None
    checkpoints: str = "auto"
    combined: bool = False
    formula: str | None = None
    start: str | None = None
    written: Law | None = None

    def __post_init__(self) -> None:
        choices = {
            "law": LAW_NAMES,
            "approach": APPROACHES,
            "minimum": METHODS,
            "resample": RESAMPLE_KINDS,
            "objective": OBJECTIVES,
            "params": get_args(NConvention),
            "flops": get_args(FlopsConvention),
            "checkpoints": CHECKPOINTS,
        }
        for name, words in choices.items():
            value = getattr(self, name)
            is_formula = name == "law" and self.law in LAWS
            if value is not None and value not in words and not is_formula:
                raise unknown_choice(name, value, words, where=f"--{name}")
        limits = {
            "delta": (0, 1e6),
            "ci": (0, 1),
            "bootstrap": (-1, 100_001),
            "seed": (-1, 2**32),
            "drop_highest": (-1, 10**7),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low < value < high:
                where = f"--{name.replace('_', '-')}"
                raise ScalingError(
                    f"{value} is out of range",
                    where=where,
                    remedy=f"give a number between {low} and {high}, ends excluded",
                )
        if self.delta is not None and not (self.objective or "huber").startswith("huber"):
            what = f"the objective {self.objective} has no delta"
            raise ScalingError(what, where="--delta", remedy="leave it out, or choose huber-log")
        self.n_holdout_budgets()
        self.fixed()
        if self.formula is None and self.start is not None:
            raise ScalingError("there is no formula", where="--start", remedy="give --formula")
        if self.formula is not None:
            if self.law != AUTO:
                what = f"--law {self.law} and --formula are two laws"
                raise ScalingError(what, remedy="leave one of them out")
            read_formula(self.formula, self.start, self.columns)

    def resolved(self) -> FitOptions:
        """The options with a law in the place of `auto`; `combined` where no law was named."""
        if self.law != AUTO:
            return self
        is_open = self.approach == "parametric" and self.fix is None
        return replace(self, law=HEADLINE_LAW, combined=is_open)

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        usual = vars(FitOptions())
        return {name: each for name, each in vars(self).items() if each != usual[name]}

    def fixed(self) -> dict[str, float]:
        """The parameters fixed at given values: `"alpha=0.35,ln A=6.26"`."""
        return named_values(self.fix, "--fix") if self.fix else {}

    def interval_warnings(self) -> list[ResultWarning]:
        """A warning where the resamples are too few for such intervals."""
        if not self.bootstrap or self.bootstrap * (1 - self.ci) >= LEAST_OUTSIDE:
            return []
        message = f"{self.bootstrap} resamples are too few for intervals of {100 * self.ci:g} %"
        return [warn(WarningCode.FEW_RESAMPLES, message, resamples=self.bootstrap)]

    def n_holdout_budgets(self) -> int:
        """How many of the largest budgets are left out; 0 for none, 1 unless said otherwise."""
        if self.law == "lr-annealing":
            return 0  # its hold-out names curves
        text = "1" if self.holdout is None else str(self.holdout).strip().lower()
        if text == "none":
            return 0
        if not text.isdigit() or not 1 <= int(text) <= 100:
            raise ScalingError(
                f"{self.holdout!r} is neither none nor a number of budgets",
                where="--holdout",
                remedy="write none, 1, 2, ...",
            )
        return int(text)

    def source(self) -> SourceOptions:
        """What concerns the reading of the source."""
        is_formula = self.written is not None or (self.law in LAWS and not LAWS[self.law].terms)
        columns = parse_columns(self.columns, custom=is_formula) if self.columns else {}
        filters = (self.where, self.drop_highest, self.cluster, self.eval_set)
        law = self.resolved().law
        inputs = ("N", "D", "X") if law == TWO_STAGE else LAWS[law].inputs if law in LAWS else ()
        if inputs:
            check_letters(law, inputs, columns)
        read = () if law == TWO_STAGE else inputs
        return SourceOptions(
            columns,
            self.params,  # type: ignore[arg-type]
            self.flops,  # type: ignore[arg-type]
            *filters,
            read,
            signed=is_formula,
            checkpoints=self.checkpoints,
        )
