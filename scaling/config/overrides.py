"""A sweep file changed from the command line: KEY=VALUE over its tables, under a name that says so,
so that no results are mixed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.config import Sweep
from scaling.config.sweep_file import as_sweep, load_sweep, read_toml
from scaling.errors import ScalingError

# tables and keys of [base], which may be named without it
SHORT = ("task", "model", "optim", "batch_size", "precision")
VARIED = ("task", "model", "optim", "batch_size")  # a list for one of their fields is an axis
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
LONGEST_NAME = 64
MAX_VALUES = 256  # of an axis, and overrides of a command
FORM = "write KEY=VALUE as a sweep file names it: optim.lr=3e-4, design.budgets=[1e12,1e13], "
FORM += "seeds=[0,1]"


@dataclass(frozen=True)
class Override:
    """One KEY=VALUE: the text as it was typed, the keys of its place in the file, and its value."""

    text: str
    keys: tuple[str, ...]
    value: Any

    @property
    def field(self) -> str:
        """What an axis would call it, and what the name of the changed sweep does."""
        return ".".join(self.keys[1:] if self.keys[0] == "base" else self.keys)

    @property
    def is_axis(self) -> bool:
        """Whether it is a list for one field of the task, the model or the optimiser, or for the
        batch: values to be compared.
        """
        fields = {2: ("batch_size",), 3: VARIED}.get(len(self.keys), ())
        is_base = self.keys[0] == "base" and self.keys[1] in fields
        return is_base and isinstance(self.value, list)


def parse(text: str, where: str = "override", remedy: str = FORM) -> Override:
    """KEY=VALUE; the value is TOML, and a bare word, alone or in a list, is text. Raises
    ScalingError that names it, typed at `where`.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    keys = tuple(key.split("."))
    keys = ("base", *keys) if keys[0] in SHORT else keys
    what, parsed = "", None
    if not equals or not KEY.fullmatch(key) or not value:
        what = f"{text[:80]!r} is not KEY=VALUE"
    elif keys == ("base",):
        what = f"{text[:80]!r} replaces all of [base]"
    else:
        try:
            parsed = _value(value)
        except ValueError as error:
            what = f"{text[:80]!r}: {error} is not a TOML value"
    if what:
        raise ScalingError(what, where=where, remedy=remedy)
    return Override(text, keys, parsed)


def _value(text: str) -> Any:
    """A value of TOML, or a word. Raises ValueError with what is neither."""
    with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):
        parsed = tomllib.loads(f"value = {text}")
        if list(parsed) == ["value"]:
            return parsed["value"]
    if text[0] + text[-1] == "[]" and not re.search(r"[\[\]{}\"']", text[1:-1]):
        items = [item.strip() for item in text[1:-1].removesuffix(",").split(",")]
        if all(items):
            return [_value(item) for item in items]
    if text[0] in "[{\"'":
        raise ValueError(repr(text[:60]))
    return text


def load_with_overrides(path: Path, overrides: Iterable[str]) -> Sweep:
    """A sweep file with KEY=VALUE over it, in any order; the same sweep, with its own name, where
    they change nothing.

    A list for a field of task, model or optimiser becomes a scientific axis; one value takes the
    place of an axis of that field. Raises ScalingError that names the file, the overrides, and what
    is wrong with them.
    """
    texts = list(overrides)
    original = load_sweep(path)
    if not texts:
        return original
    asked = sorted(map(parse, texts), key=lambda override: len(override.keys))  # tables first
    counts = {"overrides": len(asked)}
    counts |= {each.field: len(each.value) for each in asked if isinstance(each.value, list)}
    name, count = max(counts.items(), key=lambda item: item[1])
    if count > MAX_VALUES:
        raise ScalingError(
            f"{count} {name} are given; the limit is {MAX_VALUES}",
            where=path,
            remedy="write the changes in the sweep file",
        )
    where = as_shell_words(path, texts)
    fields = [override.field for override in asked]
    if len(set(fields)) < len(fields):
        twice = max(fields, key=fields.count)
        raise ScalingError(
            f"{twice} is given twice", where=where, remedy="leave out one of the two"
        )
    data = read_toml(path)
    for override in asked:
        _apply(override, data, as_shell_words(path, [override.text]))
    changed = as_sweep(data, where)
    for override in asked:
        field, where_typed = override.field, as_shell_words(path, [override.text])
        if any(field in cell.settings for cell in getattr(changed.design, "cells", ())):
            what = f"{field} is set by cells of the design"
            raise ScalingError(what, where=where_typed, remedy="change it in the file")
        if field in [tuning.field for tuning in changed.tuning]:
            raise ScalingError(
                f"{field} is tuned by a [[tuning]] table, which would replace it",
                where=where_typed,
                remedy="add tuning=[] to train with what you give,"
                f" or leave out {field} to have it tuned",
            )
    if changed == original:
        return original
    if "name" not in fields:
        return changed.model_copy(update={"name": name_of(original.name, asked)})
    if changed.name == original.name:
        raise ScalingError(
            f"name = {changed.name!r} is the name of the unchanged sweep,"
            " and their results would be mixed",
            where=where,
            remedy="leave it out, or give another name",
        )
    return changed


def as_shell_words(path: Path, overrides: Sequence[str]) -> str:
    """A sweep with its overrides, as a shell takes them."""
    return shlex.join([str(path), *overrides])


def _apply(override: Override, data: dict[str, Any], where: str) -> None:
    """Make one change to the tables of a file. Raises ScalingError where there is no such table."""
    field, axes = override.field, data.get("axes")
    axes = axes if isinstance(axes, list) else []
    same = [axis for axis in axes if isinstance(axis, dict) and axis.get("field") == field]
    if override.is_axis:
        for axis in same:
            axis["values"] = override.value
        if not same:
            data["axes"] = [*axes, {"field": field, "values": override.value}]
        return
    if same:
        data["axes"] = [axis for axis in axes if axis not in same]
    *keys, last = override.keys
    for key in keys:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ScalingError(
                f"{key} is a list of tables, or no table, and has no key to set",
                where=where,
                remedy=f"give all of it, as {key}=[...], or change the file",
            )
    data[last] = override.value


def name_of(name: str, asked: Sequence[Override]) -> str:
    """The name of a changed sweep: its own, and every field with its value in order, or with a
    digest of them where that says too little.

    `demo optim.lr=3e-4 seeds=[0,1]` is demo-optim.lr-0.0003-seeds-0_1, whatever the order and the
    spelling.
    """
    pairs = sorted((override.field, override.value) for override in asked)
    whole = "-".join([name, *(f"{field}-{_word(value)}" for field, value in pairs)])
    if len(whole) <= LONGEST_NAME and re.fullmatch(r"[\w.-]*\w", whole, re.ASCII):
        return whole
    digest = hashlib.sha256(json.dumps(pairs, sort_keys=True, default=str).encode())
    mark = f"-{digest.hexdigest()[:8]}"
    fields = "-".join([name, *(field for field, _ in pairs)])
    return fields[: LONGEST_NAME - len(mark)].rstrip(".-_") + mark


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "_".join(map(_word, value))
    if isinstance(value, bool):
        return str(value).lower()
    short = f"{value:g}".replace("e+", "e") if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)
