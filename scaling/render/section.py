"""A part of a report, before it is put into a format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scaling.render.figure import Figure
from scaling.render.table import Table


@dataclass(frozen=True)
class Section:
    """Notes, figures, tables and shell commands, shown in this order; `summary` is its sentence at
    the top of the report. A `folded` one opens with a click.
    """

    id: str
    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()
    summary: str = ""
    folded: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but notes to show."""
        return not (self.figures or self.tables or self.commands)


def section(
    id: str,
    title: str,
    figures: Iterable[Figure | None] = (),
    tables: Iterable[Table | None] = (),
    notes: Sequence[str | None] = (),
    commands: Sequence[str] = (),
    summary: str = "",
    folded: bool = False,
) -> Section:
    """A section of those figures, tables and notes that are not None."""
    shown = [figure for figure in figures if figure]
    listed = [table for table in tables if table]
    said = [note for note in notes if note]
    return Section(id, title, shown, listed, said, commands, summary, folded)
