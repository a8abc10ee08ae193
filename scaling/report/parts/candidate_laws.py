"""The combination of laws as tables: candidates with their weights, and where an interval comes
from.
"""

from __future__ import annotations

from scaling.fit.result import FitResult
from scaling.formatting import format_flops
from scaling.predict.prediction import PredictionResult
from scaling.render.table import Column, Table, tabulate


def weights(fit: FitResult) -> Table | None:
    """The candidate laws with weights, rolling-origin errors, and N*, L* at ten times the top
    budget.
    """
    combined = fit.combination
    if combined is None or "flops" not in fit.range:
        return None
    flops = 10 * fit.range["flops"][1]
    size, loss = (combined.optimum(flops, name, fit.ci) for name in ("n_star", "loss_star"))
    rows = [{"name": "combined", "n": size, "loss": loss}]
    for candidate in sorted(combined.candidates, key=lambda c: -c.weights.get("n_star", 0.0)):
        error = candidate.errors.get("loss", candidate.errors.get("loss_star"))
        rows.append(
            {
                "name": candidate.name,
                "weight": candidate.weights.get("n_star", candidate.weights.get("loss")),
                "error": None if error is None else 100 * error,
                "n": (size.each.get(candidate.name), None, None),
                "loss": (loss.each.get(candidate.name), None, None),
            }
        )
    columns = {
        "name": Column("law or approach"),
        "weight": Column("weight", "rough"),
        "error": Column("error %", "rough"),
        "n": Column("N*", "count", True),
        "loss": Column("L*", "rough", True),
    }
    caption = (
        f"Each was refitted on {combined.origins} prefixes of the budgets and predicted the runs "
        "after them: the error. Weights are its inverse."
        if combined.origins
        else "Too few budgets to test the laws on: they have equal weights, and the interval is "
        "their spread."
    )
    title = f"The answer: N* and L* at {format_flops(flops)} FLOPs, ten times the largest budget"
    return tabulate("combination", title, rows, columns, caption)


def breakdown(prediction: PredictionResult) -> Table | None:
    """How much of each interval is the noise of a run, the parameters of a law, its form."""
    rows = []
    for name, answer in (prediction.combination or {}).items():
        parts = answer.parts.to_dict()
        percent = {key: None if part is None else 100 * part for key, part in parts.items()}
        weights = sorted(answer.weights.items(), key=lambda item: -item[1])[:3]
        rows.append(
            {
                **percent,
                "factor": answer.parts.factor,
                "name": "N*" if name == "n_params" else "loss",
                "weights": ", ".join(f"{law} {weight:.2f}" for law, weight in weights),
            }
        )
    columns = {
        "name": Column("standard error"),
        "noise": Column("noise %", "rough"),
        "parameters": Column("parameters %", "rough"),
        "form": Column("form %", "rough"),
        "factor": Column("factor", "rough"),
        "total": Column("total %", "rough"),
        "weights": Column("largest weights"),
    }
    caption = (
        "Form is what the candidates differ by beyond the bootstrap of one law's parameters; "
        "the factor widens it to the errors of rolling origins."
    )
    return tabulate("breakdown", "Where the interval comes from", rows, columns, caption)
