"""A sweep file changed from the command line: KEY=VALUE over its tables, under a name that says so,
so that no results are mixed.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scaling.config import Base, Sweep
from scaling.config.sweep_file import keys_of, load_sweep, models_in, read_toml, validation_error
from scaling.errors import ScalingError

# tables and keys of [base], which may be named without it
SHORT = ("task", "model", "optim", "batch_size", "precision")
VARIED = ("task", "model", "optim", "batch_size")  # a list for one of their fields is an axis
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
LONGEST_NAME = 64
MAX_VALUES = 256  # of an axis, and overrides of a command


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

    def affects(self, place: Sequence[Any]) -> bool:
        """Whether a mistake at `place` may come from it: one of the two is within the other."""
        if self.is_axis and place[:1] == ["axes"]:
            return True
        return all(one == other for one, other in zip(self.keys, place, strict=False))


def parse(text: str) -> Override:
    """KEY=VALUE; the value is TOML, and a bare word, alone or in a list, is text. Raises
    ScalingError that names it.
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
        raise ScalingError(
            what,
            where="override",
            remedy="write KEY=VALUE as a sweep file names it: optim.lr=3e-4, "
            "design.budgets=[1e12,1e13], seeds=[0,1]",
        )
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


def known_keys() -> list[str]:
    """The keys that one value or list can be given for, as they are written on a command line."""
    tables = {f"{name}.": info for name, info in Sweep.model_fields.items()}
    del tables["base."]
    tables |= {f"{name}.": info for name, info in Base.model_fields.items()}
    keys: set[str] = set()
    for name, info in tables.items():
        inner = [key for model in models_in(info.annotation) for key in model.model_fields]
        is_list = str(info.annotation).startswith("tuple[")
        keys |= {name + key for key in inner} if inner and not is_list else {name[:-1]}
    return sorted(keys)


def load_with_overrides(path: Path, overrides: Iterable[str]) -> Sweep:
    """A sweep file with KEY=VALUE over it, in any order; the same sweep, with its own name, where
    they change nothing.

    A list for a field of task, model or optimiser becomes a scientific axis; one value takes the
    place of an axis of that field. Raises ScalingError that names the file, the overrides that are
    wrong, and what is wrong with them.
    """
    texts = list(overrides)
    original = load_sweep(path)
    if not texts:
        return original
    if len(texts) > MAX_VALUES:
        raise ScalingError(
            f"{len(texts)} overrides are given; the limit is {MAX_VALUES}",
            where=path,
            remedy="write the changes in the sweep file",
        )
    asked = sorted(map(parse, texts), key=lambda override: len(override.keys))  # tables first
    given: dict[tuple[str, ...], str] = {}
    for override in asked:
        if isinstance(override.value, list) and len(override.value) > MAX_VALUES:
            what = f"{override.field} lists {len(override.value)} values"
            raise ScalingError(
                f"{what}; an override takes {MAX_VALUES}",
                where=path,
                remedy="give fewer values, or write them in the sweep file",
            )
        if other := given.get(override.keys):
            where = as_shell_words(path, [other, override.text])
            what = f"{override.field} is given twice"
            raise ScalingError(what, where=where, remedy="leave out one of the two")
        given[override.keys] = override.text
    data = read_toml(path)
    for override in asked:
        _apply(override, data, path)
    if error := _mistakes(data):
        places = [keys_of(item["loc"]) for item in error.errors()]
        wrong = [item.text for item in asked if any(map(item.affects, places))]
        raise validation_error(error, Sweep, as_shell_words(path, wrong))
    changed = Sweep.model_validate(data)
    if changed == original:
        return original
    if ("name",) not in given:
        return changed.model_copy(update={"name": name_of(original.name, asked)})
    if changed.name == original.name:
        raise ScalingError(
            f"name = {changed.name!r} is the name of the unchanged sweep,"
            " and their results would be mixed",
            where=as_shell_words(path, ["name=..."]),
            remedy="leave it out, or give another name",
        )
    return changed


def as_shell_words(path: Path, overrides: Sequence[str]) -> str:
    """A sweep with its overrides, as a shell takes them."""
    return shlex.join([str(path), *overrides])


