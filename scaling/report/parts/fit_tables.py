"""The tables of a report, each built once from the fit document and shown as HTML, Markdown, CSV or in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from scaling.fit.combination import Combination
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
ROADS = ("parametric", "isoflop", "envelope")
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
    """The law's parameters and what derives from them, with standard error, interval and a note where one is due."""
    profile = (document.get("identification") or {}).get("profile") or {}
    loose = {name for name, held in profile.items() if not held["identified"]}
    entries = {**document["params"], **document["derived"]}
    rows = tuple(
        (*_estimated(name, entry), "not identified" if name in loose else "")
        for name, entry in entries.items()
    )
    told = (
        f"{100 * document['ci']:g} % intervals from {_bootstrap(document)}."
        if document.get("bootstrap")
        else "No bootstrap: no intervals."
    )
    return Table("parameters", "Fitted parameters", (*ESTIMATED, Column("note")), rows, told)


def _estimated(name: str, entry: Mapping[str, Any]) -> tuple[Cell, ...]:
    return (name, entry["value"], entry.get("se"), entry.get("lo"), entry.get("hi"))


def _bootstrap(document: Document) -> str:
    drawn = document["bootstrap"]
    failed = f", {drawn['failed']} failed" if drawn.get("failed") else ""
    return f"{drawn.get('resamples')} refits, drawn by {drawn.get('kind', 'pairs')} (seed {drawn.get('seed')}{failed})"


def power_law(road: Mapping[str, Any], which: Which, flops: Any) -> Any:
    """N* or D* of a road at one budget or an array of them: coef C^exponent; None when the road was refused."""
    return road[which]["coef"] * flops ** road[which]["exponent"] if road.get(which) else None


def roads(document: Document) -> Table:
    """The three estimates of the frontier side by side, and what each says at the largest budget."""
    top = (document["range"].get("flops") or [1.0])[-1]
    rows: list[tuple[Cell, ...]] = []
    for name, road in (
        (name, document["approaches"][name]) for name in ROADS if document["approaches"].get(name)
    ):
        note = (
            f"refused: {road['unavailable']}"
            if road.get("unavailable")
            else "; ".join(each["message"] for each in road.get("warnings") or [])
        )
        at_top = (power_law(road, "n_star", top), power_law(road, "d_star", top))
        rows.append(
            (
                TITLES[name],
                estimate(road.get("a")),
                estimate(road.get("b")),
                road.get("a_plus_b"),
                *at_top,
                note,
            )
        )
    columns = (
        Column("road"),
        Column("a (N* ~ C^a)", "number", True),
        Column("b (D* ~ C^b)", "number", True),
        Column("a + b", "rough"),
        Column("N* at top", "count"),
        Column("D* at top", "count"),
        Column("note"),
    )
    caption = f"N* and D* at the largest budget, {format_flops(top)} FLOPs. {(document.get('approaches_agree') or {}).get('message', '')}"
    return Table("roads", "Three roads to the frontier", columns, tuple(rows), caption.strip())


def flagged(document: Document) -> Table | None:
    """Points to look at again, by reason; the caption tells the fit without them."""
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
    rest = document["fit_without_flagged"]
    told = f"Kept in the fit. Without {'it' if rest['left_out'] == 1 else 'these ' + str(rest['left_out'])}: "
    if rest.get("unavailable"):
        return Table(
            "flagged", "Points to look at again", columns, rows, told + f"{rest['unavailable']}."
        )
    values = {**({"a": rest["a"]} if "a" in rest else {}), **rest["params"]}
    return Table(
        "flagged",
        "Points to look at again",
        columns,
        rows,
        told + ", ".join(f"{name} {number(v, 4)}" for name, v in values.items()) + ".",
    )


def minima(document: Document) -> Table | None:
    """The local minima that the starts ended in, where there are several: none of them alone is the answer."""
    found = ((document.get("identification") or {}).get("starts") or {}).get("minima") or []
    if len(found) < 2:
        return None
    moving = [
        name for name in found[0]["params"] if len({one["params"][name] for one in found}) > 1
    ]
    columns = (
        Column("objective", "number"),
        Column("starts", "integer"),
        *(Column(name, "number") for name in moving),
    )
    rows = tuple(
        (one["value"], one["starts"], *(one["params"][name] for name in moving))
        for one in found[:8]
    )
    return Table("minima", "Where the starts ended", columns, rows)


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
    """Coverage by model: the line, the beta distribution's answer, and the forecast from few samples."""
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
    ahead = document["groups"][0]["forecast"]
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
    told = f"Forecasts are of pass@{ahead['k']} from {ahead['samples']} samples a problem."
    return Table("groups", "Coverage, -log pass@k = a k^-b", columns, rows, told)


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
    told = (
        f"All held-out curves together: R2 {number(test['r2'])}, mean absolute error {number(test['mae'], 3)} nats."
        if test
        else ""
    )
    return Table("schedules", "Loss curves by schedule", columns, rows, told)


