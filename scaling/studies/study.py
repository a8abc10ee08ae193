"""The template of a study: rows -> findings (expected results, figures, a table) -> a section."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pandas import DataFrame
from scipy import stats

from scaling.render.figure import Colour, Dash, Figure, Line
from scaling.render.section import Section, section
from scaling.render.table import Table
from scaling.render.table import record_table as record_table  # studies take it from here

Array = np.ndarray
CI = 0.95
MIN_SIZES = 3  # different x of a power law
ANSWERS = {True: "yes", False: "no", None: "not settled"}


class Interval(NamedTuple):
    """A value with its interval; `f"{interval:.2f}"` is 0.24 [0.21, 0.26]."""

    value: float
    lo: float
    hi: float

    def __format__(self, spec: str) -> str:
        value, lo, hi = (format(part, spec) for part in self)
        return f"{value} [{lo}, {hi}]"

    @classmethod
    def of_draws(cls, value: float, draws: Array) -> Interval:
        """The central 95 % of draws."""
        return cls(value, *np.quantile(draws, [(1 - CI) / 2, (1 + CI) / 2]).tolist())


@dataclass(frozen=True)
class PowerLaw:
    """y = exp(level) x^-exponent through points x, y (n,), by least squares in logs; the exponent
    has Student's interval of 95 %, for the line alone: it does not account for curvature.
    """

    x: Array
    y: Array
    exponent: Interval
    level: float
    r2: float

    def __str__(self) -> str:
        return f"{self.exponent:.2f}, R2 {self.r2:.3f}"


def fit_power_law(x: Array, y: Array) -> PowerLaw | None:
    """The power law through positive points (n,); None where y is constant, and unless x takes
    `MIN_SIZES` values.
    """
    if len(np.unique(x)) < MIN_SIZES or np.ptp(y) == 0.0:
        return None
    line = stats.linregress(np.log(x), np.log(y))
    reach = float(stats.t.ppf((1 + CI) / 2, len(x) - 2) * line.stderr)
    value = -float(line.slope)
    exponent = Interval(value, value - reach, value + reach)
    return PowerLaw(x, y, exponent, float(line.intercept), float(line.rvalue) ** 2)


class Claim(NamedTuple):
    """One expected result. `quantity`, `expected` and `measured` are words with units; `holds` is
    None where the runs do not decide.
    """

    quantity: str
    expected: str
    measured: str
    holds: bool | None


@dataclass(frozen=True)
class Findings:
    """What a study finds in rows; `n_left_out` runs are of another setting, or lack rows. A `table`
    holds what is neither in the figures nor among the claims.
    """

    claims: Sequence[Claim]
    figures: Sequence[Figure]
    table: Table | None = None
    notes: Sequence[str] = ()
    n_left_out: int = 0


def run_lines(
    curves: DataFrame,
    column: str,
    label: str,
    colour: Colour,
    dash: Dash = "solid",
    width: float = 2.0,
) -> Iterator[Line]:
    """A column along the steps of each run, one line a run, of which the first stands in the
    legend.
    """
    for index, (_, run) in enumerate(curves.groupby("run_id", sort=False)):
        name = f"seed {run['seed'].iloc[0]}"
        x, y = (run[name].to_numpy() for name in ("step", column))
        yield Line(x, y, "" if index else label, colour, dash, width, name)


@dataclass(frozen=True)
class Study:
    """A study: `analyze` gives None for rows that show nothing of it. `name` is the section's id
    and the file name of its table.
    """

    name: str
    title: str
    analyze: Callable[[DataFrame], Findings | None]

    def section(self, rows: DataFrame) -> Section | None:
        """The section of a report: the table of expected results comes first, and the summary
        counts those that hold.
        """
        findings = self.analyze(rows)
        if findings is None:
            return None
        claims, notes = findings.claims, list(findings.notes)
        expected = record_table(
            f"expected-{self.name}",
            "Expected results",
            [{**claim._asdict(), "holds": ANSWERS[claim.holds]} for claim in claims],
            "What was published or predicted, and what these runs gave.",
        )
        if findings.n_left_out:
            what = "of another setting, or that lack rows, are not in these figures"
            notes.append(f"Runs {what}: {findings.n_left_out}.")
        n_holding = sum(bool(claim.holds) for claim in claims)
        lead = self.title if self.title.endswith("?") else f"{self.title}:"
        return section(
            self.name,
            self.title,
            findings.figures,
            (expected, findings.table),
            notes,
            summary=f"{lead} {n_holding} of {len(claims)} expected results hold.",
        )