def _apply(override: Override, data: dict[str, Any], path: Path) -> None:
    """Make one change to the tables of a file. Raises ScalingError where there is no such table,
    and where the design's cells or a tuning would set the field to something else.
    """
    where, field = as_shell_words(path, [override.text]), override.field
    cells = data["design"].get("cells", []) if isinstance(data["design"], dict) else []
    if any(field in cell.get("settings", {}) for cell in cells if isinstance(cell, dict)):
        what = f"{field} is set by cells of the design"
        raise ScalingError(what, where=where, remedy="change it in the file")
    tables = [entry for entry in data.get("tuning", []) if isinstance(entry, dict)]
    if field in [entry.get("field", "optim.lr") for entry in tables]:
        raise ScalingError(
            f"{field} is tuned by a [[tuning]] table, which would replace it",
            where=where,
            remedy="add tuning=[] to train with what you give,"
            f" or leave out {field} to have it tuned",
        )
    axes = data["axes"] if isinstance(data.get("axes"), list) else []
    same = [axis for axis in axes if isinstance(axis, dict) and axis.get("field") == field]
    if override.is_axis:
        _check_values(override, data, where)
        for axis in same:
            axis["values"] = override.value
        if not same:
            data["axes"] = [*axes, {"field": field, "values": override.value}]
        return
    if same:
        data["axes"] = [axis for axis in axes if axis not in same]
    _set(override.keys, override.value, data, where)


def _set(keys: Sequence[str], value: Any, data: dict[str, Any], where: str) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ScalingError(
                f"{key} is a list of tables, or no table, and has no key to set",
                where=where,
                remedy=f"give all of it, as {key}=[...], or change the file",
            )
    data[keys[-1]] = value


def _check_values(override: Override, data: dict[str, Any], where: str) -> None:
    """Raise ScalingError for a value of an axis that its field could never take: an axis itself
    takes anything.
    """
    keys = list(override.keys)
    for value in override.value:
        tried = copy.deepcopy(data)
        _set(keys, value, tried, where)
        error = _mistakes(tried)
        if error and any(keys_of(item["loc"])[: len(keys)] == keys for item in error.errors()):
            raise validation_error(error, Sweep, where, within=keys)


def _mistakes(data: dict[str, Any]) -> ValidationError | None:
    try:
        Sweep.model_validate(data)
    except ValidationError as error:
        return error
    return None


def name_of(name: str, asked: Sequence[Override]) -> str:
    """The name of a changed sweep: its own, and every field with its value in order, or a digest of
    them where that says too little.

    `demo optim.lr=3e-4 seeds=[0,1]` is demo-optim.lr-0.0003-seeds-0_1, whatever the order and the
    spelling.
    """
    ordered = sorted(asked, key=lambda override: override.field)
    fields = "".join(f"-{override.field}" for override in ordered)
    suffix = "".join(f"-{override.field}-{_word(override.value)}" for override in ordered)
    whole = name + re.sub(r"[^A-Za-z0-9._-]+", "_", suffix)
    if len(whole) <= LONGEST_NAME and all(_is_plain(override.value) for override in ordered):
        return whole
    pairs = [(override.field, override.value) for override in ordered]
    canonical = json.dumps(pairs, sort_keys=True, default=str).encode()
    mark = f"-{hashlib.sha256(canonical).hexdigest()[:8]}"
    limit = LONGEST_NAME - len(mark)
    whole = whole if len(whole) <= limit else name + fields
    return whole[:limit].rstrip(".-_") + mark


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "_".join(map(_word, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}".replace("e+", "e") if isinstance(value, float) else str(value)


def _is_plain(value: Any) -> bool:
    """Whether `_word` says all of it, and nothing else looks the same."""
    match value:
        case list():
            return bool(value) and all(type(item) is not list and _is_plain(item) for item in value)
        case float():
            return float(f"{value:g}") == value
        case str():
            return re.fullmatch(r"[A-Za-z0-9]+([.][A-Za-z0-9]+)*", value) is not None
    return isinstance(value, int)