def accuracy(document: Document) -> Table | None:
    """The second stage of a two-stage fit: from loss to accuracy."""
    stage = document.get("accuracy")
    if not stage:
        return None
    rows = tuple(_estimated(name, entry) for name, entry in stage["params"].items())
    told = f"{stage['formula']}; R2 {number(stage['r2'])}, mean absolute error {number(stage['mae'], 3)}."
    return Table("accuracy", "Second stage: accuracy from loss", ESTIMATED, rows, told)


def combination(document: Document) -> Table | None:
    """The candidates of the combination: weights and rolling-origin errors, and what each says of ten times the largest budget."""
    if not document.get("combination") or not document["range"].get("flops"):
        return None
    held, ci = Combination.model_validate(document["combination"]), document["ci"]
    flops = 10 * document["range"]["flops"][1]
    size, loss = (held.optimum(flops, quantity, ci) for quantity in ("n_star", "loss_star"))
    rows: list[tuple[Cell, ...]] = [
        ("combined", None, None, (size.value, size.lo, size.hi), (loss.value, loss.lo, loss.hi))
    ]
    for one in sorted(held.candidates, key=lambda each: -each.weights.get("n_star", 0.0)):
        weight = one.weights.get("n_star", one.weights.get("loss"))
        error = one.errors.get("loss", one.errors.get("loss_star"))
        ends = (size.each.get(one.name), None, None), (loss.each.get(one.name), None, None)
        rows.append((one.name, weight, None if error is None else 100 * error, *ends))
    columns = (
        Column("law or approach"),
        Column("weight", "rough"),
        Column("error %", "rough"),
        Column("N*", "count", True),
        Column("L*", "rough", True),
    )
    told = (
        f"Each was refitted on {held.origins} prefixes of the budgets and predicted the runs after them: the error. Weights are its inverse."
        if held.origins
        else "Too few budgets to test the laws on: they weigh the same, and the interval is their spread."
    )
    title = f"The answer: N* and L* at {format_flops(flops)} FLOPs, ten times the largest budget"
    return Table("combination", title, columns, tuple(rows), told)


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
        Column("in all %", "rough"),
        Column("largest weights"),
    )
    told = "Form is what the candidates differ by beyond the bootstrap of one law's parameters; the factor is what rolling origins ask for."
    return Table("breakdown", "Where the interval comes from", columns, rows, told)


def predicted_roads(prediction: Document) -> Table:
    """The optimum at the budget asked for by every road that the fit found."""
    rows = tuple(
        (name, *(estimate(road[each]) for each in ("n_params", "tokens", "loss")))
        for name, road in prediction["approaches"].items()
    )
    columns = (
        Column("road"),
        Column("N*", "count", True),
        Column("D*", "count", True),
        Column("L*", "rough", True),
    )
    return Table("predicted-roads", "The same budget by each road", columns, rows)


