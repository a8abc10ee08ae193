"""The tables of a fit, each built once and shown as HTML, Markdown, CSV, LaTeX or in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scaling.fit.document import Estimate, in_one_table
from scaling.fit.result import Approach, FitResult, FrontierResult
from scaling.formatting import format_flops
from scaling.render.table import (
    Column,
    Kind,
    Table,
    number,
    pairs,
    record_table,
)
from scaling.report.parts import candidate_laws
from scaling.report.parts.candidate_laws import JudgedLaw
from scaling.report.parts.drawing import answer_budget

if TYPE_CHECKING:
    from scaling.predict.reconcile import Reconciliation

APPROACHES: dict[Approach, str] = {
    "parametric": "parametric (approach 3)",
    "isoflop": "isoFLOP (approach 2)",
    "envelope": "envelope (approach 1)",
}
OPTIMUM: tuple[tuple[str, str, Kind], ...] = (
    ("n_params", "parameters N*", "count"),
    ("tokens", "tokens D*", "count"),
    ("tokens_per_param", "tokens per parameter", "rough"),
    ("loss", "loss L*", "rough"),
)


def law_tables(fit: FitResult) -> list[Table | None]:
    """What was fitted: parameters, weights of several laws, and the laws with tables of their
    own.
    """
    return [
        None if fit.groups else parameters(fit),
        weights(fit),
        known_entropy(fit),
        coverage(fit),
        schedules(fit),
        accuracy(fit),
    ]


def estimated(name: str, title: str, entries: Mapping[str, Estimate], caption: str) -> Table:
    """Parameters with standard errors and intervals, one a row."""
    rows = tuple((key, item.value, item.se, item.lo, item.hi) for key, item in entries.items())
    ends = (Column(end, "rough") for end in ("se", "lo", "hi"))
    return Table(
        name, title, (Column("parameter"), Column("value", "number"), *ends), rows, caption
    )


def parameters(fit: FitResult) -> Table:
    """The law's parameters and what derives from them, with a note on those that the data do not
    settle.
    """
    drawn = fit.bootstrap
    caption = "No bootstrap: no intervals."
    if drawn:
        failed = f", {drawn.failed} failed" if drawn.failed else ""
        caption = (
            f"{100 * fit.ci:g} % intervals from {drawn.resamples} refits, drawn by {drawn.kind} "
            f"(seed {drawn.seed}{failed})."
        )
    [entries] = in_one_table(fit)
    table = estimated("parameters", "Fitted parameters", entries, caption)
    notes = {name: "interval reaches 0" for name, entry in fit.params.items() if entry.lo == 0}
    notes |= dict.fromkeys(unidentified(fit), "not identified")
    rows = tuple((*row, notes.get(str(row[0]), "")) for row in table.rows)
    return replace(table, columns=(*table.columns, Column("note")), rows=rows)


def unidentified(fit: FitResult) -> list[str]:
    """The parameters that are not identified."""
    profile = fit.identification.profile if fit.identification else {}
    return [name for name, interval in profile.items() if not interval.identified]


def weights(fit: FitResult) -> Table | None:
    """The candidate laws with N* and L* where the fit answers, the weights of each, and the error
    of later losses.
    """
    if fit.combination is None or "flops" not in fit.range:
        return None
    from scaling.predict.law_source import load_law

    combined = load_law(fit).combination  # at the cost of its answers
    assert combined is not None
    flops = answer_budget(fit)
    size, loss = (combined.each(combined.optima(flops, q)) for q in ("n_star", "loss_star"))
    rows = []
    for candidate in sorted(combined.candidates, key=lambda c: -c.weights.get("n_star", 0.0)):
        name, weights = candidate.name, candidate.weights
        if weights.keys() & {"n_star", "loss_star"}:
            error = candidate.errors.get("loss")
            row: dict[str, Any] = {"law or approach": name, "weight of N*": weights.get("n_star")}
            row |= {"N*": size.get(name), "weight of L*": weights.get("loss_star")}
            row |= {"L*": loss.get(name), "loss error %": error and 100 * error}
            rows.append(row)
    caption = (
        "The answer is the weighted mean; each column of weights sums to 1. The less a candidate "
        f"errs on the later runs, fitted to {combined.origins} subsets of smaller budgets, the "
        "more it weighs. Loss error: root mean square there."
        if combined.origins
        else "Too few budgets to test the laws on: they have equal weights, and the interval is "
        "their spread."
    )
    title = f"Candidate laws and their weights at {format_flops(flops)} FLOPs"
    rough = ("weight of N*", "weight of L*", "loss error %")
    return record_table("combination", title, rows, caption, rough=rough)


def known_entropy(fit: FitResult) -> Table | None:
    """E with its interval, the floor on the windows measured, the entropy of the language, and how
    far E lies from each.
    """
    truth = fit.known_entropy
    if not truth:
        return None
    rows: list[Any] = [("fitted E", (truth.fitted_E, truth.lo, truth.hi), None)]
    for label, value, off in (
        ("lowest loss on the windows measured", truth.floor, truth.floor_difference_percent),
        ("entropy of the language", truth.entropy, truth.difference_percent),
    ):
        if value is not None and off is not None:
            rows.append((label, (value, None, None), off / 100))
    which = "true floor" if truth.floor is None else "lowest possible loss on these windows"
    caption = (
        "No interval: nothing says how far E may be off."
        if truth.covers is None
        else f"The {100 * fit.ci:g} % interval of E "
        f"{'holds' if truth.covers else 'misses'} the {which}."
    )
    caption += "" if fit.status == "ok" else f" The fit's status is {fit.status}."
    names = Column("floor of the loss"), Column("nats per token", "number", True)
    columns = (*names, Column("E minus this", "percent"))
    return Table("truth", "The fitted floor and the true one", columns, tuple(rows), caption)


def coverage(fit: FitResult) -> Table | None:
    """Coverage by model: the line, and the exponent that follows from a beta distribution."""
    columns = {
        "model": "model",
        "a": "a",
        "b": "b",
        "r2": "R2",
        "beta_binomial.b": "b by beta-binomial",
    }
    title = "Coverage, -log pass@k = a k^-b"
    return record_table("groups", title, fit.groups, columns=columns, rough=("a", "b"))


def schedules(fit: FitResult) -> Table | None:
    """How well each loss curve is predicted, fitted or held out."""
    rows = [
        {
            "curve": row.name,
            "": "held out" if row.held_out else "fitted",
            "points": row.n,
            "R2": row.r2,
            "mean error, nats": row.mae,
            "at its end": row.final_error,
        }
        for row in fit.schedules or ()
    ]
    caption = (
        f"All held-out curves together: {errors_of_curves(fit.test)} nats." if fit.test else ""
    )
    return record_table(
        "schedules",
        "Loss curves by schedule",
        rows,
        caption,
        rough=("mean error, nats", "at its end"),
    )


def errors_of_curves(of: Any) -> str:
    """How well loss curves, or accuracies, are predicted."""
    return f"R2 {number(of.r2 or 0.0)}, mean absolute error {number(of.mae or 0.0, 3)}"


def accuracy(fit: FitResult) -> Table | None:
    """The second stage of a two-stage fit: from loss to accuracy."""
    stage = fit.accuracy
    if not stage:
        return None
    title, caption = (
        "Second stage: accuracy from loss",
        f"{stage.formula}; {errors_of_curves(stage)}.",
    )
    return estimated("accuracy", title, stage.params, caption)


def size_at(result: FrontierResult | None, flops: Any) -> Any:
    """N*(C) by one approach; None where it has none."""
    powers = result.powers if result and result.powers else {}
    coef, exponent = powers.get("n_coef"), powers.get("a")
    return None if coef is None or exponent is None else coef * flops**exponent


def approaches(fit: FitResult) -> Table | None:
    """The three estimates of the frontier and their optima at the largest budget."""
    top, rows, notes = fit.range.get("flops", (1.0, 1.0))[1], [], []
    for name, title in APPROACHES.items():
        result = fit.approaches.get(name)
        if result is None:
            continue
        size = size_at(result, top)
        exponents = {"a (N* ~ C^a)": result.a, "b (D* ~ C^b)": result.b}
        rows.append({"approach": title, **exponents, "N* at top budget": size})
        notes += [f"{name}: {result.unavailable}."] if result.unavailable else []
        notes += [f"{name}: {warning.message}." for warning in result.warnings]
    title, counts = "Three approaches to the frontier", ("N* at top budget",)
    return record_table("approaches", title, rows, " ".join(notes), count=counts)


def exclusions(fit: FitResult | None) -> Table | None:
    """Every run or row that the fit left out, counted by reason."""
    columns = {name: name for name in ("reason", "count")}
    title, left_out = "Left out of the fit", fit.excluded if fit else ()
    return record_table("exclusions", title, left_out, columns=columns)


def laws(fits: Mapping[str, FitResult]) -> Table | None:
    """Several fits of the same runs, one a row, one parameter a column."""
    entries = dict(zip(fits, in_one_table(*fits.values()), strict=True))
    names = dict.fromkeys(name for params in entries.values() for name in params)
    rows = [
        {"law": title, **{name: params.get(name) for name in names}}
        for title, params in entries.items()
    ]
    shown = rows if len(rows) > 1 else ()  # one has its own table
    return record_table("laws", "These fits side by side", shown, interval=tuple(names))


def compared(fits: Mapping[str, FitResult]) -> Table | None:
    """Several fits of the same runs: errors, information criteria and hold-out side by side."""
    judged = [JudgedLaw.of(fit).model_copy(update={"law": name}) for name, fit in fits.items()]
    same = len({(fit.source.digest, fit.n_points) for fit in fits.values()}) == 1 < len(fits)
    table = candidate_laws.compared(judged) if same else None
    return table and replace(table, name="laws-compared")


def facts(fit: FitResult) -> Iterator[tuple[str, str]]:
    """What was fitted to what, in pairs."""
    from scaling.fit.fit_options import TABLE_LAWS
    from scaling.fit.laws.laws import LAWS

    objective, counted, goodness = fit.objective, fit.source.convention, fit.goodness
    yield "law", f"{fit.law}, {fit.approach}"
    if fit.law in TABLE_LAWS:
        from scaling.fit.special.table_laws import SPECIAL

        yield "formula", SPECIAL[fit.law].formula
    elif fit.approach == "parametric":
        yield "formula", LAWS[fit.law].formula if fit.law in LAWS else fit.law
    yield "source", ", ".join(fit.source.paths) or "–"
    yield "points", f"{fit.n_points} fitted"
    yield "counted", f"N = {counted.params or 'as given'}, C = {counted.flops or 'as given'}"
    value = "" if objective.value is None else f" = {objective.value:.8g}"
    yield "objective", f"{objective.name}{value}"
    if goodness is not None and goodness.rmse_percent is not None:
        criteria = {"AIC": goodness.aic, "BIC": goodness.bic}
        listed = [f"{name} {each:.1f}" for name, each in criteria.items() if each is not None]
        yield "errors", ", ".join([f"{goodness.rmse_percent:.3g} % root mean square", *listed])
    yield from (("note", note) for note in fit.source.notes)
    yield "status", fit.status_text


def provenance(fit: FitResult) -> Table:
    """What is needed to make the numbers again."""
    cost, delta = fit.cost, fit.objective.delta
    columns = ", ".join(f"{key} = {value}" for key, value in fit.source.columns.items())
    rows = [
        *facts(fit),
        ("delta of the objective", "–" if delta is None else number(delta)),
        ("cost of training", f"C = {number(cost.c0)} N^{number(cost.p)} D"),
        ("columns", columns or "–"),
        ("digest of the data", fit.source.digest[:12] or "–"),
        ("scaling version", fit.version),
    ]
    return pairs("provenance", "Conventions and provenance", rows)


def reconciled(result: Reconciliation) -> list[Table | None]:
    """The tables of `scaling reconcile`: runs by counting, and Kaplan's study on one law."""
    columns = {"label": "counting", "a": "a of N* ~ C^a", "b": "b of D* ~ C^b"}
    title = "The same runs, counted in two ways"
    countings = record_table("countings", title, result.countings, columns=columns)
    studies = result.studies
    if studies is None:
        return [countings]
    title = "Kaplan's study, 20 sizes from 794 to 1.6e9, on this law"
    rows = [
        {"counting": "Hoffmann's counting, all parameters", "a": studies.total},
        {"counting": "Kaplan's counting, without embeddings", "a": studies.nonembedding},
    ]
    return [countings, record_table("studies", title, rows, "After Pearce and Song 2024.")]
