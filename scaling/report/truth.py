"""The fitted floor of a synthetic language beside the truth, as a table."""

from __future__ import annotations

from scaling.report.tables import Cell, Column, Document, Table


def truth(document: Document) -> Table | None:
    """E with its interval, the floor on the windows measured, the entropy of the language, and how far E lies from each."""
    held = document.get("truth")
    if not held:
        return None
    rows: list[tuple[Cell, ...]] = [("fitted E", (held["fitted_E"], held["lo"], held["hi"]), None)]
    if held["floor"] is not None:
        rows.append(("lowest loss on the windows measured", _alone(held["floor"]), held["floor_difference_percent"] / 100))
    rows.append(("entropy of the language", _alone(held["entropy"]), held["difference_percent"] / 100))
    columns = (Column("floor of the loss"), Column("nats per token", "number", True), Column("E lies off by", "percent"))
    return Table("truth", "The fitted floor and the true one", columns, tuple(rows), _told(document))


def _alone(value: float) -> Cell:
    return value, None, None


def _told(document: Document) -> str:
    held = document["truth"]
    doubt = "" if document["status"] == "ok" else f" The fit's status is {document['status']}."
    if held["covers"] is None:
        return f"No interval: nothing says how far E may be off.{doubt}"
    which = "true floor" if held["floor"] is None else "lowest possible loss on these windows"
    return f"The {100 * document['ci']:g} % interval of E {'holds' if held['covers'] else 'misses'} the {which}.{doubt}"
