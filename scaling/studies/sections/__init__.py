"""The laboratory's sections of a report: each phenomenon that the rows show, explained in three sentences.

A further phenomenon is one more entry in `STUDIES`: the module of this folder and its function of the rows, which returns its section,
or None where they show nothing of it. Modules are imported when there are rows to study: they bring scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import pandas as pd

from scaling.render.section import Section
from scaling.studies.findings import WORDS

STUDIES = {
    "attention": ("variants", "attention"),
    "positions": ("variants", "positions"),
    "norms": ("variants", "norms"),
    "context": ("context", "section"),
    "emergence": ("emergence", "section"),
    "grokking": ("grokking", "section"),
    "induction": ("induction", "section"),
    "sampling": ("sampling", "section"),
    "regression": ("regression", "section"),
    "overtraining": ("overtraining", "section"),
    "kaplan": ("kaplan", "section"),
}
IDS = frozenset(STUDIES)


def sections(rows: pd.DataFrame | None) -> list[Section]:
    """The sections of all phenomena that the rows show."""
    if rows is None:
        return []
    studies = (
        getattr(import_module(f"{__name__}.{module}"), function)
        for module, function in STUDIES.values()
    )
    found = (study(rows) for study in studies)
    return [section for section in found if section is not None]


def sentences(shown: Sequence[Section]) -> list[str]:
    """What the summary says of the studies among these sections: how many of their figures hold, and the first thing that is seen."""
    found = []
    for section in shown:
        lines = [
            row
            for table in section.tables
            if table.name.startswith("findings-")
            for row in table.rows
        ]
        if section.id in IDS and lines:
            held = sum(row[3] == WORDS[True] for row in lines)
            title = section.title if section.title.endswith("?") else f"{section.title}:"
            found.append(
                " ".join(
                    [f"{title} {held} of {len(lines)} figures are reached.", *section.notes[:1]]
                )
            )
    return found
