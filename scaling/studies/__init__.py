"""Studies of what happens around the law: each turns a results table into one section of a report.

A study is a module (or a package of `analysis` and `section`) with a function `rows -> Section |
None`; None where the rows show nothing of it. `STUDIES` is the only list of them, and no other
package imports a study: this folder can be deleted, or grow by an entry. Modules are imported when
there are rows to study, because they bring scipy.
"""

from __future__ import annotations

from importlib import import_module

import pandas as pd

from scaling.render.section import Section

STUDIES = {
    "attention": "variants.section:attention",
    "positions": "variants.section:positions",
    "norms": "variants.section:norms",
    "context": "context:section",
    "emergence": "emergence.section:section",
    "grokking": "grokking.section:section",
    "induction": "induction:section",
    "sampling": "sampling.section:section",
    "regression": "regression:section",
    "overtraining": "overtraining:section",
    "kaplan": "kaplan.section:section",
}


def sections(rows: pd.DataFrame) -> list[Section]:
    """The sections of all studies that a results table has runs for."""
    made = []
    for path in STUDIES.values():
        module, function = path.split(":")
        made.append(getattr(import_module(f"{__name__}.{module}"), function)(rows))
    return [section for section in made if section is not None]
