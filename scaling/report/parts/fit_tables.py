"""The tables of a report, each built once from the fit document and shown as HTML, Markdown, CSV or
in a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from scaling.formatting import format_count, format_flops
from scaling.render.table import (
    Cell,
    Column,
    Document,
    Kind,
    Table,
    estimate,
    format_cell,
    number,
    pairs,
)

Which = Literal["n_star", "d_star"]
APPROACHES = ("parametric", "isoflop", "envelope")
ROWS_LISTED = 200
TITLES = {
    "parametric": "parametric (approach 3)",
    "isoflop": "isoFLOP (approach 2)",
    "envelope": "envelope (approach 1)",
}


ESTIMATED = (
    Column("parameter"),
    Column("value", "number"),
    Column("se", "rough"),
    Column("lo", "rough"),
    Column("hi", "rough"),
)
OPTIMUM: tuple[tuple[str, str, Kind], ...] = (
    ("n_params", "parameters N*", "count"),
    ("tokens", "tokens D*", "count"),
    ("tokens_per_param", "tokens per parameter", "rough"),
    ("loss", "loss L*", "rough"),
)


def parameters(document: Document) -> Table:
    """The law's parameters and what derives from them, with standard error, interval and a note
    where one is due.
    """
    profile = (document.get("identification") or {}).get("profile") or {}
    unidentified = {name for name, interval in profile.items() if not interval["identified"]}
    entries = {**document["params"], **document["derived"]}
    rows = tuple(
        (*_estimated(name, entry), "not identified" if name in unidentified else "")
        for name, entry in entries.items()
    )
    caption = (
        f"{100 * document['ci']:g} % intervals from {_bootstrap(document)}."
        if document.get("bootstrap")
        else "No bootstrap: no intervals."
    )
    return Table("parameters", "Fitted parameters", (*ESTIMATED, Column("note")), rows, caption)


def _estimated(name: str, entry: Mapping[str, Any]) -> tuple[Cell, ...]:
    return (name, entry["value"], entry.get("se"), entry.get("lo"), entry.get("hi"))


def _bootstrap(document: Document) -> str:
    drawn = document["bootstrap"]
    failed = f", {drawn['failed']} failed" if drawn.get("failed") else ""
    return (
        f"{drawn.get('resamples')} refits, drawn by {drawn.get('kind', 'pairs')} (seed "
        f"{drawn.get('seed')}{failed})"
    )


def power_law(frontier: Mapping[str, Any], which: Which, flops: Any) -> Any:
    """N* or D* of a frontier at one budget or an array of them: coef C^exponent; None when the
    frontier was refused.
    """
    return (
        frontier[which]["coef"] * flops ** frontier[which]["exponent"]
        if frontier.get(which)
        else None
    )


def approaches(document: Document) -> Table:
    """The three estimates of the frontier and their optima at the largest budget."""
    top = (document["range"].get("flops") or [1.0])[-1]
    rows: list[tuple[Cell, ...]] = []
    for name, frontier in (
        (name, document["approaches"][name])
        for name in APPROACHES
        if document["approaches"].get(name)
    ):
        note = (
            f"refused: {frontier['unavailable']}"
            if frontier.get("unavailable")
            else "; ".join(each["message"] for each in frontier.get("warnings") or [])
        )
        at_top = (power_law(frontier, "n_star", top), power_law(frontier, "d_star", top))
        rows.append(
            (
                TITLES[name],
                estimate(frontier.get("a")),
                estimate(frontier.get("b")),
                frontier.get("a_plus_b"),
                *at_top,
                note,
            )
        )
    columns = (
        Column("approach"),
        Column("a (N* ~ C^a)", "number", True),
        Column("b (D* ~ C^b)", "number", True),
        Column("a + b", "rough"),
        Column("N* at top", "count"),
        Column("D* at top", "count"),
        Column("note"),
    )
    caption = (
        f"N* and D* at the largest budget, {format_flops(top)} FLOPs. "
        f"{(document.get('approaches_agree') or {}).get('message', '')}"
    )
    return Table(
        "approaches", "Three approaches to the frontier", columns, tuple(rows), caption.strip()
    )


def flagged(document: Document) -> Table | None:
    """Suspicious points, by reason; the caption tells the fit without them."""
    if not document.get("flagged"):
        return None
    rows = tuple(
        (
            item["reason"],
            item["count"],
            ", ".join(str(point["row"]) for point in item["points"][:8]),
        )
        for item in document["flagged"]
    )
    columns = (Column("reason"), Column("points", "integer"), Column("which"))
    without = document["fit_without_flagged"]
    caption = (
        "Kept in the fit. Without "
        f"{'it' if without['left_out'] == 1 else 'these ' + str(without['left_out'])}: "
    )
    if without.get("unavailable"):
        return Table(
            "flagged",
            "Suspicious points",
            columns,
            rows,
            caption + f"{without['unavailable']}.",
        )
    values = {**({"a": without["a"]} if "a" in without else {}), **without["params"]}
    return Table(
        "flagged",
        "Suspicious points",
        columns,
        rows,
        caption + ", ".join(f"{name} {number(v, 4)}" for name, v in values.items()) + ".",
    )


def minima(document: Document) -> Table | None:
    """The local minima that the starts ended in, where there are several: none of them alone is the
    answer.
    """
    minima_list = ((document.get("identification") or {}).get("starts") or {}).get("minima") or []
    if len(minima_list) < 2:
        return None
    varying = [
        name
        for name in minima_list[0]["params"]
        if len({minimum["params"][name] for minimum in minima_list}) > 1
    ]
    columns = (
        Column("objective", "number"),
        Column("starts", "integer"),
        *(Column(name, "number") for name in varying),
    )
    rows = tuple(
        (minimum["value"], minimum["starts"], *(minimum["params"][name] for name in varying))
        for minimum in minima_list[:8]
    )
    return Table("minima", "Local minima that the starts ended in", columns, rows)


def rollout(document: Document) -> Table | None:
    """Each size predicted from the smaller ones."""
    if not document.get("rollout"):
        return None
    names = ("n_params", "n_train", "mean_abs_rel_error", "bias", "covered")
    columns = (
        Column("size N", "count"),
        Column("runs fitted", "integer"),
        Column("mean error", "percent"),
        Column("bias", "percent"),
        Column("inside", "short"),
    )
    rows = tuple(tuple(row[name] for name in names) for row in document["rollout"])
    return Table("rollout", "Rollout: each size from the smaller ones", columns, rows)


def groups(document: Document) -> Table | None:
    """Coverage by model: the line, the beta distribution's answer, and the forecast from few
    samples.
    """
    if not document.get("groups"):
        return None
    rows = tuple(
        (
            row["model"],
            estimate(row["a"]),
            estimate(row["b"]),
            row["r2"],
            row["beta_binomial"]["b"],
            row["forecast"]["beta_binomial"],
            row["forecast"]["line"],
            row["forecast"]["measured"],
        )
        for row in document["groups"]
    )
    forecast = document["groups"][0]["forecast"]
    columns = (
        Column("model"),
        Column("a", "rough", True),
        Column("b", "rough", True),
        Column("R2", "number"),
        Column("b by beta-binomial", "number"),
        Column("forecast by it", "rough"),
        Column("by the line", "rough"),
        Column("measured", "rough"),
    )
    caption = f"Forecasts are of pass@{forecast['k']} from {forecast['samples']} samples a problem."
    return Table("groups", "Coverage, -log pass@k = a k^-b", columns, rows, caption)


def schedules(document: Document) -> Table | None:
    """How well each loss curve is predicted, fitted or held out."""
    if not document.get("schedules"):
        return None
    rows = tuple(
        (
            row["name"],
            "held out" if row["held_out"] else "fitted",
            row["n"],
            row["r2"],
            row["mae"],
            row["final_error"],
        )
        for row in document["schedules"]
    )
    columns = (
        Column("curve"),
        Column(""),
        Column("points", "integer"),
        Column("R2", "number"),
        Column("mean error, nats", "rough"),
        Column("at its end", "rough"),
    )
    test = document.get("test")
    caption = (
        f"All held-out curves together: R2 {number(test['r2'])}, mean absolute error "
        f"{number(test['mae'], 3)} nats."
        if test
        else ""
    )
    return Table("schedules", "Loss curves by schedule", columns, rows, caption)


def accuracy(document: Document) -> Table | None:
    """The second stage of a two-stage fit: from loss to accuracy."""
    stage = document.get("accuracy")
    if not stage:
        return None
    rows = tuple(_estimated(name, entry) for name, entry in stage["params"].items())
    caption = (
        f"{stage['formula']}; R2 {number(stage['r2'])}, mean absolute error "
        f"{number(stage['mae'], 3)}."
    )
    return Table("accuracy", "Second stage: accuracy from loss", ESTIMATED, rows, caption)


def predicted_approaches(prediction: Document) -> Table:
    """The optimum at the budget asked for by every optimum that the fit found."""
    rows = tuple(
        (name, *(estimate(optimum[quantity]) for quantity in ("n_params", "tokens", "loss")))
        for name, optimum in prediction["approaches"].items()
    )
    columns = (
        Column("approach"),
        Column("N*", "count", True),
        Column("D*", "count", True),
        Column("L*", "rough", True),
    )
    return Table("predicted-approaches", "The same budget by quantity road", columns, rows)


def reconciled(document: Document) -> list[Table]:
    """The tables of `scaling reconcile`: runs by counting, studies simulated on one law, Porian's
    steps.
    """
    rows = []
    for row in document["countings"]:
        exponents = (
            "refused"
            if row[name].get("unavailable")
            else format_cell(estimate(row[name]["a"]), Column("", "number", True))
            for name in APPROACHES
        )
        rows.append((row["label"], *exponents))
    runs = Table(
        "countings",
        "The same runs, counted in two ways: a of N* ~ C^a",
        (Column("counting"), *map(Column, APPROACHES)),
        tuple(rows),
    )
    studies = document.get("studies")
    law_rows: list[tuple[Cell, ...]] = []
    if studies:
        law_rows = [
            ("Hoffmann's counting, all parameters", studies["total"]),
            ("Kaplan's counting, without embeddings", studies["nonembedding"]),
        ]
        law_rows += [
            (
                f"at {format_count(step_or_size['n_params_nonembedding'])} parameters without "
                "embeddings",
                step_or_size["a"],
            )
            for step_or_size in studies["local"]
        ]
    law = Table(
        "studies",
        "Kaplan's study, 20 sizes from 794 to 1.6e9, on this law",
        (Column("counting"), Column("a", "number")),
        tuple(law_rows),
        "After Pearce and Song 2024; the rows at one size are the frontier's local slope.",
    )
    steps = tuple((step_or_size["step"], step_or_size["a"]) for step_or_size in document["porian"])
    return [
        runs,
        law,
        Table(
            "porian",
            "What training adds to counting (Porian et al. 2024, RefinedWeb)",
            (Column("step"), Column("a", "number")),
            steps,
        ),
    ]


def holdout(document: Document) -> Table | None:
    """The runs of the budget that was left out, predicted from the others."""
    result = document.get("holdout")
    if not result:
        return None
    rows = tuple(
        (
            row["n_params"],
            row["tokens"],
            row["loss"],
            (row["predicted"], row["lo"], row["hi"]),
            row["predicted"] / row["loss"] - 1,
        )
        for row in result["rows"]
    )
    columns = (
        Column("N", "count"),
        Column("D", "count"),
        Column("measured", "number"),
        Column("predicted", "number", True),
        Column("error", "percent"),
    )
    caption = (
        f"The budget of {format_flops(result['budget'])} FLOPs was left out of this fit. "
        "Error: predicted / measured - 1."
    )
    caption += (
        f" {min(len(rows), ROWS_LISTED)} of {result['n_test']:,} runs are listed."
        if min(len(rows), ROWS_LISTED) < result["n_test"]
        else ""
    )
    return Table("holdout", "Hold-out", columns, rows, caption, ROWS_LISTED)


def exclusions(document: Document) -> Table:
    """Every run or row that the fit left out, counted by reason."""
    rows = tuple((item["reason"], item["count"]) for item in document["excluded"])
    return Table(
        "exclusions", "Left out of the fit", (Column("reason"), Column("count", "integer")), rows
    )


def laws(documents: Mapping[str, Document], published: Mapping[str, Mapping[str, float]]) -> Table:
    """Fits and published laws, one a row, one parameter of the main fit a column."""
    first = next(iter(documents.values()))
    exponents = [name for name in ("a", "b") if name in first["derived"]]
    names = [*exponents, *(name for name in first["params"] if name not in exponents)]
    estimates = {
        title: {**document["params"], **document["derived"]}
        for title, document in documents.items()
    }
    rows: list[tuple[Cell, ...]] = [
        (title, *(estimate(entries.get(name)) for name in names))
        for title, entries in estimates.items()
    ]
    rows += [
        (title, *((values.get(name), None, None) for name in names))
        for title, values in published.items()
    ]
    columns = (Column("law"), *(Column(name, "number", True) for name in names))
    return Table(
        "laws",
        "Published laws for comparison",
        columns,
        tuple(rows),
        "E, A and B depend on data and tokeniser; compare a and b.",
    )


def kaplan(document: Document) -> Table | None:
    """Kaplan's L(N, D) on the same runs, counted as he counts."""
    fit = document.get("kaplan")
    if not fit:
        return None
    entries = {**fit["params"], **{name: fit[name] for name in ("a", "b") if fit.get(name)}}
    counted = (
        f"N = {fit['convention'].get('params', '?')}, C = {fit['convention'].get('flops', '?')}"
    )
    rows = tuple(_estimated(name, entry) for name, entry in entries.items())
    return Table(
        "kaplan",
        "Kaplan's law on the same runs",
        ESTIMATED,
        rows,
        f"L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D; {counted}.",
    )


