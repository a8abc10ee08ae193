"""What was tested about a fit: each check with a verdict, a sentence, its figure and its table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaling.fit.result import Agreement, FitResult
from scaling.fit.significance import f_tail
from scaling.formatting import format_flops, format_percent
from scaling.predict.law_source import FittedLaw
from scaling.render.figure import Figure
from scaling.render.section import Section, Verdict, section
from scaling.render.table import Table, number, record_table
from scaling.report import summary
from scaling.report.parts import law_plots
from scaling.report.parts.drawing import answer_curve, fitted_points
from scaling.report.parts.fit_tables import errors_of_curves, unidentified

MAX_EXCESS = 0.02  # of the best run of a budget over L*(C)
MAX_RATIO = 1.25  # of N* by two approaches
MIN_COVERED = 0.8
MIN_R2 = 0.95  # of loss curves held out
SIGNIFICANT = 0.001  # p: many things are tested
ROWS_LISTED = 200


def checks(fit: FitResult, law: FittedLaw | None) -> list[Section]:
    """Every check that the fit allows, those of the answer first; without a law those alone that
    its document holds.
    """
    parts = (
        _holdout(fit),
        _residuals(fit, law),
        _parameters(fit),
        _approaches(fit),
        _best_runs(fit, law),
        _above(fit),
        _flagged(fit),
        _noise(fit),
    )
    return [part for part in parts if part]


def worst(parts: Sequence[Section]) -> tuple[str, str]:
    """How the checks went, which one to look at first, and its id, or ""."""
    failed = [each for each in parts if each.verdict is not Verdict.OK]
    if not failed:
        return f"All {len(parts)} checks are ok." if parts else "", ""
    first = next((each for each in failed if each.verdict is Verdict.BAD), failed[0])
    text = f"{len(parts) - len(failed)} of {len(parts)} checks are ok; look first at: "
    return f"{text}{first.title[0].lower()}{first.title[1:]}.", first.id


def _check(
    id: str,
    title: str,
    verdict: Verdict,
    text: str,
    table: Table | None = None,
    figure: Figure | None = None,
) -> Section:
    return section(f"check-{id}", title, [figure], [table], [text], verdict=verdict)


def _holdout(fit: FitResult) -> Section:
    """How well the largest budget was predicted from the smaller ones, and its runs."""
    result = fit.holdout
    if result is None or result.mean_abs_rel_error is None:
        text, verdict = "no budget was left out to test the fit.", Verdict.LOOK
        if test := fit.test:
            text = f"curves that were left out of the fit: {errors_of_curves(test)}."
            verdict = Verdict.OK if (test.r2 or 0.0) >= MIN_R2 else Verdict.LOOK
        return _check("holdout", "Hold-out", verdict, text)
    rows = [
        {
            "N": row.n_params,
            "D": row.tokens,
            "measured": row.loss,
            "predicted": (row.predicted, row.lo, row.hi),
            "error": None if row.predicted is None else row.predicted / row.loss - 1,
        }
        for row in result.rows
    ]
    budget, covered = format_flops(result.budget), result.covered or 0
    caption = (
        f"The budget of {budget} FLOPs was left out of this fit. Error: predicted / measured - 1."
    )
    if len(rows) < result.n_test or len(rows) > ROWS_LISTED:
        listed = min(len(rows), ROWS_LISTED)
        caption += f" {listed} of {result.n_test:,} runs are listed."
    table = record_table("holdout", "Hold-out", rows, caption, ROWS_LISTED)
    by = {None: "the law", "combination": "the combined law"}.get(result.by, f"the law {result.by}")
    text = (
        f"fitted without the {budget}-FLOP budget, {by} predicts its {result.n_test:,} "
        f"run{'s' if result.n_test != 1 else ''} with a mean error of "
        f"{format_percent(result.mean_abs_rel_error)}; {round(covered * result.n_test):,} of "
        f"{result.n_test:,} lie inside their intervals."
    )
    verdict = Verdict.OK if covered >= MIN_COVERED else Verdict.LOOK
    if result.mean_abs_rel_error > summary.MAX_HOLDOUT_ERROR:
        verdict = Verdict.BAD
    return _check("holdout", "Hold-out", verdict, text, table)


def _residuals(fit: FitResult, law: FittedLaw | None) -> Section | None:
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
    has_bend = p < SIGNIFICANT
    text = f"root mean square {format_percent(float(np.sqrt(np.mean(error**2))))}, "
    text += f"with{'' if has_bend else 'out'} a bend or slope along size or compute (p = {p:.1g})"
    text += f": the law {fit.law} alone has a wrong form here." if has_bend else "."
    verdict = Verdict.LOOK if has_bend else Verdict.OK
    figure = law_plots.residuals(fit, law)
    return _check("residuals", "Residuals of the law", verdict, text, figure=figure)


def _parameters(fit: FitResult) -> Section | None:
    at_bound = [name for name, entry in fit.params.items() if entry.lo == 0]
    if names := ", ".join(unidentified(fit)):
        verdict = Verdict.BAD if fit.combination is None else Verdict.LOOK
        text = f"not identified by these runs: {names}."
    elif at_bound:
        verdict = Verdict.LOOK
        text = f"the interval of {', '.join(at_bound)} reaches 0, its bound."
    elif fit.identification:
        verdict, text = Verdict.OK, "all are identified by these runs."
    else:
        return None
    return _check("parameters", "Parameters", verdict, text)


def _approaches(fit: FitResult) -> Section | None:
    agreement = fit.approaches_agree
    if agreement is None or agreement.verdict is Agreement.NOT_COMPARABLE:
        return None
    verdict = Verdict.OK if (agreement.n_star_ratio or 1.0) <= MAX_RATIO else Verdict.LOOK
    if agreement.verdict is Agreement.DISAGREE:
        verdict = Verdict.BAD
    return _check("approaches", "Three approaches", verdict, agreement.message)


def _best_runs(fit: FitResult, law: FittedLaw | None) -> Section | None:
    """How far the best run of each budget lies above L*(C) as the fit answers."""
    isoflop = fit.approaches.get("isoflop")
    budgets = [each for each in isoflop.minima if each.loss] if isoflop else []
    flops = np.array([each.flops for each in budgets])
    best = answer_curve(law, "loss_star", flops) if len(flops) else None
    if law is None or best is None or not np.isfinite(best.value).all():
        return None
    lowest = np.array([np.nanmin(np.array(each.loss, float)) for each in budgets])
    excess = float(np.max(np.abs(lowest / best.value - 1)))
    text = f"the best run of every budget lies within {100 * excess:.1f} % of L*(C)."
    return _check(
        "best-runs", "Best runs", Verdict.OK if excess <= MAX_EXCESS else Verdict.LOOK, text
    )


def _above(fit: FitResult) -> Section | None:
    """Runs above the law with their likely cause."""
    columns = {
        "run_id": "run",
        "n_params": "N",
        "tokens": "D",
        "loss": "loss",
        "excess": "above the law",
        "cause": "likely cause",
    }
    caption = "A tuning error can only raise the loss: check these runs. They are kept in the fit."
    title, runs = "Runs above the law", fit.runs_above_law
    if not runs:
        return None
    percent = ("above the law",)
    table = record_table("above", title, runs, caption, columns=columns, percent=percent)
    text = f"{len(runs)} run{'s' if len(runs) > 1 else ''}; check the table."
    return _check("above", title, Verdict.LOOK, text, table)


def _flagged(fit: FitResult) -> Section | None:
    """Suspicious points, by reason; the caption has the fit without them."""
    without, caption = fit.fit_without_flagged, ""
    if not fit.flagged:
        return None
    if without:
        values = {"a": without.a, **(without.params or {})}
        which = "it" if without.left_out == 1 else f"these {without.left_out}"
        result = without.unavailable or ", ".join(
            f"{name} {number(value, 4)}" for name, value in values.items() if value is not None
        )
        caption = f"Kept in the fit. Without {which}: {result}."
    rows = [
        {
            "reason": item.reason,
            "points": item.count,
            "which": ", ".join(str(point.row) for point in item.points[:8]),
        }
        for item in fit.flagged
    ]
    table = record_table("flagged", "Suspicious points", rows, caption)
    text = f"{len(rows)} kind{'s' if len(rows) > 1 else ''}; see the table."
    return _check("flagged", "Suspicious points", Verdict.LOOK, text, table)


def _noise(fit: FitResult) -> Section | None:
    """What seeds change, what the law leaves, and whether that is more."""
    result = fit.noise
    if result is None:
        return None
    misses = ""
    if result.residual_sd is not None:
        misses = f"the law misses its runs by {100 * result.residual_sd:.2f} %"
    if result.basis != "seeds":
        text = "no run was repeated with another seed: noise and errors of the law mix"
        return _check("noise", "Noise", Verdict.LOOK, f"{text}{misses and '; '}{misses}.")
    sd, lo, hi = (100 * (value or 0.0) for value in (result.sd, result.lo, result.hi))
    text = f"seeds change the loss by {sd:.2f} % [{lo:.2f}, {hi:.2f}] ({result.cells} cells, "
    text += f"{result.degrees_of_freedom} degrees of freedom){misses and '; '}{misses}"
    lack = result.lack_of_fit
    if lack and lack.ratio is not None:
        text += f", {number(lack.ratio, 3)} times the variance of seeds (p = {lack.p or 0.0:.2g})"
    is_bad = lack and lack.p is not None and lack.p < SIGNIFICANT
    text += ": more than seeds explain" if is_bad else ""
    return _check("noise", "Noise", Verdict.BAD if is_bad else Verdict.OK, f"{text}.")
