"""The combination of laws as tables: candidates with their weights, and where an interval comes
from.
"""

from __future__ import annotations

from scaling.fit.combination import Combination
from scaling.formatting import format_flops
from scaling.render.table import Cell, Column, Document, Table


def combination(document: Document) -> Table | None:
    """The candidate laws with weights, rolling-origin errors, and N*, L* at ten times the top
    budget.
    """
    if not document.get("combination") or not document["range"].get("flops"):
        return None
    fitted, ci = Combination.model_validate(document["combination"]), document["ci"]
    flops = 10 * document["range"]["flops"][1]
    size, loss = (fitted.optimum(flops, quantity, ci) for quantity in ("n_star", "loss_star"))
    rows: list[tuple[Cell, ...]] = [
        ("combined", None, None, (size.value, size.lo, size.hi), (loss.value, loss.lo, loss.hi))
    ]
    for candidate in sorted(fitted.candidates, key=lambda c: -c.weights.get("n_star", 0.0)):
        weight = candidate.weights.get("n_star", candidate.weights.get("loss"))
        error = candidate.errors.get("loss", candidate.errors.get("loss_star"))
        ends = (
            (size.each.get(candidate.name), None, None),
            (loss.each.get(candidate.name), None, None),
        )
        rows.append((candidate.name, weight, None if error is None else 100 * error, *ends))
    columns = (
        Column("law or approach"),
        Column("weight", "rough"),
        Column("error %", "rough"),
        Column("N*", "count", True),
        Column("L*", "rough", True),
    )
    caption = (
        f"Each was refitted on {fitted.origins} prefixes of the budgets and predicted the runs "
        "after them: the error. Weights are its inverse."
        if fitted.origins
        else "Too few budgets to test the laws on: they have equal weights, and the interval is "
        "their spread."
    )
    title = f"The answer: N* and L* at {format_flops(flops)} FLOPs, ten times the largest budget"
    return Table("combination", title, columns, tuple(rows), caption)


def breakdown(prediction: Document) -> Table | None:
    """How much of each interval is the noise of a run, the parameters of a law, its form."""
    if not prediction.get("combination"):
        return None
    rows = tuple(
        (
            "N*" if name == "n_params" else "loss",
            *(
                100 * part[each] if part[each] is not None else None
                for each in ("noise", "parameters", "form")
            ),
            part["factor"],
            100 * part["total"],
            ", ".join(
                f"{law} {weight:.2f}"
                for law, weight in sorted(entry["weights"].items(), key=lambda item: -item[1])[:3]
            ),
        )
        for name, entry in prediction["combination"].items()
        for part in (entry["parts"],)
    )
    columns = (
        Column("standard error"),
        Column("noise %", "rough"),
        Column("parameters %", "rough"),
        Column("form %", "rough"),
        Column("factor", "rough"),
        Column("total %", "rough"),
        Column("largest weights"),
    )
    caption = (
        "Form is what the candidates differ by beyond the bootstrap of one law's parameters; "
        "the factor widens it to the errors of rolling origins."
    )
    return Table("breakdown", "Where the interval comes from", columns, rows, caption)