def predictions(forecasts: Sequence[Mapping[str, Any]]) -> Table:
    """The compute-optimal model at each budget, within the data and beyond."""
    rows = tuple(
        (
            budget(item),
            *(estimate(item.get(name)) for name, _, _ in OPTIMUM),
            item.get("extrapolation_decades"),
        )
        for item in forecasts
    )
    columns = (
        Column("FLOPs", "flops"),
        *(Column(label, kind, True) for _, label, kind in OPTIMUM),
        Column("decades beyond the data", "short"),
    )
    return Table("predictions", "Compute-optimal models", columns, rows)


def budget(prediction: Mapping[str, Any]) -> float | None:
    """The FLOPs that a prediction is about."""
    return (prediction.get("flops") or {}).get("value")


def model(prediction: Mapping[str, Any]) -> Table | None:
    """The model that can be built for a prediction, and how to train it."""
    buildable = prediction.get("model")
    if not buildable:
        return None
    shape = (
        "{n_layers} layers, width {d_model}, {n_heads} heads of {d_head} ({n_kv_heads} for "
        "keys), d_ff {d_ff}, vocabulary {vocab_size}"
    )
    steps = "{n_steps:,} of {batch_size} x {seq_len} tokens, warm-up {warmup_steps}, {schedule}"
    rows = (
        ("parameters", f"{format_count(buildable['n_params'])} with head"),
        ("shape", shape.format_map(buildable)),
        ("steps", steps.format_map(buildable)),
        ("learning rate", number(buildable["lr"], 3)),
    )
    return pairs("model", "A model that can be built", rows)


