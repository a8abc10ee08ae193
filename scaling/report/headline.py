"""The five lines that `scaling fit` and `scaling predict` begin with: the answer, how far to trust
it, what was used, what was left out, and the next command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling.fit.combination import Combination
from scaling.fit.result import Agreement
from scaling.formatting import format_count, format_flops
from scaling.predict.question import QuestionKind
from scaling.render.table import Column, Document, Kind, estimate, format_cell
from scaling.report import summary
from scaling.warning import WarningCode

Lines = list[tuple[str, str]]
HEAVY = (  # what makes an answer wrong, before what makes it wide
    WarningCode.MIXED_DATA,
    WarningCode.UNLIKELY_UNIT,
    WarningCode.FLOPS_DISAGREE,
    WarningCode.HYPERPARAMETERS_VARY,
    WarningCode.REPEATED_ROWS,
    WarningCode.RUN_STATE,
    WarningCode.REPEATED_DATA,
    WarningCode.APPROACHES_DISAGREE,
    WarningCode.HOLDOUT_COVERAGE,
    WarningCode.HOLDOUT_ONE_SIDED,
)
TRUST = {"good": "yes", "care": "with care", "poor": "not yet"}
MAX_PARAMS = 4  # parameters of a law that are listed in a line


def _say(entry: Any, kind: Kind = "rough") -> str:
    return format_cell(estimate(entry), Column("", kind, True))


def heaviest(document: Document) -> str:
    """The sentence of the heaviest warning; "" without one."""
    warnings = document.get("warnings") or []
    order = {code.value: index for index, code in enumerate(HEAVY)}
    ranked = sorted(warnings, key=lambda each: order.get(each["code"], len(order)))
    more = f" (and {len(ranked) - 1} more below)" if len(ranked) > 1 else ""
    return f"{ranked[0]['message']}{more}" if ranked else ""


def fit_lines(document: Document, saved: str | None = None, command: str = "") -> Lines:
    """The five lines of a fit; `saved` is its file, `command` what was typed, for the next one."""
    source, convention = document["source"], document["source"].get("convention") or {}
    left_out = "; ".join(f"{each['count']} {each['reason']}" for each in document["excluded"])
    columns = ", ".join(f"{letter} = {name!r}" for letter, name in source["columns"].items())
    counted = f"N = {convention.get('params') or 'as given'}" if document["approaches"] else ""
    rows = document["n_points"] + sum(each["count"] for each in document["excluded"])
    used = f"{document['n_points']} of {rows} rows" if columns else f"{document['n_points']} runs"
    lines = [
        ("answer", _fit_answer(document)),
        ("trust", _fit_trust(document)),
        ("used", "; ".join(part for part in (used, columns, counted) if part)),
        ("left out", left_out or "nothing"),
    ]
    top = document["range"].get("flops")
    if saved and top and "a" in document["derived"]:
        budget = format_flops(10 * top[1])
        lines.append(("next", f"scaling predict {saved} --flops {budget}"))
    elif saved:
        lines.append(("next", f"scaling report {saved}"))
    elif command:
        lines.append(("next", f"{command} --out fit.json   (this fit is not saved)"))
    return lines


def _fit_answer(document: Document) -> str:
    derived, top = document["derived"], document["range"].get("flops")
    if "a" in derived:
        grows = f"N* grows as C^{_say(derived['a'])}"
        if document.get("combination") and top:
            fitted, ci, flops = document["combination"], document["ci"], 10 * top[1]
            size, loss = (
                Combination.model_validate(fitted).optimum(flops, quantity, ci)
                for quantity in ("n_star", "loss_star")
            )
            n, low, high = (format_count(each) for each in (size.value, size.lo, size.hi))
            return (
                f"at {format_flops(flops)} FLOPs (ten times the data) N* = {n} [{low}, {high}], "
                f"loss {loss.value:.3g} [{loss.lo:.3g}, {loss.hi:.3g}]; {grows}"
            )
        return grows
    if document["law"] == "hyper":
        return "; ".join(
            f"{name}* = {document['params'][f'{name}_coef']['value']:.3g}"
            + "".join(
                f" {size}^{_say(document['params'][f'{name}_{size}'])}"
                for size in "ND"
                if f"{name}_{size}" in document["params"]
            )
            for name in ("lr", "B")
            if f"{name}_coef" in document["params"]
        )
    entries = [(name, entry) for name, entry in document["params"].items()]
    listed = ", ".join(f"{name} = {_say(entry)}" for name, entry in entries[:MAX_PARAMS])
    return listed + (", ..." if len(entries) > MAX_PARAMS else "") or f"law {document['law']}"


def _fit_trust(document: Document) -> str:
    light, words = summary.verdict(document)
    agreement = document.get("approaches_agree") or {}
    reasons = [words] if light == "poor" else []
    if agreement.get("verdict") == Agreement.DISAGREE:
        reasons.append(agreement["message"].removesuffix("."))
    if (heavy := heaviest(document)) and not reasons:
        reasons.append(heavy)
    if light == "care" and not reasons:
        reasons.append("the largest budget is predicted with an error above 5 %")
    agreed = "all approaches agree" if agreement.get("verdict") == Agreement.AGREE else ""
    return f"{TRUST[light]}: {'; '.join(reasons) or agreed or words}"


def titles(prediction: Document) -> tuple[str, str]:
    """What a prediction is about, and the mark of its N, D and L ("*" for an optimum)."""
    n, d = (format_count(_value(prediction, name) or 0) for name in ("n_params", "tokens"))
    return {
        QuestionKind.BUDGET: ("Compute-optimal training", "*"),
        QuestionKind.SIZE: (f"The budget that {n} parameters are compute-optimal for", "*"),
        QuestionKind.TOKENS: (f"The budget that {d} tokens are compute-optimal for", "*"),
        QuestionKind.SERVED_SIZE: (
            f"Training tokens at which {n} parameters cost least to train and serve",
            "",
        ),
        QuestionKind.LOSS: ("The least compute that reaches this loss", "*"),
        QuestionKind.INPUT: ("What reaches this loss", ""),
        QuestionKind.INPUTS: ("What the law gives at these inputs", ""),
    }[QuestionKind(prediction["question"])]


def _value(prediction: Document, name: str) -> float | None:
    entry: Mapping[str, Any] = prediction.get(name) or {}
    return entry.get("value")


def prediction_lines(prediction: Document, command: str = "") -> Lines:
    """The lines of a prediction; `command` is the next one."""
    kinds: dict[str, Kind] = {"n_params": "count", "tokens": "count", "loss": "rough"}
    said = {
        name: _say(prediction.get(name), kind)
        for name, kind in kinds.items()
        if _value(prediction, name) is not None
    }
    words = {"n_params": "{} parameters", "tokens": "{} tokens", "loss": "loss {}"}
    parts = [words[name].format(text) for name, text in said.items()]
    parts += [
        f"{letter} {_say(entry, 'count')}"
        for letter, entry in (prediction.get("inputs") or {}).items()
    ]
    if prediction.get("accuracy"):
        parts.append(f"accuracy {_say(prediction['accuracy'])}")
    flops = _value(prediction, "flops")
    budget = f"{_say(prediction['flops'], 'flops')} FLOPs: " if flops is not None else ""
    best = prediction.get("inference")
    heavy = heaviest(prediction)
    inside = reach(prediction)
    lines = [("answer", budget + ", ".join(parts))]
    if best:
        lines.append(
            (
                "to serve",
                f"{format_count(best['demand_tokens'])} tokens: "
                f"{format_count(best['n_params'])} parameters on "
                f"{format_count(best['tokens'])} tokens cost least, at the same loss",
            )
        )
    lines.append(("trust", f"with care: {heavy}" if heavy else inside or "no warnings"))
    if time := prediction.get("time"):
        lines.append(
            (
                "time",
                f"{time['hours']:.3g} hours on {time['count']} {time['device']} at an MFU of "
                f"{time['mfu']:g}",
            )
        )
    lines.append(("from", f"{prediction['law']}, {prediction['source']}; {prediction['basis']}"))
    if command:
        lines.append(("next", command))
    return lines


def reach(prediction: Document) -> str | None:
    """Whether the data reach this far; how far they do not is among the prediction's warnings."""
    if prediction.get("extrapolation_decades") is None:
        return (
            "The range of the data behind this law is not known, so how far this extrapolates "
            "is unknown."
        )
    left = {WarningCode.EXTRAPOLATION, WarningCode.BELOW_DATA, WarningCode.OUTSIDE_DATA}
    outside = any(each["code"] in left for each in prediction.get("warnings") or [])
    if outside or prediction["extrapolation_decades"] > 0:
        return None
    return "This lies within the budgets, sizes and tokens per parameter that were trained."