def reconciled(document: Document) -> list[Table]:
    """The tables of `scaling reconcile`: runs by counting, studies simulated on one law, Porian's steps."""
    rows = []
    for row in document["countings"]:
        roads = (
            "refused"
            if row[name].get("unavailable")
            else format_cell(estimate(row[name]["a"]), Column("", "number", True))
            for name in ROADS
        )
        rows.append((row["label"], *roads))
    runs = Table(
        "countings",
        "The same runs, counted in two ways: a of N* ~ C^a",
        (Column("counting"), *map(Column, ROADS)),
        tuple(rows),
    )
    held = document.get("studies")
    lines: list[tuple[Cell, ...]] = []
    if held:
        lines = [
            ("Hoffmann's counting, all parameters", held["total"]),
            ("Kaplan's counting, without embeddings", held["nonembedding"]),
        ]
        lines += [
            (
                f"at {format_count(each['n_params_nonembedding'])} parameters without embeddings",
                each["a"],
            )
            for each in held["local"]
        ]
    law = Table(
        "studies",
        "Kaplan's study, 20 sizes from 794 to 1.6e9, on this law",
        (Column("counting"), Column("a", "number")),
        tuple(lines),
        "After Pearce and Song 2024; the rows at one size are the frontier's local slope.",
    )
    steps = tuple((each["step"], each["a"]) for each in document["porian"])
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
    held = document.get("holdout")
    if not held:
        return None
    rows = tuple(
        (
            row["n_params"],
            row["tokens"],
            row["loss"],
            (row["predicted"], row["lo"], row["hi"]),
            row["predicted"] / row["loss"] - 1,
        )
        for row in held["rows"]
    )
    columns = (
        Column("N", "count"),
        Column("D", "count"),
        Column("measured", "number"),
        Column("predicted", "number", True),
        Column("error", "percent"),
    )
    told = f"The budget of {format_flops(held['budget'])} FLOPs was left out of this fit. Error: predicted / measured - 1."
    told += (
        f" {min(len(rows), ROWS_LISTED)} of {held['n_test']:,} runs are listed."
        if min(len(rows), ROWS_LISTED) < held["n_test"]
        else ""
    )
    return Table("holdout", "Hold-out", columns, rows, told, ROWS_LISTED)


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
    held = {
        title: {**document["params"], **document["derived"]}
        for title, document in documents.items()
    }
    rows: list[tuple[Cell, ...]] = [
        (title, *(estimate(entries.get(name)) for name in names)) for title, entries in held.items()
    ]
    rows += [
        (title, *((values.get(name), None, None) for name in names))
        for title, values in published.items()
    ]
    columns = (Column("law"), *(Column(name, "number", True) for name in names))
    return Table(
        "laws",
        "Beside the published laws",
        columns,
        tuple(rows),
        "E, A and B depend on data and tokeniser; compare a and b.",
    )


def kaplan(document: Document) -> Table | None:
    """Kaplan's L(N, D) on the same runs, counted as he counts."""
    held = document.get("kaplan")
    if not held:
        return None
    entries = {**held["params"], **{name: held[name] for name in ("a", "b") if held.get(name)}}
    counted = (
        f"N = {held['convention'].get('params', '?')}, C = {held['convention'].get('flops', '?')}"
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
    held = prediction.get("model")
    if not held:
        return None
    shape = "{n_layers} layers, width {d_model}, {n_heads} heads of {d_head} ({n_kv_heads} for keys), d_ff {d_ff}, vocabulary {vocab_size}"
    steps = "{n_steps:,} of {batch_size} x {seq_len} tokens, warm-up {warmup_steps}, {schedule}"
    rows = (
        ("parameters", f"{format_count(held['n_params'])} with head"),
        ("shape", shape.format_map(held)),
        ("steps", steps.format_map(held)),
        ("learning rate", number(held["lr"], 3)),
    )
    return pairs("model", "A model that can be built", rows)


def provenance(document: Document) -> Table:
    """Conventions, sources, digests, versions: what somebody needs to make the same numbers again."""
    source, objective, cost = document["source"], document["objective"], document["cost"]
    convention = source.get("convention") or {}
    rows = [
        ("law", f"{document['law']} ({document['approach']})"),
        (
            "objective",
            f"{objective.get('name')}, delta {objective.get('delta')}, value {objective.get('value')}",
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
    """E with its interval, the floor on the windows measured, the entropy of the language, and how far E lies from each."""
    held = document.get("known_entropy")
    if not held:
        return None
    rows: list[tuple[Cell, ...]] = [("fitted E", (held["fitted_E"], held["lo"], held["hi"]), None)]
    if held["floor"] is not None:
        rows.append(
            (
                "lowest loss on the windows measured",
                _alone(held["floor"]),
                held["floor_difference_percent"] / 100,
            )
        )
    rows.append(
        ("entropy of the language", _alone(held["entropy"]), held["difference_percent"] / 100)
    )
    columns = (
        Column("floor of the loss"),
        Column("nats per token", "number", True),
        Column("E lies off by", "percent"),
    )
    return Table(
        "truth", "The fitted floor and the true one", columns, tuple(rows), _told(document)
    )


def _alone(value: float) -> Cell:
    return value, None, None


def _told(document: Document) -> str:
    held = document["known_entropy"]
    doubt = "" if document["status"] == "ok" else f" The fit's status is {document['status']}."
    if held["covers"] is None:
        return f"No interval: nothing says how far E may be off.{doubt}"
    which = "true floor" if held["floor"] is None else "lowest possible loss on these windows"
    return f"The {100 * document['ci']:g} % interval of E {'holds' if held['covers'] else 'misses'} the {which}.{doubt}"
