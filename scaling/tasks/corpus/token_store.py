"""The token store, between text and training.

A folder of memory-mapped tokens with a manifest that proves them.

    manifest.json       what the tokens are, where they come from, their SHA-256
    train.bin val.bin   tokens, little-endian unsigned integers of the narrowest fitting type
    tokenizer.json      only where the tokenizer is not plain bytes

A store is written under another name, synced and renamed, so a folder that has its name is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field, Strict, ValidationError, model_validator

from scaling.config import Frozen
from scaling.config.sweep_file import validation_error
from scaling.errors import ScalingError
from scaling.files import DiskError, check_local, disk_error, new_folder
from scaling.warning import ResultWarning

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = get_args(Split)
SCHEMA = 1
MANIFEST, TOKENIZER = "manifest.json", "tokenizer.json"
_HASH_BYTES = 2**24
# What is absent or empty is not written: old manifests stay as they were.
_OMITTED = Field(exclude_if=lambda value: not value)
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TokenizerFacts(Frozen):
    """Which tokenizer wrote the tokens.

    `separator` ends each document; `lossless`: the tokens give back the text.
    """

    kind: Literal["bytes", "bpe", "file"]
    name: str
    vocab_size: Annotated[int, Field(gt=1, le=2**31)]
    separator: int | None = None
    lossless: bool = True


class SplitFacts(Frozen):
    """One side of the split.

    `n_bytes` counts the source text in UTF-8 and one byte for each separator.
    """

    n_tokens: Annotated[int, Field(gt=0)]
    n_documents: Annotated[int, Field(gt=0)]
    n_bytes: Annotated[int, Field(gt=0)]
    bytes_per_token: Annotated[float, Field(gt=0)]
    sha256: _Sha256


class Source(Frozen):
    """A file or folder as the user named it.

    Or a data set of Hugging Face, with the texts and their bytes that were read of it (its files
    are the library's business, `n_files` is 0), the column, and the commit on the Hub or the
    fingerprint of a saved folder.
    """

    path: str
    n_files: int
    n_bytes: int
    n_documents: Annotated[int | None, _OMITTED] = None
    column: Annotated[str | None, _OMITTED] = None
    revision: Annotated[str | None, _OMITTED] = None
    kinds: Annotated[dict[str, int] | None, _OMITTED] = None


class Manifest(Frozen):
    """`manifest.json`.

    `digest` is the SHA-256 of the two splits' SHA-256, in hexadecimal, train first.
    """

    schema_version: Literal[1] = Field(alias="schema")
    tokenizer: TokenizerFacts
    dtype: Literal["uint8", "uint16", "uint32"]
    splits: dict[Split, SplitFacts]
    split_rule: str
    sources: Annotated[tuple[Source, ...], Strict(False)]
    excluded: dict[str, int] = {}
    duplicates: Annotated[dict[str, int], _OMITTED] = {}
    warnings: Annotated[tuple[ResultWarning, ...], Strict(False), _OMITTED] = ()
    digest: _Sha256

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if set(self.splits) != set(SPLITS):
            raise ValueError("splits must be train and val")
        if self.digest != splits_digest(self.splits):
            raise ValueError("digest does not belong to the splits")
        if self.dtype != dtype_for(self.tokenizer.vocab_size):
            raise ValueError(
                f"dtype {self.dtype} is not that of a vocabulary of {self.tokenizer.vocab_size}"
            )
        return self


class Chunk(NamedTuple):
    """Tokens to append to a split, with the bytes of text and the number of documents that they
    end.
    """

    split: Split
    tokens: np.ndarray
    n_bytes: int
    n_documents: int


@dataclass(frozen=True)
class TokenStore:
    """An opened store: `tokens[split]` is a read-only memory map of shape (n_tokens,)."""

    folder: Path
    manifest: Manifest
    tokens: Mapping[Split, np.ndarray]


def dtype_for(vocab_size: int) -> str:
    """The narrowest unsigned type that holds every token id."""
    return np.min_scalar_type(vocab_size - 1).name


def splits_digest(splits: Mapping[Split, SplitFacts]) -> str:
    """The digest of a store: of its splits' SHA-256, train first."""
    return hashlib.sha256("".join(splits[name].sha256 for name in SPLITS).encode()).hexdigest()


def open_store(folder: Path) -> TokenStore:
    """Open a store and check that its files have the sizes of the manifest.

    `verify` checks their content.

    Raises ScalingError that names the file for a folder that is missing, foreign or damaged.
    """
    manifest, tokens = _read_manifest(folder), {}
    dtype = np.dtype(manifest.dtype).newbyteorder("<")
    for split in SPLITS:
        path, expected = folder / f"{split}.bin", manifest.splits[split].n_tokens * dtype.itemsize
        if not path.is_file():
            raise _damaged(path, "the file is missing")
        if (size := path.stat().st_size) != expected:
            raise _damaged(path, f"has {size} bytes where the manifest says {expected}")
        try:
            tokens[split] = np.asarray(np.memmap(path, dtype=dtype, mode="r"))
        except OSError as error:
            raise disk_error(error, path, "read") from error
    return TokenStore(folder, manifest, tokens)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        what = "is not a token store: it has no manifest.json"
        remedy = 'write one: scaling data prepare FILES... --out FOLDER; or use "stdlib"'
        raise ScalingError(
            what if folder.is_dir() else "no such token store", where=folder, remedy=remedy
        )
    try:
        text = path.read_text(encoding="utf-8")
        written = json.loads(text)
        schema = written.get("schema") if isinstance(written, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            what = f"store schema {schema}, this program reads {SCHEMA}"
            raise ScalingError(what, where=path, remedy="update scaling")
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        reason = validation_error(error, Manifest, str(path)).what
    except (ValueError, RecursionError) as error:
        reason = str(error)
    except OSError as error:
        raise disk_error(error, path, "read") from error
    raise _damaged(path, f"not the manifest of a token store: {reason}")


def _damaged(path: Path, what: str) -> ScalingError:
    return ScalingError(what, where=path, remedy=f"delete {path.parent} and write the store again")


def verify(store: TokenStore) -> None:
    """Read every token.

    SHA-256 as in the manifest, ids below the vocabulary. Raises ScalingError naming the file.
    """
    for split, tokens in store.tokens.items():
        digest, highest = hashlib.sha256(), 0
        step = _HASH_BYTES // tokens.itemsize
        for start in range(0, len(tokens), step):
            part = tokens[start : start + step]
            digest.update(part.data)
            highest = max(highest, int(part.max()))
        path = store.folder / f"{split}.bin"
        if digest.hexdigest() != store.manifest.splits[split].sha256:
            what = "its SHA-256 is not that of the manifest: the tokens were changed or damaged"
            raise _damaged(path, what)
        check_ids(highest, store.manifest.tokenizer.vocab_size, str(path))


def check_ids(highest: int, vocab_size: int, where: str) -> None:
    """Reject a token id outside the vocabulary: an embedding table would clamp it silently."""
    if highest >= vocab_size:
        what = f"token id {highest} in a vocabulary of {vocab_size}"
        remedy = "write the store again: scaling data prepare"
        raise ScalingError(what, where=where, remedy=remedy)


def write_store(
    folder: Path,
    chunks: Iterable[Chunk],
    vocab_size: int,
    facts: Callable[[], Mapping[str, Any]],
    tokenizer_json: str | None = None,
) -> Manifest:
    """Write a store, whole or not at all. `facts()`, the fields of the manifest that do not follow
    from the tokens, is called after the last chunk. Writing the same tokens again keeps the old
    store.

    Raises ScalingError for an empty split, for a folder that holds something else, and (74) for
    disk or permissions.
    """
    check_overwritable(folder)
    try:
        with new_folder(folder) as building:
            splits = _write_tokens(building, chunks, vocab_size)
            computed = {"schema": SCHEMA, "dtype": dtype_for(vocab_size), "splits": splits}
            digest = splits_digest(splits)
            manifest = Manifest.model_validate({**computed, "digest": digest, **facts()})
            if tokenizer_json is not None:
                (building / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
            text = manifest.model_dump_json(indent=1, by_alias=True)
            (building / MANIFEST).write_text(text + "\n", encoding="utf-8")
        return manifest
    except DiskError as error:
        if getattr(error.__cause__, "errno", None) not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    standing = open_store(folder)
    if standing.manifest.digest != manifest.digest:
        raise ScalingError(
            f"holds another token store (digest {standing.manifest.digest[:12]}, "
            f"new {manifest.digest[:12]})",
            where=folder,
            remedy="name another folder with --out, or delete this one",
        )
    verify(standing)
    return standing.manifest


def check_overwritable(folder: Path) -> None:
    """Refuse to write over anything but a token store or an empty folder."""
    check_local(folder)
    remedy = "name another folder with --out, or move this one away"
    if folder.resolve() == Path.cwd():
        what = "is the folder that you are in, and a new one would take its place"
        raise ScalingError(what, where=folder, remedy="name one in it: --out store")
    if folder.exists() and not folder.is_dir():
        raise ScalingError("is a file, not a folder", where=folder, remedy=remedy)
    if folder.is_dir() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise ScalingError("holds something else than a token store", where=folder, remedy=remedy)


def _write_tokens(
    building: Path, chunks: Iterable[Chunk], vocab_size: int
) -> dict[Split, SplitFacts]:
    dtype = np.dtype(dtype_for(vocab_size)).newbyteorder("<")
    counts = {split: Counter[str]() for split in SPLITS}
    digests = {split: hashlib.sha256() for split in SPLITS}
    with contextlib.ExitStack() as stack:
        files = {
            split: stack.enter_context(open(building / f"{split}.bin", "wb")) for split in SPLITS
        }
        for split, tokens, n_bytes, n_documents in chunks:
            if len(tokens):
                check_ids(int(tokens.max()), vocab_size, "the tokenizer")
                narrow = np.ascontiguousarray(tokens, dtype)
                digests[split].update(narrow.data)
                files[split].write(narrow.data)
            counts[split].update(n_tokens=len(tokens), n_bytes=n_bytes, n_documents=n_documents)
    if not any(count["n_bytes"] for count in counts.values()):
        raise ScalingError(
            "the corpus is empty: no document holds text", remedy="name files with text in them"
        )
    for split, count in counts.items():
        if not (count["n_tokens"] and count["n_documents"]):
            other = "raise" if split == "val" else "lower"
            raise ScalingError(
                f"no document fell into the {split} split",
                remedy=f"{other} --val-frac, or give more documents",
            )
    return {
        split: SplitFacts(
            **count,
            bytes_per_token=count["n_bytes"] / count["n_tokens"],
            sha256=digests[split].hexdigest(),
        )
        for split, count in counts.items()
    }
