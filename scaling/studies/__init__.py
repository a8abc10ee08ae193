"""Studies of what happens around the law: each turns a results table into one section of a report.

A study is a `Study` (study.py) in a module of its own, and an entry in `STUDIES`, in the order of
the report. No other package imports a study: this folder can be deleted. Modules are imported when
there are rows to study, because they bring scipy.
"""

from __future__ import annotations

from importlib import import_module

import pandas as pd

from scaling.render.section import Section

STUDIES = (
    "variants.section:ATTENTION",
    "variants.section:POSITIONS",
    "variants.section:NORMS",
    "context:STUDY",
    "emergence.section:STUDY",
    "grokking.section:STUDY",
    "induction:STUDY",
    "sampling.section:STUDY",
    "regression:STUDY",
    "overtraining:STUDY",
    "kaplan:STUDY",
)


def sections(rows: pd.DataFrame) -> list[Section]:
    """The sections of all studies that a results table has runs for."""
    paths = [path.split(":") for path in STUDIES]
    studies = [getattr(import_module(f"{__name__}.{module}"), name) for module, name in paths]
    made = [study.section(rows) for study in studies]
    return [section for section in made if section is not None]
