"""Studies of what happens around the law: each turns a results table into one section of a report.

A study is a `Study` (study.py) in a module of its own, and an entry in `STUDIES`, in the order of
the report. No other package imports a study: this folder can be deleted. A study is imported when
rows have its mark: a task, a metric, or a part of the model that differs between runs.
"""

from __future__ import annotations

from importlib import import_module

import pandas as pd

from scaling.points.run_tables import variant_fields
from scaling.render.section import Section

STUDIES = {
    "variants:ATTENTION_STUDY": "n_kv_heads",
    "variants:POSITION_STUDY": "pos",
    "variants:NORM_STUDY": "norm",
    "context:STUDY": "loss_at_position",
    "emergence:STUDY": "arithmetic",
    "grokking:STUDY": "modular",
    "induction:STUDY": "induction",
    "sampling:STUDY": "problem_nll",
    "regression:STUDY": "regression",
    "overtraining:STUDY": "loss",
    "kaplan:STUDY": "noise_scale or unique_tokens",
}


def sections(rows: pd.DataFrame) -> list[Section]:
    """The sections of all studies that a results table has runs for."""
    present, made = _marks(rows), []
    for path, marks in STUDIES.items():
        if present.intersection(marks.split(" or ")):
            module, _, name = path.partition(":")
            study = getattr(import_module(f"{__name__}.{module}"), name)
            made.append(study.section(rows))
    return [section for section in made if section is not None]


def _marks(rows: pd.DataFrame) -> set[str]:
    runs = rows.drop_duplicates("run_id")
    marks = {*runs["task"].unique(), *rows["metric"].unique()}
    differing = variant_fields(rows)
    marks |= {"norm" if name in ("qk_norm", "gains") else name for name in differing}
    if runs["config"].str.contains(r'"unique_tokens":\d').any():
        marks.add("unique_tokens")
    return marks
