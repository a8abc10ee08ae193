"""A formula on the command line or in a law.toml, and the fit options that follow from it."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.errors import ScalingError, unknown_choice
from scaling.fit.laws.formula import FormulaLaw, parse_formula
from scaling.points.columns import parse_columns

if TYPE_CHECKING:
    import pandas as pd

    from scaling.fit.fit_options import FitOptions
    from scaling.points.points import Source

KEYS = {"formula": str, "inputs": list, "start": dict, "bounds": dict, "units": dict, "source": str}


def read_formula(
    text: str, start: str | None, columns: str | None, inputs: Collection[str] | None = None
) -> FormulaLaw:
    """The law of a formula, or of a law.toml that holds `formula`, `inputs`, `start`, `bounds`,
    `units` and `source`. Names in `inputs` and on the left of `columns` are no parameters;
    None checks the text alone, before the table is read.

    Raises ScalingError for what cannot be read.
    """
    entries: dict[str, Any] = {"formula": text}
    if text.endswith(".toml"):
        entries = _entries(Path(text))
    if start:
        entries["start"] = {**entries.get("start", {}), **_values(start)}
    units = ", ".join(f"{name} in {unit}" for name, unit in entries.get("units", {}).items())
    source = entries.get("source", "")
    named = parse_columns(columns, custom=True) if columns else {}
    return parse_formula(
        entries["formula"],
        {*(inputs or ()), *named, *entries.get("inputs", ())},
        entries.get("bounds"),
        entries.get("start"),
        f"{source}; {units}" if source and units else source or units,
        only_text=inputs is None,
    )


def _entries(path: Path) -> dict[str, Any]:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScalingError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="name a law.toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScalingError(
            str(error), where=str(path), remedy='write formula = "L = E + A/N^alpha"'
        ) from None
    for key, value in entries.items():
        if key not in KEYS:
            raise unknown_choice("key", key, KEYS, where=str(path))
        if not isinstance(value, KEYS[key]):
            raise ScalingError(
                f"{key} is no {KEYS[key].__name__}", where=str(path), remedy="see docs/formulas.md"
            )
    if "formula" not in entries:
        raise ScalingError(
            "holds no formula", where=str(path), remedy='write formula = "L = E + A/N^alpha"'
        )
    return entries


def _values(text: str) -> dict[str, float]:
    """`"E=1.7,alpha=.3"` as numbers."""
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise ScalingError(
            f"{text[:80]!r} is not of the form NAME=VALUE,...",
            where="--start",
            remedy='write "E=1.7,alpha=0.3"',
        ) from None


def with_law(options: FitOptions, paths: Sequence[Path | pd.DataFrame]) -> FitOptions:
    """The options with the formula's law; its inputs are columns of the sources, or named."""
    from scaling.points.source import read_rows

    assert options.formula is not None
    rows, tables, _ = read_rows(paths)
    names = {str(name) for table in (*rows, *(part for _, part in tables)) for name in table}
    law = read_formula(options.formula, options.start, options.columns, names)
    return replace(options, law=law.name, written=law, formula=None, start=None)


def with_points(options: FitOptions, source: Source) -> tuple[FitOptions, Source]:
    """The inputs that a results folder's runs hold; and where losses are negative, the objective
    of losses in the place of that of their logs.
    """
    law, points, notes = options.written, source.points, source.notes
    assert law is not None
    runs, others = source.runs, dict(points.others)
    if runs is not None:
        for name in law.inputs:
            if name in runs.columns and name not in ("N", "D", "C"):
                others[name] = runs[name].to_numpy(float)
        points = replace(points, others=others)
    if (points.loss <= 0).any():
        objective = (
            (options.objective or law.default_objective)
            .removesuffix("-log")
            .replace("lad", "huber")
        )
        options = replace(options, objective=objective, written=replace(law, signed=True))
        notes = (*notes, f"losses below zero: the objective is {objective}, of losses")
    return options, replace(source, points=points, notes=notes)
