"""What a report says in words: what was trained, what follows for ten times the budget, how far to
trust it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scaling.formatting import format_count, format_flops
from scaling.render.table import Column, Document, Kind, estimate, format_cell
from scaling.report.parts.fit_tables import OPTIMUM, budget

if TYPE_CHECKING:
    from scaling.predict.verification import CheckedForecast

COUNTED = {
    "with_head": "blocks and output matrix",
    "total": "all parameters",
    "nonembedding": "without embeddings",
}


@dataclass(frozen=True)
class Tile:
    """One number of the headline, with its interval."""

    label: str
    value: str
    interval: str = ""


def tiles(document: Document, forecast: Mapping[str, Any] | None) -> list[Tile]:
    """The exponent and the forecast at a glance."""
    exponent = (
        [_tile("exponent a of N* ∝ C^a", document["derived"]["a"], "rough")]
        if "a" in document["derived"]
        else []
    )
    return exponent + [
        _tile(label, forecast.get(name), kind)
        for name, label, kind in OPTIMUM
        if forecast is not None
    ]


def _tile(label: str, entry: Mapping[str, Any] | None, kind: Kind) -> Tile:
    value, low, high = (format_cell(part, Column("", kind)) for part in estimate(entry))
    return Tile(label, value, f"{low} to {high}" if "–" not in (low, high) else "")


def trained(document: Document) -> str:
    """What the fit rests on."""
    ranges, convention = document["range"], document["source"].get("convention") or {}
    left_out = sum(item["count"] for item in document["excluded"])
    text = f"{document['n_points']:,} runs were fitted"
    if ranges.get("n_params") and ranges.get("flops"):
        (n_low, n_high), (c_low, c_high) = ranges["n_params"], ranges["flops"]
        counted = COUNTED.get(convention.get("params", ""), "")
        text += f", of {format_count(n_low)} to {format_count(n_high)} parameters" + (
            f" ({counted})" if counted else ""
        )
        text += f" and {format_flops(c_low)} to {format_flops(c_high)} FLOPs"
    return text + (
        f"; {left_out:,} were left out, with reasons below." if left_out else "; none was left out."
    )


def _say(entry: Mapping[str, Any] | None, kind: Kind = "rough") -> str:
    return format_cell(estimate(entry), Column("", kind, True))


def exponents(document: Document) -> str:
    """How N* and D* grow with compute."""
    if "a" not in document["derived"]:
        return f"The law {document['law']} says nothing of the best size for a budget."
    a, b = (_say(document["derived"].get(name)) for name in ("a", "b"))
    level = f" ({100 * document['ci']:g} % intervals)" if document.get("bootstrap") else ""
    return f"The compute-optimal model grows as C^{a} and its training tokens as C^{b}{level}."


def verified(checked: Sequence[CheckedForecast]) -> list[str]:
    """What came of the forecasts that a sweep was written with."""
    if not checked:
        return []
    from scaling.predict.verification import sentence

    return [sentence(checked)]


def forecast_sentence(forecast: Mapping[str, Any]) -> str:
    """The forecast in one sentence."""
    n, d, ratio, loss = (_say(forecast.get(name), kind) for name, _, kind in OPTIMUM)
    return (
        f"For {format_flops(budget(forecast) or 0)} FLOPs: {n} parameters on {d} tokens, "
        f"{ratio} tokens per parameter, loss {loss}."
    )


def _runs(count: int) -> str:
    return f"{count:,} run{'s' if count != 1 else ''}"


def holdout_sentence(document: Document) -> str | None:
    """How well the largest budget was predicted from the smaller ones."""
    result = document.get("holdout")
    if not result or result.get("mean_abs_rel_error") is None:
        return None
    text = (
        f"Hold-out: fitted without the {format_flops(result['budget'])}-FLOP budget, the law "
        f"predicts its {_runs(result['n_test'])} "
    )
    text += f"with a mean error of {100 * result['mean_abs_rel_error']:.2g} %"
    inside = round((result.get("covered") or 0) * result["n_test"])
    return f"{text}; {inside:,} of {result['n_test']:,} lie inside their intervals."


def caveats(document: Document, forecast: Mapping[str, Any] | None) -> list[str]:
    """Everything that limits the forecast, the heaviest first."""
    texts: list[str] = []
    if (
        document["status"] != "ok" and forecast is None
    ):  # else the forecast's own warnings begin with it
        texts.append(
            f"Status: {document['status']}. The data do not settle every parameter; see the "
            "notes in the parameter table."
        )
    texts += [warning["message"] for warning in (forecast or {}).get("warnings") or []]
    agreement = (document.get("approaches_agree") or {}).get("message")
    texts += [text for text in (agreement, holdout_sentence(document)) if text]
    warnings = [warning["message"] for warning in document["warnings"]]
    return list(dict.fromkeys([*texts, *warnings]))


def verdict(document: Document) -> tuple[str, str]:
    """A word for the badge (good, care, poor) and its sentence."""
    if document["status"] != "ok":
        return "poor", document["status"]
    holdout = document.get("holdout") or {}
    is_holdout_off = (holdout.get("mean_abs_rel_error") or 0) > 0.05
    if (
        document["warnings"]
        or is_holdout_off
        or (document.get("approaches_agree") or {}).get("verdict") == "disagree"
    ):
        return "care", "use with care"
    return "good", "no warnings"
