"""Sweep files: strict TOML in, `Sweep` out, every mistake of the file in one message, with the
nearest known key.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from scaling import files
from scaling.config import Design, RunConfig, Sweep, TaskConfig
from scaling.config.base import SLUG, plain_message
from scaling.errors import ScalingError, closest_match
from scaling.formatting import sanitize


def models_in(annotation: Any) -> set[type[BaseModel]]:
    """The models that a value of this annotation may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for inner in get_args(annotation) for model in models_in(inner)}


MAX_BYTES = 1_000_000
MOST_SHOWN = 20  # mistakes in a message
SCHEMA_TITLE = "A sweep file of scaling"
# discriminators that pydantic inserts into a location, which are no keys of the file
TAGS = {
    kind
    for union in (Design, TaskConfig)
    for model in models_in(union)
    for kind in get_args(model.model_fields["kind"].annotation)
}
FORMS = (
    "literal[",
    "PowerRule",
    "function-before",
    "constrained-",
    "function-after[_only_false",
)  # of a value that may be a word or a table, as pydantic names them


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file. Raises ScalingError that names the file and every mistake in it."""
    return as_sweep(read_toml(path), str(path))


def sweep_in(folders: Iterable[str | Path]) -> Sweep | None:
    """The sweep, as it was tuned, of the first of some results folders that holds one."""
    files = (Path(folder) / "sweep.toml" for folder in folders)
    return next((load_sweep(path) for path in files if path.is_file()), None)


def parse_sweep(text: str, where: str) -> Sweep:
    """The sweep of a TOML text. Raises ScalingError that names `where` and every mistake."""
    return as_sweep(tomllib.loads(text), where)


def as_sweep(data: dict[str, Any], where: str) -> Sweep:
    """The sweep of a file's tables. Raises ScalingError that names `where` and every mistake."""
    try:
        return Sweep.model_validate(data)
    except ValidationError as error:
        raise validation_error(error, Sweep, where) from None


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of sweep files, by which editors complete and check them;
    rules between keys are not in it.
    """
    document = Sweep.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "title": SCHEMA_TITLE,
    }


def dump_sweep(sweep: Sweep) -> str:
    """The TOML text that `load_sweep` reads back to the same sweep; what is absent stays absent."""
    return tomli_w.dumps(sweep.model_dump(mode="json", exclude_none=True, exclude_defaults=True))


def write_sweep(sweep: Sweep, out: Path, head: str, *, over: bool = False) -> None:
    """Publish a sweep file that a command made; `head` is its comment, without marks. Raises
    ScalingError where `out` is there, unless `over`.
    """
    if not over:
        check_absent(out)
    comment = "".join(f"# {sanitize(line)}".rstrip() + "\n" for line in head.splitlines())
    files.write_text(out, comment + dump_sweep(sweep))
    if load_sweep(out) != sweep:
        raise AssertionError(f"{out} reads back as another sweep")


def check_absent(path: Path) -> None:
    """Raise ScalingError for a file that is there."""
    if path.exists() or path.is_symlink():
        remedy = "name another file, or delete this one"
        raise ScalingError("exists already", where=path, remedy=remedy)


def load_run(text: str, where: str) -> RunConfig:
    """A RunConfig from its JSON."""
    try:
        return RunConfig.model_validate_json(text)
    except ValidationError as error:
        raise validation_error(error, RunConfig, where) from None


def read_toml(path: Path) -> dict[str, Any]:
    """A sweep file's tables as they stand, not yet checked. Raises ScalingError where it is no TOML
    file that can be read.
    """
    form = "see sweeps/demo.toml for the form"
    what, remedy = "", "name a sweep file, for example sweeps/demo.toml"
    data: dict[str, Any] = {}
    if not path.exists():
        what = "no such file"
    elif not path.is_file():
        what = "is a folder" if path.is_dir() else "not a regular file"
        if (path / "sweep.toml").is_file():
            remedy = f"name its sweep file: {path / 'sweep.toml'}"
    elif path.stat().st_size > MAX_BYTES:
        what, remedy = f"{path.stat().st_size} bytes is too large for a sweep file", "at most 1 MB"
    else:
        try:
            data = tomllib.loads(files.read_bytes(path).decode("utf-8"))
        except (ValueError, RecursionError) as error:  # also of integers of 5,000 digits
            what, remedy = f"not valid TOML: {error}", form
        else:
            what, remedy = ("" if data else "the sweep file is empty"), form
    if what:
        raise ScalingError(what, where=path, remedy=remedy)
    _locate_stores(data, path.absolute().parent)
    return data


def _locate_stores(data: Any, folder: Path) -> None:
    """Make the relative path of a token store that is not below the working directory that of the
    store below the sweep file's folder or a folder above it, where there is one.
    """
    if isinstance(data, list):
        for item in data:
            _locate_stores(item, folder)
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        _locate_stores(value, folder)
        if key == "corpus" and isinstance(value, str) and value not in ("", "stdlib"):
            stores = [above / value for above in (Path(), folder, *folder.parents)]
            store = next((path for path in stores if os.path.isfile(path / "manifest.json")), None)
            if store is not None and store != Path(value):
                data[key] = str(store)


def validation_error(error: ValidationError, model: type[BaseModel], where: str) -> ScalingError:
    """All mistakes that pydantic lists, as one error."""
    items: list[dict[str, Any]] = [dict(item) for item in error.errors(include_url=False)]
    mistakes = [item for item in items if not _is_wrong_union_branch(item)]
    mistakes = [  # of a list with wrong values pydantic says too that it is short of right ones
        item
        for item in mistakes
        if item["type"] != "too_short" or len(item["input"]) < item["ctx"]["min_length"]
    ]
    what = "; ".join(dict.fromkeys(_sentence(item, model) for item in mistakes[:MOST_SHOWN]))
    if len(mistakes) > 1:
        what = f"{len(mistakes)} mistakes: {what}"
    return ScalingError(
        what,
        where=where,
        remedy="fix these values; docs/sweep-files.md lists every key with its range",
    )


def _sentence(item: dict[str, Any], model: type[BaseModel]) -> str:
    location, message = keys_of(item["loc"]), plain_message(item["msg"])
    if not location:  # of all of it
        return message
    *outer, key = location
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    name, value = "".join(parts).removeprefix("."), item.get("input")
    if item["type"] == "extra_forbidden":
        here = ".".join(part for part in location if isinstance(part, str))
        places = list(_places(model, key))
        is_elsewhere = bool(places) and here not in places
        near = closest_match(str(key), _known(model, outer) - {key})
        guess = min(places, key=lambda place: place.count(".")) if is_elsewhere else near
        return f"{name} is not a known key" + (f" (did you mean {guess}?)" if guess else "")
    if item["type"] in ("missing", "union_tag_not_found"):
        return f"{name}{'.kind' if item['type'] != 'missing' else ''} is missing"
    if item["type"] == "union_tag_invalid":
        word, known = str(item["ctx"]["tag"]), item["ctx"]["expected_tags"].replace("'", "")
        guess = closest_match(word, known.split(", "))
        hint = f" (did you mean {guess}?)" if guess else ""
        return f"{name}.kind = {json.dumps(word)[:80]}: should be one of {known}{hint}"
    if item["type"] == "too_short":
        return f"{name} needs {item['ctx']['min_length']} or more values"
    if item["type"] == "string_pattern_mismatch" and item["ctx"]["pattern"] == SLUG:
        message = (
            "may hold letters, digits, dots, dashes and underscores,"
            " a letter or digit first, 64 at most"
        )
    message = message.replace("a valid tuple", "a list").removeprefix("Tuple ")
    message = "should be a table" if item["type"] == "model_type" else message
    if isinstance(value, (Mapping, BaseModel)) or message.startswith(repr(value)[:60]):
        return f"{name}: {message}"
    return f"{name} = {json.dumps(value, default=str)[:80]}: {message}"


def keys_of(location: Sequence[Any]) -> list[Any]:
    """The keys and indices of a place in the file, of what pydantic calls a location."""
    return [part for part in location if part not in TAGS and not str(part).startswith(FORMS)]


def _is_wrong_union_branch(item: dict[str, Any]) -> bool:
    """Whether a mistake is that a value is not in the one of two forms (a word, or a table) in
    which it was never meant.
    """
    meant_as_table = isinstance(item.get("input"), (Mapping, BaseModel))
    word = any(str(part).startswith(FORMS[0]) for part in item["loc"])
    if any(str(part).startswith(FORMS[-1]) for part in item["loc"]):
        return True  # `false` instead of a number: the mistake of the number is listed
    return (meant_as_table and word) or (
        item["type"] == "model_type" and str(item["loc"][-1]) in FORMS
    )


def _places(model: type[BaseModel], key: str, outer: tuple[str, ...] = ()) -> Iterator[str]:
    """Where a key of this name stands in the file."""
    for name, field in model.model_fields.items():
        if name == key:
            yield ".".join([*outer, name])
        for inner in models_in(field.annotation):
            yield from _places(inner, key, (*outer, name))


def _known(model: type[BaseModel], location: list[Any]) -> set[str]:
    """The keys allowed at a location, over all members of a union."""
    models = {model}
    for part in location:
        if isinstance(part, int):
            continue
        fields = [inner.model_fields[part] for inner in models if part in inner.model_fields]
        models = {model for field in fields for model in models_in(field.annotation)}
    return {key for inner in models for key in inner.model_fields}
