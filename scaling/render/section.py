"""A part of a report, before it is put into a format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scaling.render.figure import Figure
from scaling.render.table import Table


class Verdict(StrEnum):
    """How a check went."""

    OK = "ok"
    LOOK = "look"
    BAD = "bad"


@dataclass(frozen=True)
class Section:
    """Notes, figures, tables and shell commands, shown in this order, then its `parts`; `summary`
    is its sentence at the top of the report. A `folded` one opens with a click; a check has a
    `verdict`.
    """

    id: str
    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()
    summary: str = ""
    folded: bool = False
    parts: Sequence[Section] = ()
    verdict: Verdict | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but notes to show."""
        return not (self.figures or self.tables or self.commands or self.parts)


def section(
    id: str,
    title: str,
    figures: Iterable[Figure | None] = (),
    tables: Iterable[Table | None] = (),
    notes: Iterable[str | None] = (),
    **more: Any,
) -> Section:
    """A section of those figures, tables and notes that are not None; `more` are other fields."""
    shown = [figure for figure in figures if figure]
    listed = [table for table in tables if table]
    return Section(id, title, shown, listed, [note for note in notes if note], **more)
