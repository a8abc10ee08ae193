"""The laboratory's sections of a report: each phenomenon that the rows show, explained in three sentences.

A further phenomenon is one more entry in `STUDIES`: a function of the rows that returns its section, or None where they show nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from scaling.report.laboratory import context, emergence, grokking, induction, kaplan, overtraining, regression, sampling, variants
from scaling.report.material import Material
from scaling.report.section import Section

STUDIES: dict[str, Callable[[pd.DataFrame], Section | None]] = {
    "attention": variants.attention,
    "positions": variants.positions,
    "norms": variants.norms,
    "context": context.section,
    "emergence": emergence.section,
    "grokking": grokking.section,
    "induction": induction.section,
    "sampling": sampling.section,
    "regression": regression.section,
    "overtraining": overtraining.section,
    "kaplan": kaplan.section,
}
IDS = frozenset(STUDIES)


def sections(material: Material) -> list[Section]:
    """The sections of all phenomena that the material shows."""
    if material.rows is None:
        return []
    found = (study(material.rows) for study in STUDIES.values())
    return [section for section in found if section is not None]
