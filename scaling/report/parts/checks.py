"""What was tested about a fit: each check with a verdict, a sentence, its figure and its tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaling.fit.result import Agreement, FitResult
from scaling.fit.significance import f_tail
from scaling.formatting import format_percent
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import Figure
from scaling.render.section import Section, Verdict, section
from scaling.render.table import Table
from scaling.report import summary
from scaling.report.parts import diagnostics, law_plots
from scaling.report.parts.drawing import fitted_points
from scaling.report.parts.fit_tables import unidentified

MAX_EXCESS = 0.02  # of the best run of a budget over L*(C)
MAX_RATIO = 1.25  # of N* by two approaches
MIN_COVERED = 0.8
SIGNIFICANT = 0.001  # p: many things are tested


def checks(fit: FitResult, law: FittedLaw | None) -> list[Section]:
    """Every check that the fit allows, those of the answer first."""
    residuals = law_plots.residuals(fit, law)
    above = diagnostics.above(fit)
    best, flagged = diagnostics.over_frontier(fit, law), diagnostics.flagged(fit)
    rows: list[tuple[str, str, Judged, Figure | None, Table | None]] = [
        ("holdout", "Hold-out", _holdout(fit), None, diagnostics.holdout(fit)),
        ("residuals", "Residuals of the law", _residuals(fit, law), residuals, None),
        ("parameters", "Parameters", _parameters(fit), None, None),
        ("approaches", "Three approaches", _approaches(fit), None, None),
        ("best-runs", "Best runs", _best_runs(best), None, best),
        ("above", "Runs above the law", _count(above, "run", "check"), None, above),
        ("flagged", "Suspicious points", _count(flagged, "kind", "see"), None, flagged),
        ("noise", "Noise", _noise(fit), None, diagnostics.noise(fit)),
    ]
    return [
        section(f"check-{id}", title, [figure], [table], [judged[1]], verdict=judged[0])
        for id, title, judged, figure, table in rows
        if judged
    ]


def worst(parts: Sequence[Section]) -> tuple[str, str]:
    """How the checks went, which one to look at first, and its id, or ""."""
    failed = [each for each in parts if each.verdict is not Verdict.OK]
    if not failed:
        return f"All {len(parts)} checks are ok." if parts else "", ""
    first = next((each for each in failed if each.verdict is Verdict.BAD), failed[0])
    text = f"{len(parts) - len(failed)} of {len(parts)} checks are ok; look first at: "
    return f"{text}{first.title[0].lower()}{first.title[1:]}.", first.id


Judged = tuple[Verdict, str] | None


def _holdout(fit: FitResult) -> Judged:
    result = fit.holdout
    if result is None or result.mean_abs_rel_error is None:
        return Verdict.LOOK, "no budget was left out to test the fit."
    text = (summary.holdout_sentence(fit) or "").partition(": ")[2]
    if result.mean_abs_rel_error > summary.MAX_HOLDOUT_ERROR:
        return Verdict.BAD, text
    return Verdict.OK if (result.covered or 0) >= MIN_COVERED else Verdict.LOOK, text


def _residuals(fit: FitResult, law: FittedLaw | None) -> Judged:
    """Whether a parabola in log C and log N explains what the law leaves."""
    points, error = fitted_points(fit, "flops", "n_params"), law_plots.log_residuals(fit, law)
    if error is None or points is None or len(error) < 10:
        return None
    u, v = (np.log(values / values.mean()) for values in points)
    design = np.stack([np.ones_like(u), u, v, u * u, v * v], 1)
    left = error - design @ np.linalg.lstsq(design, error, rcond=None)[0]
    total, rest = float(np.sum((error - error.mean()) ** 2)), float(np.sum(left**2))
    freedom = len(error) - 5
    p = f_tail(4, freedom, (total - rest) / 4 / (rest / freedom)) if rest > 0 else 1.0
    rms = f"root mean square {format_percent(float(np.sqrt(np.mean(error**2))))}"
    if p < SIGNIFICANT:
        text = f"{rms}, with a bend or slope along size or compute (p = {p:.1g}): the law "
        return Verdict.LOOK, f"{text}{fit.law} alone has a wrong form here."
    return Verdict.OK, f"{rms}, without a bend or slope along size or compute (p = {p:.1g})."


def _parameters(fit: FitResult) -> Judged:
    if names := ", ".join(unidentified(fit)):
        bad = fit.combination is None
        return Verdict.BAD if bad else Verdict.LOOK, f"not identified by these runs: {names}."
    at_bound = [name for name, entry in fit.params.items() if entry.lo == 0]
    if at_bound:
        return Verdict.LOOK, f"the interval of {', '.join(at_bound)} reaches 0, its bound."
    return (Verdict.OK, "all are identified by these runs.") if fit.identification else None


def _approaches(fit: FitResult) -> Judged:
    agreement = fit.approaches_agree
    if agreement is None or agreement.verdict is Agreement.NOT_COMPARABLE:
        return None
    if agreement.verdict is Agreement.DISAGREE:
        return Verdict.BAD, agreement.message
    ratio = agreement.n_star_ratio or 1.0
    return Verdict.OK if ratio <= MAX_RATIO else Verdict.LOOK, agreement.message


def _best_runs(table: Table | None) -> Judged:
    if table is None:
        return None
    excess = max(abs(float(row[-1])) for row in table.rows)  # type: ignore[arg-type]
    text = f"the best run of every budget lies within {100 * excess:.1f} % of L*(C)."
    return Verdict.OK if excess <= MAX_EXCESS else Verdict.LOOK, text


def _count(table: Table | None, word: str, verb: str) -> Judged:
    if table is None:
        return None
    count = len(table.rows)
    return Verdict.LOOK, f"{count} {word}{'s' if count > 1 else ''}; {verb} the table."


def _noise(fit: FitResult) -> Judged:
    result = fit.noise
    if result is None:
        return None
    lack = result.lack_of_fit
    if lack and lack.p is not None and lack.p < SIGNIFICANT:
        return Verdict.BAD, f"the law misses more than seeds explain (p = {lack.p:.1g})."
    if result.basis == "seeds":
        return Verdict.OK, f"seeds change the loss by {format_percent(result.sd or 0.0)}."
    return Verdict.LOOK, "no run was repeated with another seed: noise and errors of the law mix."
