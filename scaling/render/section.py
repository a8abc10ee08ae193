"""A part of a report, before it is put into a format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scaling.render.figure import Figure
from scaling.render.table import Table


@dataclass(frozen=True)
class Section:
    """A part of the report: prose, figures, tables, commands, in this order."""

    id: str
    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        """Nothing to show but words."""
        return not (self.figures or self.tables or self.commands)
