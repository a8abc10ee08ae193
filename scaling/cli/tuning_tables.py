"""Tables of a tuning for people, from the document of tuning.json."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Group
from rich.text import Text

from scaling.cli.tables import table
from scaling.quantity import format_count


def tuning_tables(document: dict[str, Any]) -> Group:
    """What `scaling tune` prints: of each field its rungs, its optima and its rule, and what all of it cost."""
    from scaling.report.text import grid
    from scaling.report.tuning import cost, rule, short

    parts: list[Any] = []
    for found in document["fields"]:
        parts += [Text(_title(found), style="bold"), _rungs(found), Text(), grid(short(found)), Text(rule(found)), Text()]
    parts.append(Text(f"{cost(document)} {sum(found['runs'] for found in document['fields'])} runs."))
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


def _value(value: float | None) -> str:
    if value is None:
        return "-"
    return format_count(value) if value >= 1 else f"{value:.2e}"


def _loss(loss: float | None) -> str:
    return "" if loss is None or not math.isfinite(loss) else f"{loss:.4f}"
