"""Tables of a tuning for people, from the document of tuning.json."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group
from rich.text import Text

from scaling.cli.tables import table
from scaling.quantity import format_count, format_flops


def tuning_tables(document: dict[str, Any]) -> Group:
    """What `scaling tune` prints: of each field its rungs, its optima and its rule, and what all of it cost."""
    parts: list[Any] = []
    for found in document["fields"]:
        parts += [Text(_title(found), style="bold"), _rungs(found), Text(), _optima(found), Text(_rule(found)), *_horizon(found), Text()]
    cost = f"{format_flops(document['flops'])} FLOPs in {sum(found['runs'] for found in document['fields'])} runs"
    share = f"{document['share']:.0%} of" if document["share"] < 2 else f"{document['share']:.3g} times"
    parts.append(Text(f"tuning took {cost}, {share} the sweep's {format_flops(document['sweep_flops'])}"))
    if document["simulated"]:
        parts.append(Text(f"simulated from {document['simulated']}: nothing was trained"))
    return Group(*parts)


def _title(found: dict[str, Any]) -> str:
    unit = f" ({found['unit']})" if found["unit"] else ""
    scouts = f"scouts at {found['scout']:.0%} of D" if found["scout"] else "no scouts"
    return f"{found['field']}{unit}: {scouts}"


def _rungs(found: dict[str, Any]) -> Any:
    made = table("", "N", "D", "value", "scout", "loss", "")
    for size in found["sizes"]:
        losses = [rung["loss"] for rung in size["rungs"] if rung["loss"] is not None]
        for place, rung in enumerate(size["rungs"]):
            head = [format_count(size["n_params"]), format_count(size["tokens"])] if place == 0 else ["", ""]
            best = rung["loss"] is not None and rung["loss"] == min(losses)
            notes = [word for word, told in (("best", best), ("the recipe's", rung["rung"] == 0), (rung["state"], rung["state"] != "trained"))
                     if told]  # fmt: skip
            made.add_row(*head, _value(rung["value"]), _loss(rung["scout_loss"]), _loss(rung["loss"]), Text(", ".join(notes)))
    made.columns[-1].justify = "left"
    return made


def _optima(found: dict[str, Any]) -> Any:
    made = table("optimum", "N", "value", "95 %", "loss", "where", "recipe", "costs", "rule", "costs")
    for size in found["sizes"]:
        best, recipe, rule = size["optimum"], size["recipe"], size["rule"]
        told = [_value(best["value"]), f"{_value(best['lo'])} to {_value(best['hi'])}", _loss(best["loss"])] if best else ["-", "-", "-"]
        where = "edge" if size["state"] == "edge" else "interior" if best["by"] == "parabola" else "interior, best rung"
        made.add_row(
            format_count(size["n_params"]), *told, where, _value(recipe["value"]), _cost(recipe), _value(rule["value"]), _cost(rule)
        )
    return made


def _rule(found: dict[str, Any]) -> str:
    rule = found["rule"]
    if rule["kind"] == "ratio":
        return f"rule: {rule['ratio']:.3g} times the recipe's, from one size: how it moves with N is not measured"
    low, high = (format_count(end) for end in rule["n_range"])
    power = f"N^({rule['n_power']:.3f} ± {rule['n_power_se']:.3f})"
    return f"rule: {found['field']} = {rule['coef']:.4g} x {power}, N from {low} to {high}, {rule['sizes']} sizes"


def _horizon(found: dict[str, Any]) -> list[Text]:
    moved = found["horizon_power"]
    if moved is None:
        return []
    text = f"from the scouts' horizon to the whole, the optimum moves as D^({moved['value']:.2f} ± {moved['se']:.2f}); the rule does not"
    return [Text(f"{text} (it holds at the horizons above)")]


def _value(value: float | None) -> str:
    if value is None:
        return "-"
    return format_count(value) if value >= 1 else f"{value:.2e}"


def _loss(loss: float | None) -> str:
    return "" if loss is None or not math.isfinite(loss) else f"{loss:.4f}"


def _cost(entry: dict[str, Any]) -> str:
    """Excess loss in nats and relative; `*` where it is that of the scouts."""
    if entry["excess"] is None:
        return str(entry["known_by"])
    return f"{entry['excess']:.4f} ({entry['excess_relative']:.1%}){'*' if entry['known_by'] == 'scouts' else ''}"