def provenance(document: Document) -> Table:
    """Conventions, sources, digests, versions: what is needed to reproduce the numbers."""
    source, objective, cost = document["source"], document["objective"], document["cost"]
    convention = source.get("convention") or {}
    rows = [
        ("law", f"{document['law']} ({document['approach']})"),
        (
            "objective",
            f"{objective.get('name')}, delta {objective.get('delta')}, value "
            f"{objective.get('value')}",
        ),
        ("parameters N", str(convention.get("params", "as given"))),
        ("FLOPs C", str(convention.get("flops", "as given"))),
        ("cost of training", f"C = {number(cost['c0'])} N^{number(cost['p'])} D"),
        (
            "columns",
            ", ".join(f"{key} = {value}" for key, value in (source.get("columns") or {}).items())
            or "–",
        ),
        ("source", paths(document)),
        ("digest", str(source.get("digest") or "–")),
        ("scaling version", document["version"]),
        *(("note", str(note)) for note in source.get("notes") or []),
    ]
    return pairs("provenance", "Conventions and provenance", rows)


def paths(document: Document) -> str:
    """The sources of a fit."""
    return ", ".join(str(path) for path in document["source"].get("paths") or []) or "–"


def truth(document: Document) -> Table | None:
    """E with its interval, the floor on the windows measured, the entropy of the language, and how
    far E lies from each.
    """
    floor = document.get("known_entropy")
    if not floor:
        return None
    rows: list[tuple[Cell, ...]] = [
        ("fitted E", (floor["fitted_E"], floor["lo"], floor["hi"]), None)
    ]
    if floor["floor"] is not None:
        rows.append(
            (
                "lowest loss on the windows measured",
                _alone(floor["floor"]),
                floor["floor_difference_percent"] / 100,
            )
        )
    rows.append(
        ("entropy of the language", _alone(floor["entropy"]), floor["difference_percent"] / 100)
    )
    columns = (
        Column("floor of the loss"),
        Column("nats per token", "number", True),
        Column("E minus this", "percent"),
    )
    return Table(
        "truth", "The fitted floor and the true one", columns, tuple(rows), _told(document)
    )


def _alone(value: float) -> Cell:
    return value, None, None


def _told(document: Document) -> str:
    floor = document["known_entropy"]
    status = "" if document["status"] == "ok" else f" The fit's status is {document['status']}."
    if floor["covers"] is None:
        return f"No interval: nothing says how far E may be off.{status}"
    which = "true floor" if floor["floor"] is None else "lowest possible loss on these windows"
    return (
        f"The {100 * document['ci']:g} % interval of E "
        f"{'holds' if floor['covers'] else 'misses'} the {which}.{status}"
    )
